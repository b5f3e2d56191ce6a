"""Chooses the learner's device, and the dtype that suits a machine."""

import logging

import torch

from pipeline.config import ModelConfig
from pipeline.errors import ModelError

logger = logging.getLogger(__name__)


def pick_device(config: ModelConfig) -> torch.device:
    """The learner's device. Raises ModelError if the configured one is not available."""
    is_available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    available = [name for name, is_here in is_available.items() if is_here]
    if config.device == "auto":
        return torch.device(available[0])
    if config.device not in available:
        raise ModelError(
            f"model.device must be available on this machine, got {config.device}: torch sees {', '.join(available)}."
        )
    return torch.device(config.device)


def choose_dtype(name: str, on_gpu: bool = False) -> str:
    """The dtype that ``auto`` means on this machine; any other name stays.

    A CPU without native bfloat16 matmul can emulate it, a hundred times slower than float32.
    """
    capabilities = torch.cpu.get_capabilities()
    is_fast = on_gpu or capabilities.get("avx512_bf16", False) or capabilities.get("bf16", False)  # x86, ARM
    if name == "bfloat16" and not is_fast:
        logger.warning("this CPU has no native bfloat16 matmul: bfloat16 is very slow here, dtype auto uses float32")
    return ("bfloat16" if is_fast else "float32") if name == "auto" else name


def torch_dtype(name: str) -> torch.dtype:
    """``auto`` means the best dtype for this machine's CPU."""
    dtype: torch.dtype = getattr(torch, choose_dtype(name) if name == "auto" else name)
    return dtype


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Within the block, matrix products are computed in ``dtype``; float32 changes nothing."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)
