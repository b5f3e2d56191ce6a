"""Write problems with a trained model: filtered, compared with every test set, and saved as training data."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.cli import RESUMABLE, parse_job_arguments, user_errors

DEFAULT_CONFIG = Path(__file__).parent.parent / "configs" / "generate_problems.yaml"


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse_job_arguments(__doc__ or "", str(DEFAULT_CONFIG), argv)
    with user_errors(RESUMABLE):
        from actors.driver.generate import read_generation_arguments, run_generation

        config, directory = read_generation_arguments(arguments)
        if arguments.dry_run:
            from actors.driver.dry_run import dry_run_generation

            return dry_run_generation(config, directory)
        show(run_generation(config, directory))


def show(directory: Path) -> None:
    from rich.console import Console

    from pipeline.questions.written_files import read_report, result_lines

    console = Console(width=120, highlight=False)
    for line in result_lines(read_report(directory)):
        console.print(line, markup=False)
    console.print(f"problems: {directory / 'problems.parquet'}\nreport: {directory / 'page.html'}", markup=False)


if __name__ == "__main__":
    main()
