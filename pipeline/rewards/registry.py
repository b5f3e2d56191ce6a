"""Reward functions and classes, looked up by name.

A reward function sees all completions of one prompt with their verdicts, and returns one value per completion::

    @register("short")
    def short(group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
        return [1.0 / len(completion.token_ids) for completion in group.completions]

A reward that needs the configuration, the training data or engines is a class. It is made with a RewardContext, once
in every reward worker, and called like a function. One that also needs a history derives from StatefulReward; every
learner makes one of its own too, which only advances the state.
"""

import difflib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from pipeline.config import Config
from pipeline.errors import ClusterError, RewardError
from pipeline.types import Completion, Problem, RolloutGroup
from pipeline.verifier import Verdict

RewardFunction = Callable[[RolloutGroup, Sequence[Verdict]], Sequence[float]]


@dataclass(frozen=True)
class RewardContext:
    """The arguments of a reward class."""

    config: Config
    """The job's whole configuration."""
    training_problems: Callable[[], Sequence[Problem]]
    """Reads the training data of the job."""
    solve: Callable[[RolloutGroup, Sequence[str]], list[tuple[Completion, ...]]] | None = None
    """Asks the solver of ``questions.solver``: ``questions.solver.num_samples`` solutions of each statement,
    [num_statements][num_samples]. Seeds depend on the group and the statement's position alone. None: no solver. A
    learner's raises RewardError: ``next_state`` must not ask it."""


class StatefulReward(ABC):
    """A reward with a history, which is saved with every checkpoint.

    All completions of a step are scored with the state at the end of the step before, in however many workers. After
    the step, the learner advances the state with all of its groups, in the order of the batch.
    """

    state: Any
    """A JSON value. The constructor sets the state before the first step; workers are given later ones."""

    @abstractmethod
    def __call__(self, group: RolloutGroup, verdicts: Sequence[Verdict]) -> Sequence[float]:
        """One value per completion. Reads the state and leaves it unchanged."""

    @abstractmethod
    def next_state(self, groups: Sequence[RolloutGroup]) -> Any:
        """The state after a step with these groups, whose ``rewards`` are filled in."""


T = TypeVar("T", bound=Callable[..., Any])
_REGISTRY: dict[str, Callable[..., Any]] = {}


def register(name: str) -> Callable[[T], T]:
    """Decorator: make a reward function or class available under ``name``."""

    def add(reward: T) -> T:
        _REGISTRY[name] = reward
        return reward

    return add


def resolve(name: str) -> Callable[..., Any]:
    """The reward function or class that is registered as ``name``, or that ``module:name`` names.

    Raises:
        RewardError: unknown name, or the module cannot be imported.
    """
    _import_built_in()
    if name in _REGISTRY:
        return _REGISTRY[name]
    module_name, separator, attribute = name.partition(":")
    if not separator:
        near = difflib.get_close_matches(name, _REGISTRY, n=1, cutoff=0.5) or sorted(_REGISTRY)
        raise RewardError(f"unknown reward {name!r}. Did you mean {' or '.join(near)}? A plug-in is module:function.")
    try:
        found: object = getattr(importlib.import_module(module_name), attribute)
    except (Exception, SystemExit) as error:  # importing a plug-in can raise anything, and a script may end itself
        reason = " ".join(str(error).split())
        raise RewardError(f"reward {name!r} cannot be imported: {type(error).__name__}: {reason}") from error
    if not callable(found):
        raise RewardError(f"reward {name!r} must be a function or a class, got {type(found).__name__}.")
    return cast(Callable[..., Any], found)


def make_reward(name: str, context: RewardContext | None) -> RewardFunction:
    """The reward ready to be called: a function itself, or an object of a class.

    Raises:
        RewardError: as ``resolve``, or a class whose constructor fails or that has no context to be made with.
        ClusterError: an engine that the constructor asked does not answer.
    """
    reward = resolve(name)
    if not isinstance(reward, type):
        return cast(RewardFunction, reward)
    if context is None:
        raise RewardError(f"reward {name!r} must be made with a job's context, and there is none here.")
    try:
        return cast(RewardFunction, reward(context))
    except (RewardError, ClusterError):  # the latter of an engine that it asked; a restart may mend it
        raise
    except (Exception, SystemExit) as error:  # a plug-in can raise anything
        raise RewardError(f"reward {name!r} cannot be made: {type(error).__name__}: {error}") from error


def _import_built_in() -> None:
    """Modules that register rewards. Imported late: they import this one."""
    for module in ("pipeline.rewards.built_in", "pipeline.questions.rewards"):
        importlib.import_module(module)
