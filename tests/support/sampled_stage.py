"""A GRPO stage with a sampler, on problems with known solve rates: the real loop, choices and ledger, without engines,
model and Ray. It is saved after every step or every few, may be killed within one, and goes on from what was saved."""

import json
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from actors.learner import grpo_loop
from actors.learner.engines import AskedGroups
from actors.learner.grpo_update import Learned
from actors.learner.ranks import Ranks
from pipeline.config import Config, validate_config
from pipeline.curriculum.examples import Example, StageExamples
from pipeline.curriculum.mixture import mix
from pipeline.curriculum.schedule import StageSchedule
from pipeline.runs.checkpoints import Progress
from pipeline.runs.clock import PhaseClock
from pipeline.runs.ledger import LedgerRow
from pipeline.runs.ledger_check import find_violations
from pipeline.training.batching import TokenSequence
from pipeline.types import (
    Completion,
    EngineRecord,
    Message,
    Problem,
    ProblemHead,
    RewardBreakdown,
    RolloutGroup,
    WeightId,
)

T = TypeVar("T")
BATCH, GROUP = 8, 4
RATES = {"1": 1.0, "2": 0.6, "3": 0.05}
"""Solve rate by level; level 2 gets better with every update."""
PER_LEVEL = 20
PROMPT: tuple[Message, ...] = ({"role": "user", "content": "?"},)


class Killed(Exception):
    """Stands for the death of a learner."""


class Problems(list[Problem]):
    def heads(self) -> Iterator[ProblemHead]:
        return (ProblemHead(row, p.id, p.level, p.type, p.source, False) for row, p in enumerate(self))

    def take(self, rows: Sequence[int]) -> "Problems":
        return Problems(self[row] for row in rows)


def example(problem: Problem, is_replayed: bool = False) -> Example:
    return Example(problem, TokenSequence((1,), ()), is_replayed)


OLD = (("1", None),) * 5
"""Level, and best solve rate in their own stage, of the problems of the replay buffer."""


def examples(
    num_steps: int, replay_ratio: float, rates: dict[str, float], replayed: Sequence[tuple[str, float | None]]
) -> StageExamples:
    own = Problems(
        Problem(f"{level}-{n}", PROMPT, "1", level=level, source="ab"[n % 2])
        for level in rates
        for n in range(PER_LEVEL)
    )
    table: Any = [example(problem) for problem in own]
    old = [
        example(Problem(f"old-{n}", PROMPT, "1", level=level), is_replayed=True)
        for n, (level, _) in enumerate(replayed)
    ]
    mixture = mix(table, old, replay_ratio, num_steps * BATCH, 0, "rl")
    known = tuple(rate for _, rate in replayed)
    return StageExamples(own, table, mixture, BATCH, num_steps, {}, known)  # type: ignore[arg-type]


class KnownEngines:
    """Answers problems with their solve rates; a completion is right or wrong by its seed alone."""

    def __init__(self, progress: Progress, attempt: int, rank: int, rates: dict[str, float]) -> None:
        self._progress, self._attempt, self._rank, self._rates = progress, attempt, rank, rates
        self._num_begun = 0

    def start_attempt(self) -> None: ...

    def ask(
        self, prompts: Sequence[Example], seeds: Sequence[tuple[int, ...]], state: Any, is_urgent: bool
    ) -> AskedGroups:
        version = WeightId(self._attempt, self._progress.step)
        pairs = zip(prompts, seeds, strict=True)
        return AskedGroups([RolloutGroup(each.problem, (1,), (), version, seeds=own) for each, own in pairs])

    def collect(self, asked: AskedGroups, clock: PhaseClock) -> list[RolloutGroup]:
        return [self._answered(group) for group in asked.groups]

    def _answered(self, group: RolloutGroup) -> RolloutGroup:
        engine, version = f"engine {self._rank} {self._attempt}", group.weight_id.step
        self._num_begun += 1
        rate = self._rates[group.problem.level or ""]
        rate = rate + 0.01 * version if 0 < rate < 1 else rate
        rights = [random.Random(f"{group.problem.id} {seed}").random() < rate for seed in group.seeds]
        return RolloutGroup(
            group.problem,
            (1,),
            tuple(Completion.of((1,) * (1 + seed % 5), (-1.0,) * (1 + seed % 5), "") for seed in group.seeds),
            group.weight_id,
            tuple(RewardBreakdown(float(right), {}, "correct" if right else "incorrect") for right in rights),
            group.seeds,
            EngineRecord(engine, self._num_begun, f"sum {version}", version),
        )


class ThreadRanks(Ranks):
    """One of several learners in threads of this process, which meet in a shared list."""

    def __init__(self, rank: int, size: int, meeting: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.size = rank, size
        self._meeting, self._barrier = meeting, barrier

    def gather(self, items: list[T]) -> list[T]:
        self._meeting[self.rank] = items
        self._barrier.wait(60)
        gathered = [item for part in self._meeting for item in part]
        self._barrier.wait(60)
        return gathered


@dataclass
class Record:
    """The files that a run leaves."""

    saved: str | None = None
    """Progress, as in a checkpoint."""
    rows: list[LedgerRow] = field(default_factory=list)
    metrics: dict[int, dict[str, Any]] = field(default_factory=dict)

    def asked(self) -> list[list[str]]:
        """Names of the problems of every step, dropped ones included, in their order."""
        return [[row.problem_id for row in self.rows if row.step == step] for step in sorted(self.metrics)]

    def violations(self, config: Config) -> list[str]:
        return find_violations(self.rows, self.metrics, config.model_dump(), max(self.metrics))


def configure(
    sampler: dict[str, Any] | None, staleness: int = 0, num_steps: int = 20, replay: Path | None = None, **grpo: Any
) -> Config:
    settings = {"batch_size": BATCH, "num_generations": GROUP, "num_steps": num_steps, "sampler": sampler, **grpo}
    return validate_config(
        {
            "stages": [{"name": "rl", "kind": "grpo"}],
            "grpo": settings,
            "rollout": {"max_staleness": staleness, "replay": replay and str(replay)},
            "output": {"samples_every_steps": 10_000, "record_rollouts": True},
        }
    )


class SampledSession:
    """Stands for a LearnerSession, and for its recorder.

    Args:
        kill_at: step of the run within which it dies, before the step is saved.
        save_every: steps between two checkpoints.
    """

    def __init__(
        self,
        config: Config,
        record: Record,
        attempt: int = 1,
        kill_at: int | None = None,
        replay_ratio: float = 0.0,
        rates: dict[str, float] | None = None,
        ranks: Ranks | None = None,
        save_every: int = 1,
        replayed: Sequence[tuple[str, float | None]] = OLD,
    ) -> None:
        self.config, self.ranks, self._record, self._kill_at = config, ranks or Ranks(), record, kill_at
        self._save_every = save_every
        self.stage, rates = config.stages[0], {**RATES, **(rates or {})}
        self.settings = config.stage_settings(self.stage)
        self.progress = Progress(**json.loads(record.saved)) if record.saved else Progress("rl")
        if self.ranks.is_first:
            record.rows = [row for row in record.rows if row.step <= self.progress.step]
            record.metrics = {step: row for step, row in record.metrics.items() if step <= self.progress.step}
        num_steps = self.settings.num_steps  # type: ignore[union-attr]
        self.examples = examples(num_steps, replay_ratio, rates, replayed)
        self.schedule = StageSchedule(self.progress, self.settings, num_steps, config.eval)
        self.engines = KnownEngines(self.progress, attempt, self.ranks.rank, rates)
        self.rewards = SimpleNamespace(state={}, is_needed=False)
        self.recorder = self if self.ranks.is_first else None
        self.clock: Any = lambda phase: nullcontext()
        self.publish_weights: Any = lambda step: {}
        self.evaluate_if_due: Any = dict
        self.samples = self.ungraded = lambda *_: None
        self.begin = self.finish = lambda: None

    def remaining_steps(self) -> Iterator[int]:
        while not self.schedule.is_over(lambda: 0.0):
            yield self.progress.stage_step

    def ledger(self, rows: Sequence[LedgerRow]) -> None:
        self._record.rows += rows

    def end_step(self, metrics: dict[str, Any], score: float) -> None:
        step = self.progress.step + 1
        if step == self._kill_at:
            raise Killed
        self.progress.step, self.progress.stage_step = step, self.progress.stage_step + 1
        if self.recorder:
            own = [row for row in self._record.rows if row.step == step and row.use != "stage_ended"]
            row = {"step": step, "stage": "rl", "kind": "grpo", "num_groups": len(own), **metrics}
            self._record.metrics[step] = row
            if step % self._save_every == 0:
                self._record.saved = json.dumps(asdict(self.progress))


def learned(session: Any, groups: Sequence[RolloutGroup], stage_step: int) -> Learned:
    return Learned({}, ["trained" if len({r.total for r in each.rewards}) > 1 else "no_variance" for each in groups])


def train(config: Config, record: Record, run_path: Path | None = None, **session: Any) -> SampledSession:
    """Run the loop on what is saved.

    Args:
        run_path: where rollouts are recorded. None: nowhere.
    """
    made = SampledSession(config, record, **session)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo_loop, "LearnerSession", lambda setup: made)
        patch.setattr(grpo_loop, "learn_groups", learned)
        if run_path is None:
            patch.setattr(grpo_loop, "write_rollouts", lambda *_: None)
        grpo_loop.grpo_loop(SimpleNamespace(run_path=run_path))  # type: ignore[arg-type]
    return made


def train_killed(config: Config, steps: Sequence[int], **session: Any) -> Record:
    """A run that is killed within each of these steps, and goes on."""
    record = Record()
    for attempt, step in enumerate(steps, 1):
        with pytest.raises(Killed):
            train(config, record, attempt=attempt, kill_at=step, **session)
    train(config, record, attempt=len(steps) + 1, **session)
    return record
