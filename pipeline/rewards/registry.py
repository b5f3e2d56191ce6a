"""Reward functions and classes, looked up by name.

A reward function sees all completions of one prompt with their verdicts, and returns one value per completion::

    @register("short")
    def short(group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
        return [1.0 / len(completion.token_ids) for completion in group.completions]

A reward that needs the configuration, the training data or engines is a class. Every reward worker creates one object,
with a RewardContext, and calls it like a function. A reward that also needs a history derives from StatefulReward.
Every learner creates one too, only to advance its state.
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
    """The constructor argument of a reward class."""

    config: Config
    """The job's whole configuration."""
    training_problems: Callable[[], Sequence[Problem]]
    """Reads the training data of the job."""
    solve: Callable[[RolloutGroup, Sequence[str]], list[tuple[Completion, ...]]] | None = None
    """Asks the solver of ``questions.solver`` for ``num_samples`` solutions of each statement:
    [num_statements][num_samples]. Seeds depend only on the group and the statement's position. None: no solver. In a
    learner it raises RewardError, because ``next_state`` must not ask a solver."""


class StatefulReward(ABC):
    """A reward with a history, which is saved with every checkpoint.

    All completions of a step are scored with the state from the end of the previous step, however many workers there
    are. After the step, the learner advances the state with all groups of the step, in batch order.
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
    """The reward function or class that is registered as ``name`` or named by ``module:name``.

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
    """A reward that is ready to be called: the function itself, or an object of the class.

    Raises:
        RewardError: as in ``resolve``; or a class has no context, or its constructor fails.
        ClusterError: the constructor asked an engine that does not answer.
    """
    reward = resolve(name)
    if not isinstance(reward, type):
        return cast(RewardFunction, reward)
    if context is None:
        raise RewardError(f"reward {name!r} must be made with a job's context, and there is none here.")
    try:
        return cast(RewardFunction, reward(context))
    except (RewardError, ClusterError):  # ClusterError comes from an engine; a restart may fix it
        raise
    except (Exception, SystemExit) as error:  # a plug-in can raise anything
        raise RewardError(f"reward {name!r} cannot be made: {type(error).__name__}: {error}") from error


def _import_built_in() -> None:
    """Import the modules that register rewards. They import this one, so it must happen late."""
    for module in ("pipeline.rewards.built_in", "pipeline.questions.rewards"):
        importlib.import_module(module)
