"""Measured solve rates of problems, from evaluation results or from a table of shares."""

from collections import defaultdict
from pathlib import Path

from pipeline.config import DataConfig, FieldNames
from pipeline.data.rows import Row
from pipeline.data.sources import column_names, iter_rows
from pipeline.errors import DataError
from pipeline.evaluation.overlap import normalised
from pipeline.questions.ratings.difficulty import SolveRate

_IDS = ("question", "problem", "problem_id", "id")


class SolveRates:
    """Solve rates by the text of the question if the file has it, or else by id."""

    def __init__(self, rates: dict[str, SolveRate]) -> None:
        self._rates = rates

    def find(self, statement: str, id: str) -> SolveRate | None:
        return self._rates.get(normalised(statement)) or (self._rates.get(id) if id else None)


def read_solve_rates(path: Path | None) -> SolveRates:
    """The rates of a file: ``eval_results.jsonl`` or ``.parquet``, or rows with ``solve_rate`` and ``num_attempts``.

    ``question``, ``problem``, ``problem_id`` or ``id`` identifies the problem. A row of an evaluation is one attempt,
    solved if its ``outcome`` is ``correct``. A share without ``num_attempts`` counts as 8 attempts.

    Raises:
        DataError: the file cannot be read, or lacks these columns.
    """
    if path is None:
        return SolveRates({})
    config = DataConfig(name=str(path))
    names = column_names(config)
    key = next((name for name in _IDS if name in names), None)
    value = next((name for name in ("solve_rate", "outcome") if name in names), None)
    if key is None or value is None:
        raise DataError(
            f"--solve-rates {path} must have one of {', '.join(_IDS)} and solve_rate or outcome, got columns "
            f"{', '.join(names)}."
        )
    fields = FieldNames(question=key, answer=value)
    totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for row in iter_rows(config.model_copy(update={"fields": fields}), "train", optional=["num_attempts"]):
        name = row.text(key)
        solved, attempts = _attempts(row, value, path)
        total = totals[normalised(name) if key in ("question", "problem") else name]
        total[0], total[1] = total[0] + solved, total[1] + attempts
    return SolveRates({name: SolveRate(solved / num, int(num)) for name, (solved, num) in totals.items()})


def _attempts(row: Row, value: str, path: Path) -> tuple[float, float]:
    """The number of solved attempts, and of all attempts."""
    text = row.text(value)
    if value == "outcome":
        return float(text == "correct"), 1.0
    try:
        share, num = float(text), float(row.text("num_attempts") or 8)
    except ValueError:
        share = num = -1.0
    if not 0 <= share <= 1 or not num >= 1:
        raise DataError(
            f"--solve-rates {path} must have shares from 0 to 1 and at least one attempt, got {text!r:.40}."
        )
    return share * num, num
