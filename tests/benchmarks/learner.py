"""The learner's part of a GRPO step, in pairs: padded rows beside shared prompts, a second softmax for the entropy
beside one for both, and autocast beside copies of the weights. Prints CPU seconds, which other programs disturb least,
and the median ratio of the pairs.

    python -m tests.benchmarks.learner [--data ../shared/data/gsm8k] [--rounds 3] [--prompts 4] [--threads 1]

All weights of the embedded model, 8 completions of 128 tokens for every prompt of GSM8K. The first round warms up:
PyTorch compiles matmuls of new shapes.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from pipeline.config import ModelConfig
from pipeline.models.attention import use_causal_sdpa
from pipeline.models.compute_copies import computing_in
from pipeline.models.device import torch_dtype
from pipeline.models.hub import resolve_model
from pipeline.models.policy import load_policy
from pipeline.models.tokenizer import load_tokenizer
from pipeline.training.batching import MicroBatch, TokenSequence, micro_batches
from pipeline.training.logprobs import (
    completion_batches,
    logprobs_and_entropy,
    next_token_logits,
    token_entropy,
    token_logprobs,
)
from tests.conftest import ROOT
from tests.support.learner_steps import adamw

MAX_TOKENS, NUM_COMPLETIONS, COMPLETION_LENGTH = 2048, 8, 128
CPU = torch.device("cpu")


def rollouts(data: Path, tokenizer: Any, num_prompts: int, seed: int) -> list[TokenSequence]:
    """Worked solutions, strung together to the same length, stand for completions."""
    draw, problems = random.Random(seed), [json.loads(line) for line in (data / "train.jsonl").open()]
    sequences = []
    for problem in draw.sample(problems, num_prompts):
        prompt = tokenizer(f"Question: {problem['question']}\nAnswer:")["input_ids"]
        for _ in range(NUM_COMPLETIONS):
            text = "\n".join(other["answer"] for other in draw.sample(problems, 8))
            sequences.append(TokenSequence(prompt, tokenizer(text)["input_ids"][:COMPLETION_LENGTH]))
    return sequences


def separate(logits: Tensor, targets: Tensor) -> Tensor:
    token_entropy(logits.detach())
    return token_logprobs(logits, targets)


def together(logits: Tensor, targets: Tensor) -> Tensor:
    return logprobs_and_entropy(logits, targets)[0]


def step_s(
    model: Any, optimizer: Any, batches: list[MicroBatch], logprobs_of: Callable[..., Tensor], has_copies: bool
) -> float:
    start, dtype = time.process_time(), torch_dtype("auto")
    with computing_in(model, dtype if has_copies else torch.float32):
        for batch in batches:
            logprobs = logprobs_of(next_token_logits(model, batch, dtype), batch.targets)
            (logprobs * batch.completion_mask).sum().mul(-1e-3).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return time.process_time() - start


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data/gsm8k")
    for name, default in (("rounds", 3), ("prompts", 4), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    path = resolve_model(ModelConfig())
    model, tokenizer = load_policy(path, ModelConfig(device="cpu")).eval(), load_tokenizer(path, ModelConfig())
    use_causal_sdpa(model)
    optimizer, times = adamw(model, 1e-6), []
    for seed in range(arguments.rounds + 1):
        sequences = rollouts(arguments.data, tokenizer, arguments.prompts, seed)
        padded = micro_batches(sequences, MAX_TOKENS, CPU)
        shared = completion_batches(model, sequences, MAX_TOKENS, torch_dtype("auto"))
        ways = ((padded, separate), (shared, separate), (shared, together))
        times.append([step_s(model, optimizer, *way, has_copies=False) for way in ways])
        times[-1].append(step_s(model, optimizer, shared, together, has_copies=True))
        computed = [sum(batch.input_ids.numel() for batch in batches) for batches in (padded, shared)]
        seconds = "; ".join(f"{each:.2f}" for each in times[-1])
        print(f"round {seed}: {computed[0]} and {computed[1]} tokens computed; {seconds} s", flush=True)
    later = times[1:]
    for name, before, after in (("shared prompts", 0, 1), ("one softmax", 1, 2), ("copies", 2, 3), ("all", 0, 3)):
        print(f"{name}: {median(row[before] / row[after] for row in later):.2f} times as fast")


if __name__ == "__main__":
    main()
