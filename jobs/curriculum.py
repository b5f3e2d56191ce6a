"""A curriculum: the stages of one recipe, level by level, with replay, each evaluated on every level."""

from pathlib import Path
from typing import Any

from actors.driver.job import run_job

DEFAULT_CONFIG = Path(__file__).parent.parent / "configs" / "curriculum_smollm2.yaml"


def train(config: Any, resumed: Any) -> None:
    from rich.console import Console

    from actors.driver.launch import run
    from pipeline.curriculum.search_tables import search_tables
    from pipeline.reports.accuracy import accuracy_table

    run_directory = run(config, resumed)
    if config.eval.problems_per_level:
        Console(width=100).print(accuracy_table(run_directory.path))
        if config.curriculum:
            Console(width=100).print(*search_tables(run_directory.path))
    print(f"report: {run_directory.path / 'report.html'}")


def main(argv: list[str] | None = None) -> None:
    run_job(__doc__, DEFAULT_CONFIG, train, argv)


if __name__ == "__main__":
    main()
