"""A search over curricula: replay ratios, level orders, learning rates, seeds. Every stage is a Ray Tune trial."""

from pathlib import Path

from pipeline.cli import parse_job_arguments, read_arguments, user_errors

DEFAULT_CONFIG = Path(__file__).parent.parent / "configs" / "search_replay_demo.yaml"


def main(argv: list[str] | None = None) -> None:
    arguments = parse_job_arguments(__doc__ or "", str(DEFAULT_CONFIG), argv)
    with user_errors():
        if arguments.dry_run:
            from actors.dry_run import dry_run

            return dry_run(arguments)
        config, resumed = read_arguments(arguments)
        from rich.console import Console

        from actors.search import run_search
        from pipeline.curriculum.report import search_statements, search_tables

        run_directory = run_search(config, resumed)
        for table in search_tables(run_directory.path):
            Console(width=100).print(table)
        for statement in search_statements(run_directory.path):
            print(statement)
        print(f"report: {run_directory.path / 'report.html'}")


if __name__ == "__main__":
    main()
