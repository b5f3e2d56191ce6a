"""Sources of a step's rollouts: asked for ahead of it, or read from the record of another run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from actors.learner.engines import AskedGroups
from actors.learner.session import LearnerSession
from pipeline.curriculum.examples import Example
from pipeline.runs.rollout_record import read_rollouts
from pipeline.seeds import completion_seeds
from pipeline.types import PromptRequest, RolloutGroup


@dataclass(frozen=True)
class StepRollouts:
    """This worker's share of what a step learns from."""

    groups: list[RolloutGroup]
    replayed: list[bool]
    """For every group, whether its problem came from the replay buffer."""
    asked_step: int
    """Updates behind the weights when they were asked for."""


class Rollouts(Protocol):
    def take(self, stage_step: int) -> StepRollouts:
        """The rollouts of a step, graded. Call it for every step, in order."""

    def left(self) -> Iterator[StepRollouts]:
        """Groups that were asked for and not taken, unanswered."""


def rollouts_of(session: LearnerSession) -> Rollouts:
    """The rollouts of a stage, as its settings say."""
    replay = session.config.rollout.replay
    return Recorded(session, replay) if replay else WorkAhead(session)


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

    def left(self) -> Iterator[StepRollouts]:
        """Groups that were asked for and not taken, because the stage ended first."""
        for asked in self._asked.values():
            yield StepRollouts(asked.groups.groups, [example.is_replayed for example in asked.examples], asked.step)

    def _ask(self, stage_step: int, step: int) -> _Asked:
        session = self._session
        examples, requests = _requests(session, stage_step, step)
        own = session.ranks.share(examples)
        seeds = [request.seeds for request in session.ranks.share(requests)]
        return _Asked(own, session.engines.ask(own, seeds, session.rewards.state), session.progress.step)


class Recorded:
    """The rollouts that another run recorded, step by step.

    Args:
        run: its directory.
    """

    def __init__(self, session: LearnerSession, run: str) -> None:
        self._session, self._run = session, run

    def take(self, stage_step: int) -> StepRollouts:
        session, step = self._session, self._session.progress.step
        examples, requests = _requests(session, stage_step, step)
        problems = [example.problem for example in examples]
        with session.clock("rollout"):
            groups = read_rollouts(self._run, session.stage.name, step + 1, problems, requests)
        own, replayed = session.ranks.share(groups), [example.is_replayed for example in session.ranks.share(examples)]
        return StepRollouts(list(own), replayed, min(group.weight_id.step for group in groups))

    def left(self) -> Iterator[StepRollouts]:
        yield from ()


def _requests(session: LearnerSession, stage_step: int, step: int) -> tuple[Sequence[Example], list[PromptRequest]]:
    """The problems of a step's whole batch, and what engines are asked for: a function of the run's seed and step."""
    examples, size = session.examples.batch(stage_step), session.settings.num_generations
    return examples, [  # the position counts too: a small data set may repeat a problem within a batch
        PromptRequest(
            example.tokens.prompt, completion_seeds(session.config.seed, step, f"{place}:{example.problem.id}", size)
        )
        for place, example in enumerate(examples)
    ]
