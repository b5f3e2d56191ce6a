"""The policy: loading, LoRA, the trainable tensors, and the merged weights that engines and the final model get."""

import copy
import hashlib
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.config import LoraConfig, ModelConfig
from pipeline.errors import ModelError
from pipeline.files import write_json
from pipeline.models.context import loading_errors
from pipeline.models.device import pick_device, torch_dtype
from pipeline.models.imports import import_transformers
from pipeline.models.memory.attach import ATTRIBUTE, memory_of
from pipeline.models.pissa import adds_nothing, delta_weight, lora_layers, restore_bases
from pipeline.models.rounding import rounded_to
from pipeline.models.tokenizer import Tokenizer

logger = logging.getLogger(__name__)
ADAPTER_FILE = "adapter_model.safetensors"


def load_policy(path: Path, config: ModelConfig, *, frozen: bool = False) -> nn.Module:
    """The model in ``master_dtype`` on the learner's device, with fresh adapters if LoRA is configured.

    With LoRA only the adapters have ``master_dtype``; the frozen base has ``dtype``.

    Args:
        frozen: none of its weights train: it has ``dtype``.

    Raises:
        ModelError: it cannot be loaded, the device is not available, or a LoRA target does not exist.
    """
    import_transformers()
    from transformers import AutoModelForCausalLM

    base_dtype = config.dtype if config.lora or frozen else config.master_dtype
    device = pick_device(config)
    check_attention(config)
    with loading_errors(config.name):
        model: nn.Module = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=torch_dtype(base_dtype),
            device_map=config.device_map,
            attn_implementation=config.attn_implementation,
            trust_remote_code=config.trust_remote_code,
            use_safetensors=True,
        )
    if config.device_map is None:
        model = model.to(device)
    if config.gradient_checkpointing:
        _enable_gradient_checkpointing(model, frozen=frozen)
    if config.lora:
        model = _add_lora(model, config.lora, torch_dtype(config.master_dtype))
    if frozen:
        model.requires_grad_(False)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    logger.info("policy %s on %s: %.1f M of %.1f M parameters train", config.name, device, trainable / 1e6, total / 1e6)
    return model


def empty_policy(path: Path, config: ModelConfig) -> nn.Module:
    """The model without memory for its weights and without adapters.

    Raises:
        ModelError: it cannot be built, or a LoRA target does not exist.
    """
    import_transformers()
    from transformers import AutoConfig, AutoModelForCausalLM

    check_attention(config)
    code = {"trust_remote_code": config.trust_remote_code}
    # Whether flash attention is there can only be seen on a machine with a GPU, which this one need not be.
    attention = "eager" if "flash" in config.attn_implementation else config.attn_implementation
    with loading_errors(config.name):
        settings = AutoConfig.from_pretrained(path, **code)
        with torch.device("meta"):
            model: nn.Module = AutoModelForCausalLM.from_config(settings, attn_implementation=attention, **code)
    if config.lora:
        check_lora_targets(model, config.lora)
    return model


def check_attention(config: ModelConfig) -> None:
    """Raises ModelError for an implementation that is code on a hub, unless such code is allowed."""
    if "/" in config.attn_implementation and not config.trust_remote_code:
        raise ModelError(
            "model.attn_implementation must be one of the transformers library without model.trust_remote_code, got "
            f"{config.attn_implementation}: it would download code and run it. Use sdpa."
        )


def _enable_gradient_checkpointing(model: Any, *, frozen: bool) -> None:
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if frozen:  # the library asks for gradients of the embeddings: the backward pass would go on to the first layer
        model.disable_input_require_grads()
    else:
        model.enable_input_require_grads()


def _add_lora(model: Any, config: LoraConfig, dtype: torch.dtype) -> nn.Module:
    from peft import LoraConfig as PeftLoraConfig
    from peft import get_peft_model

    check_lora_targets(model, config)
    init: dict[str, Any] = {"default": True, "gaussian": "gaussian", "pissa": "pissa"}
    peft_config = PeftLoraConfig(
        r=config.r,
        lora_alpha=config.alpha,  # peft only divides it, so fractions are fine
        lora_dropout=config.dropout,
        target_modules=config.target_modules,
        use_rslora=config.use_rslora,
        init_lora_weights=init[config.init],
        task_type="CAUSAL_LM",
    )
    bases = {name: m.weight.data for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    adapted: nn.Module = get_peft_model(model, peft_config)
    for parameter in trainable_tensors(adapted).values():
        parameter.data = parameter.data.to(dtype)
    if config.init == "pissa":
        restore_bases(without_peft(adapted), bases)
    return adapted


def check_lora_targets(model: Any, config: LoraConfig) -> None:
    """Raises ModelError if the model lacks a target, or cannot have an adapter merged into it."""
    linear = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    missing = [name for name in config.target_modules if name not in linear]
    if missing:
        raise ModelError(f"model.lora.target_modules must be in the model, got {missing}: it has {sorted(linear)}.")
    output = model.get_output_embeddings() if getattr(model.config, "tie_word_embeddings", False) else None
    tied = next((name for name, module in model.named_modules() if module is output), None)
    if tied in config.target_modules:
        raise ModelError(
            f"model.lora.target_modules must not name {tied}: this model ties it to the input embedding, and an "
            "adapter there cannot be merged. Leave it out."
        )


def turn_off_dropout(model: Any) -> None:
    """Put the model into evaluation mode for good: no dropout (of modules or functions), layer drop or router noise.

    Gradient checkpointing stays on: transformers checkpoints a layer only if it is in training mode, so a layer is, but
    not while it computes.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    model.eval()
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer) and m.gradient_checkpointing]
    for layer in layers:
        layer.training = True
        layer.register_forward_pre_hook(lambda module, _: setattr(module, "training", False))
        layer.register_forward_hook(lambda module, *_: setattr(module, "training", True), always_call=True)
    if not layers and getattr(model, "is_gradient_checkpointing", False):
        logger.warning("%s checkpoints gradients only with dropout: it does not in this stage", type(model).__name__)


def trainable_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Name -> the parameter itself, for all parameters that train: every weight, or the adapters."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def saved_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Name -> the tensor itself, for all that checkpoints hold: those that train, or all of an explicit memory, of
    which each stage trains a part."""
    memory = memory_of(model)
    if memory is None:
        return trainable_tensors(model)
    return {f"{ATTRIBUTE}.{name}": tensor for name, tensor in memory.state_dict().items()}


@torch.no_grad()
def load_trainable(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy saved tensors into the model. Raises ModelError if names or shapes differ."""
    own = saved_tensors(model)
    different = {name for name in own.keys() | tensors.keys() if name not in own or name not in tensors}
    different |= {name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape}
    if different:
        raise ModelError(
            f"checkpoint must hold the tensors that train, {len(different)} differ ({sorted(different)[0]}): "
            "it was written with another model or LoRA setting."
        )
    for name, parameter in own.items():
        parameter.copy_(tensors[name])
    if memory := memory_of(model):
        memory.refresh()


def weights_digest(model: nn.Module) -> str:
    """16 hex digits over all tensors that checkpoints hold: equal for equal weights."""
    digest = hashlib.sha256()
    for name, parameter in saved_tensors(model).items():
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the trainable tensors: all that a reference policy needs besides the frozen rest."""
    return {name: parameter.detach().clone() for name, parameter in trainable_tensors(model).items()}


@contextmanager
def swapped_in(model: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Within the block the model has the tensors of the snapshot, so a second model never exists in memory."""
    own = trainable_tensors(model)
    current = {name: parameter.data for name, parameter in own.items()}
    try:
        for name, parameter in own.items():
            parameter.data = tensors[name]
        yield
    finally:
        for name, parameter in own.items():
            parameter.data = current[name]


def merged_weights(model: nn.Module, dtype: torch.dtype, seed: int | None = None) -> Iterator[tuple[str, Tensor]]:
    """Every weight in ``dtype``, adapters merged, and every persistent buffer, by its name in the model's files.

    One at a time; a layer at a time where the files hold them in another form (experts one by one). The model itself is
    untouched: merging in place and undoing it would change its last bits.

    Args:
        seed: round weights with a merged adapter at random. None: to the nearest, as all others.
    """
    layers = lora_layers(without_peft(model))

    def merge(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        layer = layers.get(name.removesuffix(".weight"))
        if layer is None:
            return tensor.to(dtype)
        if tensor.dtype == dtype and adds_nothing(layer):
            return tensor + 0  # the sum's bits: it has no -0
        return rounded_to(delta_weight(layer).add_(tensor), dtype, seed, name)

    return _handed_over(without_peft(model), dtype, merge)


def weight_specs(model: nn.Module, dtype: torch.dtype) -> list[tuple[str, torch.dtype, tuple[int, ...]]]:
    """Name, dtype and shape of everything that ``merged_weights`` yields, in its order. Copies and merges nothing."""

    def describe(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        return torch.empty_like(tensor, dtype=dtype, device="meta")

    handed_over = _handed_over(without_peft(model), dtype, describe)
    return [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in handed_over]


@torch.no_grad()
def _handed_over(
    plain: Any, dtype: torch.dtype, make: Callable[[str, Tensor, torch.dtype], Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """``make`` of everything in the model's files, by its name there.

    Buffers, and weights that the model's class keeps in float32, have their own dtype whatever ``dtype`` is.
    """
    from transformers.core_model_loading import revert_weight_conversion

    kept, is_converted = tuple(getattr(plain, "_keep_in_fp32_modules_strict", None) or ()), _is_converted(plain)

    def made(name: str, tensor: Tensor) -> Tensor:
        is_own = not isinstance(tensor, nn.Parameter) or any(part in name for part in kept)
        return make(name, tensor.detach(), tensor.dtype if is_own else dtype)

    for tensors in _blocks(plain, by_layer=is_converted):
        block = {name: made(name, tensor) for name, tensor in tensors.items()}
        yield from (revert_weight_conversion(plain, block) if is_converted else block).items()


def _is_converted(plain: Any) -> bool:
    """True if transformers renames or fuses what it loads, so that the files have other names."""
    from transformers.conversion_mapping import get_model_conversion_mapping

    conversions = getattr(plain, "_weight_conversions", None)
    if conversions is None:  # made from a configuration alone
        conversions = get_model_conversion_mapping(plain, add_legacy=False)
    return bool(conversions)


def _blocks(plain: nn.Module, *, by_layer: bool) -> list[dict[str, Tensor]]:
    """Weights and persistent buffers by name, without adapters: one by one, or those of a decoder layer together."""
    saved = plain.state_dict().keys()
    blocks: dict[str, dict[str, Tensor]] = {}
    for name, tensor in (*plain.named_parameters(), *plain.named_buffers()):
        if name in saved and ".lora_" not in name:
            layer = re.match(r".*?\.\d+\.", name) if by_layer else None
            blocks.setdefault(layer[0] if layer else name, {})[name.replace(".base_layer.", ".")] = tensor
    return list(blocks.values())


def save_final_model(
    model: nn.Module,
    tokenizer: Tokenizer,
    directory: Path,
    dtype: torch.dtype,
    seed: int | None = None,
    rounding: Mapping[str, Any] | None = None,
) -> None:
    """Save an ordinary checkpoint, adapters merged, that ``AutoModelForCausalLM.from_pretrained`` loads.

    Args:
        seed: as in ``merged_weights``: with the one of the engines it is the model that they answered with last.
        rounding: what it did to the update, for ``rounding.json``.
    """
    plain = without_peft(model)
    weights = {name: tensor.cpu().contiguous() for name, tensor in merged_weights(model, dtype, seed)}
    dtype_in_memory = plain.config.dtype
    plain.save_pretrained(directory, state_dict=weights, save_original_format=False)  # they are in it already
    plain.config.dtype = dtype  # save_pretrained wrote the dtype in memory
    plain.config.save_pretrained(directory)
    plain.config.dtype = dtype_in_memory
    tokenizer.save_pretrained(directory)
    if rounding is not None:
        write_json(directory / "rounding.json", rounding)


def save_adapter(model: Any, config: ModelConfig, directory: Path, initial: Mapping[str, Tensor] | None = None) -> None:
    """Save the adapters for the unchanged base model, in the form that ``PeftModel.from_pretrained`` loads.

    Args:
        initial: for PiSSA, the adapters before training, which it subtracts from the base. The saved adapter then has
            rank 2r: B A - B_0 A_0 as [B, -B_0] [A; A_0].
    """
    from peft import get_peft_model_state_dict

    peft_config = copy.deepcopy(model.peft_config["default"])
    tensors = get_peft_model_state_dict(model)
    if initial is not None:
        before = get_peft_model_state_dict(model, state_dict=dict(initial))
        for name in tensors:
            is_a = ".lora_A." in name
            pair = [tensors[name], before[name] if is_a else -before[name]]
            tensors[name] = torch.cat(pair, dim=0 if is_a else 1)
        peft_config.init_lora_weights = True
        peft_config.r *= 2
        peft_config.lora_alpha *= math.sqrt(2) if peft_config.use_rslora else 2  # keeps the factor before B A
    peft_config.base_model_name_or_path = config.name
    peft_config.inference_mode = True
    directory.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, directory / ADAPTER_FILE)
    peft_config.save_pretrained(directory)


def without_peft(model: nn.Module) -> Any:
    """The transformers model inside peft's wrapper. With LoRA its linear modules are adapter layers."""
    return model.base_model.model if hasattr(model, "peft_config") else model  # type: ignore[union-attr]
