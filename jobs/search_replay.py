"""A search over curricula: replay ratios, level orders, data, learning rates, seeds. Every stage is a Tune trial."""

from pathlib import Path
from typing import Any

from actors.driver.job import run_job

DEFAULT_CONFIG = Path(__file__).parent.parent / "configs" / "search_replay_demo.yaml"


def search(config: Any, resumed: Any) -> None:
    from rich.console import Console

    from actors.driver.search import run_search
    from pipeline.curriculum.search_tables import search_statements, search_tables

    run_directory = run_search(config, resumed)
    for table in search_tables(run_directory.path):
        Console(width=100).print(table)
    for statement in search_statements(run_directory.path):
        print(statement)
    print(f"report: {run_directory.path / 'report.html'}")


def main(argv: list[str] | None = None) -> None:
    run_job(__doc__, DEFAULT_CONFIG, search, argv, "search")


if __name__ == "__main__":
    main()
