"""GRPO for Qwen2.5-1.5B-Instruct on GSM8K, or any other recipe of stages: ``--config``."""

from pathlib import Path

from pipeline.cli import parse_job_arguments, read_arguments, user_errors

DEFAULT_CONFIG = Path(__file__).parent.parent / "configs" / "grpo_qwen2.5_1.5b.yaml"


def main(argv: list[str] | None = None) -> None:
    arguments = parse_job_arguments(__doc__ or "", str(DEFAULT_CONFIG), argv)
    with user_errors():
        if arguments.dry_run:
            from actors.dry_run import dry_run

            return dry_run(arguments)
        config, resumed = read_arguments(arguments)
        from actors.launch import run

        run_directory = run(config, resumed)
        print(f"report: {run_directory.path / 'report.html'}")


if __name__ == "__main__":
    main()
