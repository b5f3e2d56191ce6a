"""The share of a small LoRA update that engines see in bfloat16: rounded to the nearest, stochastically, or not at all.

    python -m tests.benchmarks.weight_rounding [--sizes 1e-5 1e-4 1e-3]

The adapters of the embedded model take one step of Adam's first size against the gradient of two texts: B = -size
sign(gradient). Forward passes with the handed-over weights run in float32, so that only the rounding of the weights
differs; the last columns compare them in bfloat16 with the learner's own bfloat16 forward pass.
"""

import argparse
import time
from collections.abc import Iterator
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pipeline.config import LoraConfig, ModelConfig
from pipeline.models.hub import resolve_model
from pipeline.models.policy import load_policy, merged_weights
from pipeline.models.tokenizer import load_tokenizer

TEXTS = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many clips did "
    "Natalia sell altogether? In May she sold 48/2 = 24 clips. Altogether she sold 48 + 24 = 72 clips.",
    "A prime number is a natural number greater than 1 that is not a product of two smaller natural numbers.",
)
LORA = LoraConfig(r=16, alpha=32)


def main(sizes: list[float]) -> None:
    config = ModelConfig(dtype="bfloat16", device="cpu", lora=LORA)
    path = resolve_model(config)
    torch.manual_seed(0)
    policy = load_policy(path, config)
    plain, half = (load_policy(path, ModelConfig(device="cpu", master_dtype=d)) for d in ("float32", "bfloat16"))
    tokenizer = load_tokenizer(path, config)
    rows = [torch.tensor([tokenizer.encode(text)]) for text in TEXTS]
    base = _logprobs(plain, rows)
    factors = [parameter for name, parameter in policy.named_parameters() if ".lora_B." in name]
    for row in rows:
        policy(input_ids=row, labels=row).loss.backward()
    table = Table("|B|", "weights", "KL of the update", "KL to float32", "KL learner", "|logprob| learner", "merge s")
    for size in sizes:
        with torch.no_grad():
            for factor in factors:
                assert factor.grad is not None
                factor.copy_(-size * factor.grad.sign())
        exact = _logprobs(_loaded(plain, merged_weights(policy, torch.float32)), rows)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            learner = _logprobs(policy, rows)
        for name, dtype, seed in (
            ("nearest", torch.bfloat16, None),
            ("stochastic", torch.bfloat16, 1),
            ("float32", torch.float32, None),
        ):
            start = time.perf_counter()
            weights = dict(merged_weights(policy, dtype, seed))
            seconds = time.perf_counter() - start
            seen = _logprobs(_loaded(plain, iter(weights.items())), rows)
            engine = _logprobs(_loaded(half, iter(weights.items())), rows) if dtype == torch.bfloat16 else seen
            cells = (_kl(exact, base), _kl(exact, seen), _kl(learner, engine), _difference(learner, engine, rows))
            table.add_row(f"{size:g}", name, *(f"{cell:.1e}" for cell in cells), f"{seconds:.2f}")
    Console().print(table)


@torch.no_grad()
def _loaded(model: Any, weights: Iterator[tuple[str, Tensor]]) -> Any:
    own = dict(model.named_parameters())
    for name, tensor in weights:
        own[name].copy_(tensor)
    return model


@torch.no_grad()
def _logprobs(model: Any, rows: list[Tensor]) -> Tensor:
    """[num_tokens, vocabulary] in float64."""
    return torch.cat([torch.log_softmax(model(input_ids=row).logits[0].double(), dim=-1) for row in rows])


def _kl(p: Tensor, q: Tensor) -> float:
    return float((p.exp() * (p - q)).sum(dim=-1).mean())


def _difference(p: Tensor, q: Tensor, rows: list[Tensor]) -> float:
    """Mean absolute difference of the log-probabilities of the texts' own tokens."""
    targets = torch.cat([row[0].roll(-1) for row in rows])[:, None]
    return float((p.gather(1, targets) - q.gather(1, targets)).abs().mean())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=float, default=[1e-5, 1e-4, 1e-3], help="|B| of every entry")
    main(parser.parse_args().sizes)
