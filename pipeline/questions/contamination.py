"""The registered test sets, and the proof that no kept problem is a copy of a test problem."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config.evaluation import EvaluationConfig
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.datasets import has_source, split_questions
from pipeline.evaluation.registry import DATA_SETS
from pipeline.questions.filters import TEST_READINGS, Similar
from pipeline.questions.rows import Row


@dataclass(frozen=True)
class TestSets:
    """The test problems that could be read."""

    __test__ = False  # pytest would take this class for a test

    texts: Mapping[str, Similar]
    """Registered name -> problems."""
    sizes: Mapping[str, int]
    """Registered name -> number of problems, copies included."""
    missing: Mapping[str, str]
    """Registered name of a set that could not be read -> reason."""
    near: float = 0.8
    """As in Similar."""


def load_test_sets(config: EvaluationConfig, near: float, allow_missing: Collection[str] = ()) -> TestSets:
    """The problems of every registered set: embedded, below ``data_root``, or from the hub.

    Args:
        near: as in Similar.
        allow_missing: sets that need not be compared if they cannot be read.

    Raises:
        ConfigError: a set in ``allow_missing`` is not registered.
        DataError: a set that has a source cannot be read, and is not in ``allow_missing``.
    """
    if unknown := [name for name in allow_missing if name not in DATA_SETS]:
        raise ConfigError(
            f"allow_missing must name registered data sets, got {unknown[0]}. There are {list(DATA_SETS)}."
        )
    questions: dict[str, list[str]] = {}
    missing: dict[str, str] = {}
    for name in DATA_SETS:
        try:
            questions[name] = split_questions(name, "eval", config)
        except DataError as error:
            missing[name] = str(error)
    _check_missing([name for name in missing if has_source(name, config)], missing, allow_missing)
    texts = {name: Similar(found, near, TEST_READINGS) for name, found in questions.items()}
    return TestSets(texts, {name: len(found) for name, found in questions.items()}, missing, near)


def _check_missing(found: Iterable[str], reasons: Mapping[str, str], allowed: Collection[str]) -> None:
    """Raise DataError for sets that have a source and cannot be read, unless they may be missing."""
    lacking = [name for name in found if name not in allowed]
    if lacking:
        override = ", ".join(sorted({*lacking, *allowed}))
        raise DataError(
            f"test sets must be read to leave their problems out, got none of {', '.join(lacking)}: "
            f"{reasons[lacking[0]]} Give local copies with data_root, or do without them: allow_missing='[{override}]'."
        )


def proof(test_sets: TestSets, rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The size of each set, and the numbers of its exact and near copies among the written and the kept problems.

    Every row with a statement is compared, whatever else is wrong with it.
    """
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
