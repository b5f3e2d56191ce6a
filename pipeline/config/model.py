"""The policy: which model, its precision, its adapters."""

from typing import Literal

from pydantic import Field

from pipeline.config.base import StrictModel


class LoraConfig(StrictModel):
    """Low-rank adapters, by peft. arXiv:2106.09685."""

    r: int = Field(16, ge=1)
    """Rank of an adapter."""
    alpha: float = Field(32.0, gt=0)
    """An adapter's output is scaled by alpha / r."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout probability of an adapter's input, in SFT only."""
    target_modules: list[str] = Field(
        default=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], min_length=1
    )
    """Names of the linear modules that get an adapter. An unknown name is an error, which lists the model's names."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(r) instead of alpha / r. arXiv:2312.03732."""
    init: Literal["default", "gaussian", "pissa"] = "default"
    """Initialization of adapters. ``default``: A uniform, B zero. ``gaussian``: A normal, B zero. ``pissa``: from the
    principal singular vectors; a frozen copy of this start is subtracted again, so that the policy starts as the model
    is. arXiv:2404.02948."""


class ModelConfig(StrictModel):
    """The model to train, and how it is loaded."""

    name: str = "embedded:smollm2-135m-instruct"
    """A hub name, a local directory, or the embedded model."""
    hub: Literal["huggingface", "modelscope"] = "huggingface"
    """The hub where names are looked up. HF_ENDPOINT can point to a mirror of the Hugging Face hub."""
    revision: str | None = None
    """Branch, tag or commit on the hub. None: the default branch. A run keeps the commit that it starts with."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Precision of forward and backward passes, engines and the final model. ``auto``: bfloat16, or float32 if learners
    run on a CPU without native bfloat16 matmul. Decided once, by the machine that starts the run."""
    master_dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the weights that the optimizer updates. bfloat16 halves their memory but loses small updates."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Device of the learner. ``auto``: cuda if available, else mps, else cpu."""
    device_map: str | None = None
    """Passed to transformers, which then places the weights itself. Needs learner.num_workers=1. None: ``device``."""
    attn_implementation: str = "sdpa"
    """Attention implementation of transformers, such as ``sdpa``, ``eager`` or ``flash_attention_2``."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Leave it off unless you have read that code."""
    lora: LoraConfig | None = None
    """None: train all weights."""
