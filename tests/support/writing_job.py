"""The recipe of a tiny job that writes problems.

A random model never writes a well-formed problem, so the first stage learns four of them by heart.
"""

from collections.abc import Sequence
from pathlib import Path

from pipeline.rewards.registry import RewardContext, StatefulReward
from pipeline.types import RolloutGroup
from pipeline.verifier import Verdict
from tests.support.data import write_jsonl
from tests.support.models import letter_reward
from tests.support.recipes import save_recipe, tiny_settings

NUM_WRITTEN = 34


class Rising(StatefulReward):
    """A reward of the user's own: the share of letters, times one more than the groups of all steps before."""

    def __init__(self, context: RewardContext) -> None:
        self.state = {"num_groups": 0}

    def __call__(self, group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
        return [(1 + self.state["num_groups"]) * value for value in letter_reward(group, verdicts)]

    def next_state(self, groups: Sequence[RolloutGroup]) -> dict[str, int]:
        return {"num_groups": self.state["num_groups"] + len(groups)}


def writing_recipe(model: Path, directory: Path) -> Path:
    """SFT on tasks with examples, GRPO that ends by writing problems, SFT on those that are kept."""
    rows = [
        {"question": f"{name} or {thing}?", "answer": f"{index}", "steps": f"{index}", "level": str(index % 2 + 1)}
        for index, (name, thing) in enumerate([("ab", "cd"), ("ef", "gh"), ("ij", "kl"), ("mn", "op")], 2)
    ]
    for split in ("train", "test"):
        write_jsonl(directory / f"{split}.jsonl", *rows)
    settings = tiny_settings(
        model,
        directory,
        curriculum=None,
        stages=[
            {"name": "basic", "kind": "sft", "balance_levels": True},
            {"name": "quality", "kind": "grpo", "balance_levels": True, "write": {"num_problems": NUM_WRITTEN}},
            {"name": "final", "kind": "sft", "written_frac": 0.5, "settings": {"max_steps": 4}},
        ],
        questions={"keep": {"near_similarity": 1.0, "compare_with_data": False}},
        reward={
            "functions": [
                {"name": "well_formed", "gate": True},
                {"name": "novel"},
                {"name": "tests.support.writing_job:Rising"},
            ],
            "normalize": "zscore",
            "zscore": {"warmup": 4, "history": 20},
        },
        checkpoint={"every_steps": 3},
        eval={"problems_per_level": 1, "max_completion_length": 80, "at_start": False, "every_steps": 15}
        | {"metric_for_best_model": "quality"},
        output={"save_final_model": False},
    )
    settings["data"] = {
        "name": str(directory),
        "fields": {"level": "level", "solution": "steps"},
        "write": {"prompts": {"new": "W{level}"}, "system_prompt": ""},
    }
    settings["sft"] |= {"max_steps": 45, "num_train_epochs": 100, "learning_rate": 1e-2, "lr_schedule": "cosine"}
    settings["grpo"] |= {"num_steps": 4, "mu": 1, "beta": 0.0, "learning_rate": 1e-4}
    settings["rollout"] |= {"max_completion_length": 80}
    return save_recipe(directory, settings)
