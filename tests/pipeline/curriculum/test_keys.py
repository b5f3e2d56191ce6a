from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from pipeline.config import Config, validate_config
from pipeline.curriculum.keys import _NEWER, _WITHOUT_EFFECT, _inputs, problems_digest, root_key, stage_keys
from pipeline.curriculum.stages import stage_specs
from pipeline.types import Problem

EACH = {"name": "level", "kind": "sft", "each_level": True}


def make(curriculum: dict[str, Any] | None = None, stages: list | None = None, **sections: Any) -> Config:
    return validate_config({"stages": stages or [EACH], "curriculum": curriculum or {}, **sections})


def keys(config: Config, levels=("1", "2", "3", "4", "5"), data: Mapping[str, str] | None = None) -> list[str]:
    """Keys of a chain whose data digests are the names of the stages."""
    specs = stage_specs(config, levels)
    return stage_keys(config, specs, [(data or {}).get(spec.name, spec.name) for spec in specs], "held-out")


def num_shared(first: list[str], second: list[str]) -> int:
    """Stages that two chains have in common. Only prefixes can be."""
    same = [a == b for a, b in zip(first, second, strict=False)]
    assert same == sorted(same, reverse=True)
    assert len(set(first) & set(second)) == sum(same)
    return sum(same)


def test_only_the_first_stage_has_the_same_key_at_every_replay_ratio():
    chains = [keys(make({"replay_ratio": ratio})) for ratio in (0.0, 0.1, 0.3, 0.5)]
    for index, first in enumerate(chains):
        for second in chains[index + 1 :]:
            assert num_shared(first, second) == 1
    assert len({key for chain in chains for key in chain}) == 1 + 4 * 4


def test_buffer_settings_do_not_matter_if_nothing_is_replayed():
    assert keys(make({"replay_ratio": 0.0})) == keys(
        make({"replay_ratio": 0.0, "buffer_capacity": 7, "buffer_sampling": "by_level"})
    )
    assert num_shared(keys(make()), keys(make({"buffer_capacity": 7}))) == 1


def test_chains_share_the_stages_before_the_first_difference():
    base = keys(make())
    assert num_shared(base, keys(make({"level_order": ["1", "2", "4", "3", "5"]}))) == 2
    assert num_shared(base, keys(make({"level_order": ["1", "2", "3"]}))) == 3
    assert num_shared(base, keys(make({"level_order": "reverse"}))) == 0
    assert num_shared(base, keys(make(), data={"level_3": "other problems"})) == 2


def test_grpo_settings_that_are_newer_than_keys_change_a_key_only_where_they_have_an_effect():
    """A stage with their defaults is hashed as before there were any."""
    stages = [{"name": "rl", "kind": "grpo"}]
    base = make({}, stages)
    hashed = _inputs(base, stage_specs(base, ("1",))[0], "data", "parent", [])["settings"]
    assert not hashed.keys() & (_NEWER | _WITHOUT_EFFECT)
    assert hashed.keys() > {"epsilon", "epsilon_high", "normalize_std", "mask_truncated", "learning_rate"}
    assert keys(make({}, stages, grpo={"warn_sampler_diff_above": None})) == keys(base)
    named = make({}, stages, grpo={"algorithm": "dr_grpo"})
    spelled = make({}, stages, grpo={"normalize_std": False, "loss_aggregation": "constant"})
    assert keys(named) == keys(spelled) != keys(base)
    assert keys(make({}, stages, grpo={"entropy_coef": 0.1})) != keys(base)


@pytest.mark.parametrize(("name", "changes"), [("schedule", True), ("target_difficulty", True), ("pools", False)])
def test_the_order_of_levels_changes_the_keys_of_samplers_that_read_it(name, changes):
    stages, grpo = [{"name": "rl", "kind": "grpo"}], {"sampler": {"name": name}}
    orders = (["1", "2", "3"], ["3", "2", "1"])
    first, second = (keys(make({"levels": order}, stages, grpo=grpo)) for order in orders)
    assert (first != second) == changes


def test_settings_of_a_later_stage_do_not_change_earlier_ones():
    stages = [EACH, {"name": "rl", "kind": "grpo"}]
    base = make({}, stages)
    for sections in ({"grpo": {"beta": 0.1}}, {"rollout": {"temperature": 0.9}}, {"reward": {"timeout_s": 9.0}}):
        assert num_shared(keys(base), keys(make({}, stages, **sections))) == 5


@pytest.mark.parametrize(
    "sections",
    [
        {"seed": 1},
        {"sft": {"learning_rate": 1e-4}},
        {"model": {"lora": {"r": 4}}},
        {"learner": {"tokens_per_micro_batch": 64}},
        {"eval": {"problems_per_level": 7}},
        {"rollout": {"max_prompt_length": 99}},  # longer held-out prompts are left out
        {"curriculum": {"promotion": {"patience": 1}}},
        {"curriculum": {"level_order": "mixed"}},
    ],
)
def test_a_setting_that_changes_the_result_changes_every_key(sections):
    changed = validate_config({"stages": [EACH], "curriculum": {}, **sections})
    assert num_shared(keys(make()), keys(changed)) == 0


@pytest.mark.parametrize(
    "sections",
    [
        {"learner": {"num_cpus": 0.1, "max_failures": 9}},
        {"rollout": {"num_workers": 3, "temperature": 0.5}},  # nothing is sampled in a stage of SFT
        {"grpo": {"beta": 0.5}},
        {"output": {"root": "/elsewhere"}},
        {"checkpoint": {"every_steps": 3}},
        {"search": {"seeds": [1, 2]}},
    ],
)
def test_a_setting_that_does_not_change_the_result_changes_no_key(sections):
    assert keys(make(**sections)) == keys(make())


def test_a_stage_that_carries_nothing_over_does_not_depend_on_earlier_stages():
    stages = [{"name": name, "kind": "sft"} for name in "ab"] + [
        {"name": "c", "kind": "sft", "carry": {"weights": False, "replay_buffer": False}}
    ]
    first, second = keys(make({}, stages)), keys(make({}, stages[1:]))
    assert first[2] == second[1] and first[1] != second[0]
    replaying = [*stages[:2], {"name": "c", "kind": "sft", "carry": {"weights": False}}]
    assert keys(make({}, replaying))[2] != keys(make({}, replaying[1:]))[1]


def test_the_start_is_the_same_for_every_seed_and_order():
    assert root_key(make(seed=1), "e") == root_key(make({"level_order": "reverse"}), "e") != root_key(make(), "f")


def test_a_key_can_name_a_directory():
    assert all(len(key) == 16 and set(key) <= set("0123456789abcdef") for key in keys(make()))


def test_the_digest_of_problems_sees_every_text():
    base = Problem(id="a", prompt=({"role": "user", "content": "1+1"},), gold="2", solution="2", level="1", type="t")
    others = [
        Problem(id="b", prompt=base.prompt, gold="2", solution="2", level="1", type="t"),
        Problem(id="a", prompt=({"role": "user", "content": "1 + 1"},), gold="2", solution="2", level="1", type="t"),
        Problem(id="a", prompt=base.prompt, gold="3", solution="2", level="1", type="t"),
        Problem(id="a", prompt=base.prompt, gold="2", solution=None, level="1", type="t"),
        replace(base, prompt_text="1+1"),
        replace(base, prompt_text="1+1="),
    ]
    assert len({problems_digest([problem]) for problem in (base, *others)}) == 7
    assert problems_digest([base, others[0]]) != problems_digest([others[0], base])


def test_searches_of_earlier_versions_keep_their_keys():
    """Settings that are newer than the keys are no part of them until they are used."""
    stages = [EACH, {"name": "rl", "kind": "grpo"}]
    recorded = make({"replay_ratio": 0.3}, stages, rollout={"prompts_per_chunk": 4})  # the default of that time
    assert keys(recorded, ("1", "2")) == [
        "3e4340cc479d8765",
        "9648e18a87b9347b",
        "f670ce71cfa1cf7a",
    ]


def test_engines_count_where_they_divide_a_batch():
    stages = [{"name": "rl", "kind": "grpo"}]
    one, two = (keys(make({}, stages, rollout={"num_workers": number})) for number in (1, 2))
    assert one != two
    chunks = [make({}, stages, rollout={"num_workers": number, "prompts_per_chunk": 2}) for number in (1, 2)]
    assert keys(chunks[0]) == keys(chunks[1]) != one


@pytest.mark.parametrize(
    ("reward", "same"),
    [
        ({"functions": [{"name": "correctness", "gate": True}, {"name": "format"}]}, 5),
        ({"normalize": "zscore"}, 5),
        ({"zscore": {"clip": 2.0}}, 6),  # not used
    ],
)
def test_gates_and_z_scores_change_the_keys_of_stages_that_score(reward, same):
    stages = [EACH, {"name": "rl", "kind": "grpo"}]
    assert num_shared(keys(make({}, stages)), keys(make({}, stages, reward=reward))) == same


def test_written_problems_are_part_of_a_key():
    def chain(**final: Any) -> list[str]:
        stages = [{"name": "a", "kind": "sft", "write": {"num_problems": 4}}, {"name": "b", "kind": "sft", **final}]
        return keys(validate_config({"stages": stages, "data": {"name": "embedded:stories", "write": {}}}))

    assert num_shared(chain(), chain(written_frac=0.5)) == 1
    assert num_shared(chain(written_frac=0.25), chain(written_frac=0.5)) == 1
    assert num_shared(chain(), chain(balance_levels=True)) == 1


@pytest.mark.parametrize(
    "sections",
    [
        {"questions": {"must_compute": True}},
        {"reward": {"functions": [{"name": "novel"}]}},
        {"rollout": {"temperature": 0.5}},
    ],
)
def test_what_is_written_in_evaluations_depends_on_its_rewards_and_on_sampling(sections):
    data = {"name": "embedded:stories", "write": {}}
    assert root_key(make(data=data), "e") != root_key(make(data=data, **sections), "e")
    assert root_key(make(), "e") == root_key(make(**sections), "e")
