"""The state that rewards keep from step to step, saved in every checkpoint."""

from collections.abc import Sequence
from typing import Any

from pipeline.config import RewardConfig
from pipeline.rewards.normalize import extended
from pipeline.rewards.registry import RewardContext, StatefulReward, make_reward, resolve
from pipeline.rewards.state import RewardState, StatefulRewards
from pipeline.rewards.totals import passes_gate
from pipeline.types import RolloutGroup


class RewardHistory:
    """Advances the state that all completions of a step are scored with.

    Every learner has one, and all are equal: each sees the groups of all workers in batch order.
    """

    def __init__(self, config: RewardConfig, context: RewardContext, state: RewardState) -> None:
        self._config = config
        names = [term.name for term in config.functions if _is_stateful(term.name)]
        self._stateful = StatefulRewards({name: make_reward(name, context) for name in names})
        self.state = state

    @property
    def is_needed(self) -> bool:
        """False if rewards depend on nothing that happened before: ``advance`` would do nothing."""
        return bool(self._stateful) or self._config.normalize is not None

    def advance(self, groups: Sequence[RolloutGroup]) -> None:
        """Advance the state by a step's groups, with their rewards.

        Raises:
            RewardError: a reward fails to give its next state.
        """
        state: dict[str, Any] = {}
        if states := self._stateful.next(self.state, groups):
            state["rewards"] = states
        if self._config.normalize:
            state["raw"] = self._raw_values(groups)
        self.state = state

    def _raw_values(self, groups: Sequence[RolloutGroup]) -> dict[str, list[float]]:
        terms, before = self._config.functions, self.state.get("raw", {})
        passed = [r.parts for group in groups for r in group.rewards if passes_gate(r.parts, terms)]
        return {
            term.name: extended(before.get(term.name, []), [parts[term.name] for parts in passed], self._config.zscore)
            for term in terms
            if not term.gate
        }


def _is_stateful(name: str) -> bool:
    reward = resolve(name)
    return isinstance(reward, type) and issubclass(reward, StatefulReward)
