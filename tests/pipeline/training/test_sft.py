import math

import pytest
import torch

from pipeline.training.batching import TokenSequence, micro_batches
from pipeline.training.sft import held_out_sums, learned_tokens, perplexity, token_losses
from tests.support.models import tiny_llama

CPU = torch.device("cpu")
EXAMPLES = [TokenSequence((5, 6, 7), (8, 9)), TokenSequence((1, 2), (3, 4, 5, 6)), TokenSequence((9,), (9, 8))]


@pytest.fixture(scope="module")
def model():
    return tiny_llama().train()


def test_losses_on_all_tokens_ignore_turns_and_losses_on_completions_heed_them():
    turns = TokenSequence((5, 6), (7, 8, 9), (True, False, True))
    assert learned_tokens(turns, "completion") == turns
    assert learned_tokens(turns, "all") == TokenSequence((5,), (6, 7, 8, 9))


def test_held_out_losses_count_learned_tokens_alone():
    model = tiny_llama()
    whole = TokenSequence((5, 6, 7), (8, 9, 10, 11))
    turns = TokenSequence((5, 6, 7), (8, 9, 10, 11), (True, False, False, True))
    (batch,) = micro_batches([whole], 100, CPU)
    losses, _ = token_losses(model, batch, torch.float32)
    for packing in (False, True):
        loss, _, num_tokens = held_out_sums(model, micro_batches([turns], 100, CPU, packing=packing), torch.float32)
        assert num_tokens == 2 and loss == pytest.approx((losses[0, 0] + losses[0, 3]).item(), rel=1e-5)


def test_the_loss_is_on_the_completion_or_on_every_token_that_has_one_before_it():
    assert learned_tokens(EXAMPLES[0], "completion") == EXAMPLES[0]
    assert learned_tokens(EXAMPLES[0], "all") == TokenSequence((5,), (6, 7, 8, 9))


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("loss_on", ["completion", "all"])
def test_the_loss_is_what_transformers_gives_with_labels(model, packing, loss_on):
    num_tokens, expected = 0, 0.0
    for example in EXAMPLES:
        ids = torch.tensor([[*example.prompt, *example.completion]])
        labels = ids.clone()
        if loss_on == "completion":
            labels[:, : len(example.prompt)] = -100
        count = int((labels[:, 1:] != -100).sum())
        with torch.no_grad():
            expected += model(input_ids=ids, labels=labels).loss.item() * count  # transformers' is the mean
        num_tokens += count
    examples = [learned_tokens(example, loss_on) for example in EXAMPLES]
    batches = micro_batches(examples, 12, CPU, packing=packing)
    loss, _, counted = held_out_sums(model, batches, torch.float32)
    assert counted == num_tokens
    assert loss == pytest.approx(expected, rel=1e-5)
    assert model.training


def test_a_hit_is_the_likeliest_token(model):
    (batch,) = micro_batches([EXAMPLES[0]], 100, CPU)
    with torch.no_grad():
        likeliest = model(input_ids=torch.tensor([[5, 6, 7]])).logits[0, -1].argmax().item()
    assert token_losses(model, batch, torch.float32)[1][0, 0].item() is (likeliest == 8)
    right = TokenSequence((5, 6, 7), (likeliest,))
    (batch,) = micro_batches([right], 100, CPU)
    losses, hits = token_losses(model, batch, torch.float32)
    assert hits.tolist() == [[True]]
    assert losses.shape == (1, 1)


def test_perplexity():
    assert perplexity(math.log(7)) == pytest.approx(7)
    assert perplexity(1e4) == math.inf
