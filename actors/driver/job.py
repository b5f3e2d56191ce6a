"""The frame of every training job. Imports little, so that ``--help`` answers at once."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli import RESUMABLE, parse_job_arguments, read_arguments, user_errors

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.runs.directory import Kind, RunDirectory


def run_job(
    description: str | None,
    default_config: Path,
    work: "Callable[[Config, RunDirectory | None], int | None]",
    argv: Sequence[str] | None,
    kind: "Kind" = "chain",
) -> int | None:
    """Read the arguments, then do the dry run or the work. A user error ends in one message.

    Args:
        work: called with the configuration and the run to resume, if any. Returns the job's exit code.
        kind: of the runs that it makes.
    """
    arguments = parse_job_arguments(description or "", str(default_config), argv)
    with user_errors(RESUMABLE):
        if arguments.dry_run:
            from actors.driver.dry_run import dry_run

            dry_run(arguments, kind)
            return 0
        return work(*read_arguments(arguments))
