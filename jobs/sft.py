"""Supervised fine-tuning: GSM8K on SmolLM2-135M, or any other recipe of stages: ``--config``."""

from pathlib import Path
from typing import Any

from actors.driver.job import run_job

DEFAULT_CONFIG = Path(__file__).parent.parent / "configs" / "sft_smollm2_gsm8k.yaml"


def train(config: Any, resumed: Any) -> None:
    from rich.console import Console

    from actors.driver.launch import run
    from pipeline.reports.accuracy import accuracy_table

    run_directory = run(config, resumed)
    if config.eval.problems_per_level:
        Console(width=100).print(accuracy_table(run_directory.path))
    print(f"report: {run_directory.path / 'report.html'}")


def main(argv: list[str] | None = None) -> None:
    run_job(__doc__, DEFAULT_CONFIG, train, argv)


if __name__ == "__main__":
    main()
