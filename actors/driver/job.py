"""What every training job does around its work. Imports little, so that ``--help`` answers at once."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli import parse_job_arguments, read_arguments, user_errors

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.runs.directory import RunDirectory


def run_job(
    description: str | None,
    default_config: Path,
    work: "Callable[[Config, RunDirectory | None], int | None]",
    argv: Sequence[str] | None,
) -> int | None:
    """Read the arguments, then the dry run, or ``work`` with the configuration and the run to go on with, whose exit
    code is returned. A user's mistake ends in one message."""
    arguments = parse_job_arguments(description or "", str(default_config), argv)
    with user_errors():
        if arguments.dry_run:
            from actors.driver.dry_run import dry_run

            dry_run(arguments)
            return 0
        return work(*read_arguments(arguments))
