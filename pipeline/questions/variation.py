"""Rates how well a written problem varies its original in the way that was asked for."""

import re
from collections.abc import Sequence

from pipeline.config.questions import BandConfig, VariationConfig
from pipeline.data.stories import read_story
from pipeline.questions import computed
from pipeline.questions.similarity import names_and_things, numbers, plain, without_numbers, word_cosine
from pipeline.questions.stated import answer_form
from pipeline.questions.written import WrittenProblem
from pipeline.types import WritingTask

FALL = 0.25
"""A similarity this far outside its band is worth 0."""
CHANGED_FRAC = 0.5
"""Minimum share of names and things that another context must change for the full value."""
_OPERATOR = re.compile(r" ([-+*/^]) ")


def variation_value(task: WritingTask, written: WrittenProblem, config: VariationConfig) -> float:
    """The lowest value of similarity, change and length; 0 if the answer has another form than the original's.

    A new problem has no original and gets 1.
    """
    if task.kind == "new" or task.original is None:
        return 1.0
    if task.original_answer is not None and answer_form(task.original_answer) != answer_form(written.answer):
        return 0.0
    band = config.bands.get(task.kind, BandConfig())
    length = _length_value(task.original, written.statement, config.max_length_ratio)
    if task.kind == "parameters":
        similarity = word_cosine(without_numbers(task.original), without_numbers(written.statement))
        changed = _number_change(numbers(task.original), numbers(written.statement))
    else:
        similarity = word_cosine(plain(task.original), plain(written.statement))
        changed = _context_change(task.original, written.statement)
        if task.kind == "practical" and not _is_practical(written.statement):
            changed = 0.0
    return min(band_value(similarity, band), changed, length)


def band_value(similarity: float, band: BandConfig) -> float:
    """1 inside the band, falling to 0 at a distance of ``FALL``."""
    distance = max(band.low - similarity, similarity - band.high, 0.0)
    return max(0.0, 1 - distance / FALL)


def _number_change(before: Sequence[str], after: Sequence[str]) -> float:
    """Share of numbers that differ from the original's in the same place; 0 if the numbers are only reordered."""
    if sorted(before) == sorted(after):
        return 0.0
    return sum(old != new for old, new in zip(before, after, strict=False)) / max(len(before), len(after))


def _context_change(original: str, statement: str) -> float:
    """1 if at least ``CHANGED_FRAC`` of names and things are new; 0 if the computed operations differ."""
    if _operations(original) != _operations(statement):
        return 0.0
    before, after = names_and_things(original), names_and_things(statement)
    return min(1.0, len(after - before) / (CHANGED_FRAC * len(after))) if after else 0.0


def _is_practical(statement: str) -> bool:
    """False for a story in which no holder has an article, as "the bakery" has. True for any text that is no story."""
    story = read_story(statement)
    return story is None or all(
        holder.startswith("the ") for sentence in story.sentences for holder in sentence.holders
    )


def _operations(statement: str) -> list[str]:
    """The operators of the computed steps, in order. Empty if the statement cannot be computed."""
    computation = computed.compute(statement)
    return [operator for step in computation.steps for operator in _OPERATOR.findall(step)] if computation else []


def _length_value(original: str, statement: str, max_ratio: float) -> float:
    """1 if the word counts differ by a factor of at most ``max_ratio``, falling to 0 at twice that."""
    lengths = sorted(max(1, len(plain(text))) for text in (original, statement))
    return min(1.0, max(0.0, 2 - lengths[1] / lengths[0] / max_ratio))
