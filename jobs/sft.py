"""Supervised fine-tuning: GSM8K on SmolLM2-135M, or any other recipe of stages: ``--config``."""

from pathlib import Path

from pipeline.cli import parse_job_arguments, read_arguments, user_errors

DEFAULT_CONFIG = Path(__file__).parent.parent / "configs" / "sft_smollm2_gsm8k.yaml"


def main(argv: list[str] | None = None) -> None:
    arguments = parse_job_arguments(__doc__ or "", str(DEFAULT_CONFIG), argv)
    with user_errors():
        if arguments.dry_run:
            from actors.dry_run import dry_run

            return dry_run(arguments)
        config, resumed = read_arguments(arguments)
        from rich.console import Console

        from actors.launch import run
        from pipeline.report import accuracy_table

        run_directory = run(config, resumed)
        if config.eval.problems_per_level:
            Console(width=100).print(accuracy_table(run_directory.path))
        print(f"report: {run_directory.path / 'report.html'}")


if __name__ == "__main__":
    main()
