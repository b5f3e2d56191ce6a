import re
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.errors import ConfigError, ModelError
from pipeline.models.memory.attach import _reads_after, attach_memory, count_parameters, memory_of, set_trainable
from pipeline.models.memory.memory import ExplicitMemory, Reading
from pipeline.models.policy import trainable_tensors
from pipeline.training.batching import TokenSequence, micro_batches
from pipeline.training.memory.fusion import token_form_losses
from tests.support.memories import (
    BACKBONES,
    PRESETS,
    layer_of,
    memory_config,
    random_entries,
    reading_for,
    set_random_weights,
    with_memory,
)
from tests.support.models import tiny_llama

CPU = torch.device("cpu")
PARTS = ["memory_gate", "gated_memory_fusion", "memory_norm"]
TOKENS = torch.tensor([[5, 17, 200, 31, 8, 90], [3, 9, 9, 54, 7, 1]])


# Numbers of parameters ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def qwen3_4b() -> Any:
    """On the meta device, with the memory of configs/memory_qwen3_4b.yaml."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    heads = {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
    sizes = {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "vocab_size": 151936}
    config = memory_config(
        knowledge_num=1_048_576, knowledge_length=16, knowledge_dim=1536, gate_rank=128, fusion_rank=128
    )
    with torch.device("meta"):
        model = Qwen3ForCausalLM(Qwen3Config(**sizes, **heads, tie_word_embeddings=True))
        attach_memory(model, config, seed=0)
    return model


@pytest.fixture
def memory_4b(qwen3_4b) -> ExplicitMemory:
    memory = memory_of(qwen3_4b)
    assert memory is not None
    return memory


def test_qwen3_4b_trains_208_million_parameters(qwen3_4b, memory_4b):
    set_trainable(memory_4b, PARTS, router=False)
    counts = count_parameters(qwen3_4b)
    assert (counts.trainable, counts.frozen, counts.keys) == (208_355_364, 0, 36 * 2 * 1024 * 768)
    assert counts.backbone == 4_022_468_096
    assert str(counts) == (
        "backbone 4022.468 M (frozen), memory 208.355 M (trainable) and 0.000 M (frozen), "
        "product keys 56.623 M: 4.86% train"
    )


def test_with_trained_keys_they_would_be_265_million(qwen3_4b, memory_4b):
    set_trainable(memory_4b, [*PARTS, "product_keys"], router=False)
    assert count_parameters(qwen3_4b).trainable == 264_978_468


def test_the_parameters_of_each_part(memory_4b):
    d, k, rank = 2560, 1536, 128
    layer: Any = memory_4b.layers["35"]
    first, block, norm, last = layer.memory_gate.query
    fusion = layer.gated_memory_fusion
    expected = {
        layer.memory_norm: 2_560,
        first: d * rank + rank * d,
        block.norm: 2 * d,
        norm: 2 * d,
        block.up: d * rank + rank * 2 * d + 2 * d,
        block.down: 2 * d * rank + rank * d + d,
        last: d * rank + rank * k,
        fusion.gate: 2 * d * rank + rank * d,
        fusion.up: 2 * d * rank + rank * d,
        fusion.down: d * rank + rank * d,
        layer.product_keys: 2 * 1024 * 768,
    }
    assert {part: sum(p.numel() for p in part.parameters()) for part in expected} == expected
    assert sum(expected.values()) - expected[layer.product_keys] + 1 == 5_787_649  # and the temperature
    assert (expected[first], expected[block.up], expected[block.down]) == (655_360, 988_160, 985_600)
    assert (expected[last], expected[fusion.gate], expected[fusion.down]) == (524_288, 983_040, 655_360)


def test_a_backbone_that_would_train_is_refused():
    model = tiny_llama()
    attach_memory(model, memory_config(), seed=0)
    count_parameters(model)
    model.model.layers[1].mlp.up_proj.weight.requires_grad_(True)
    name = "model.layers.1.mlp.up_proj.weight"
    with pytest.raises(ModelError, match=rf"must be frozen, got 1 of its parameters .* such as {re.escape(name)}"):
        count_parameters(model)


# Parts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "parts", "router", "expected"),
    [
        ("explicitlm", ["memory_norm"], False, {"memory_norm"}),
        ("explicitlm", ["memory_gate"], False, {"memory_gate"}),
        ("explicitlm", PARTS, False, {*PARTS}),
        ("explicitlm", [*PARTS, "product_keys"], False, {*PARTS, "product_keys"}),
        ("routed", PARTS, False, {"gated_memory_fusion", "memory_norm", "memory_attention"}),
        ("routed", ["memory_norm"], False, {"memory_norm"}),
        ("routed", ["memory_gate", "memory_norm"], True, {"memory_gate", "memory_norm", "pooling", "log_temperature"}),
        ("routed", ["product_keys"], True, {"product_keys"}),
    ],
)
def test_only_the_chosen_parts_train(preset, parts, router, expected):
    model = tiny_llama()
    set_trainable(attach_memory(model, memory_config(preset), seed=0), parts, router=router)
    names = trainable_tensors(model)
    places = {name.split(".")[1] for name in names}
    assert places == ({"router"} if router else {"layers"})
    assert {name.split(".")[2 if router else 3] for name in names} == expected


def test_only_the_chosen_layers_read_the_memory():
    memory = attach_memory(tiny_llama(), memory_config(layers=[1, 1]), seed=0)
    assert list(memory.layers) == ["1"]
    assert list(attach_memory(tiny_llama(), memory_config(), seed=0).layers) == ["0", "1"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": [0, 2]}, r"memory.layers must be layers of the backbone, 0 to 1, got \[2\]"),
        ({"preset": "routed", "query_layer": 3}, "memory.query_layer must be at most 2 here, got 3"),
        ({"knowledge_dim": 66}, "memory.knowledge_dim must be at most the hidden size 64, got 66"),
    ],
)
def test_what_the_backbone_lacks_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        attach_memory(tiny_llama(), memory_config(**settings), seed=0)


def test_the_same_seed_gives_the_same_memory_and_leaves_the_global_one_alone():
    state = torch.get_rng_state()
    first, same, other = (attach_memory(tiny_llama(), memory_config(), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    gates = [layer_of(own, 1).memory_gate.query[0].up.weight for own in (first, same, other)]
    assert torch.equal(gates[0], gates[1]) and not torch.equal(gates[0], gates[2])


# Output ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_untrained_memory_leaves_the_output_as_it_is_bit_for_bit(preset, backbone, dtype, checkpointing):
    model = BACKBONES[backbone]().to(dtype)
    with torch.no_grad():
        before = model(input_ids=TOKENS).logits
    if checkpointing:
        checkpoint_gradients(model)
    memory = with_memory(model, memory_config(preset))
    for reading in (Reading() if preset == "explicitlm" else None, reading_for(memory.config, 2), None):
        with memory.reading(reading):
            after = model(input_ids=TOKENS, use_cache=False).logits
        assert torch.equal(after, before)
        assert after.dtype == dtype
    set_random_weights(memory.layers)
    with memory.reading(reading_for(memory.config, 2)):
        assert not torch.equal(model(input_ids=TOKENS, use_cache=False).logits, before)


def checkpoint_gradients(model: Any) -> None:
    """As ``load_policy`` does."""
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()
    model.train()


def test_layers_of_older_versions_return_tuples():
    memory, hidden = with_memory(tiny_llama(), memory_config()), torch.randn(1, 2, 64)
    set_random_weights(memory.layers)
    with memory.reading(Reading()):
        expected = memory.after_layer(1, hidden)
        first, rest = _reads_after(memory, 1)(None, (), (hidden, "rest"))
    assert torch.equal(first, expected) and rest == "rest"


# Training ----------------------------------------------------------------------------------------


def gradients(*, checkpointing: bool) -> dict[str, Tensor]:
    model = tiny_llama()
    if checkpointing:
        checkpoint_gradients(model)
    memory = with_memory(model, memory_config())
    set_random_weights(memory.layers)
    set_trainable(memory, PARTS, router=False)
    (batch,) = micro_batches([TokenSequence((1, 2, 3), (4, 5, 6)), TokenSequence((7,), (8, 9))], 64, CPU)
    losses = token_form_losses(model, batch, [6, 3], [11, 12], torch.float32)
    (losses.loss - losses.similarity).backward()
    return {name: p.grad for name, p in memory.named_parameters() if p.grad is not None}


def test_a_recomputed_layer_reads_the_same_memory_again():
    """The backward pass runs after the block in which the memory is read."""
    plain, recomputed = gradients(checkpointing=False), gradients(checkpointing=True)
    assert plain.keys() == recomputed.keys() and plain
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient, msg=name)


@pytest.mark.parametrize("preset", PRESETS)
def test_training_leaves_the_backbone_as_it_was(preset):
    model = tiny_llama()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    memory = with_memory(model, memory_config(preset))
    set_trainable(memory, PARTS, router=False)
    optimizer = torch.optim.AdamW(trainable_tensors(model).values(), lr=1e-2, weight_decay=0.1)
    own = {name: tensor.clone() for name, tensor in trainable_tensors(model).items() if "fusion" in name}
    for _ in range(3):
        with memory.reading(reading_for(memory.config, 2)):
            loss = model(input_ids=TOKENS, labels=TOKENS, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    after = model.state_dict()
    assert [name for name in before if not torch.equal(after[name], before[name])] == []
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if name in before)
    assert [name for name, tensor in own.items() if torch.equal(after[name], tensor)] == []


def test_only_the_memory_has_gradients_of_an_untrained_one():
    """The gate only picks indices: the language-model loss does not reach it."""
    model = tiny_llama()
    memory = with_memory(model, memory_config(), random_entries(20))
    set_trainable(memory, PARTS, router=False)
    with memory.reading(reading_for(memory.config, 2)):
        model(input_ids=TOKENS, labels=TOKENS, use_cache=False).loss.backward()
    reached = {name.split(".")[2] for name, p in memory.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"gated_memory_fusion"}  # its last matrix is 0, and nothing passes through it yet
