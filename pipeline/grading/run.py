"""Grades a whole file."""

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from pathlib import Path

from pipeline.errors import DataError
from pipeline.grading.chunks import GradedChunk, GradeSettings, with_names
from pipeline.grading.tables import SUFFIXES, Chunk, open_output, read_chunks
from pipeline.grading.tally import Tally

Spread = Callable[[GradeSettings, Iterable[Chunk]], Generator[GradedChunk, None, None]]
"""Calls ``grade_chunk`` somewhere else, and yields in the order of the chunks."""


def default_output(path: Path) -> Path:
    return path.with_name(f"{path.stem}.graded{path.suffix}")


def check_paths(path: Path, output: Path, *, overwrite: bool) -> None:
    """Raises DataError if the file cannot be graded into ``output``. Call it before anything is started."""
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path} must be a {' or '.join(SUFFIXES)} file, got suffix {path.suffix or 'none'}.")
    if not path.is_file():
        raise DataError(f"{path} must be a file, but no such file exists.")
    if output.suffix != path.suffix:
        raise DataError(f"output {output} must be in the format of the input, {path.suffix}.")
    if output.exists() and (output.samefile(path) or not output.is_file()):
        raise DataError(f"output {output} must be a file other than the input. Name another with --output.")
    if output.exists() and not overwrite:
        raise DataError(f"output {output} already exists. Name another with --output, or replace it with --force.")


def grade_file(
    path: Path,
    output: Path,
    settings: GradeSettings,
    spread: Spread,
    on_progress: Callable[[int, float], None] = lambda num_rows, frac: None,
) -> Tally:
    """Write the rows of ``path``, in order, with their verdicts to ``output``, which appears once it is complete.

    A new column whose name is taken is prefixed with ``graded_``. In JSONL the first row decides for the whole file.

    Args:
        on_progress: called with the number of rows graded so far and the share of the file read.

    Raises:
        DataError: a file cannot be read or written, or a row cannot be graded, or has a field of a new
            column's name although the first row has not; the message gives its number.
        ClusterError: the workers have died.
    """
    total, settings = Tally(), with_names(settings, path)
    with open_output(output) as write, closing(spread(settings, read_chunks(path))) as graded:
        for chunk in graded:
            write(chunk.data)
            total.add(chunk.tally)
            on_progress(total.outcomes.total(), chunk.read_frac)
        if not total.outcomes:
            raise DataError(f"{path} must hold at least one row, got none.")
    return total
