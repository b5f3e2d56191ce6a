"""The state that all completions of a step are scored with."""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from pipeline.errors import RewardError, first_line
from pipeline.rewards.registry import RewardFunction, StatefulReward
from pipeline.types import RolloutGroup

RewardState = Mapping[str, Any]
"""JSON: ``rewards`` is the state of each stateful reward, ``raw`` the history of each part. Empty at the start."""


class StatefulRewards:
    """The stateful rewards of a job, and their initial states.

    Args:
        rewards: all rewards of the job, by name.

    Raises:
        RewardError: a reward has no state, or one that is no JSON value.
    """

    def __init__(self, rewards: Mapping[str, RewardFunction]) -> None:
        self._rewards = {name: reward for name, reward in rewards.items() if isinstance(reward, StatefulReward)}
        self._start = {name: _as_json(name, getattr(reward, "state", ...)) for name, reward in self._rewards.items()}

    def __len__(self) -> int:
        return len(self._rewards)

    def set(self, state: RewardState) -> None:
        """Give every reward its own state, or its initial one if the state has none for it.

        The reset is needed because actors outlive restarted learners and serve several chains of a search in turn.
        """
        states = state.get("rewards", {})
        for name, reward in self._rewards.items():
            reward.state = states[name] if name in states else json.loads(self._start[name])

    def next(self, state: RewardState, groups: Sequence[RolloutGroup]) -> dict[str, Any]:
        """The state of every reward after a step, exactly as a checkpoint would return it.

        Raises:
            RewardError: a reward fails, or its next state is no JSON value.
        """
        self.set({"rewards": deepcopy(state.get("rewards", {}))})  # a reward may change its state in place
        return {name: json.loads(_as_json(name, _next(name, reward, groups))) for name, reward in self._rewards.items()}


def _next(name: str, reward: StatefulReward, groups: Sequence[RolloutGroup]) -> Any:
    try:
        return reward.next_state(groups)
    except (Exception, SystemExit) as error:  # a plug-in can raise anything
        raise RewardError(
            f"reward {name!r} must return its next state, got {type(error).__name__}: {first_line(error)}"
        ) from error


def _as_json(name: str, state: Any) -> str:
    if state is ...:
        raise RewardError(f"reward {name!r} must set its state in its constructor, got none.")
    try:
        return json.dumps(state, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise RewardError(
            f"the state of reward {name!r} must be a JSON value, got {type(state).__name__}: {first_line(error)}. It "
            "is saved with every checkpoint."
        ) from None
