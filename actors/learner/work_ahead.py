"""Sources of a step's rollouts: engines, asked ahead of the step, or the record of another run."""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple, Protocol

from actors.learner.choosing import outcome, requests, stage_choices, take_in
from actors.learner.engines import AskedGroups
from actors.learner.session import LearnerSession
from pipeline.curriculum.choices import Choice
from pipeline.curriculum.samplers.base import Outcome
from pipeline.curriculum.samplers.dynamic import Filling
from pipeline.runs.ledger import Use
from pipeline.runs.notices import notify
from pipeline.runs.rollout_record import read_rollouts
from pipeline.types import RolloutGroup


class Sampled(NamedTuple):
    """A group that was asked for, and answered."""

    group: RolloutGroup
    is_replayed: bool
    asked_step: int
    """Updates behind the weights when it was asked for."""
    outcome: Outcome


class Dropped(NamedTuple):
    """A group whose place another one took."""

    sampled: Sampled
    place: int
    """In the batch of all learners."""
    use: Use


@dataclass(frozen=True)
class StepRollouts:
    """This worker's share of what a step learns from."""

    groups: list[RolloutGroup]
    replayed: list[bool]
    """For every group, whether its problem came from the replay buffer."""
    asked_steps: list[int]
    """Updates behind the weights when a group was asked for, one per group."""
    dropped: list[Dropped] = field(default_factory=list)
    """On rank 0: groups of all workers that the step does not learn from."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Metrics of the sampling, over all workers."""

    @classmethod
    def of(cls, sampled: Sequence[Sampled], dropped: Sequence[Dropped], metrics: dict[str, float]) -> "StepRollouts":
        return cls(
            [each.group for each in sampled],
            [each.is_replayed for each in sampled],
            [each.asked_step for each in sampled],
            list(dropped),
            metrics,
        )


class Rollouts(Protocol):
    def take(self, stage_step: int) -> StepRollouts:
        """The rollouts of a step, graded. Call it for every step, in order."""

    def left(self) -> Iterator[StepRollouts]:
        """Groups that were asked for but not taken, without answers."""


def rollouts_of(session: LearnerSession) -> Rollouts:
    """The rollouts of a stage, as its settings say."""
    replay = session.config.rollout.replay
    return Recorded(session, replay) if replay else WorkAhead(session)


def _steps_ahead(session: LearnerSession, stage_step: int) -> range:
    """The step and those of its pass that may be asked for before it is learned from."""
    schedule = session.schedule
    end = stage_step - schedule.pass_step + schedule.num_steps
    return range(stage_step, min(stage_step + session.config.rollout.max_staleness + 1, end))


@dataclass(frozen=True)
class _Asked:
    choices: Sequence[Choice]
    groups: AskedGroups
    step: int


class WorkAhead:
    """Asks engines for the rollouts of a step up to ``rollout.max_staleness`` updates before it learns from them.

    Engines answer with the weights of the moment they are asked, or newer ones, so nothing is ever staler than that.
    With a staleness of 0 a step's rollouts are asked for when the step begins, with exactly its weights. A dynamic
    sampler's replacements for dropped groups are asked for within the step in any case.
    """

    def __init__(self, session: LearnerSession) -> None:
        self._session = session
        self._choices = stage_choices(session)
        self._asked: dict[int, _Asked] = {}
        self._is_bound_reported = False

    def take(self, stage_step: int) -> StepRollouts:
        """The rollouts of a step, as soon as all are graded. Before it waits, it asks for those of later steps."""
        session = self._session
        for each in _steps_ahead(session, stage_step):
            if each not in self._asked:
                step = session.progress.step + each - stage_step
                self._asked[each] = self._ask(self._choices.of(each), step)
        sampled = self._collect(self._asked.pop(stage_step))
        if self._choices.dynamic:
            return self._filled(stage_step, session.ranks.gather(sampled))
        outcomes = session.ranks.gather([each.outcome for each in sampled])
        return StepRollouts.of(sampled, [], take_in(session, self._choices, stage_step, outcomes))

    def left(self) -> Iterator[StepRollouts]:
        """Groups that were asked for but not taken, because the stage ended first."""
        for asked in self._asked.values():
            replayed = [choice.example.is_replayed for choice in asked.choices]
            yield StepRollouts(asked.groups.groups, replayed, [asked.step] * len(replayed))

    def _ask(self, choices: Sequence[Choice], step: int, first: int = 0) -> _Asked:
        """
        Args:
            first: groups of this step that were asked for before: the learner waits for what replaces them.
        """
        session = self._session
        own = session.ranks.share(choices)
        seeds = [request.seeds for request in session.ranks.share(requests(session, choices, step, first))]
        examples = [choice.example for choice in own]
        groups = session.engines.ask(examples, seeds, session.rewards.state, is_urgent=first > 0)
        return _Asked(own, groups, session.progress.step)

    def _collect(self, asked: _Asked) -> list[Sampled]:
        """This worker's groups."""
        session = self._session
        groups = session.engines.collect(asked.groups, session.clock)
        return [
            Sampled(group, choice.example.is_replayed, asked.step, outcome(session, group, choice))
            for group, choice in zip(groups, asked.choices, strict=True)
        ]

    def _filled(self, stage_step: int, sampled: list[Sampled]) -> StepRollouts:
        """A batch of groups that teach something, as far as ``max_rounds`` rounds of sampling can fill it.

        Args:
            sampled: the groups of the first round, of all workers. Replayed ones keep their places.
        """
        session, choices = self._session, self._choices
        assert choices.dynamic is not None
        batch = sampled[: session.settings.batch_size]
        filling = Filling(choices.dynamic, [each if each.is_replayed else None for each in batch])
        filling.add([(each, each.outcome.has_variance) for each in sampled if not each.is_replayed])
        every = list(sampled)
        while count := min(filling.num_to_ask, self._num_affordable(every)):
            asked = self._ask(choices.more(stage_step, count), session.progress.step, first=len(every))
            more = session.ranks.gather(self._collect(asked))
            filling.add([(each, each.outcome.has_variance) for each in more])
            every += more
        if (
            filling.num_rounds == choices.dynamic.max_rounds
        ):  # otherwise the budget of tokens ended, or the batch is full
            self._report_bound(filling)
        is_empty = not any(each.outcome.has_variance for each in every)
        metrics = take_in(session, choices, stage_step, [each.outcome for each in every], is_empty)
        own = session.ranks.share(filling.batch())
        dropped = [Dropped(each, place, "refilled") for place, each in filling.dropped]
        dropped += [Dropped(each, place, "surplus") for place, each in filling.surplus]
        metrics |= {"rejected_groups": len(dropped), "sampling_rounds": filling.num_rounds}
        metrics["zero_variance_frac"] = fmean(not each.outcome.has_variance for each in every)
        return StepRollouts.of(own, dropped if session.ranks.is_first else [], metrics)

    def _num_affordable(self, sampled: Sequence[Sampled]) -> int:
        """Groups as large as these that the stage's budget of tokens still has room for, rounded up."""
        bound: int | None = self._session.settings.max_sampled_tokens
        if bound is None:
            return sys.maxsize
        num_tokens = sum(each.outcome.num_tokens for each in sampled)
        left = bound - self._session.progress.sampled_tokens - num_tokens
        return max(0, math.ceil(left * len(sampled) / max(num_tokens, 1)))

    def _report_bound(self, filling: Filling[Sampled]) -> None:
        if filling.num_missing and self._session.ranks.is_first and not self._is_bound_reported:
            self._is_bound_reported = True
            notify(
                f"stage {self._session.stage.name}: step {self._session.progress.step + 1} learns from fewer groups: "
                f"{filling.num_rounds} rounds of sampling (grpo.sampler.dynamic.max_rounds) left {filling.num_missing} "
                "places without one whose rewards differ. Later steps may, too"
            )


class Recorded:
    """The rollouts that another run recorded, step by step.

    Args:
        run: its directory.
    """

    def __init__(self, session: LearnerSession, run: str) -> None:
        self._session, self._run = session, run
        self._choices = stage_choices(session)

    def take(self, stage_step: int) -> StepRollouts:
        session, step = self._session, self._session.progress.step
        ahead = [self._choices.of(each) for each in _steps_ahead(session, stage_step)]  # when the run chose them
        choices = ahead[0]
        problems = [choice.example.problem for choice in choices]
        with session.clock("rollout"):
            groups = read_rollouts(self._run, session.stage.name, step + 1, problems, requests(session, choices, step))
        oldest = min(group.weight_id.step for group in groups)
        sampled = [
            Sampled(group, choice.example.is_replayed, oldest, outcome(session, group, choice))
            for group, choice in zip(groups, choices, strict=True)
        ]
        metrics = take_in(session, self._choices, stage_step, [each.outcome for each in sampled])
        return StepRollouts.of(session.ranks.share(sampled), [], metrics)

    def left(self) -> Iterator[StepRollouts]:
        yield from ()
