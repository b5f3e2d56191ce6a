"""Judges a written problem by what can be computed from its statement: the answer and the difficulty."""

import re
from statistics import fmean

from pipeline.config.questions import QuestionsConfig
from pipeline.data.stories import TOPICS, read_story
from pipeline.questions import computed
from pipeline.questions.computed import Computation
from pipeline.questions.stated import same_answer
from pipeline.questions.written import Malformed, WrittenProblem, read_written
from pipeline.types import Problem
from pipeline.verifier import Verdict

FULL_SIZE_FRAC = 0.5
"""Numbers from this share of their bound have the full value."""
LEAST_SIZE = 0.1
"""Value of the smallest numbers. It is not 0, because small numbers are no reason to fail a gate."""
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def verdict_of(problem: Problem, text: str, config: QuestionsConfig) -> Verdict:
    """``correct`` if the key holds and the difficulty is the one asked for, ``unparsed`` if the text is malformed."""
    written = read_written(text)
    if isinstance(written, Malformed):
        return Verdict("unparsed")
    if key_holds(written, config) and difficulty_value(problem, written, config) > 0:
        return Verdict("correct", "exact", written.answer)
    return Verdict("incorrect", answer=written.answer)


def key_holds(written: WrittenProblem, config: QuestionsConfig) -> bool:
    """True if the stated answer equals the computed one and the solution's lines are right.

    A problem of no kind that can be computed holds unless ``must_compute``. One of such a kind that cannot be worked
    out never does.
    """
    computation = computed.compute(written.statement)
    if computation is None:
        return not (config.must_compute or computed.is_unworkable(written.statement))
    if not same_answer(written.answer, computation.answer):
        return False
    return computed.solution_holds(written.statement, written.solution)


def difficulty_value(problem: Problem, written: WrittenProblem, config: QuestionsConfig) -> float:
    """The size of the numbers, up to 1, or 0 if the difficulty is not the one asked for.

    1 if the statement is of no kind that can be computed: nothing is known about it. 0 if it is of one, but cannot be
    worked out. A level that is not a number asks for no number of operations.
    """
    computation = computed.compute(written.statement)
    if computation is None:
        return 0.0 if computed.is_unworkable(written.statement) else 1.0
    level = problem.level or ""
    if level.isdecimal() and computation.num_operations != int(level):
        return 0.0
    if problem.type in TOPICS and not _has_topic(written.statement, problem):
        return 0.0
    # Otherwise a writer could always state the key 0.
    if computation.is_trivial or same_answer("0", computation.answer):
        return 0.0
    return _size_value(computation, config.max_numbers.get(level), config.min_number_frac)


def _has_topic(statement: str, problem: Problem) -> bool:
    """True for a story about the topic asked for.

    A new context or practical setting may have any topic, but no made-up thing: new words would make a copy look novel.
    """
    story = read_story(statement)
    topic = story.topic if story else None
    is_free = problem.writing is not None and problem.writing.kind in ("context", "practical")
    return topic is not None and (is_free or topic == problem.type)


def _size_value(computation: Computation, bound: int | None, min_frac: float) -> float:
    """Mean over the steps of their largest number, relative to half the bound: one large number is not enough."""
    if bound is None:
        return 1.0
    if not min_frac * bound <= computation.largest <= bound:
        return 0.0
    sizes = [float(computation.largest)]
    if computation.family != "equation":  # its only step is the solution
        sizes = [max(map(float, _NUMBER.findall(step)), default=0.0) for step in computation.steps]
    return max(LEAST_SIZE, fmean(min(1.0, size / (FULL_SIZE_FRAC * bound)) for size in sizes))
