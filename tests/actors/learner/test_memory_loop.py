"""The stages of an explicit memory in this process: see tests/support/loops.py."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from actors.driver.encode import make_tokens
from actors.driver.plan import plan_run
from actors.driver.stage import stage_setup
from actors.handles import ActorHandles
from actors.learner.ranks import Ranks
from actors.learner.stages import train_stage
from pipeline.config import Config, validate_config
from pipeline.models.hub import model_files, resolve_model
from pipeline.models.memory.files import backbone_digest, read_memory
from pipeline.runs.directory import RunDirectory
from pipeline.runs.metrics_log import read_metrics
from tests.support.loops import LocalHandle, LocalStore, run_loops, run_loops_crashing_after, without_ray
from tests.support.memories import PRESETS, memory_settings
from tests.support.ranks import on_two_ranks

PARTS = {
    "explicitlm": {"router": {"memory_norm", "memory_gate"}, "fusion": {"memory_norm", "gated_memory_fusion"}},
    "routed": {
        "router": {"router"},
        "fusion": {"memory_norm", "memory_attention", "gated_memory_fusion"},
    },
}


def no_actors() -> ActorHandles:
    return ActorHandles((), (), LocalHandle(LocalStore()))


def configure(settings: dict[str, Any], root: Path, **sections: Any) -> Config:
    return validate_config({**settings, **sections, "output": {"root": str(root)}})


@pytest.fixture(scope="module", params=PRESETS)
def preset(request) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def settings(preset, tiny_model, tmp_path_factory) -> dict[str, Any]:
    return memory_settings(tiny_model, tmp_path_factory.mktemp("data"), preset)


@pytest.fixture(scope="module")
def reference(settings, tmp_path_factory) -> Path:
    """A run that nothing disturbs."""
    return run_loops(configure(settings, tmp_path_factory.mktemp("runs")), no_actors()).path


def curves(run: Path) -> list[dict[str, Any]]:
    """Metrics that do not depend on time and memory."""
    timed = {"time", "start_s", "checkpoint_s", "step_s", "other_s", "learner_s"}
    timed |= {"learner_memory_gib", "learner_tokens_per_s"}
    return [
        {key: value for key, value in row.items() if key not in timed and not key.startswith("memory/")}
        for row in read_metrics(run)
    ]


def test_a_router_and_then_a_fusion_are_trained(reference, preset):
    rows = read_metrics(reference)
    assert [row["stage"] for row in rows] == ["router"] * 4 + ["fusion"] * 4
    for stage, gate in (("router", True), ("fusion", False)):
        of_stage = [row for row in rows if row["stage"] == stage]
        assert all(row["grad_norm"] > 0 and row["num_examples"] == 4 for row in of_stage)
        assert all(("recall_at_8" in row) == gate for row in of_stage)
        assert all(("memory_similarity" in row) == (not gate and preset == "explicitlm") for row in of_stage)


def test_each_stage_trains_its_parts_alone(reference, preset):
    checkpoints = [reference / "checkpoints" / f"step_{name}" for name in ("000001", "000004_done", "000008_done")]
    tensors = [load_file(next(path.glob("memory_step_*.safetensors"))) for path in checkpoints]
    for before, after, stage in zip(tensors, tensors[1:], ("router", "fusion"), strict=False):
        assert before.keys() == after.keys()
        names = [name.split(".") for name in before if not torch.equal(before[name], after[name])]
        parts = {name[1] if name[1] == "router" else name[3] for name in names}
        assert parts == PARTS[preset][stage]
        assert not [name for name in names if "product_keys" in name or "bank" in name]


def test_checkpoints_hold_the_memory_alone_and_name_its_backbone(reference, tiny_model):
    for path in (reference / "checkpoints").glob("step_*"):
        assert not (path / "policy.safetensors").exists()
        (file,) = path.glob("memory_step_*.safetensors")
        assert all(name.startswith("explicit_memory.") for name in load_file(file))
    final = read_memory(reference / "final_memory" / "memory_step_8.safetensors")
    assert final.backbone == backbone_digest(model_files(resolve_model(model(tiny_model)), with_code=False))
    last = load_file(reference / "checkpoints" / "fusion" / "memory_step_8.safetensors")
    assert final.tensors.keys() == last.keys()
    assert all(torch.equal(final.tensors[name], last[name]) for name in last)
    assert not (reference / "final_model").exists()


def model(path: Path) -> Any:
    from pipeline.config import ModelConfig

    return ModelConfig(name=str(path))


@pytest.mark.parametrize("step", [2, 6])
def test_a_run_resumed_after_a_crash_ends_bit_identical(settings, reference, tmp_path, step):
    config = configure(settings, tmp_path)
    crashed = run_loops_crashing_after(step, config, no_actors())
    resumed = run_loops(config, no_actors(), RunDirectory(crashed.path)).path
    assert curves(resumed) == curves(reference)
    name = "final_memory/memory_step_8.safetensors"
    assert (resumed / name).read_bytes() == (reference / name).read_bytes()


@pytest.mark.parametrize("max_tokens", [16, 1024])
def test_the_split_into_micro_batches_changes_nothing(settings, reference, tmp_path, max_tokens):
    learner = settings["learner"] | {"tokens_per_micro_batch": max_tokens}
    assert_close(run_loops(configure(settings, tmp_path, learner=learner), no_actors()).path, reference)


def test_a_part_that_was_trained_elsewhere_is_taken_by_its_path(settings, reference, preset, tmp_path):
    """The fusion alone, with the router of the other run: it starts from the same weights as that run's fusion."""
    path = str(next((reference / "checkpoints" / "router").glob("*.safetensors")))
    memory = settings["memory"] | {"router_path": path}
    run = run_loops(configure(settings, tmp_path, memory=memory, stages=settings["stages"][1:]), no_actors()).path
    found = load_file(run / "checkpoints" / "step_000001" / "memory_step_1.safetensors")
    expected = load_file(Path(path))
    for name in expected:
        if PARTS[preset]["router"] & set(name.split(".")) - {"memory_norm"}:
            assert torch.equal(found[name], expected[name]), name


def train_on_this_rank(runs: list[tuple[Config, Path]]) -> None:
    """All stages of all runs."""
    ranks = Ranks()
    for config, path in runs:
        run = RunDirectory(path)
        (chain,) = plan_run(config).chains
        tokens = make_tokens(chain.problems, config.model, chat=config.data.uses_chat_template)
        with without_ray():
            for index in range(len(chain.stages)):
                earlier = list(run.checkpoints.stage_results().values())
                train_stage(stage_setup(chain, index, path, tokens, earlier, no_actors(), is_last=index == 1))
                ranks.barrier()


@pytest.mark.slow
def test_two_workers_have_the_curve_of_one(tiny_model, tmp_path):
    """With and without sharing the optimizer's moments."""
    references, runs = [], []
    for preset in PRESETS:
        settings = memory_settings(tiny_model, tmp_path / f"data_{preset}", preset)
        references.append(run_loops(configure(settings, tmp_path / preset), no_actors()).path)
        halves = {name: settings[name] | {"per_device_train_batch_size": 2} for name in ("router", "memory_sft")}
        for sharded in (False, True):
            learner = settings["learner"] | {"num_workers": 2, "shard_optimizer": sharded}
            config = configure(settings, tmp_path / f"{preset}_{sharded}", learner=learner, **halves)
            runs.append((config, RunDirectory.create(config).path))
    on_two_ranks(train_on_this_rank, tmp_path / "store", runs)
    for index, reference in enumerate(references):
        whole, parts = (path for _, path in runs[2 * index : 2 * index + 2])
        assert_close(whole, reference)
        assert curves(parts) == curves(whole)
        name = "final_memory/memory_step_8.safetensors"
        assert (parts / name).read_bytes() == (whole / name).read_bytes()


def assert_close(run: Path, reference: Path) -> None:
    for actual, expected in zip(curves(run), curves(reference), strict=True):
        assert actual.keys() == expected.keys()
        for key, value in expected.items():
            assert actual[key] == (value if isinstance(value, str) else pytest.approx(value, rel=2e-3, abs=1e-4)), key


def test_a_resumed_run_does_not_read_what_it_began_with(settings, reference, tmp_path):
    path = tmp_path / "router.safetensors"
    path.write_bytes(next((reference / "checkpoints" / "router").glob("*.safetensors")).read_bytes())
    memory = settings["memory"] | {"router_path": str(path)}
    config = configure(settings, tmp_path, memory=memory, stages=settings["stages"][1:])
    crashed = run_loops_crashing_after(2, config, no_actors())
    path.unlink()
    resumed = run_loops(config, no_actors(), RunDirectory(crashed.path)).path
    assert (resumed / "final_memory" / "memory_step_4.safetensors").is_file()
