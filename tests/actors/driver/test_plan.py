"""Plans of stages and searches: everything that is known before anything starts."""

import json
import os
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from actors.driver.actor_plan import check_cache, check_devices, engine_width, needed_resources, plan_actors
from actors.driver.launch import open_run, planned_stages
from actors.driver.learners import learner_environment
from actors.driver.plan import (
    RunPlan,
    check_held_out,
    decide_dtype,
    held_out_problems,
    plan_run,
    plan_search,
    plan_stages,
)
from actors.driver.search import _with_recorded_keys
from actors.driver.stage import stage_setup
from pipeline.config import Config, EvaluationConfig, LearnerConfig, load_config, validate_config, with_settings
from pipeline.config.generation import GenerationConfig
from pipeline.errors import ConfigError, DataError
from pipeline.runs.directory import RunDirectory
from pipeline.runs.inputs import Inputs
from pipeline.types import Problem
from tests.conftest import CONFIGS
from tests.support.data import write_jsonl

ANY: Any = None
"""Stands for tokens and actors, which a plan hands on."""
EACH = {"name": "level", "kind": "sft", "each_level": True}


def make(**sections: Any) -> Config:
    return validate_config({"stages": [EACH], "curriculum": {}, **sections})


def problems(*levels: str, count: int = 8) -> list[Problem]:
    return [
        Problem(f"{level}.{i}", ({"role": "user", "content": f"{level}.{i}"},), "1", "so 1", level)
        for level in levels
        for i in range(count)
    ]


@pytest.fixture
def data(tmp_path) -> dict[str, Any]:
    for split in ("train", "test"):
        rows = [{"question": f"{split} {p.id}", "answer": "so #### 1", "level": p.level} for p in problems("1", "2")]
        write_jsonl(tmp_path / f"{split}.jsonl", *rows)
    return {"name": str(tmp_path), "answer_format": "hash", "fields": {"level": "level"}}


def test_held_out_problems_that_are_trained_on_are_said_once(data, tmp_path, caplog):
    plan_run(make(data=data, stages=[EACH]), tmp_path / "cache")
    assert "held-out" not in caplog.text
    overlapping = data | {"train_split": "train[:75%]", "eval_split": "train[25%:]"}
    plan_run(make(data=overlapping, stages=[EACH]), tmp_path / "cache")
    assert caplog.text.count("8 of 12 held-out problems (train[25%:]) are also training problems (train[:75%])") == 1
    plan_run(make(data=overlapping, stages=[EACH], eval={"problems_per_level": 0}), tmp_path / "cache")
    assert caplog.text.count("held-out") == 1


def test_a_run_is_planned_with_all_its_stages_problems_and_actors(data, tmp_path):
    stages = [EACH, {"name": "rl", "kind": "grpo", "problems": {"levels": ["2"]}}]
    sft = {"per_device_train_batch_size": 4, "num_train_epochs": 3}
    plan = plan_run(make(data=data, stages=stages, sft=sft, grpo={"num_steps": 5}), tmp_path / "cache")
    (chain,) = plan.chains
    assert [(stage.spec.name, stage.num_steps, stage.levels) for stage in chain.stages] == [
        ("level_1", 6, ["1"]),  # 8 problems, 3 epochs, batches of 4
        ("level_2", 6, ["2"]),
        ("rl", 5, ["2"]),
    ]
    assert [len(stage.problems) for stage in chain.stages] == [8, 8, 8] and len(chain.problems) == 16
    assert {problem.level for problem in chain.held_out} == {"1", "2"}
    assert chain.keys == () and [actor.name for actor in plan.actors if actor.count] == [
        "learner",
        "rollout",
        "reward",
        "weight store",
    ]
    assert [stage["directory"] for stage in chain.record()["stages"]] == [".", ".", "."]
    assert plan.config.model.dtype != "auto"


def test_the_time_left_counts_evaluations_of_a_stage_but_not_those_for_promotion(data, tmp_path):
    """They have no mark in the metrics: their time is part of the steps' pace."""
    sections: dict[str, Any] = {
        "eval": {"total_eval_times": 2, "problems_per_level": 4},
        "sft": {"per_device_train_batch_size": 1},  # of a stage of one step, both would be the same
    }
    plain, promoted = (
        plan_run(make(data=data, curriculum=curriculum, **sections), tmp_path / "cache").chains[0]
        for curriculum in ({}, {"promotion": {"threshold": 0.9}})
    )
    assert planned_stages(promoted) == planned_stages(plain)
    assert [stage.num_evals for stage in planned_stages(plain)] == [3, 3]


def test_the_buffer_of_a_stage_is_what_the_stages_before_it_trained_on(data, tmp_path):
    config = make(data=data, stages=[EACH, {"name": "rl", "kind": "grpo"}], curriculum={"buffer_capacity": 5})
    (chain,) = plan_run(config, tmp_path / "cache").chains
    trained = [[p.id for p in chain.stages[0].problems[:3]], [p.id for p in chain.stages[1].problems[:2]]]
    for level, ids in enumerate(trained):
        (tmp_path / str(level)).mkdir()
        state = {"buffer": None, "trained": [[each, str(level + 1)] for each in ids]}
        (tmp_path / str(level) / "replay.json").write_text(json.dumps(state))
    ended: list[Path] = [tmp_path / "0", tmp_path / "1"]
    first, second, third = (stage_setup(chain, i, tmp_path, ANY, ended[:i], ANY).buffer for i in range(3))
    assert first is None
    names = [{item.problem_id for item in buffer.items} for buffer in (second, third) if buffer]
    assert names == [set(trained[0]), {*trained[0], *trained[1]}]


def test_a_level_that_cannot_be_evaluated_is_told_before_anything_starts():
    config = make()
    stages = plan_stages(config, problems("1", "2"))
    check_held_out(config, stages, problems("1", "2"))
    with pytest.raises(DataError, match=r"got none of \['2'\]"):
        check_held_out(config, stages, problems("1"))
    off = make(eval={"problems_per_level": 0})
    assert held_out_problems(off, problems("1")) == []
    check_held_out(off, stages, [])


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ({"name": "bandit"}, r"grpo\.sampler\.name=bandit must have problems of several levels, got \['1'\]"),
        ({"name": "uniform", "source_weights": {"web": 1}}, r"source_weights must name all sources .* got \['web'\]"),
    ],
)
def test_a_sampler_that_lacks_its_categories_is_told_before_anything_starts(sampler, message):
    config = validate_config({"stages": [{"name": "rl", "kind": "grpo"}], "grpo": {"sampler": sampler}})
    with pytest.raises(ConfigError, match=message):
        plan_stages(config, problems("1"))


def test_held_out_problems_are_of_the_levels_of_the_curriculum():
    config = make(curriculum={"levels": ["1", "2"]})
    assert {problem.level for problem in held_out_problems(config, problems("1", "2", "?"))} == {"1", "2"}


def test_graders_are_for_sampling_and_engines_for_sampling_or_evaluation():
    def counts(config: Config) -> dict[str, int]:
        return {actor.name: actor.count for actor in plan_actors(config)}

    assert counts(make()) == {"learner": 1, "rollout": 1, "frozen": 0, "reward": 0, "weight store": 1}
    assert counts(make(eval={"problems_per_level": 0}))["rollout"] == 0
    rl = make(stages=[{"name": "rl", "kind": "grpo"}], eval={"problems_per_level": 0})
    assert counts(rl) == {"learner": 1, "rollout": 1, "frozen": 0, "reward": 1, "weight store": 1}
    assert needed_resources(plan_actors(rl)) == {"CPU": 0.75 + 0.5 + 0.25, "GPU": 0, "memory": 7 * 2**30}
    again = make(stages=[{"name": "rl", "kind": "grpo"}], eval={"problems_per_level": 0}, rollout={"replay": "/a"})
    assert counts(again)["rollout"] == counts(again)["reward"] == 0


@pytest.mark.parametrize(
    "different",
    [
        {"rollout": {"temperature": [0.5]}},
        {"learner": {"num_cpus": [0.25]}},
        {"model": {"dtype": ["float32"]}},
        {"eval": {"max_completion_length": [999]}},
        {"questions": {"must_compute": [True]}},
    ],
)
def test_a_search_that_needs_other_engines_is_refused(data, different, tmp_path):
    with pytest.raises(ConfigError, match="must not change which actors there are"):
        plan_search(make(data=data, search={"grid": different}), tmp_path)


def test_a_search_over_what_learners_do_shares_the_data(data, tmp_path):
    grid = {"model": {"lora": {"r": [4, 8]}}, "curriculum": {"replay_ratio": [0.0, 0.5]}}
    config = make(data=data, search={"grid": grid, "baselines": []}, model={"lora": {"r": 2}})
    chains = plan_search(config, tmp_path / "cache").chains
    assert len(chains) == 4 and len({key for chain in chains for key in chain.keys}) == 2 + 4
    assert all(chain.problems is chains[0].problems for chain in chains)


def old_search(data: dict[str, Any], root: Path) -> tuple[RunPlan, RunDirectory]:
    """The plan of a search, and its directory as an earlier version left it: with keys in a format of its own."""
    search = {"grid": {"curriculum": {"replay_ratio": [0.0, 0.5]}}, "baselines": []}
    plan = plan_search(make(data=data, search=search, output={"root": str(root)}), root / "cache")
    run = RunDirectory.create(plan.config)
    records = [chain.record() for chain in plan.chains]
    for record in records:
        for stage in record["stages"]:
            stage["key"] = f"old_{stage['key']}"
    (run.path / "chains.json").write_text(json.dumps({"kind": "search", "chains": records}))
    return plan, run


def resume(plan: RunPlan, run: RunDirectory) -> RunPlan:
    """The plan as it is carried out, and written into the directory."""
    plan = _with_recorded_keys(plan, run)
    write_into(plan, run)
    return plan


def write_into(plan: RunPlan, run: RunDirectory) -> None:
    with open_run(plan, "search", Inputs({}, {}), run):
        pass


def keys(plan: RunPlan) -> list[tuple[str, ...]]:
    return [chain.keys for chain in plan.chains]


def with_old_keys(plan: RunPlan) -> list[tuple[str, ...]]:
    return [tuple(f"old_{key}" for key in chain.keys) for chain in plan.chains]


def test_a_search_of_an_earlier_version_keeps_its_keys_however_often_it_is_resumed(data, tmp_path):
    plan, run = old_search(data, tmp_path)
    for _ in range(2):
        assert keys(resume(plan, run)) == with_old_keys(plan)


def test_a_setting_that_no_result_depends_on_leaves_the_keys_as_they_are(data, tmp_path):
    plan, run = old_search(data, tmp_path)
    overridden = with_settings(plan.config, {"search.max_concurrent_stages": 1, "learner.num_threads": 1})
    assert keys(resume(plan_search(overridden), run)) == with_old_keys(plan)


def test_an_overridden_setting_gives_new_keys_to_the_stages_that_depend_on_it(data, tmp_path):
    plan, run = old_search(data, tmp_path)
    changed = plan_search(with_settings(plan.config, {"curriculum.buffer_capacity": 7}))
    resumed = resume(changed, run)
    (no_replay, replaying), (old_no_replay, old_replaying) = keys(resumed), with_old_keys(plan)
    assert no_replay == old_no_replay
    assert replaying == (old_replaying[0], changed.chains[1].keys[1])
    assert keys(resume(changed, run)) == keys(resumed)


def test_a_search_of_this_version_computes_its_keys(data, tmp_path):
    plan, run = old_search(data, tmp_path)
    write_into(plan, run)
    assert _with_recorded_keys(plan, run) is plan


def test_the_devices_of_all_recipes_fit_together():
    check_cache(load_config(CONFIGS / "evaluate.yaml", [], EvaluationConfig).rollout)
    check_cache(load_config(CONFIGS / "generate_problems.yaml", [], GenerationConfig).rollout)
    paths = [path for path in CONFIGS.glob("*.yaml") if path.name not in ("evaluate.yaml", "generate_problems.yaml")]
    assert paths
    for path in paths:
        names = yaml.safe_load(path.read_text()).get("presets", {})
        for overrides in ([], *([f"preset={name}"] for name in names)):
            check_devices(load_config(path, overrides))


WIDTHS = {
    "a batch": ({}, 4 * 8),
    "batches ahead": ({"rollout": {"max_staleness": 2}}, 3 * 4 * 8),
    "limited": ({"rollout": {"max_num_seqs": 16}}, 16),
    "evaluations": ({"eval": {"problems_per_level": 1}}, 128),
    "the solver": ({"questions": {"solver": {}}}, 128),
}


@pytest.mark.parametrize(("sections", "width"), WIDTHS.values(), ids=WIDTHS)
def test_an_engine_has_room_for_what_it_is_asked_at_once(sections, width):
    step = {"grpo": {"batch_size": 4, "num_generations": 8}, "eval": {"problems_per_level": 0}}
    assert engine_width(validate_config({"stages": [{"name": "a", "kind": "grpo"}], **step, **sections})) == width


def test_a_run_whose_checks_fail_leaves_nothing(tmp_path):
    config = validate_config({"stages": [{"name": "a", "kind": "grpo"}], "output": {"root": str(tmp_path / "runs")}})
    checked: Future[None] = Future()
    checked.set_exception(DataError("no data"))
    with pytest.raises(DataError), open_run(RunPlan(config, ()), "chain", Inputs({}, {}), None, checked) as run:
        assert run.path.exists()
        checked.result()
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.parametrize(
    ("kind", "curriculum", "is_recorded"), [("search", None, True), ("chain", {}, True), ("chain", None, False)]
)
def test_the_chains_of_searches_and_curricula_are_recorded_for_the_report(tmp_path, kind, curriculum, is_recorded):
    config = validate_config({"stages": [{"name": "a", "kind": "sft"}], "curriculum": curriculum})
    run = RunDirectory.create_at(tmp_path, config)
    with open_run(RunPlan(config, ()), kind, Inputs({}, {}), run):
        assert (run.path / "chains.json").exists() == is_recorded


OLD_CPU, NEW_CPU, ARM = {"avx512_f": True, "avx512_bf16": False}, {"avx512_bf16": True}, {"bf16": True}


@pytest.mark.parametrize(
    ("cpu", "sections", "expected"),
    [
        (OLD_CPU, {}, "float32"),
        (NEW_CPU, {}, "bfloat16"),
        (ARM, {}, "bfloat16"),
        (OLD_CPU, {"learner": {"num_gpus": 1.0}}, "bfloat16"),
        (OLD_CPU, {"rollout": {"num_gpus": 1.0}}, "float32"),
        (OLD_CPU, {"model": {"device": "cuda"}}, "bfloat16"),
        (NEW_CPU, {"model": {"dtype": "float32"}}, "float32"),
        (OLD_CPU, {"model": {"dtype": "bfloat16"}}, "bfloat16"),
    ],
)
def test_a_cpu_without_native_bfloat16_matmul_trains_in_float32_unless_told_otherwise(
    monkeypatch, caplog, cpu, sections, expected
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu)
    decided = decide_dtype(make(**sections))
    assert decided.model.dtype == decide_dtype(decided).model.dtype == expected
    assert ("very slow here" in caplog.text) is (sections == {"model": {"dtype": "bfloat16"}})


# A learner's process -----------------------------------------------------------------------------

FAULTS_OF_TEN_STEPS = """
import resource
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
b"x" * (64 << 20)
before = faults()
for _ in range(10):
    b"x" * (64 << 20)
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Ray comes with jemalloc on Linux")
def test_a_learner_on_a_cpu_keeps_what_a_step_frees(monkeypatch):
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    monkeypatch.delenv("MALLOC_CONF", raising=False)

    def faults(settings: dict[str, str]) -> int:
        command = [sys.executable, "-c", FAULTS_OF_TEN_STEPS]
        return int(subprocess.run(command, env=os.environ | settings, check=True, capture_output=True).stdout)

    assert faults(learner_environment(LearnerConfig())) < 1_000 < 10_000 < faults({})  # 64 MiB are 16,384 pages


def test_an_allocator_of_the_user_s_own_stands_and_a_gpu_learner_has_none_of_ours(monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "libtcmalloc.so")
    assert learner_environment(LearnerConfig()).get("LD_PRELOAD", "libtcmalloc.so") == "libtcmalloc.so"
    assert learner_environment(LearnerConfig(num_gpus=1, num_threads=3)) == {"OMP_NUM_THREADS": "3"}
