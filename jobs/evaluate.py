"""Evaluate models on data sets: answers from vLLM engines, three scores, intervals, a page with every completion."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.cli import RESUMABLE, parse_job_arguments, user_errors

DEFAULT_CONFIG = Path(__file__).parent.parent / "configs" / "evaluate.yaml"


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse_job_arguments(__doc__ or "", str(DEFAULT_CONFIG), argv)
    with user_errors(RESUMABLE):
        from actors.driver.evaluate import read_evaluation_arguments, run_evaluation

        config, directory = read_evaluation_arguments(arguments)
        if arguments.dry_run:
            from actors.driver.dry_run import dry_run_evaluation

            return dry_run_evaluation(config, directory)
        show(run_evaluation(config, directory))


def show(directory: Path) -> None:
    from rich.console import Console

    from pipeline.evaluation.evaluation_report import read_summary, results_table

    summary = read_summary(directory)
    console = Console(width=120, highlight=False)
    console.print(results_table(summary))
    for comparison in summary["comparisons"]:
        console.print(comparison["sentence"], markup=False)
    console.print(f"report: {directory / 'report.html'}", markup=False)


if __name__ == "__main__":
    main()
