"""Train a model to write problems: SFT, variations, GRPO on the quality of what it writes, and a last SFT on what was
kept. docs/questions.md."""

from pathlib import Path
from typing import Any

from actors.driver.job import run_job

DEFAULT_CONFIG = Path(__file__).parent.parent / "configs" / "questions_gen_smollm2.yaml"


def train(config: Any, resumed: Any) -> None:
    from rich.console import Console

    from actors.driver.launch import run
    from pipeline.questions.summary import writing_table
    from pipeline.runs.records import read_evaluations

    run_directory = run(config, resumed)
    Console(width=160).print(writing_table(read_evaluations(run_directory.path)))
    print(f"report: {run_directory.path / 'report.html'}")


def main(argv: list[str] | None = None) -> None:
    run_job(__doc__, DEFAULT_CONFIG, train, argv)


if __name__ == "__main__":
    main()
