"""Rollouts asked for ahead of the steps that learn from them."""

from collections.abc import Sequence
from dataclasses import dataclass

from actors.learner.engines import AskedGroups
from actors.learner.session import LearnerSession
from pipeline.curriculum.examples import Example
from pipeline.seeds import completion_seeds
from pipeline.types import RolloutGroup


@dataclass(frozen=True)
class StepRollouts:
    """This worker's share of what a step learns from."""

    groups: list[RolloutGroup]
    replayed: list[bool]
    """For every group, whether its problem came from the replay buffer."""
    asked_step: int
    """Updates behind the weights when they were asked for."""


@dataclass(frozen=True)
class _Asked:
    examples: Sequence[Example]
    groups: AskedGroups
    step: int


class WorkAhead:
    """Asks engines for the rollouts of a step up to ``rollout.max_staleness`` updates before it learns from them.

    Engines answer with the weights of that moment or newer ones, so nothing is ever staler than that. With a staleness
    of 0 a step's rollouts are asked for when the step begins, with exactly its weights.
    """

    def __init__(self, session: LearnerSession) -> None:
        self._session = session
        self._max_staleness = session.config.rollout.max_staleness
        self._asked: dict[int, _Asked] = {}

    def take(self, stage_step: int) -> StepRollouts:
        """The rollouts of a step, as soon as all are graded. Those of later steps are asked for first."""
        schedule = self._session.schedule
        end = stage_step - schedule.pass_step + schedule.num_steps
        for each in range(stage_step, min(stage_step + self._max_staleness + 1, end)):
            if each not in self._asked:
                self._asked[each] = self._ask(each, self._session.progress.step + each - stage_step)
        asked = self._asked.pop(stage_step)
        groups = self._session.engines.collect(asked.groups, self._session.clock)
        return StepRollouts(groups, [example.is_replayed for example in asked.examples], asked.step)

    def _ask(self, stage_step: int, step: int) -> _Asked:
        session = self._session
        batch, size = session.examples.batch(stage_step), session.settings.num_generations
        seeds = [  # the position counts too: a small data set may repeat a problem within a batch
            completion_seeds(session.config.seed, step, f"{place}:{example.problem.id}", size)
            for place, example in enumerate(batch)
        ]
        own = session.ranks.share(batch)
        groups = session.engines.ask(own, session.ranks.share(seeds), session.rewards.state)
        return _Asked(own, groups, session.progress.step)
