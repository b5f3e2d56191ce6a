"""Arguments, directory and progress display of jobs that only ask engines."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from pipeline.cli import JobArguments, check_output_root, output_root
from pipeline.config import EvaluationConfig, load_config, load_saved_config
from pipeline.config.generation import GenerationConfig
from pipeline.errors import ClusterError
from pipeline.files import write_json
from pipeline.reports import page
from pipeline.runs.directory import hold_lock, latest_directory, make_directory

Settings = TypeVar("Settings", EvaluationConfig, GenerationConfig)


class Record(Protocol):
    """The record of a job's start."""

    def check(self, directory: Path) -> None:
        """Raises CheckpointError if the job in the directory started with something else."""

    def write(self, directory: Path) -> None: ...


def read_job_arguments(
    arguments: JobArguments, settings: type[Settings], record_file: str, read_record: Callable[[Path], object]
) -> tuple[Settings, Path | None]:
    """The checked configuration, and the directory of the job to resume.

    Args:
        record_file, read_record: the file that tells the job's directories from others, and its reader.

    Raises:
        ConfigError, CheckpointError: a wrong setting; no such job.
    """
    if arguments.resume is None:
        config = load_config(arguments.config, arguments.overrides, settings)
        check_output_root(config.output.root)
        return config, None
    directory = Path(arguments.resume)
    if arguments.resume == "latest":
        directory = latest_directory(output_root(arguments, settings), record_file)
    read_record(directory)
    return load_saved_config(directory / "experiment_config.json", arguments.overrides, settings), directory


def prepared(
    config: EvaluationConfig | GenerationConfig, record: Record, directory: Path | None, held: ExitStack
) -> Path:
    """The job's directory, locked for this job: a new one, or the one to resume once it is checked."""
    if directory is not None:
        record.check(directory)
        with page.writing_to(directory, "Make room, then continue with --resume."):
            held.enter_context(hold_lock(directory))
        return directory
    directory = make_directory(config.output.root)
    with page.writing_to(directory, "Make room, or set output.root elsewhere."):
        held.enter_context(hold_lock(directory))
        (directory / "logs").mkdir()
        record.write(directory)
        write_json(directory / "experiment_config.json", config.model_dump())
    return directory


@contextmanager
def resumable(directory: Path) -> Iterator[None]:
    """Tells the user where a failed actor left its traceback, and how to continue."""
    try:
        yield
    except ClusterError as error:
        reason = str(error).rstrip(".")
        raise ClusterError(
            f"{reason}. The full traceback is in {directory / 'logs'}; --resume continues from there."
        ) from error


@contextmanager
def progress_shown(done: str, total: int, already: int) -> Iterator[Callable[[int], None]]:
    """A bar in a terminal, otherwise a line per chunk. Yields a function to call with the count of new problems.

    Args:
        done: what happens to a problem: ``answered``.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    if sys.stdout.isatty():
        columns = (TextColumn(done), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns) as progress:
            task = progress.add_task(done, total=total, completed=already)
            yield lambda count: progress.advance(task, count)
        return
    start, finished = time.monotonic(), already

    def advance(count: int) -> None:
        nonlocal finished
        finished += count
        elapsed = time.monotonic() - start
        left = elapsed / max(finished - already, 1) * (total - finished)
        print(f"{done} {finished}/{total} problems in {elapsed:.0f} s, about {left:.0f} s left", flush=True)

    yield advance
