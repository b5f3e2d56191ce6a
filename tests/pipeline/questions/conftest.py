import pytest

from pipeline.questions import computed
from pipeline.questions.computed import Computation


@pytest.fixture
def key(monkeypatch):
    """A dict from statements to computations: the only ones that can be computed."""
    known: dict[str, Computation] = {}
    monkeypatch.setattr(computed, "compute", known.get)
    monkeypatch.setattr(
        computed, "solution_holds", lambda statement, solution: tuple(solution.split("\n")) == known[statement].steps
    )
    return known
