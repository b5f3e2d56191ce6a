"""Problems that were broken are rated lower than they were."""

import random
from collections.abc import Callable

import pytest

from pipeline.data.answers import last_boxed
from pipeline.data.rows import file_rows
from pipeline.questions.ratings.quality import Stated, rate_quality
from tests.conftest import SHARED
from tests.support.broken_problems import HARDER_WAYS, HONEST, WAYS

needs_shared = pytest.mark.skipif(not (SHARED / "math").is_dir(), reason=f"{SHARED / 'math'} does not exist")
NUM_PROBLEMS = 200


def lowered(problems: list[Stated], break_it: Callable[[Stated, random.Random], Stated | None]) -> list[bool]:
    """One value for each problem that could be broken: True if its rating fell. Broken ones come after all others."""
    rng = random.Random(0)
    pairs = [(problem, broken) for problem in problems if (broken := break_it(problem, rng))]
    pairs = [(problem, broken) for problem, broken in pairs if broken != problem or break_it is WAYS["duplicated"]]
    rated = rate_quality([*(problem for problem, _ in pairs), *(broken for _, broken in pairs)])
    return [after.score < before.score for before, after in zip(rated[: len(pairs)], rated[len(pairs) :], strict=True)]


def alone(break_it: Callable[[Stated, random.Random], Stated | None]) -> Callable[..., Stated | None]:
    """A mark in the statement, so that a change of answer alone does not count as a duplicate."""

    def marked(problem: Stated, rng: random.Random) -> Stated | None:
        broken = break_it(problem, rng)
        if broken is None or broken == problem:
            return None
        return Stated(f"Problem. {broken.statement}", broken.solution, broken.answer)

    return marked


def test_honest_problems_are_rated_high():
    assert [quality.reasons for quality in rate_quality(HONEST) if quality.score < 0.9] == []


@pytest.mark.parametrize("way", WAYS)
def test_a_broken_problem_is_rated_lower(way):
    break_it = WAYS[way] if way == "duplicated" else alone(WAYS[way])
    fell = lowered(HONEST, break_it)
    assert len(fell) == len(HONEST) and all(fell)


@pytest.fixture(scope="module")
def shared() -> list[Stated]:
    """A sample of MATH and of the olympiad set, by their sizes."""
    problems = [
        Stated(row.text("problem"), row.text("solution"), last_boxed(row.text("solution")) or "")
        for split in ("train", "test")
        for row in file_rows(SHARED / "math" / f"{split}.parquet", ["problem", "solution"])
    ]
    problems += [
        Stated(row.text("problem"), row.text("solution"), row.text("answer"))
        for row in file_rows(SHARED / "olympiad" / "test.jsonl", None)
    ]
    return random.Random(7).sample(problems, NUM_PROBLEMS)


@needs_shared
def test_of_200_shared_problems_95_percent_fall_when_broken(shared):
    fell = {way: lowered(shared, WAYS[way] if way == "duplicated" else alone(WAYS[way])) for way in WAYS}
    shares = {way: sum(each) / len(each) for way, each in fell.items()}
    assert all(len(each) > 0.7 * NUM_PROBLEMS for each in fell.values())
    assert min(shares.values()) >= 0.95, shares


@needs_shared
@pytest.mark.parametrize(
    ("way", "share"),
    [("wrong box, answer read from it", 0.65), ("solution truncated", 0.9), ("a letter of a command missing", 0.85)],
)
def test_harder_ways_are_found_mostly(shared, way, share):
    """A wrong answer that the solution itself boxes is only seen where its last step can be computed."""
    fell = lowered(shared, alone(HARDER_WAYS[way]))
    assert sum(fell) / len(fell) >= share
