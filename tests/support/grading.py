"""Grading of files, in this process."""

from collections.abc import Generator, Iterable

from pipeline.grading.chunks import GradedChunk, GradeSettings, grade_chunk
from pipeline.grading.tables import Chunk


def here(settings: GradeSettings, chunks: Iterable[Chunk]) -> Generator[GradedChunk, None, None]:
    """A ``Spread`` that stays in this process."""
    yield from (grade_chunk(settings, chunk) for chunk in chunks)
