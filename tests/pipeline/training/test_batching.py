import random
from unittest.mock import Mock

import pytest
import torch
import transformers
from torch.nn import functional as F

from pipeline.models.attention import CAUSAL_SDPA, SHORT, plain_causal_attention, use_causal_sdpa
from pipeline.training.batching import TokenSequence, micro_batches, padding_frac
from pipeline.training.logprobs import next_token_logits, token_entropy, token_logprobs
from tests.support.models import tiny_llama

CPU = torch.device("cpu")
DTYPES = (torch.float32, torch.bfloat16)


def sequence(prompt: int, completion: int, seed: int = 0) -> TokenSequence:
    draw = random.Random(f"{prompt} {completion} {seed}")
    return TokenSequence(tuple(draw.choices(range(256), k=prompt)), tuple(draw.choices(range(256), k=completion)))


@pytest.fixture(scope="module")
def model():
    return tiny_llama().train()


SEQUENCES = [sequence(4, 3), sequence(9, 1), sequence(2, 12), sequence(1, 1), sequence(6, 6), sequence(3, 8)]


# Layout ------------------------------------------------------------------------------------------


def test_a_micro_batch_holds_the_targets_from_the_first_completion_on():
    (batch,) = micro_batches([TokenSequence((1, 2, 3), (4,)), TokenSequence((5, 6), (7, 8, 9))], 100, CPU)
    assert batch.rows == (1, 0)  # the longest first
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9], [1, 2, 3, 4, 0]]
    assert batch.positions.tolist() == [1, 2, 3]  # 1 predicts 2, where the earlier completion starts
    assert batch.targets.tolist() == [[7, 8, 9], [3, 4, 0]]
    assert batch.completion_mask.tolist() == [[True, True, True], [False, True, False]]


def test_scatter_lays_values_of_the_original_rows_over_the_targets():
    (batch,) = micro_batches([TokenSequence((1, 2, 3), (4,)), TokenSequence((5, 6), (7, 8, 9))], 100, CPU)
    assert batch.scatter([(-0.25,), (-1.0, -2.0, -3.0)]).tolist() == [[-1.0, -2.0, -3.0], [0.0, -0.25, 0.0]]


@pytest.mark.parametrize("max_tokens", [1, 14, 20, 29, 64, 1000])
def test_no_micro_batch_is_over_budget_unless_it_is_one_sequence(max_tokens):
    batches = micro_batches(SEQUENCES, max_tokens, CPU)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(len(SEQUENCES)))
    assert all(batch.input_ids.numel() <= max_tokens or len(batch.rows) == 1 for batch in batches)


def test_the_split_by_hand():
    # Lengths 7, 10, 14, 2, 12, 11. Longest first: 14 + 12 as 2 x 14 = 28; 11 + 10 as 22, a third would be 33; 7 + 2.
    assert [batch.rows for batch in micro_batches(SEQUENCES, 30, CPU)] == [(2, 4), (5, 1), (0, 3)]


def test_the_split_depends_on_lengths_alone():
    others = [sequence(len(s.prompt), len(s.completion), seed=1) for s in SEQUENCES]
    assert [b.rows for b in micro_batches(SEQUENCES, 30, CPU)] == [b.rows for b in micro_batches(others, 30, CPU)]
    same_length = [sequence(2, 3, seed) for seed in range(5)]
    assert [b.rows for b in micro_batches(same_length, 10, CPU)] == [(0, 1), (2, 3), (4,)]  # ties stay in order


def test_no_sequences_make_no_micro_batch():
    assert micro_batches([], 100, CPU) == []


# Packed ------------------------------------------------------------------------------------------


def test_a_packed_row_by_hand():
    sequences = [TokenSequence((1, 2, 3), (4,)), TokenSequence((5, 6), (7, 8, 9))]
    (batch,) = micro_batches(sequences, 100, CPU, packing=True, pad_to_multiple_of=6)
    assert batch.rows == (1, 0)  # the longest first
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9, 1, 2, 3, 4, 0, 0, 0]]
    assert batch.lengths == (5, 4, 3)  # the last is padding
    assert batch.positions.tolist() == [1, 2, 3, 7, 0, 0]
    assert batch.targets.tolist() == [[7, 8, 9, 4, 6, 6]]
    assert batch.completion_mask.tolist() == [[True, True, True, True, False, False]]
    assert batch.owners.tolist() == [[1, 1, 1, 0, 1, 1]]
    assert batch.scatter([(-0.25,), (-1.0, -2.0, -3.0)]).tolist() == [[-1.0, -2.0, -3.0, -0.25, 0.0, 0.0]]
    assert padding_frac([batch], 9) == 0.25


def test_packs_leave_the_least_room():
    # Lengths 7, 10, 14, 2, 12, 11, longest first into rows of 24: 14 | 12 | 11 to the 12, which leaves 1 | 10 to the
    # 14, which leaves 0 | 7 alone | 2 to the 7.
    batches = micro_batches(SEQUENCES, 24, CPU, packing=True)
    assert [batch.rows for batch in batches] == [(2, 1), (4, 5), (0, 3)]


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("max_tokens", [1, 16, 20, 64, 1000])
def test_rows_are_padded_to_a_multiple_and_stay_within_budget(max_tokens, packing):
    batches = micro_batches(SEQUENCES, max_tokens, CPU, packing=packing, pad_to_multiple_of=8)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(len(SEQUENCES)))
    assert all(batch.input_ids.shape[1] % 8 == 0 for batch in batches)
    assert all(batch.input_ids.numel() <= max_tokens or len(batch.rows) == 1 for batch in batches)


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


def token_logprobs_by_row(model, max_tokens, **layout):
    """Row -> log-probabilities of its completion's tokens; and the gradients of their mean, token i weighted 1 + i."""
    model.zero_grad()
    num_tokens = sum(len(s.completion) for s in SEQUENCES)
    found = {}
    for batch in micro_batches(SEQUENCES, max_tokens, CPU, **layout):
        logprobs = token_logprobs(next_token_logits(model, batch, torch.float32), batch.targets)
        for row in batch.rows:
            found[row] = logprobs[(batch.owners == row) & batch.completion_mask]
        weighted = [(found[row] * torch.arange(1.0, len(found[row]) + 1)).sum() for row in batch.rows]
        (torch.stack(weighted).sum() / num_tokens).backward()
    return found, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("max_tokens", [24, 1000])
def test_packing_changes_no_logprob_and_no_gradient(model, packed_model, max_tokens):
    expected, expected_gradients = token_logprobs_by_row(model, 1)  # every sequence by itself
    packed, gradients = token_logprobs_by_row(packed_model, max_tokens, packing=True, pad_to_multiple_of=8)
    assert packed.keys() == expected.keys()
    for row, logprobs in packed.items():
        torch.testing.assert_close(logprobs, expected[row], rtol=0, atol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-5, atol=1e-5)


def test_packing_goes_with_adapters_and_checkpointed_activations(model):
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
        token_logprobs_by_row(adapted.train(), 1000, packing=packing)
        return [p.grad for p in adapted.parameters() if p.requires_grad]

    expected = gradients(packing=False, checkpointed=False)
    for gradient, other in zip(gradients(packing=True, checkpointed=True), expected, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-5, atol=1e-5)
    assert any(gradient.abs().max() > 0 for gradient in expected)


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


@pytest.mark.parametrize("packing", [False, True])
def test_short_and_long_sequences_go_different_ways_to_the_same_logprobs(monkeypatch, model, packing):
    fast = tiny_llama().train()
    use_causal_sdpa(fast)
    plain = Mock(wraps=plain_causal_attention)
    monkeypatch.setattr("pipeline.models.attention.plain_causal_attention", plain)
    expected, expected_gradients = token_logprobs_by_row(model, 1)
    lengths = [10, 11, 12, 14, 2, 7] if packing else [14]  # padded to the longest
    for short in (SHORT, 10, 0):  # all of them, some of them, none: transformers' sdpa
        monkeypatch.setattr("pipeline.models.attention.SHORT", short)
        plain.reset_mock()
        found, gradients = token_logprobs_by_row(fast, 1000, packing=packing)
        assert plain.call_count == 2 * sum(length <= short for length in lengths)  # two layers
        for row, logprobs in found.items():
            torch.testing.assert_close(logprobs, expected[row], rtol=0, atol=1e-5)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-5, atol=1e-5)


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
        (transformers.StableLmConfig(**SMALL), "sdpa"),  # its layers drop what they do not know
        (transformers.Gemma3Config(text_config=SMALL | {"head_dim": 8, "sliding_window": 4}), "sdpa"),  # of parts
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


def test_keys_and_values_of_different_sizes_attend():
    torch.manual_seed(0)
    query, key, value = torch.randn(1, 2, 5, 12), torch.randn(1, 2, 5, 12), torch.randn(1, 2, 5, 8)
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.3).transpose(1, 2)
    torch.testing.assert_close(plain_causal_attention(query, key, value, 0.3), expected, rtol=1e-5, atol=1e-5)


def test_no_packed_sequence_sees_another(packed_model):
    (batch,) = micro_batches(SEQUENCES, 1000, CPU, packing=True)
    with torch.no_grad():
        before = next_token_logits(packed_model, batch, torch.float32)
        batch.input_ids[:, : len(SEQUENCES[batch.rows[0]])] = 77
        after = next_token_logits(packed_model, batch, torch.float32)
    others = batch.owners[0] != batch.rows[0]
    assert torch.equal(before[:, others], after[:, others])
    assert not torch.equal(before[:, ~others], after[:, ~others])


# Log-probabilities -------------------------------------------------------------------------------


def logprobs_by_row(model, sequences, max_tokens, temperature=1.0) -> dict[int, torch.Tensor]:
    found = {}
    with torch.no_grad():
        for batch in micro_batches(sequences, max_tokens, CPU):
            logprobs = token_logprobs(next_token_logits(model, batch, torch.float32), batch.targets, temperature)
            for index, row in enumerate(batch.rows):
                found[row] = logprobs[index][batch.completion_mask[index]]
    return found


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_padding_changes_no_logprob(model, temperature):
    padded = logprobs_by_row(model, SEQUENCES, 1000, temperature)
    for row, one in enumerate(SEQUENCES):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([one.prompt + one.completion])).logits[0]  # transformers alone
        start = len(one.prompt)
        plain = torch.log_softmax(logits[start - 1 : -1] / temperature, dim=-1)
        expected = plain.gather(1, torch.tensor(one.completion)[:, None])[:, 0]
        torch.testing.assert_close(padded[row], expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(logprobs_by_row(model, [one], 1000, temperature)[0], expected, rtol=0, atol=1e-5)


def test_what_stands_in_the_padding_does_not_matter(model):
    (batch,) = micro_batches(SEQUENCES, 1000, CPU)
    before = token_logprobs(next_token_logits(model, batch, torch.float32), batch.targets)[batch.completion_mask]
    for index, row in enumerate(batch.rows):
        batch.input_ids[index, len(SEQUENCES[row]) :] = 77
    after = token_logprobs(next_token_logits(model, batch, torch.float32), batch.targets)[batch.completion_mask]
    assert torch.equal(before, after)


@pytest.mark.parametrize("packing", [False, True])
def test_bfloat16_runs_under_autocast_and_gives_float32_logprobs(packing):
    fast = tiny_llama().train()
    use_causal_sdpa(fast)
    (batch,) = micro_batches(SEQUENCES, 1000, CPU, packing=packing)
    logits = [next_token_logits(fast, batch, dtype) for dtype in DTYPES]
    exact, logprobs = (token_logprobs(one, batch.targets) for one in logits)
    assert logits[1].dtype == torch.bfloat16
    assert logprobs.dtype == torch.float32
    error = (logprobs - exact)[batch.completion_mask].norm() / exact[batch.completion_mask].norm()
    assert 0 < error < 0.02


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_and_their_gradients_are_pytorchs_cross_entropy(dtype, temperature):
    torch.manual_seed(0)
    vocab_size = 400_000  # two rows at a time
    logits = (torch.randn(1, 5, vocab_size) * 5).to(dtype)
    logits[0, 0, 7] = -1e30
    logits[0, 1, 1:] = -torch.inf  # all probability on one token
    targets, weights = torch.tensor([[7, 0, 5, vocab_size - 1, 3]]), torch.tensor([[0.5, -2.0, 0.0, 1.0, 3.0]])

    def value_and_gradient(logprobs_of):
        leaf = logits.clone().requires_grad_()
        logprobs = logprobs_of(leaf)
        (logprobs * weights).sum().backward()
        return logprobs.detach(), leaf.grad

    def pytorch(leaf):
        return -F.cross_entropy(leaf[0].float() / temperature, targets[0], reduction="none")[None]

    ours = value_and_gradient(lambda leaf: token_logprobs(leaf, targets, temperature))
    torch.testing.assert_close(ours, value_and_gradient(pytorch), rtol=1e-5, atol=1e-6)
    assert ours[1].dtype == dtype


def test_temperature_by_hand():
    # softmax([ln 4, 0]) = 4/5, 1/5. At temperature 0.5 the odds are squared: 16/17. At 2 their root: 2/3.
    logits = torch.tensor([[[4.0, 1.0]]]).log()
    for temperature, expected in [(1.0, 4 / 5), (0.5, 16 / 17), (2.0, 2 / 3)]:
        actual = token_logprobs(logits, torch.tensor([[0]]), temperature).exp()
        torch.testing.assert_close(actual, torch.tensor([[expected]]), rtol=0, atol=1e-6)


def test_entropy_by_hand():
    logits = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, -1e4, -1e4]]])
    expected = torch.tensor([[4.0, 2.0]]).log()  # uniform over 4, and over 2
    torch.testing.assert_close(token_entropy(logits), expected, rtol=0, atol=1e-6)
    sharp = torch.tensor([[[4.0, 1.0]]]).log()  # at temperature 0.5: 16/17 and 1/17
    entropy = -(16 / 17 * torch.tensor(16 / 17).log() + 1 / 17 * torch.tensor(1 / 17).log())
    torch.testing.assert_close(token_entropy(sharp, 0.5), entropy.view(1, 1), rtol=0, atol=1e-6)


# Sums over micro-batches -------------------------------------------------------------------------


def loss_and_gradients(model, max_tokens):
    model.zero_grad()
    num_tokens = sum(len(s.completion) for s in SEQUENCES)
    values = [[row + 0.1 * i for i in range(len(s.completion))] for row, s in enumerate(SEQUENCES)]
    total = 0.0
    for batch in micro_batches(SEQUENCES, max_tokens, CPU):
        logprobs = token_logprobs(next_token_logits(model, batch, torch.float32), batch.targets)
        loss = -(logprobs * batch.scatter(values)).sum() / num_tokens  # a different weight for every token
        loss.backward()
        total += loss.item()
    return total, {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("max_tokens", [1, 30])
def test_micro_batches_add_up_to_one_big_batch(model, max_tokens):
    whole, whole_gradients = loss_and_gradients(model, 1000)
    parts, gradients = loss_and_gradients(model, max_tokens)
    assert parts == pytest.approx(whole, rel=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, whole_gradients[name], rtol=1e-5, atol=1e-5)
