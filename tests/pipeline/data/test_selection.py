import pytest

from pipeline.data.selection import first_per_level
from pipeline.types import Problem


def problem(id: str, level: str | None) -> Problem:
    return Problem(id=id, prompt=({"role": "user", "content": id},), gold="7", level=level)


@pytest.mark.parametrize(("count", "ids"), [(0, ""), (1, "abe"), (2, "abcef"), (9, "abcdef")])
def test_the_first_of_every_level_in_order(count, ids):
    levels = {"a": "1", "b": "2", "c": "1", "d": "1", "e": None, "f": None}
    problems = [problem(id, level) for id, level in levels.items()]
    assert "".join(p.id for p in first_per_level(problems, count)) == ids
