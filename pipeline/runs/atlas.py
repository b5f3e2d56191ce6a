"""The atlas of a run's problems, ``metrics/problems.parquet``: what the policy could solve, problem by problem and step
by step. It follows from the ledger and is written from it at any time.

A problem's solve rate has a Beta(1, 1) prior. Every step that asks it again halves the weight of what was known
before: the policy has changed. It counts as solved once its rate is above a half with 95 % certainty, and as unsolved
once it is below a half with 95 % certainty; in between it stays what it was. What it learned and forgot follows from
all attempts with equal weight: ``pipeline.runs.rate_change``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from pipeline.files import write_table
from pipeline.runs.ledger import LedgerRow, read_ledger
from pipeline.runs.metrics_log import read_metrics
from pipeline.runs.problem_record import FIELDS, read_problems
from pipeline.runs.rate_change import newest_change
from pipeline.runs.records import Row

PRIOR = 1.0
"""Both parameters of the Beta distribution before the first attempt."""
KEPT = 0.5
"""Share of their weight that earlier attempts keep."""
BOUNDS = (0.05, 0.95)
HALF = 0.5

Label = Literal["learned", "forgotten", "never solved", "partly solved", "solved from the start", "never tried"]
LABELS: tuple[Label, ...] = get_args(Label)
"""The newest change of its solve rate was a rise; or a fall. Without a change: never a correct answer; some, but not
solved; solved. No graded attempt."""


@dataclass(frozen=True, slots=True)
class Visit:
    """The attempts at a problem in one step, and what is known after them."""

    problem_id: str
    stage: str | None
    step: int | None
    """None, as the stage: never tried."""
    attempts: int
    """Completions that the verifier judged, whatever became of their group. Neither timeouts nor bad golds."""
    solved: int
    mean: float
    """Mean of the posterior; then its 5 % and 95 % quantiles."""
    low: float
    high: float
    best: float | None
    """The highest mean so far."""
    label: Label


@dataclass(slots=True)
class _State:
    """The evidence about one problem."""

    wins: float = 0.0
    losses: float = 0.0
    best: float = 0.0
    is_solved: bool = False
    correct: list[int] = field(default_factory=list)
    """In every step that asked it; then the attempts."""
    attempts: list[int] = field(default_factory=list)

    def add(self, solved: int, attempts: int) -> tuple[float, float]:
        """Parameters of the posterior after the attempts of one step."""
        self.wins = self.wins * KEPT + solved
        self.losses = self.losses * KEPT + attempts - solved
        return PRIOR + self.wins, PRIOR + self.losses

    def judge(self, solved: int, attempts: int, mean: float, low: float, high: float) -> None:
        """Take up the attempts of one step and the posterior after them."""
        self.correct.append(solved)
        self.attempts.append(attempts)
        if low > HALF or high < HALF:
            self.is_solved = low > HALF
        self.best = max(self.best, mean)

    @property
    def label(self) -> Label:
        if change := newest_change(self.correct, self.attempts):
            return "learned" if change > 0 else "forgotten"
        if self.is_solved:
            return "solved from the start"
        return "partly solved" if any(self.correct) else "never solved"


class Atlas:
    """Posteriors of all problems, step after step."""

    def __init__(self) -> None:
        self._states: dict[str, _State] = {}

    def add(self, rows: Iterable[LedgerRow]) -> list[Visit]:
        """The visits of further steps, in order.

        Args:
            rows: of the ledger, with the steps in order and all rows of each.
        """
        attempts: dict[tuple[int, str, str], list[int]] = {}
        for row in rows:
            if num := num_judged(row):
                counts = attempts.setdefault((row.step, row.stage, row.problem_id), [0, 0])
                counts[0] += row.num_correct
                counts[1] += num
        posteriors = []
        for (_, _, problem_id), counts in attempts.items():
            posteriors.append(self._states.setdefault(problem_id, _State()).add(*counts))
        return [
            self._visit(key, counts, posterior)
            for (key, counts), posterior in zip(attempts.items(), _quantiles(posteriors), strict=True)
        ]

    def _visit(self, key: tuple[int, str, str], counts: list[int], posterior: tuple[float, float, float]) -> Visit:
        (step, stage, problem_id), (solved, attempts) = key, counts
        state = self._states[problem_id]
        state.judge(solved, attempts, *posterior)
        return Visit(problem_id, stage, step, attempts, solved, *posterior, state.best, state.label)


def num_judged(row: LedgerRow) -> int:
    """Judged attempts of a group; 0 for a group that was left over when its stage ended."""
    return 0 if row.use == "stage_ended" else row.num_correct + row.num_incorrect + row.num_unparsed


def never_tried(problem_id: str) -> Visit:
    return Visit(problem_id, None, None, 0, 0, HALF, *BOUNDS, None, "never tried")


def write_atlas(run_dir: str | Path, output_dir: str | Path) -> None:
    """Write ``metrics/problems.parquet`` in a directory: every visit of whole steps, whose row of metrics is written
    last, and a row for every recorded problem that was never tried. Without a ledger, write nothing."""
    import pyarrow as pa

    num_steps = max((row["step"] for row in read_metrics(run_dir)), default=0)
    if not (rows := [row for row in read_ledger(run_dir) if row.step <= num_steps]):
        return
    problems, visits = read_problems(run_dir), Atlas().add(rows)
    tried = {visit.problem_id for visit in visits}
    visits += [never_tried(problem_id) for problem_id in problems if problem_id not in tried]
    path = Path(output_dir) / "metrics" / "problems.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([_described(visit, problems) for visit in visits], schema=_schema())
    write_table(path, table)


def _described(visit: Visit, problems: Mapping[str, Row]) -> Row:
    problem = problems.get(visit.problem_id, {})
    return {**asdict(visit), **{name: problem.get(name) for name in FIELDS[1:4]}}


def _quantiles(parameters: Sequence[tuple[float, float]]) -> list[tuple[float, float, float]]:
    """Mean and bounds of every Beta distribution."""
    if not parameters:
        return []
    import numpy as np
    from scipy.special import betaincinv

    wins, losses = np.array(parameters).T
    columns = (wins / (wins + losses), *(betaincinv(wins, losses, bound) for bound in BOUNDS))
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _schema() -> Any:
    import pyarrow as pa

    types = dict.fromkeys(("step", "attempts", "solved"), pa.int64())
    types |= dict.fromkeys(("mean", "low", "high", "best"), pa.float64())
    names = (*(field.name for field in fields(Visit)), *FIELDS[1:4])
    return pa.schema([(name, types.get(name, pa.string())) for name in names])
