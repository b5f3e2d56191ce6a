import pytest
import torch
from torch.nn import functional as F

from pipeline.models.attention import use_causal_sdpa
from pipeline.training.batching import micro_batches
from pipeline.training.logprobs import logprobs_and_entropy, next_token_logits, token_entropy, token_logprobs
from tests.support.models import tiny_llama
from tests.support.sequences import CPU, SEQUENCES

DTYPES = (torch.float32, torch.bfloat16)


@pytest.fixture(scope="module")
def model():
    return tiny_llama().train()


def logprobs_by_row(model, sequences, max_tokens, temperature=1.0) -> dict[int, torch.Tensor]:
    by_row = {}
    with torch.no_grad():
        for batch in micro_batches(sequences, max_tokens, CPU):
            logprobs = token_logprobs(next_token_logits(model, batch, torch.float32), batch.targets, temperature)
            for index, row in enumerate(batch.rows):
                by_row[row] = logprobs[index][batch.completion_mask[index]]
    return by_row


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


@pytest.mark.parametrize("dtype", DTYPES)
def test_logprobs_and_entropy_from_one_softmax_are_those_of_two(dtype):
    torch.manual_seed(0)
    logits, targets = (torch.randn(2, 3, 300_000) * 5).to(dtype), torch.tensor([[7, 0, 5], [9, 1, 2]])
    leaf = logits.clone().requires_grad_()
    logprobs, entropy = logprobs_and_entropy(leaf, targets, 0.7)
    alone = token_logprobs(leaf, targets, 0.7)
    gradients = [torch.autograd.grad(values.sum(), leaf)[0] for values in (logprobs, alone)]
    assert torch.equal(logprobs, alone) and torch.equal(*gradients)
    assert torch.equal(entropy, token_entropy(logits, 0.7)) and not entropy.requires_grad


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
