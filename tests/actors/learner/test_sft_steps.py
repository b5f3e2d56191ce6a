"""One step of fine-tuning, without Ray and engines."""

from types import SimpleNamespace
from typing import Any

import torch

from actors.learner.ranks import Ranks
from actors.learner.sft_loop import _learn_solutions
from pipeline.config import SFTConfig
from pipeline.curriculum.examples import Example
from pipeline.training.batching import TokenSequence, micro_batches
from pipeline.training.sft import token_losses
from tests.support.models import tiny_llama


def test_the_loss_is_the_mean_of_its_tokens_in_float64():
    model, device = tiny_llama(), torch.device("cpu")
    sequences = [TokenSequence((1, 2), (3, 4, 5)), TokenSequence((6,), (7, 8, 9, 10))]
    session: Any = SimpleNamespace(
        settings=SFTConfig(),
        ranks=Ranks(),
        model=model,
        dtype=torch.float32,
        solution_batches=lambda sequences: micro_batches(sequences, 64, device),
        begin_update=lambda step: None,
        update_policy=lambda loss: 0.0,
    )
    metrics = _learn_solutions(session, [Example(None, s) for s in sequences], 0)  # type: ignore[arg-type]
    losses = [token_losses(model, batch, torch.float32)[0] for batch in micro_batches(sequences, 64, device)]
    assert metrics["loss"] == sum(loss.double().sum().item() for loss in losses) / 7
