"""A curriculum: the stages of one recipe, level by level, with replay, each evaluated on every level."""

from pathlib import Path

from pipeline.cli import parse_job_arguments, read_arguments, user_errors

DEFAULT_CONFIG = Path(__file__).parent.parent / "configs" / "curriculum_smollm2.yaml"


def main(argv: list[str] | None = None) -> None:
    arguments = parse_job_arguments(__doc__ or "", str(DEFAULT_CONFIG), argv)
    with user_errors():
        if arguments.dry_run:
            from actors.dry_run import dry_run

            return dry_run(arguments)
        config, resumed = read_arguments(arguments)
        from rich.console import Console

        from actors.launch import run
        from pipeline.curriculum.report import search_statements, search_tables
        from pipeline.report import accuracy_table

        run_directory = run(config, resumed)
        for table in (accuracy_table(run_directory.path), *search_tables(run_directory.path)):
            Console(width=100).print(table)
        for statement in search_statements(run_directory.path):
            print(statement)
        print(f"report: {run_directory.path / 'report.html'}")


if __name__ == "__main__":
    main()
