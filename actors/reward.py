"""Scores completions. actors/driver/start.py makes it a Ray actor; tests build it directly."""

from dataclasses import replace

from pipeline.config import RewardConfig
from pipeline.rewards.registry import resolve
from pipeline.rewards.scoring import score_group
from pipeline.types import RolloutGroup
from pipeline.verifier import Grader


class RewardWorker:
    """Grades and scores groups, one at a time. An unknown reward fails in the constructor, before any rollout."""

    def __init__(self, config: RewardConfig) -> None:
        self._terms = config.functions
        for term in self._terms:
            resolve(term.name)
        self._grader = Grader(config.num_children, config.timeout_s, config.memory_limit_mib)
        self._grader.start()

    def score(self, groups: list[RolloutGroup]) -> list[RolloutGroup]:
        """The same groups, in the same order, with their ``rewards`` filled in."""
        return [replace(group, rewards=score_group(group, self._terms, self._grader)) for group in groups]

    def close(self) -> None:
        self._grader.close()
