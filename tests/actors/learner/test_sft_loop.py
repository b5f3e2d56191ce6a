"""Fine-tuning with a real vLLM engine, in this process: see tests/support/loops.py."""

import json
from pathlib import Path

import pytest
import torch

from pipeline.config import Config, validate_config
from pipeline.runs.checkpoints import read_progress
from pipeline.runs.directory import RunDirectory
from pipeline.runs.metrics_log import read_metrics
from tests.support.loops import run_loops, run_loops_crashing_after, write_splits

pytestmark = pytest.mark.slow

STEPS = 8
EVALUATED = [3, 6, 8]
REFACTORED = [4, 6]
SAME = (
    "loss",
    "token_accuracy",
    "grad_norm",
    "learning_rate",
    "eval_loss",
    "eval_answer_accuracy",
    "spectral_max_after",
)


@pytest.fixture(scope="module")
def recipe(tiny_model, tmp_path_factory) -> dict:
    """LoRA from PiSSA with spectral refactoring, evaluated three times, the best weights loaded at the end."""
    directory = tmp_path_factory.mktemp("data")
    write_splits(
        directory, [{"question": f"{a} + {a}?", "answer": f"{'so ' * (a % 7)}\n#### {2 * a}"} for a in range(16)]
    )
    return {
        "model": {"name": str(tiny_model), "dtype": "float32", "device": "cpu"}
        | {"lora": {"r": 4, "alpha": 8, "init": "pissa", "use_rslora": True}},
        "data": {"name": str(directory), "task_name": "gsm8k", "prompt_template": "{question} {answer}"},
        "stages": [{"name": "sft", "kind": "sft"}],
        "sft": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "num_train_epochs": 2}
        | {"learning_rate": 1e-2, "lr_schedule": "cosine", "warmup_ratio": 0.2},
        "trainer": {"name": "SpectralRefactor", "refactor_every": 2, "warmup_steps": 3, "cooldown_steps": 2},
        "rollout": {"max_prompt_length": 64},
        "learner": {"tokens_per_micro_batch": 128, "num_threads": 1},
        "eval": {"problems_per_level": 4, "problems_per_level_at_end": "all", "max_completion_length": 8}
        | {"total_eval_times": 3, "metric_for_best_model": "loss", "load_best_model_at_end": True}
        | {"greater_is_better": True},  # so that the best is not the last
        "checkpoint": {"every_steps": 100},
        "tracking": {"backends": []},
    }


def configure(recipe: dict, root: Path, **sections: dict) -> Config:
    merged = {name: recipe.get(name, {}) | settings for name, settings in sections.items()}
    return validate_config({**recipe, **merged, "output": {"root": str(root)}})


@pytest.fixture(scope="module")
def reference_run(recipe, local_actors, tmp_path_factory) -> Path:
    """An uninterrupted run."""
    return run_loops(configure(recipe, tmp_path_factory.mktemp("reference")), local_actors).path


def curves(run: Path) -> dict[str, dict[int, float]]:
    """Key -> values by step, where there are any."""
    return {key: {row["step"]: row[key] for row in read_metrics(run) if key in row} for key in SAME}


def test_evaluations_are_spread_and_the_last_one_is_on_all_problems(reference_run):
    rows = read_metrics(reference_run)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert [row["step"] for row in rows if "eval_loss" in row] == EVALUATED
    for row in rows:
        assert row["perplexity"] == pytest.approx(torch.tensor(row["loss"]).exp().item(), rel=1e-5)
        assert 0 <= row["padding_frac"] < 0.2
        assert 0.1 < row["memory/rss_gib"] <= row["memory/peak_gib"] <= row["learner_memory_gib"] < 64
    sizes = {name: json.loads((reference_run / f"eval/{name}.json").read_text()) for name in ("before", "sft")}
    assert [sizes[name]["overall"]["num_problems"] for name in ("before", "sft")] == [4, 16]


def test_every_point_of_the_stage_has_its_memory(reference_run):
    points = json.loads((reference_run / "memory.json").read_text())["sft"]
    assert set(points) == {"model_loaded", "evaluation", "backward", "learner", "checkpoint"}
    assert set(points["backward"]) >= {"allocated_gib", "reserved_gib", "peak_gib", "used_frac", "rss_gib"}
    highest = max(row["memory/allocated_gib"] for row in read_metrics(reference_run))
    assert 0.1 < points["backward"]["allocated_gib"] <= highest


def test_the_best_checkpoint_is_kept_and_loaded(reference_run):
    losses = curves(reference_run)["eval_loss"]
    best = reference_run / "checkpoints" / "checkpoint_best"
    assert read_progress(best).step == max(losses, key=lambda step: (losses[step], step)) < STEPS
    assert (best / "policy.safetensors").read_bytes() == (
        reference_run / "checkpoints" / "sft" / "policy.safetensors"
    ).read_bytes()


def test_the_last_evaluation_is_of_the_best_weights(reference_run):
    def completions(name: str) -> list[str]:
        lines = (reference_run / "samples" / f"{name}.jsonl").read_text().splitlines()
        return [json.loads(line)["completion"] for line in lines[:4]]

    best = read_progress(reference_run / "checkpoints" / "checkpoint_best").step
    assert completions("eval_sft") == completions(f"eval_sft_step_{best:06d}")
    assert completions("eval_sft") != completions(f"eval_sft_step_{STEPS:06d}")


def test_adapters_are_refactored_when_due(reference_run):
    rows = read_metrics(reference_run)
    assert [row["step"] for row in rows if "spectral_num_pairs" in row] == REFACTORED
    assert all(row["spectral_num_pairs"] == 14 for row in rows if row["step"] in REFACTORED)  # 7 in each of 2 layers
    spectra = json.loads((reference_run / "spectral" / "step_000004.json").read_text())["pairs"]
    assert len(spectra) == 14
    assert all(pair["spectrum_after"] == pytest.approx(pair["spectrum_before"], rel=1e-4) for pair in spectra)


def test_the_adapter_on_the_unchanged_base_is_the_merged_model(reference_run):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = json.loads((reference_run / "experiment_config.json").read_text())["model"]["name"]
    merged = AutoModelForCausalLM.from_pretrained(reference_run / "final_model")
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        before = plain(tokens).logits
        adapted = PeftModel.from_pretrained(plain, reference_run / "final_adapter")(tokens).logits
        torch.testing.assert_close(adapted, merged(tokens).logits, rtol=1e-4, atol=1e-4)
    assert (adapted - before).abs().max() > 0.01


def test_a_run_resumed_after_a_crash_ends_bit_identical(recipe, reference_run, local_actors, tmp_path):
    config = configure(recipe, tmp_path)
    crashed = run_loops_crashing_after(EVALUATED[1] + 1, config, local_actors)
    resumed = run_loops(config, local_actors, RunDirectory(crashed.path)).path
    assert curves(resumed) == curves(reference_run)
    for name in ("final_model/model.safetensors", "final_adapter/adapter_model.safetensors", "samples/eval_sft.jsonl"):
        assert (resumed / name).read_bytes() == (reference_run / name).read_bytes(), name


def test_padded_rows_give_the_curve_of_packed_ones(recipe, reference_run, local_actors, tmp_path):
    padded = run_loops(configure(recipe, tmp_path, sft={"packing": False}), local_actors).path
    assert_close(curves(padded), curves(reference_run))


def test_only_the_product_of_batch_size_and_accumulation_counts(recipe, reference_run, local_actors, tmp_path):
    split = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    assert curves(run_loops(configure(recipe, tmp_path, sft=split), local_actors).path) == curves(reference_run)


def assert_close(actual: dict[str, dict[int, float]], expected: dict[str, dict[int, float]]) -> None:
    for key, values in actual.items():
        assert values == pytest.approx(expected[key], rel=1e-3, abs=1e-5), key
