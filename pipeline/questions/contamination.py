"""Test problems as texts that no problem may be a copy of, and the proof that none is."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
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
    """By name."""
    sizes: Mapping[str, int]
    """Registered name -> number of problems, copies included."""
    missing: Mapping[str, str]
    """Registered name of a set that could not be read -> reason."""
    near: float = 0.8
    """As in Similar."""


def load_test_sets(
    config: EvaluationConfig,
    near: float,
    allow_missing: Collection[str] = (),
    held_out: Mapping[str, Sequence[str]] | None = None,
) -> TestSets:
    """The problems of every registered set: embedded, below ``data_root``, or from the hub.

    Args:
        near: as in Similar.
        allow_missing: sets that need not be compared if they cannot be read.
        held_out: further test problems, by the name of their data.

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
    questions |= {name: list(found) for name, found in (held_out or {}).items()}
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
    """``comparisons`` with each set that is at hand."""
    return comparisons(test_sets.texts, test_sets.sizes, rows)


def comparisons(known: Mapping[str, Similar], sizes: Mapping[str, int], rows: Iterable[Row]) -> list[dict[str, Any]]:
    """For each data set: its size, and how many of the written and of the kept problems are exact and near copies of
    its problems. All rows with a statement are compared, whatever else is wrong with them."""
    rows = [row for row in rows if row["statement"]]
    return [_comparison(name, sizes[name], texts, rows) for name, texts in known.items()]


def _comparison(name: str, size: int, texts: Similar, rows: Iterable[Row]) -> dict[str, Any]:
    counts = Counter[str]()
    for row in rows:
        if match := texts.find(row["statement"]):
            counts[f"num_{match.kind}_written"] += 1
            counts[f"num_{match.kind}_kept"] += row["is_kept"]
    names = (f"num_{kind}_{among}" for among in ("written", "kept") for kind in ("exact", "near"))
    return {"name": name, "num_problems": size} | {key: counts[key] for key in names}
