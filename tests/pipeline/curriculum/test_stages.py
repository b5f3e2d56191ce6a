from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from pipeline.config import Config, PromotionConfig, load_config, validate_config
from pipeline.curriculum.stages import (
    StageSpec,
    chain_specs,
    problems_digest,
    root_key,
    stage_decision,
    stage_keys,
    stage_specs,
    total_steps,
)
from pipeline.data.selection import choose_problems
from pipeline.errors import ConfigError
from pipeline.types import Problem
from tests.conftest import CONFIGS

LEVELS = ["1", "2", "3", "10"]
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


# Order -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("curriculum", "names"),
    [
        ({}, ["level_1", "level_2", "level_3", "level_10"]),  # natural order: 10 is after 3
        ({"level_order": "reverse"}, ["level_10", "level_3", "level_2", "level_1"]),
        ({"level_order": ["2", "1"]}, ["level_2", "level_1"]),
        ({"level_order": ["1", "2", "1"]}, ["level_1", "level_2", "level_1-again2"]),
        ({"level_order": "mixed"}, ["level_mixed"]),
        ({"levels": ["3", "1"]}, ["level_3", "level_1"]),
        ({"levels": ["3", "1"], "level_order": "reverse"}, ["level_1", "level_3"]),
    ],
)
def test_level_order(curriculum, names):
    assert [spec.name for spec in stage_specs(make(curriculum), ["10", "2", "1", "3"])] == names


def test_names_of_levels_become_names_of_directories():
    config = load_config(CONFIGS / "curriculum_glm_z1_9b.yaml")
    specs = stage_specs(config, ["Level 5", "Level 1", "Level ?", "Level 2", "Level 4", "Level 3"])
    assert [spec.name for spec in specs] == [f"level_Level{index}" for index in range(1, 6)]
    assert [spec.levels for spec in specs] == [(f"Level {index}",) for index in range(1, 6)]
    assert {spec.problems.max_per_level for spec in specs} == {1000}
    assert [spec.replay is None for spec in specs] == [True, False, False, False, False]
    assert [spec.settings.learning_rate for spec in specs] == [2e-4] * 5


def test_each_level_expands_in_its_place_between_other_stages():
    stages = [
        {"name": "warm", "kind": "sft", "problems": {"levels": ["1"], "max_per_level": 5}},
        {**EACH, "settings": {"num_train_epochs": 2}},
        {"name": "rl", "kind": "grpo", "settings": {"mu": 2}, "carry": {"replay_buffer": False}},
        {"name": "rl2", "kind": "grpo"},
    ]
    config = make({"max_train_samples_per_level": 7}, stages)
    specs = stage_specs(config, ["1", "2"])
    assert [(spec.name, spec.kind, spec.levels) for spec in specs] == [
        ("warm", "sft", ("1",)),
        ("level_1", "sft", ("1",)),
        ("level_2", "sft", ("2",)),
        ("rl", "grpo", None),
        ("rl2", "grpo", None),
    ]
    assert [spec.problems.max_per_level for spec in specs] == [5, 7, 7, 7, 7]
    assert [spec.replay and spec.replay.sources for spec in specs] == [None, (0,), (0, 1), None, (3,)]
    assert specs[1].settings.model_dump()["num_train_epochs"] == 2


def test_a_stage_may_have_a_ratio_of_its_own():
    stages = [EACH, {"name": "rl", "kind": "grpo", "replay_ratio": 0.0}]
    specs = stage_specs(make({"replay_ratio": 0.5}, stages), ["1", "2"])
    assert [spec.replay and spec.replay.ratio for spec in specs] == [None, 0.5, None]


def test_the_mixed_baseline_makes_as_many_steps_as_the_levels_together():
    counts: dict[str | None, int] = {"1": 100, "2": 100, "3": 40}
    for section in (
        {"sft": {"per_device_train_batch_size": 16}},
        {"stages": [{**EACH, "kind": "grpo"}], "grpo": {"num_steps": 7}},
    ):
        ordered = stage_specs(make(**section), ["1", "2", "3"])
        (mixed,) = stage_specs(make({"level_order": "mixed"}, **section), ["1", "2", "3"])
        steps = [total_steps(spec, {spec.levels[0]: counts[spec.levels[0]]}) for spec in ordered if spec.levels]
        assert steps == ([7, 7, 3] if "sft" in section else [7, 7, 7])  # 100 / 16, 40 / 16 rounded up
        assert total_steps(mixed, counts) == sum(steps)
        assert mixed.levels == ("1", "2", "3") and mixed.replay is None


def chosen_problems(spec: StageSpec, problems: list[Problem], seed: int) -> list[Problem]:
    return choose_problems(problems, spec.problems, seed, with_solution=spec.kind == "sft")


def test_problems_of_a_stage_are_a_random_part_of_each_level():
    problems = [
        Problem(f"{level}.{i}", ({"role": "user", "content": "x"},), "1", "1" if i % 2 else None, level, "ab"[i >= 200])
        for level in ("1", "2")
        for i in range(400)
    ]
    first, second = stage_specs(make({"max_train_samples_per_level": 50}), ["1", "2"])
    chosen = chosen_problems(first, problems, seed=0)
    assert len(chosen) == 50 and {p.level for p in chosen} == {"1"} and all(p.solution for p in chosen)
    assert chosen == sorted(chosen, key=problems.index) == chosen_problems(first, problems, seed=0)
    assert 12 <= sum(p.type == "a" for p in chosen) <= 38  # 25 expected, standard deviation 3
    assert chosen != chosen_problems(first, problems, seed=1)
    (mixed,) = stage_specs(make({"max_train_samples_per_level": 50, "level_order": "mixed"}), ["1", "2"])
    assert chosen_problems(mixed, problems, seed=0) == chosen + chosen_problems(second, problems, seed=0)
    (rl,) = stage_specs(make({}, [{"name": "rl", "kind": "grpo"}]), ["1", "2"])
    assert chosen_problems(rl, problems, seed=0) == problems


@pytest.mark.parametrize(
    ("curriculum", "stages", "message"),
    [
        (
            {"levels": ["1", "2"], "level_order": ["3"]},
            [EACH],
            r"level_order must hold levels of .*\['3'\]",
        ),
        ({"levels": ["1", "1"]}, [EACH], r"^curriculum: levels must differ"),
        ({"level_order": []}, [EACH], r"^curriculum: level_order must name a level"),
        ({"level_order": "backward"}, [EACH], r"^curriculum\.level_order\."),
        ({"replay_ratio": 1.0}, [EACH], r"^curriculum\.replay_ratio: .*less than 1"),
        (None, [EACH], r"^curriculum must be set for each_level and replay_ratio of stages, got none: \['level'\]"),
        ({}, [{**EACH, "carry": {"weights": False, "optimizer": True}}], r"optimizer must be false where weights is"),
        (
            {},
            [{**EACH, "problems": {"levels": ["1"]}}],
            r"leave problems\.levels to curriculum\.levels, got \['level'\]",
        ),
        ({"promotion": {"patience": 1}}, [EACH], r"eval\.problems_per_level must be above 0 for curriculum\.promotion"),
    ],
)
def test_a_wrong_curriculum_is_told_when_the_file_is_read(curriculum, stages, message):
    with pytest.raises(ConfigError, match=message):
        validate_config({"stages": stages, "curriculum": curriculum, "eval": {"problems_per_level": 0}})


def test_a_level_that_the_data_lacks_is_named():
    with pytest.raises(ConfigError, match=r"got \['4'\]: it has \['1', '2', '10'\]"):
        stage_specs(make({"levels": ["1", "4"]}), ["10", "2", "1"])
    with pytest.raises(ConfigError, match=r"it has none\. Set data\.fields\.level"):
        stage_specs(make({"levels": ["1"]}), [])
    with pytest.raises(ConfigError, match=r"levels, got none\. Set data\.fields\.level"):
        stage_specs(make(), [])


@pytest.mark.parametrize("name", ["step", "before", "checkpoint_last"])
def test_a_stage_is_not_named_like_what_else_is_beside_its_result(name):
    stage = {"name": name, "kind": "sft", "each_level": name == "step"}
    with pytest.raises(ConfigError, match="must not be named like a checkpoint or an evaluation"):
        stage_specs(make({}, [stage]), ["1"])


# Promotion ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "accuracies", "steps_left", "num_repeats", "decision"),
    [
        ({"threshold": 0.8}, [0.1, 0.5], True, 0, "go on"),
        ({"threshold": 0.8}, [0.1, 0.8], True, 0, "end"),
        ({"threshold": 0.8}, [0.1, 0.5], False, 0, "end"),  # missed, and no repeats allowed
        ({"threshold": 0.8, "max_repeats": 2}, [0.1, 0.5], False, 1, "repeat"),
        ({"threshold": 0.8, "max_repeats": 2}, [0.1, 0.5], False, 2, "end"),
        ({"threshold": 0.8, "max_repeats": 2}, [0.1, 0.9], False, 0, "end"),
        ({"patience": 2}, [0.5, 0.4, 0.5], True, 0, "end"),  # equal is not better: two without a new best
        ({"patience": 2}, [0.5, 0.4, 0.6], True, 0, "go on"),
        ({"patience": 2}, [0.5, 0.4], True, 0, "go on"),
        ({"patience": 1, "threshold": 0.9, "max_repeats": 1}, [0.5, 0.4], True, 0, "repeat"),
        ({"max_repeats": 3}, [0.1], False, 0, "end"),  # no threshold to miss
    ],
)
def test_promotion(rule, accuracies, steps_left, num_repeats, decision):
    rule = PromotionConfig.model_validate(rule)
    assert stage_decision(rule, accuracies, steps_left=steps_left, num_repeats=num_repeats) == decision


# Keys --------------------------------------------------------------------------------------------


def test_the_first_stage_has_one_key_for_all_replay_ratios_and_no_other_has():
    chains = [keys(make({"replay_ratio": ratio})) for ratio in (0.0, 0.1, 0.3, 0.5)]
    for index, first in enumerate(chains):
        for second in chains[index + 1 :]:
            assert num_shared(first, second) == 1
    assert len({key for chain in chains for key in chain}) == 1 + 4 * 4


def test_what_the_buffer_could_hold_does_not_matter_where_nothing_is_replayed():
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
def test_what_changes_the_result_changes_every_key(sections):
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
def test_what_does_not_change_the_result_changes_no_key(sections):
    assert keys(make(**sections)) == keys(make())


def test_a_stage_that_takes_nothing_over_does_not_depend_on_what_was_before():
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


# Chains ------------------------------------------------------------------------------------------


def test_the_replay_demo_is_four_ratios_and_the_baseline_with_two_seeds():
    chains = chain_specs(load_config(CONFIGS / "search_replay_demo.yaml"))
    assert [chain.name for chain in chains] == [
        f"{setting},seed={seed}"
        for setting in (
            "replay_ratio=0",
            "replay_ratio=0.1",
            "replay_ratio=0.3",
            "replay_ratio=0.5",
            "level_order=mixed",
        )
        for seed in (0, 1)
    ]
    assert [chain.is_baseline for chain in chains] == [False] * 8 + [True] * 2
    assert [chain.config.seed for chain in chains] == [0, 1] * 5
    all_keys = [keys(chain.config) for chain in chains]
    assert [len(chain) for chain in all_keys] == [5] * 8 + [1] * 2
    assert len({key for chain in all_keys for key in chain}) == 36  # 2 first stages, 4 x 2 x 4 others, 2 mixed ones


def test_a_search_space_is_drawn_the_same_every_time():
    search = {
        "grid": {"curriculum": {"level_order": ["forward", ["2", "1"]]}},
        "space": {
            "sft": {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}, "per_device_train_batch_size": [4, 8]}
        },
        "num_draws": 5,
        "baselines": [],
    }
    chains = chain_specs(make(search=search))
    assert chains == chain_specs(make(search=search))
    assert len(chains) == 10
    rates = [chain.config.sft.learning_rate for chain in chains]
    assert len(set(rates)) == 5 and rates[:5] == rates[5:]  # the same draws for every combination of the grid
    assert all(1e-5 <= rate <= 1e-3 for rate in rates)
    assert {chain.config.sft.per_device_train_batch_size for chain in chains} <= {4, 8}
    assert chains[5].name.startswith("level_order=2+1,learning_rate=")


def test_what_is_drawn_twice_is_run_once():
    search = {"space": {"sft": {"per_device_train_batch_size": [4, 8]}}, "num_draws": 9, "baselines": []}
    chains = chain_specs(make(search=search, seed=3))
    assert sorted(chain.name for chain in chains) == [
        "per_device_train_batch_size=4,seed=3",
        "per_device_train_batch_size=8,seed=3",
    ]
    assert all(chain.config.search is None for chain in chains)


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"grid": {"curriculum": {"replay_ration": [0.1]}}}, r"unknown setting curriculum\.replay_ration\."),
        ({"grid": {"curriculum": {"replay_ratio": [0.1, 2.0]}}}, r"curriculum\.replay_ratio: .*less than 1"),
        ({"grid": {"curriculum": {"replay_ratio": 0.1}}}, r"search\.grid\.curriculum\.replay_ratio must be a list"),
        ({"space": {"sft": {"learning_rate": {"low": 1.0, "high": 0.5}}}}, r"search\.space\.sft.* low must"),
        ({"grid": {"seed": [1, 2]}}, r"must not have seed: set search\.seeds"),
        ({"baselines": [{"curriculum": {"level_order": "mixed"}}] * 2}, r"name every chain once"),
    ],
)  # fmt: skip
def test_a_wrong_search_is_told_before_anything_starts(search, message):
    with pytest.raises(ConfigError, match=message):
        chain_specs(make(search=search))
