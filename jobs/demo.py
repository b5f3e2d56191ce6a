"""The demo: SFT warm-up, then GRPO, on the embedded model and arithmetic. ``make demo`` submits it."""

import sys
from pathlib import Path
from typing import Any

from actors.driver.job import run_job

DEFAULT_CONFIG = Path(__file__).parent.parent / "configs" / "demo.yaml"


def train(config: Any, resumed: Any) -> int:
    """Returns exit code 0 if the run ended with higher greedy accuracy on held-out problems than it began with."""
    from rich.console import Console

    from actors.driver.launch import run
    from pipeline.reports.accuracy import accuracy_table
    from pipeline.runs.records import read_evaluations

    run_directory = run(config, resumed)
    print(f"report: {run_directory.path / 'report.html'}")
    evals = read_evaluations(run_directory.path)
    if not evals:  # eval.problems_per_level=0
        return 0
    Console(width=100).print(accuracy_table(run_directory.path))
    before, after = (evals[index]["overall"]["accuracy_tagged"] for index in (0, -1))
    print(f"held-out accuracy, all levels: {before:.1%} before, {after:.1%} after")
    return 0 if after > before else 1


def main(argv: list[str] | None = None) -> int | None:
    return run_job(__doc__, DEFAULT_CONFIG, train, argv)


if __name__ == "__main__":
    sys.exit(main())
