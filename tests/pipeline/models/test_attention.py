"""Attention for padded and packed rows: the same values and gradients as PyTorch's own."""

from unittest.mock import Mock

import pytest
import torch
import transformers
from torch.nn import functional as F

from pipeline.models.attention import (
    CAUSAL_SDPA,
    SHORT,
    can_share_prompts,
    plain_causal_attention,
    use_causal_sdpa,
)
from pipeline.training.batching import TokenSequence, micro_batches
from pipeline.training.logprobs import completion_batches, next_token_logits
from tests.support.models import tiny_llama
from tests.support.sequences import CPU, GROUPS, SEQUENCES, logprobs_and_gradients


@pytest.fixture(scope="module")
def model():
    return tiny_llama().train()


@pytest.fixture(scope="module", params=["causal_sdpa", "sdpa", "eager"])
def packed_model(request):
    """Weights as in ``model``; sdpa and eager keep sequences apart by a mask of transformers'."""
    model = tiny_llama().train()
    if request.param == "causal_sdpa":
        use_causal_sdpa(model)
        assert model.config._attn_implementation == CAUSAL_SDPA
    else:
        model.set_attn_implementation(request.param)
    return model


# Packed rows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_tokens", [24, 1000])
def test_packing_changes_no_logprob_and_no_gradient(model, packed_model, max_tokens):
    expected, expected_gradients = logprobs_and_gradients(model, 1)  # every sequence by itself
    packed, gradients = logprobs_and_gradients(packed_model, max_tokens, packing=True, pad_to_multiple_of=8)
    assert packed.keys() == expected.keys()
    for row, logprobs in packed.items():
        torch.testing.assert_close(logprobs, expected[row], rtol=0, atol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-5, atol=1e-5)


def test_packing_works_with_adapters_and_checkpointed_activations(model):
    from peft import LoraConfig, get_peft_model

    def gradients(*, packing: bool, checkpointed: bool):
        torch.manual_seed(0)
        unscaled = LoraConfig(r=2, lora_alpha=2, target_modules=["q_proj"], init_lora_weights="gaussian")
        adapted = get_peft_model(tiny_llama(), unscaled)
        if checkpointed:
            adapted.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            adapted.enable_input_require_grads()
        if packing:
            use_causal_sdpa(adapted)
        logprobs_and_gradients(adapted.train(), 1000, packing=packing)
        return [p.grad for p in adapted.parameters() if p.requires_grad]

    expected = gradients(packing=False, checkpointed=False)
    for gradient, other in zip(gradients(packing=True, checkpointed=True), expected, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-5, atol=1e-5)
    assert any(gradient.abs().max() > 0 for gradient in expected)


def test_no_packed_sequence_sees_another(packed_model):
    (batch,) = micro_batches(SEQUENCES, 1000, CPU, packing=True)
    with torch.no_grad():
        before = next_token_logits(packed_model, batch, torch.float32)
        batch.input_ids[:, : len(SEQUENCES[batch.rows[0]])] = 77
        after = next_token_logits(packed_model, batch, torch.float32)
    others = batch.owners[0] != batch.rows[0]
    assert torch.equal(before[:, others], after[:, others])
    assert not torch.equal(before[:, ~others], after[:, ~others])


# Shared prompts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("max_tokens", [30, 60, 1000])
@pytest.mark.parametrize("short", [SHORT, 20, 0])  # plain products for all, some, no completions
def test_a_shared_prompt_changes_no_logprob_and_no_gradient(monkeypatch, model, max_tokens, short):
    monkeypatch.setattr("pipeline.models.attention.SHORT", short)
    sharing = tiny_llama().train()
    use_causal_sdpa(sharing)
    expected, expected_gradients = logprobs_and_gradients(model, 1, sequences=GROUPS)
    actual, gradients = logprobs_and_gradients(
        sharing, max_tokens, sequences=GROUPS, share_prompts=True, pad_to_multiple_of=8
    )
    assert actual.keys() == expected.keys()
    for row, logprobs in actual.items():
        torch.testing.assert_close(logprobs, expected[row], rtol=0, atol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-5, atol=1e-5)


def test_a_shared_prompt_in_bfloat16_is_as_close_to_float32_as_a_prompt_of_its_own(model):
    sharing = tiny_llama().train()
    use_causal_sdpa(sharing)
    exact = logprobs_and_gradients(model, 1, sequences=GROUPS)[1]

    def distance(**layout):
        layout |= {"dtype": torch.bfloat16, "sequences": GROUPS}
        gradients = logprobs_and_gradients(sharing, 1000, **layout)[1]
        return sum((gradients[name] - exact[name]).norm() / exact[name].norm() for name in exact) / len(exact)

    assert distance(share_prompts=True) < 1.5 * distance(packing=True) < 0.1


def test_a_model_shares_prompts_only_if_its_attention_can_and_it_heeds_positions(packed_model):
    assert can_share_prompts(packed_model) == (packed_model.config._attn_implementation == CAUSAL_SDPA)
    (batch, *rest) = completion_batches(packed_model, GROUPS, 1000, torch.float32)
    assert (len(batch.input_ids) == 1 and not rest) == can_share_prompts(packed_model)
    deaf = tiny_llama()
    rotary = deaf.model.rotary_emb.forward
    deaf.model.rotary_emb.forward = lambda x, position_ids: rotary(x, torch.arange(x.shape[1])[None])
    use_causal_sdpa(deaf)
    assert not can_share_prompts(deaf)


# Short and long sequences ------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 9, 3, 23), (1, 4, 4, 8), (3, 2, 1, 1)])
def test_plain_attention_is_pytorchs_with_its_gradients(shape):
    batch, num_heads, num_kv_heads, length = shape
    torch.manual_seed(0)
    inputs = [torch.randn(batch, heads, length, 16) for heads in (num_heads, num_kv_heads, num_kv_heads)]
    weights = torch.randn(batch, length, num_heads, 16)

    def output_and_gradients(attention):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        output = attention(*leaves)
        (output * weights).sum().backward()
        return [output.detach(), *(leaf.grad for leaf in leaves)]

    def pytorch(query, key, value):
        outputs = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True, scale=0.3)
        return outputs.transpose(1, 2)

    plain = output_and_gradients(lambda query, key, value: plain_causal_attention(query, key, value, 0.3))
    torch.testing.assert_close(plain, output_and_gradients(pytorch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("common", [0.0, 20.0, 100.0])
def test_plain_attention_in_bfloat16_is_nearly_as_close_to_float32_as_pytorchs(common):
    """Also where all keys have a large part in common, as by the biases of Qwen2.5."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, 200, 64) for heads in (9, 3, 3))
    key[..., 0] += common
    query, key, value = (tensor.bfloat16().float() for tensor in (query, key, value))

    def distance(attention):
        exact = attention(query, key, value)
        return (attention(query.bfloat16(), key.bfloat16(), value.bfloat16()).float() - exact).norm() / exact.norm()

    pytorch = distance(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True))
    plain = distance(lambda q, k, v: plain_causal_attention(q, k, v, 0.125).transpose(1, 2))
    assert plain < 3 * pytorch < 0.01


def test_keys_and_values_of_different_sizes_attend():
    torch.manual_seed(0)
    query, key, value = torch.randn(1, 2, 5, 12), torch.randn(1, 2, 5, 12), torch.randn(1, 2, 5, 8)
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.3).transpose(1, 2)
    torch.testing.assert_close(plain_causal_attention(query, key, value, 0.3), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("packing", [False, True])
def test_short_and_long_sequences_take_different_paths_to_the_same_logprobs(monkeypatch, model, packing):
    fast = tiny_llama().train()
    use_causal_sdpa(fast)
    plain = Mock(wraps=plain_causal_attention)
    monkeypatch.setattr("pipeline.models.attention.plain_causal_attention", plain)
    expected, expected_gradients = logprobs_and_gradients(model, 1)
    lengths = [10, 11, 12, 14, 2, 7] if packing else [14]  # padded to the longest
    for short in (SHORT, 10, 0):  # all of them, some of them, none: transformers' sdpa
        monkeypatch.setattr("pipeline.models.attention.SHORT", short)
        plain.reset_mock()
        actual, gradients = logprobs_and_gradients(fast, 1000, packing=packing)
        assert plain.call_count == 2 * sum(length <= short for length in lengths)  # two layers
        for row, logprobs in actual.items():
            torch.testing.assert_close(logprobs, expected[row], rtol=0, atol=1e-5)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-5, atol=1e-5)


# Other models ------------------------------------------------------------------------------------


SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}


@pytest.mark.parametrize(
    "config, implementation",
    [
        (transformers.Qwen2Config(**SMALL), CAUSAL_SDPA),
        (transformers.Qwen3Config(**SMALL, head_dim=8), CAUSAL_SDPA),
        (transformers.Glm4Config(**SMALL, head_dim=8, pad_token_id=0), CAUSAL_SDPA),
        (transformers.Qwen2Config(**SMALL, use_sliding_window=True, sliding_window=4, max_window_layers=1), "sdpa"),
        (transformers.StableLmConfig(**SMALL), "sdpa"),  # its layers drop unknown arguments
        (transformers.Gemma3Config(text_config=SMALL | {"head_dim": 8, "sliding_window": 4}), "sdpa"),  # in parts
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_attention_is_replaced_only_where_it_stays_the_same(config, implementation):
    torch.manual_seed(0)
    if hasattr(config, "vision_config"):
        vision = SMALL | {"image_size": 28, "patch_size": 14}
        config.vision_config = transformers.SiglipVisionConfig(**vision)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    batches = micro_batches([TokenSequence(tuple(range(9)), tuple(range(9, 20)))], 100, CPU)
    with torch.no_grad():
        before = next_token_logits(model, batches[0], torch.float32)
        use_causal_sdpa(model)
        assert model.config._attn_implementation == implementation
        torch.testing.assert_close(next_token_logits(model, batches[0], torch.float32), before, rtol=0, atol=1e-5)
