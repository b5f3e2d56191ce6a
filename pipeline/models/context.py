"""The longest text that a model can read, from its configuration alone."""

from collections.abc import Iterator
from contextlib import contextmanager
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

    with loading_errors(str(path)):
        return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)


@contextmanager
def loading_errors(name: str) -> Iterator[None]:
    """Turns what the transformers library raises for a model's files into a ModelError."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"model {name} cannot be loaded: {first_line(error)}") from None
    except (StrictDataclassError, LookupError, ArithmeticError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise ModelError(f"model {name} must have a config.json that can be used, got {reason}.") from None
    except RuntimeError as error:
        if "mismatch" not in str(error):  # out of memory, for one
            raise
        raise ModelError(
            f"model {name} must have weights of the shapes that its config.json says, and some differ: they were "
            "not made together. Download it again."
        ) from None


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
