"""The estimate of a learner's memory. tests/gpu/test_memory.py compares it with what is allocated."""

import json

import pytest

from pipeline.config import LoraConfig, ModelConfig
from pipeline.config.loading import load_config
from pipeline.errors import ModelError
from pipeline.models.memory_estimate import ModelShape, learner_memory, model_shape, plan_memory
from tests.benchmarks.gpu import MODELS
from tests.conftest import CONFIGS

SHAPE = ModelShape(hidden=4, intermediate=6, num_layers=3, queries=8, keys=2, vocab=10, is_tied=True)
LINEAR = 3 * (4 * 8 + 2 * 4 * 2 + 8 * 4 + 3 * 4 * 6) + 10 * 4
"""q, k and v, o, the MLP's three; the output embedding."""


@pytest.mark.parametrize(
    ("name", "num_weights"),
    [
        ("SmolLM2-135M", 134_515_008),
        ("Qwen2.5-1.5B", 1_543_714_304 - 28 * (1536 + 2 * 256)),
    ],  # without 28 layers' biases
)
def test_weights_of_known_models_are_counted(name, num_weights):
    shape = model_shape(MODELS[name])
    assert shape is not None and shape.num_weights == num_weights


def test_weights_gradients_and_moments_by_hand():
    plan = learner_memory(SHAPE, ModelConfig(dtype="bfloat16"), 5)
    num_weights = LINEAR + 7 * 4  # seven norms
    assert SHAPE.num_weights == num_weights
    assert (plan.weights, plan.gradients) == (6 * num_weights, 4 * num_weights)
    assert (plan.optimizer, plan.reference) == (8 * num_weights, 0)
    assert learner_memory(SHAPE, ModelConfig(dtype="bfloat16"), 5, num_shards=4).optimizer == 2 * num_weights
    # 5 x 10 logits: in bfloat16, and twice in float32 while they are normalized
    assert plan.logits == 50 * 2 + 2 * 50 * 4
    assert plan.total == sum((plan.weights, plan.gradients, plan.optimizer, plan.activations, plan.logits))


def test_activations_by_hand():
    # float32: two norms of two tensors, two inputs that q, k, v and gate, up share; q, output and input of o; k, v; MLP
    layer = 4 * (2 * 2 * 4 + 2 * 4 + 3 * 8 + 2 * 2 + 4 * 6)
    assert learner_memory(SHAPE, ModelConfig(dtype="float32"), 5).activations == 5 * 3 * layer
    recomputed = ModelConfig(dtype="float32", gradient_checkpointing=True)
    assert learner_memory(SHAPE, recomputed, 5).activations == 5 * (
        layer + 3 * 4 * 4
    )  # each layer's input, and one layer


def test_adapters_alone_have_gradients_and_moments():
    lora = LoraConfig(r=2, target_modules=["q_proj", "down_proj", "qkv_proj"])
    plan = learner_memory(SHAPE, ModelConfig(dtype="bfloat16", lora=lora), 5, with_reference=True)
    adapters = 3 * 2 * ((4 + 8) + (6 + 4))
    assert plan.weights == 2 * SHAPE.num_weights + 6 * adapters
    assert (plan.gradients, plan.optimizer, plan.reference) == (4 * adapters, 8 * adapters, 4 * adapters)


@pytest.mark.parametrize(
    "change", [{"num_local_experts": 8}, {"hidden_size": None}, {"text_config": {}, "vocab_size": None}]
)
def test_other_architectures_are_not_guessed(change):
    assert model_shape(MODELS["SmolLM2-135M"] | change) is None


def test_a_job_plans_for_its_longest_sequence_and_its_reference_policy(tmp_path, monkeypatch):
    def plan(*changes: str):
        settings = ["model.dtype=float32", "learner.tokens_per_micro_batch=1024", "rollout.max_prompt_length=100"]
        return plan_memory(load_config(str(CONFIGS / "demo.yaml"), [*settings, *changes]))

    monkeypatch.setenv("GRADUS_CACHE", str(tmp_path))
    assert plan() is None  # the model is not here yet
    (tmp_path / "smollm2-135m-instruct").mkdir()
    (tmp_path / "smollm2-135m-instruct/config.json").write_text(json.dumps(MODELS["SmolLM2-135M"]))
    usual, longer = plan(), plan("rollout.max_completion_length=1948", "grpo.beta=0.1")
    assert usual is not None and longer is not None
    assert longer.activations == 2 * usual.activations  # a row of 2048 tokens instead of 1024
    assert (usual.reference, longer.reference) == (0, usual.gradients)
    assert f"{usual.total / 2**30:.2f} GiB (weights " in usual.describe() and "reference" not in usual.describe()


def test_a_config_json_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"must have a readable config\.json: Expecting"):
        plan_memory(load_config(str(CONFIGS / "demo.yaml"), [f"model.name={tmp_path}"]))
