from typing import Any

import pytest

from pipeline.config import Config, load_config, validate_config
from pipeline.curriculum.stages import StageSpec, stage_specs, total_steps
from pipeline.data.selection import choose_problems
from pipeline.errors import ConfigError
from pipeline.types import Problem
from tests.conftest import CONFIGS

EACH = {"name": "level", "kind": "sft", "each_level": True}


def make(curriculum: dict[str, Any] | None = None, stages: list | None = None, **sections: Any) -> Config:
    return validate_config({"stages": stages or [EACH], "curriculum": curriculum or {}, **sections})


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


def test_levels_keep_their_letters_in_every_script():
    order = ["基础", "进阶", "困难", "基础"]
    names = [spec.name for spec in stage_specs(make({"level_order": order}), ["困难", "基础", "进阶"])]
    assert names == ["level_基础", "level_进阶", "level_困难", "level_基础-again2"]
    [spec] = stage_specs(validate_config({"stages": [{"name": "热身", "kind": "sft"}]}), [])
    assert spec.name == "热身"


def test_each_level_expands_in_place_between_other_stages():
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


def test_the_mixed_baseline_takes_as_many_steps_as_the_levels_together():
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


def test_a_stage_takes_a_random_subset_of_each_level():
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
def test_an_invalid_curriculum_is_rejected_when_the_file_is_read(curriculum, stages, message):
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
def test_a_stage_is_not_named_like_a_checkpoint_or_an_evaluation(name):
    stage = {"name": name, "kind": "sft", "each_level": name == "step"}
    with pytest.raises(ConfigError, match="must not be named like a checkpoint or an evaluation"):
        stage_specs(make({}, [stage]), ["1"])
