"""The cost of an explicit memory: retrieval beside brute force, and training steps beside those of plain SFT.

    python -m tests.benchmarks.memory [keys | steps] [--num-steps 4]

``keys``: the best 16 of 1,048,576 slots for queries of 1,536 dimensions. ``steps``: tokens per second, prompts
included, and the peak memory of the embedded model's training steps, each form in a process of its own; and where the
forward pass of the memory spends its time. The rest is mostly cosines and diversity. Times compare within one run.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.machine import matmul_tflops
from tests.conftest import ROOT

SIDE, DIM, COUNT = 1024, 1536, 16
BLOCK = 2**16
"""Keys that brute force reads again and again: all would be 6 GiB."""
BATCH, PROMPT, ANSWER = 8, 56, 8
"""Examples of a step, and their tokens."""
SKIPPED = 2
"""Steps that are not timed: PyTorch compiles matmuls of new shapes."""
NINE = [3, 6, 9, 12, 15, 18, 21, 24, 27]
FORMS: dict[str, dict[str, Any] | None] = {
    "plain SFT": None,
    "LoRA SFT": None,
    "explicitlm, 30 layers": {"preset": "explicitlm"},
    "explicitlm, 9 layers": {"preset": "explicitlm", "layers": NINE},
    "routed, 8 layers, prompts cached": {"preset": "routed", "layers": [12, 14, 16, 18, 20, 22, 24, 26]},
    "routed, 8 layers, not cached": {"preset": "routed", "layers": [12, 14, 16, 18, 20, 22, 24, 26]}
    | {"prompt_cache_gib": 0.0},
}


# Retrieval ---------------------------------------------------------------------------------------


def keys(num_queries: int) -> tuple[float, float]:
    """Seconds per query of product keys and of brute force."""
    import torch

    from pipeline.models.memory.product_keys import ProductKeys, top_slots

    module, query, temperature = ProductKeys(SIDE, DIM), torch.randn(num_queries, DIM), torch.tensor(10.0)
    module.rows.data.normal_()
    module.columns.data.normal_()
    block = torch.randn(BLOCK, DIM)
    scores = torch.empty(num_queries, SIDE**2)

    def brute_force() -> None:
        for start in range(0, SIDE**2, BLOCK):
            torch.matmul(query, block.T, out=scores[:, start : start + BLOCK])
        scores.topk(COUNT, dim=-1)

    def product_keys() -> None:
        rows, columns = module(query, temperature)
        top_slots(rows, columns, COUNT)

    by_keys = seconds(product_keys, 50)
    return by_keys / num_queries, seconds(brute_force, 2) / num_queries


def seconds(work: Callable[[], Any], count: int) -> float:
    work()
    start = time.perf_counter()
    for _ in range(count):
        work()
    return (time.perf_counter() - start) / count


def show_keys() -> None:
    import torch

    torch.set_num_threads(1)
    products = {"keys": SIDE * DIM + COUNT**2, "brute force": SIDE**2 * DIM}
    expected = products["brute force"] / products["keys"]
    title = f"The best {COUNT} of {SIDE**2:,} slots, {DIM} dimensions, one thread"
    table = Table("queries at once", "product keys, ms each", "brute force, ms each", "factor", title=title)
    for num_queries in (1, 64):
        with torch.no_grad():
            by_keys, by_force = keys(num_queries)
        table.add_row(str(num_queries), f"{by_keys * 1e3:.3f}", f"{by_force * 1e3:.1f}", f"{by_force / by_keys:.0f}")
    Console().print(table)
    print(f"comparisons: {2 * SIDE:,} of half the width and {COUNT**2} sums, to {SIDE**2:,}: {expected:.0f} x fewer")


# Training steps ----------------------------------------------------------------------------------


def step_of(form: str) -> tuple[Any, Callable[[], Any]]:
    """The model of a form, and its training step."""
    import torch

    from pipeline.config import LoraConfig, ModelConfig
    from pipeline.models.attention import use_causal_sdpa
    from pipeline.models.device import torch_dtype
    from pipeline.models.hub import resolve_model
    from pipeline.models.policy import load_policy
    from pipeline.training.batching import TokenSequence
    from tests.support.learner_steps import adamw, sft_step

    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokens = torch.randint(1000, 40000, (BATCH, PROMPT + ANSWER)).tolist()
    sequences = [TokenSequence(tuple(row[:PROMPT]), tuple(row[PROMPT:])) for row in tokens]
    settings, dtype = FORMS[form], torch_dtype("auto")
    lora = LoraConfig(r=16, alpha=32.0) if form.startswith("LoRA") else None
    model: Any = load_policy(resolve_model(ModelConfig()), ModelConfig(lora=lora), frozen=settings is not None)
    model.train()
    if settings is None or settings["preset"] == "explicitlm":
        use_causal_sdpa(model)
    if settings is None:
        optimizer = adamw(model, 1e-5)
        return model, lambda: sft_step(model, optimizer, sequences, dtype=dtype, max_tokens=1024)
    return model, memory_step(model, settings, sequences, dtype)


def memory_step(model: Any, settings: dict[str, Any], sequences: Any, dtype: Any) -> Callable[[], None]:
    import torch

    from pipeline.config import MemoryConfig
    from pipeline.models.memory.attach import attach_memory, set_trainable
    from pipeline.training.batching import micro_batches
    from pipeline.training.memory.fusion import given_form_losses, token_form_losses
    from pipeline.training.memory.prompt_cache import PromptCache
    from tests.support.learner_steps import adamw, device_of

    config = MemoryConfig.model_validate({"knowledge": "none", **settings})
    memory = attach_memory(model, config, seed=0)
    memory.bank.entry_of_slot.copy_(torch.arange(config.knowledge_num))
    entries = torch.randint(1000, 40000, (config.knowledge_num, config.knowledge_length), dtype=torch.int32)
    memory.bank.set_entries(entries, memory.embedding)
    for name, parameter in memory.named_parameters():
        if "product_keys" in name:
            parameter.data.normal_()
    set_trainable(memory, ["memory_gate", "memory_norm", "gated_memory_fusion"], router=False)
    optimizer = adamw(model, 1e-3)
    (batch,) = micro_batches(sequences, 10_000, device_of(model), pad_to_multiple_of=8)
    prompts = [sequence.prompt for sequence in sequences]
    cache = PromptCache(model, prompts.__getitem__, list(map(len, prompts)), config.prompt_cache_gib, with_kv=True)
    lengths, seeds, last = [len(s) for s in sequences], list(range(BATCH)), [prompt[-1] for prompt in prompts]

    def step() -> None:
        if config.selection == "given":
            states, completions = cache.states(range(BATCH)), [sequence.completion for sequence in sequences]
            losses = given_form_losses(model, states, last, completions, entries[:BATCH, None], dtype)
        else:
            losses = token_form_losses(model, batch, lengths, seeds, dtype)
        (losses.loss / 64 - 0.1 * losses.similarity / 512).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def time_parts(model: Any) -> dict[str, float]:
    """From here on, seconds of the memory's forward pass by part."""
    from pipeline.models.memory import memory as memory_module
    from pipeline.models.memory.attach import memory_of

    spent: dict[str, float] = defaultdict(float)
    memory: Any = memory_of(model)

    def timed(owner: Any, name: str, part: str) -> None:
        work = getattr(owner, name)

        def run(*arguments: Any) -> Any:
            start = time.perf_counter()
            try:
                return work(*arguments)
            finally:
                spent[part] += time.perf_counter() - start

        setattr(owner, name, run)

    timed(memory, "after_layer", "memory, all")
    timed(memory, "_means", "decode")
    timed(memory, "_vectors", "decode")
    timed(memory, "_weights", "selection")
    timed(memory_module, "top_slots", "keys")
    parts = {"memory_norm": "norm", "memory_gate": "gate", "product_keys": "keys", "memory_attention": "decode"}
    for layer in memory.layers.values():
        for name, part in (parts | {"gated_memory_fusion": "fusion"}).items():
            if hasattr(layer, name):
                timed(getattr(layer, name), "forward", part)
    return spent


def run_form(form: str, num_steps: int) -> None:
    """In a process of its own, which prints a line of JSON."""
    model, step = step_of(form)
    for _ in range(SKIPPED):
        step()
    per_step = seconds(step, num_steps)
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    result: dict[str, Any] = {
        "tokens_per_s": BATCH * (PROMPT + ANSWER) / per_step,
        "step_s": per_step,
        "peak_gib": peak_gib,
    }
    result["trainable"] = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if FORMS[form]:
        spent = time_parts(model)
        for _ in range(2):
            step()
        result["parts"] = {part: value / 2 for part, value in spent.items()}
        result["parts"]["rest"] = 2 * result["parts"]["memory, all"] - sum(result["parts"].values())
    print(json.dumps(result))


def show_steps(num_steps: int) -> None:
    before, results = matmul_tflops(1.0), {}
    for form in FORMS:
        command = [sys.executable, "-m", "tests.benchmarks.memory", "--form", form, "--num-steps", str(num_steps)]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        results[form] = json.loads(done.stdout.splitlines()[-1])
        print(form, results[form], flush=True)
    plain = results["plain SFT"]
    title = f"Steps of {BATCH} x {PROMPT + ANSWER} tokens, the embedded model, one thread"
    table = Table("", "trained, M", "tokens/s", "to plain SFT", "peak GiB", title=title)
    parts = Table("ms in the forward pass", *(form for form in FORMS if FORMS[form]))
    for form, found in results.items():
        rate = f"{found['tokens_per_s']:.0f}", f"{found['tokens_per_s'] / plain['tokens_per_s']:.2f}"
        table.add_row(form, f"{found['trainable'] / 1e6:.1f}", *rate, f"{found['peak_gib']:.2f}")
    for part in ("norm", "gate", "keys", "selection", "decode", "fusion", "rest", "memory, all"):
        measured = (results[form]["parts"].get(part, 0.0) for form in FORMS if FORMS[form])
        parts.add_row(part, *(f"{value * 1e3:.0f}" for value in measured))
    parts.add_row("of a step", *(f"{results[form]['step_s'] * 1e3:.0f}" for form in FORMS if FORMS[form]))
    Console().print(table, parts)
    print(f"matmul: {before:.2f} TFLOP/s before, {matmul_tflops(1.0):.2f} after")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["keys", "steps"], help="by default both")
    parser.add_argument("--num-steps", type=int, default=4)
    parser.add_argument("--form", choices=FORMS, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.form:
        return run_form(arguments.form, arguments.num_steps)
    if arguments.what != "steps":
        show_keys()
    if arguments.what != "keys":
        show_steps(arguments.num_steps)


if __name__ == "__main__":
    main()
