"""The learner on one GPU: tokens per second, and the share of the card's bfloat16 peak. Needs ``pipeline`` alone.

    python -m tests.benchmarks.gpu [--output FILE.json]

Full fine-tuning with float32 master weights and bfloat16 passes, at the shapes of SmolLM2-135M and Qwen2.5-1.5B.
Weights are random, so nothing is downloaded. SFT packs worked solutions; GRPO learns from padded groups of completions,
as the learner does after sampling. Both include the optimizer step. Only real tokens count, padding does not, and
floating-point operations are those that the tokens need (``step_flops``). The peak is measured in the same run.

``--device cpu --tiny`` runs the same code in seconds, to see that it works.
"""

import argparse
import gc
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table

from pipeline.config import GRPOConfig, ModelConfig
from pipeline.models.attention import use_causal_sdpa
from pipeline.models.memory_estimate import ModelShape, learner_memory, model_shape
from pipeline.training.advantages import advantages_of
from pipeline.training.batching import TokenSequence
from tests.support.learner_steps import adamw, grpo_step, sft_step

MODELS: dict[str, dict[str, Any]] = {
    "SmolLM2-135M": {
        "model_type": "llama",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    "Qwen2.5-1.5B": {
        "model_type": "qwen2",
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": True,
    },
}
TINY = MODELS["SmolLM2-135M"] | {"hidden_size": 72, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 512}
PEAKS = {  # dense bfloat16 TFLOP/s of the data sheets; the first name that the card's contains
    "B200": 2250.0,
    "H200 NVL": 835.5,
    "H200": 989.5,
    "H100 NVL": 835.5,
    "H100 PCIe": 756.5,
    "H100": 989.5,
    "A100": 312.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "A10G": 70.0,
    "A10": 125.0,
    "RTX 4090": 165.2,
}


@dataclass(frozen=True)
class Sizes:
    """How much a step holds."""

    num_prompts: int
    num_generations: int
    """Completions of a prompt in GRPO; SFT has as many examples in all."""
    prompt: tuple[int, int]
    """Shortest and longest, in tokens."""
    completion: tuple[int, int]
    max_tokens: int
    """Of a micro-batch."""
    matmul: int
    """Rows and columns of the matrices that measure the peak."""
    packing: bool = True
    """Pad rows of SFT instead of packing. GRPO always pads."""


FULL = Sizes(16, 8, (64, 192), (64, 384), 4096, 8192)
SMALL = Sizes(2, 2, (4, 8), (4, 12), 64, 256)


@dataclass(frozen=True)
class Measurement:
    """One model and algorithm; rates are None where memory ran out."""

    model: str
    algorithm: str
    tokens_per_s: float | None
    tflops: float | None
    of_measured_peak: float | None
    of_spec_peak: float | None
    peak_memory_gib: float | None
    """Of tensors; None on a CPU, which does not count them."""
    planned_memory_gib: float
    """As ``--dry-run`` estimates it."""


def matmul_tflops(device: torch.device, size: int, seconds: float = 2.0) -> float:
    """The rate of bfloat16 matrix products of random numbers."""
    a, b = torch.randn(2, size, size, device=device).bfloat16()
    for _ in range(3):
        a @ b
    synchronize(device)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(10):
            a @ b
        synchronize(device)
        count += 10
    return count * 2 * size**3 / (time.perf_counter() - start) / 1e12


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def spec_tflops(device: torch.device) -> float | None:
    """Peak of known cards, from their data sheets; None for others."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((peak for card, peak in PEAKS.items() if card in name), None)


def draw_sequences(sizes: Sizes, vocab: int) -> list[TokenSequence]:
    """Groups of completions, one group after the other, of random lengths and tokens."""
    draw, sequences = Random(0), []
    for _ in range(sizes.num_prompts):
        prompt = tuple(draw.choices(range(vocab), k=draw.randint(*sizes.prompt)))
        for _ in range(sizes.num_generations):
            completion = draw.choices(range(vocab), k=draw.randint(*sizes.completion))
            sequences.append(TokenSequence(prompt, tuple(completion)))
    return sequences


def step_flops(shape: ModelShape, sequences: Sequence[TokenSequence]) -> int:
    """Operations of one forward and backward pass: 6 for each weight of a matrix product and each token that needs it.

    Only tokens of completions are projected to the vocabulary. Scores, and their products with the values, take
    2 x (length^2 / 2) x queries each, times three with the backward pass.
    """
    output = shape.vocab * shape.hidden
    tokens, targets = sum(map(len, sequences)), sum(len(each.completion) for each in sequences)
    attention = 6 * shape.num_layers * shape.queries * sum(len(each) ** 2 for each in sequences)
    return 6 * ((shape.num_linear_weights - output) * tokens + output * targets) + attention


def seconds_per_step(step: Callable[[], float], device: torch.device, seconds: float) -> float:
    """After two steps that warm up, the mean over as many as fit into ``seconds``, two at least."""
    for _ in range(2):
        step()
    synchronize(device)
    count, start = 0, time.perf_counter()
    while count < 2 or time.perf_counter() - start < seconds:
        step()
        synchronize(device)
        count += 1
    return (time.perf_counter() - start) / count


def build_model(settings: dict[str, Any], device: torch.device) -> Any:
    config = transformers.AutoConfig.for_model(**settings)
    with device:
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.train()
    use_causal_sdpa(model)
    return model


def make_step(algorithm: str, model: Any, sequences: Sequence[TokenSequence], sizes: Sizes) -> Callable[[], float]:
    optimizer, dtype, max_tokens = adamw(model, 1e-6), torch.bfloat16, sizes.max_tokens
    if algorithm == "SFT":
        packing = sizes.packing
        return lambda: sft_step(model, optimizer, sequences, dtype=dtype, max_tokens=max_tokens, packing=packing)
    rewards = torch.arange(len(sequences)).view(sizes.num_prompts, -1) % 2  # every group has both
    settings = GRPOConfig()
    advantages = advantages_of(settings, rewards.float(), torch.ones_like(rewards, dtype=torch.bool), list).flatten()
    return lambda: grpo_step(model, optimizer, sequences, advantages, settings, dtype=dtype, max_tokens=max_tokens)


def measure(
    name: str, settings: dict[str, Any], algorithm: str, sizes: Sizes, device: torch.device, seconds: float, peak: float
) -> Measurement:
    shape = model_shape(settings)
    assert shape is not None
    plan = learner_memory(shape, ModelConfig(dtype="bfloat16"), sizes.max_tokens, on_gpu=device.type == "cuda")
    sequences = draw_sequences(sizes, shape.vocab)
    gc.collect()  # the model of the measurement before
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    try:
        step_s = seconds_per_step(
            make_step(algorithm, build_model(settings, device), sequences, sizes), device, seconds
        )
    except torch.OutOfMemoryError:
        return Measurement(name, algorithm, None, None, None, None, None, plan.total / 2**30)
    tflops, spec = step_flops(shape, sequences) / step_s / 1e12, spec_tflops(device)
    return Measurement(
        model=name,
        algorithm=algorithm,
        tokens_per_s=sum(map(len, sequences)) / step_s,
        tflops=tflops,
        of_measured_peak=tflops / peak,
        of_spec_peak=tflops / spec if spec else None,
        peak_memory_gib=torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None,
        planned_memory_gib=plan.total / 2**30,
    )


def circumstances(device: torch.device, peak: float, sizes: Sizes) -> dict[str, Any]:
    return {
        "max_tokens": str(sizes.max_tokens),
        "sft": "packed" if sizes.packing else "padded",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "measured_peak_tflops": peak,
        "spec_peak_tflops": spec_tflops(device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "cuda": torch.version.cuda,
    }


def show(about: dict[str, Any], rows: Sequence[Measurement]) -> None:
    table = Table("", "tokens/s", "TFLOP/s", "of measured peak", "of data sheet", "GiB", "GiB planned")
    for row in rows:
        rates = [_text(row.tokens_per_s, ",.0f"), _text(row.tflops, ".1f")]
        shares = [_text(row.of_measured_peak, ".1%"), _text(row.of_spec_peak, ".1%")]
        memory = [_text(row.peak_memory_gib, ".1f"), f"{row.planned_memory_gib:.1f}"]
        table.add_row(f"{row.model}, {row.algorithm}", *rates, *shares, *memory)
    console = Console(width=120, soft_wrap=True, highlight=False)
    console.print(table)
    console.print(", ".join(f"{name} {_text(value, '.1f')}" for name, value in about.items()))


def _text(value: float | str | None, form: str) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else format(value, form)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a tiny model and few tokens")
    parser.add_argument("--model", choices=MODELS, help="this one only")
    parser.add_argument("--padded", action="store_true", help="SFT pads as GRPO does, instead of packing")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement, after two steps")
    parser.add_argument("--max-tokens", type=int, help=f"of a micro-batch (default: {FULL.max_tokens})")
    parser.add_argument("--output", type=Path, help="write the results there as JSON, too")
    arguments = parser.parse_args(argv)
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda must have a GPU, and torch sees none. --device cpu --tiny runs anywhere.")
    if arguments.tiny:
        torch.set_num_threads(1)  # on a busy machine several make small matrices 50 times slower
    models, sizes = ({"tiny": TINY}, SMALL) if arguments.tiny else (MODELS, FULL)
    if arguments.model and not arguments.tiny:
        models = {arguments.model: MODELS[arguments.model]}
    sizes = replace(sizes, max_tokens=arguments.max_tokens or sizes.max_tokens, packing=not arguments.padded)
    peak = matmul_tflops(device, sizes.matmul, min(2.0, arguments.seconds))
    rows: list[Measurement] = []
    for name, settings in models.items():
        for algorithm in ("SFT", "GRPO"):
            rows.append(measure(name, settings, algorithm, sizes, device, arguments.seconds, peak))
            print(f"{name}, {algorithm}: {_text(rows[-1].tokens_per_s, ',.0f')} tokens/s", flush=True)
    about = circumstances(device, peak, sizes)
    show(about, rows)
    if arguments.output:
        arguments.output.write_text(json.dumps(about | {"rows": [asdict(row) for row in rows]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
