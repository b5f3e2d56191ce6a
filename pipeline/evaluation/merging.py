"""Merges an adapter or a checkpoint into its base model, so that an engine can load it."""

from pathlib import Path
from typing import Any

from pipeline.config.evaluation import LoadingConfig
from pipeline.errors import CheckpointError, ModelError, first_line
from pipeline.evaluation.models import EvalModel, checkpoint_config, loading_config
from pipeline.models.device import torch_dtype
from pipeline.models.policy import ADAPTER_FILE, empty_policy, load_policy, load_trainable, save_final_model
from pipeline.models.tokenizer import load_tokenizer
from pipeline.models.weight_names import check_weight_names
from pipeline.runs.checkpoints import load_checkpoint

Shapes = dict[str, tuple[int, ...]]


def load_directory(model: EvalModel, loading: LoadingConfig, scratch: Path) -> Path:
    """The directory that an engine loads: the model's own, or a merged copy written to ``scratch``.

    Raises:
        ModelError: an adapter or a checkpoint does not fit its base.
        CheckpointError: the copy cannot be written.
    """
    from safetensors import SafetensorError
    from transformers.utils.logging import disable_progress_bar

    if model.base is None:
        return model.path
    check_fit(model, loading)
    disable_progress_bar()  # it would break into the evaluation's own progress display
    merge = _merge_adapter if model.kind == "adapter" else _merge_checkpoint
    merged, tokenizer = merge(model, loading)
    try:
        save_final_model(merged, tokenizer, scratch, torch_dtype(loading.dtype), seed=0)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"the merged {model.label} cannot be written to {scratch}: {first_line(error)}. Free some space, then "
            "continue with --resume."
        ) from None
    return scratch


def check_fit(model: EvalModel, loading: LoadingConfig) -> None:
    """Raises ModelError if an adapter does not fit its base, or a base its own configuration. Compares names and
    shapes; loads no weights."""
    if model.base is None or (model.kind != "adapter" and loading.trust_remote_code):  # its code may need real weights
        return
    base = empty_policy(model.base, loading_config(str(model.base), loading))
    check_weight_names(base, model.base, str(model.base))
    if model.kind != "adapter":
        return
    stored, expected = _stored_shapes(model), _expected_shapes(model, base)
    if wrong := sorted(name for name in stored.keys() | expected.keys() if stored.get(name) != expected.get(name)):
        got, needed = (shapes.get(wrong[0], "none") for shapes in (stored, expected))
        raise ModelError(_other_base(model, f"{len(wrong)} tensors differ ({wrong[0]}: {got}, base: {needed})"))


def _stored_shapes(model: EvalModel) -> Shapes:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(model.path / ADAPTER_FILE, "pt") as file:
            names = file.keys()
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"adapter {model.path} cannot be read: {first_line(error)}") from None


def _expected_shapes(model: EvalModel, base: Any) -> Shapes:
    """Tensors that an adapter with these settings has on this base."""
    import torch
    from peft import PeftModel, get_peft_model_state_dict

    try:
        with torch.device("meta"):
            adapted = PeftModel(base, _peft_config(model))
    except ValueError as error:  # the base lacks the modules that the adapter names
        raise ModelError(_other_base(model, first_line(error))) from None
    return {name: tuple(tensor.shape) for name, tensor in get_peft_model_state_dict(adapted).items()}


def _peft_config(model: EvalModel) -> Any:
    from peft import PeftConfig

    try:
        return PeftConfig.from_pretrained(str(model.path))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"adapter {model.path} cannot be read: {first_line(error)}") from None


def _merge_checkpoint(model: EvalModel, loading: LoadingConfig) -> tuple[Any, Any]:
    """The policy with the checkpoint's weights, and its tokenizer."""
    assert model.run and model.base
    config = checkpoint_config(model.run, loading)
    policy = load_policy(model.base, config)
    load_trainable(policy, load_checkpoint(model.path).tensors)
    return policy, load_tokenizer(model.base, config, chat=False)


def _merge_adapter(model: EvalModel, loading: LoadingConfig) -> tuple[Any, Any]:
    """The base with the adapter applied, and its tokenizer."""
    from peft import PeftModel, set_peft_model_state_dict
    from safetensors.torch import load_file

    assert model.base
    config = loading_config(str(model.base), loading)
    adapted = PeftModel(load_policy(model.base, config), _peft_config(model))
    set_peft_model_state_dict(adapted, load_file(model.path / ADAPTER_FILE))
    return adapted, load_tokenizer(model.base, config, chat=False)


def _other_base(model: EvalModel, reason: str) -> str:
    return (
        f"adapter {model.path} must fit its base {model.base}, but was trained for another: {reason}. "
        "Set loading.base to the model it was trained on."
    )
