"""The machine that a benchmark runs on: times of different ones compare only as a ratio to its matmul rate."""

import time

from pipeline.models.device import choose_dtype, torch_dtype


def matmul_tflops(seconds: float = 2.0) -> float:
    """Rate of 2048 x 2048 matmuls on all cores, in this machine's default dtype for models."""
    import torch

    a, b = torch.randn(2, 2048, 2048, dtype=torch_dtype("auto"))
    a @ b
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        a @ b
        count += 1
    return count * 2 * 2048**3 / (time.perf_counter() - start) / 1e12


def describe_machine() -> str:
    """Its kind, as docs/benchmarks.md names it."""
    import torch

    has_amx = torch.cpu.get_capabilities().get("amx_bf16", False)
    kind = "AMX" if has_amx else "native bfloat16" if choose_dtype("auto") == "bfloat16" else "no native bfloat16"
    return f"CPU, {kind}, {torch.get_num_threads()} threads"
