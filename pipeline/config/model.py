"""The policy: which model, its precision, its adapters."""

from typing import Literal

from pydantic import Field

from pipeline.config.base import StrictModel


class LoraConfig(StrictModel):
    """Low-rank adapters by peft. arXiv:2106.09685."""

    r: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: list[str] = Field(
        default=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], min_length=1
    )
    """Names of linear modules. One that the model lacks is an error that lists the names it has."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(r) in place of alpha / r. arXiv:2312.03732."""
    init: Literal["default", "gaussian", "pissa"] = "default"
    """``pissa`` starts from the principal singular vectors and changes the base. arXiv:2404.02948."""


class ModelConfig(StrictModel):
    name: str = "embedded:smollm2-135m-instruct"
    """A hub name, a local directory, or the embedded model."""
    hub: Literal["huggingface", "modelscope"] = "huggingface"
    """Where hub names are looked up. HF_ENDPOINT names a mirror of the Hugging Face hub."""
    revision: str | None = None
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of the forward and backward pass, of the engine, and of the final model. auto: bfloat16, but float32 where
    learners run on a CPU without bfloat16 products. The machine that a run is started on decides, once."""
    master_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights that the optimizer updates. bfloat16 halves memory and loses small updates."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Of the learner. auto: cuda, else mps, else cpu."""
    device_map: str | None = None
    """Handed to transformers, which then places the weights itself; needs learner.num_workers=1."""
    attn_implementation: str = "sdpa"
    gradient_checkpointing: bool = False
    trust_remote_code: bool = False
    """Runs Python code that comes with the model. Leave it off for models you did not read."""
    lora: LoraConfig | None = None
    """None trains every weight."""
