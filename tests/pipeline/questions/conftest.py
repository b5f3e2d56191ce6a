import pytest

from pipeline.questions import computed
from pipeline.questions.judge import computation_of


@pytest.fixture
def key(monkeypatch):
    """A dict from statements to computations: the only ones that can be computed."""
    known = {}
    monkeypatch.setattr(computed, "compute", known.get)
    monkeypatch.setattr(
        computed, "solution_holds", lambda statement, solution: tuple(solution.split("\n")) == known[statement].steps
    )
    computation_of.cache_clear()
    yield known
    computation_of.cache_clear()
