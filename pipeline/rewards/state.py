"""The state that all completions of a step are scored with."""

from collections.abc import Mapping
from typing import Any

from pipeline.rewards.registry import StatefulReward

RewardState = Mapping[str, Any]
"""JSON: ``rewards``, the state of each stateful reward, and ``raw``, the history of each part. Empty at the start."""


def set_state(reward: StatefulReward, name: str, state: RewardState) -> None:
    """Give a reward its part of the state. At the start it keeps the one it was made with."""
    states = state.get("rewards", {})
    if name in states:
        reward.state = states[name]
