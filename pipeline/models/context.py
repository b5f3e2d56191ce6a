"""The longest text that a model can read, from its configuration alone."""

from pathlib import Path
from typing import Any

from pipeline.errors import ModelError, first_line

_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
_SCALED_ALREADY = {"default", "llama3", "longrope", "su", "yarn", "deepseek_yarn", "deepseek_llama_scaling"}
"""Kinds of rope whose factor is part of ``max_position_embeddings``, or extends nothing."""


def read_model_config(path: Path, *, trust_remote_code: bool) -> Any:
    """The transformers library's configuration of the model in a directory. Raises ModelError if it cannot be read."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"model {path} cannot be loaded: {first_line(error)}") from None


def context_length(config: Any) -> int | None:
    """Tokens of prompt and completion together that vLLM accepts; None if the configuration does not say.

    Args:
        config: from ``read_model_config``.

    Source: ``_get_and_verify_max_len`` of vLLM 0.32, ``vllm/config/model.py``.
    """
    text = config.get_text_config()
    lengths = [getattr(text, key) for key in _KEYS if isinstance(getattr(text, key, None), int)]
    longest = getattr(text, "model_max_length", None)
    if not lengths:
        return longest if isinstance(longest, int) else None
    scaled = int(min(lengths) * _rope_factor(text))
    return max(scaled, longest) if isinstance(longest, int) else scaled


def _rope_factor(config: Any) -> float:
    rope = getattr(config, "rope_parameters", None) or {}
    if "gemma3" in config.model_type:
        return 1.0
    kinds = [rope] if "rope_type" in rope else [kind for kind in rope.values() if isinstance(kind, dict)]
    factors = [kind.get("factor") or 1.0 for kind in kinds if kind.get("rope_type") not in _SCALED_ALREADY]
    return float(max(factors, default=1.0))
