"""The registered test sets as texts that no problem may be a copy of, and the proof that none is."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config.evaluation import EvaluationConfig
from pipeline.errors import DataError
from pipeline.evaluation.datasets import is_local, split_questions
from pipeline.evaluation.registry import DATA_SETS
from pipeline.questions.filters import Similar
from pipeline.questions.rows import Row


@dataclass(frozen=True)
class TestSets:
    """The test problems that are at hand."""

    __test__ = False  # pytest takes the name for that of a test

    texts: Mapping[str, Similar]
    """By registered name."""
    sizes: Mapping[str, int]
    """Number of problems, copies included."""
    missing: Mapping[str, str]
    """Sets that are not at hand, and why."""


def load_test_sets(config: EvaluationConfig, near: float) -> TestSets:
    """The problems of every registered set: embedded, below ``data_root``, or from the hub.

    Args:
        near: as of Similar.

    Raises:
        DataError: a set that is on this machine cannot be read.
    """
    questions: dict[str, list[str]] = {}
    missing: dict[str, str] = {}
    for name in DATA_SETS:
        try:
            questions[name] = split_questions(name, "eval", config)
        except DataError as error:
            if is_local(name, config):
                raise
            missing[name] = str(error)
    texts = {name: Similar(found, near) for name, found in questions.items()}
    return TestSets(texts, {name: len(found) for name, found in questions.items()}, missing)


def proof(test_sets: TestSets, rows: Iterable[Row]) -> list[dict[str, Any]]:
    """For each set that is at hand: its size, and how many of the written and of the kept problems are exact and near
    copies of its problems. All rows with a statement are compared, whatever else is wrong with them."""
    rows = [row for row in rows if row["statement"]]
    return [_comparison(name, size, test_sets.texts[name], rows) for name, size in test_sets.sizes.items()]


def _comparison(name: str, size: int, texts: Similar, rows: Iterable[Row]) -> dict[str, Any]:
    counts = Counter[str]()
    for row in rows:
        if match := texts.find(row["statement"]):
            counts[f"num_{match.kind}_written"] += 1
            counts[f"num_{match.kind}_kept"] += row["is_kept"]
    names = (f"num_{kind}_{among}" for among in ("written", "kept") for kind in ("exact", "near"))
    return {"name": name, "num_problems": size} | {key: counts[key] for key in names}
