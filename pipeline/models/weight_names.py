"""Compares what is handed over to engines and the final model with the model's files, by name and shape."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from pipeline.errors import ModelError
from pipeline.models.hub import weight_map
from pipeline.models.policy import weight_specs, without_peft


def check_weight_names(model: nn.Module, path: Path, name: str) -> None:
    """Make sure that nothing is left out or added, except what transformers itself leaves out or ties.

    Args:
        path: the model's files.
        name: for the error.

    Raises:
        ModelError: some names or shapes differ.
    """
    shapes, plain = saved_shapes(path), without_peft(model)
    if shapes is None:
        return
    own_shapes = {spec[0]: spec[2] for spec in weight_specs(model, torch.float32)}
    saved, handed_over = shapes.keys(), own_shapes.keys()
    tied = _tied_names(plain)
    unused = [*(plain._keys_to_ignore_on_load_unexpected or ()), r"rotary_emb\.inv_freq$"]
    made = plain._keys_to_ignore_on_load_missing or ()
    left_out = {n for n in saved - handed_over if not tied.get(n, set()) & handed_over and not _matches(n, unused)}
    added = {n for n in handed_over - saved if not tied.get(n, set()) & saved and not _matches(n, made)}
    if left_out or added:
        raise ModelError(
            f"model {name} must hand over the weights in its files and nothing else, got {len(left_out)} left out "
            f"{sorted(left_out)[:3]} and {len(added)} added {sorted(added)[:3]}: engines and the final model would not "
            "be the model that is trained. Maybe its config.json is another model's. Choose another model."
        )
    if differ := sorted(n for n in saved & handed_over if shapes[n] != own_shapes[n]):
        raise ModelError(
            f"model {name} must have weights of the shapes that its config.json says, got {len(differ)} others: "
            f"{differ[0]} is {list(shapes[differ[0]])} in its files, not {list(own_shapes[differ[0]])}. "
            "They were not made together. Download it again."
        )


def saved_shapes(path: Path) -> dict[str, tuple[int, ...]] | None:
    """Shapes of the weights in a model's files, by name; None if they are not where transformers writes them."""
    files = weight_map(path)
    if not files and not (path / "model.safetensors").exists():
        return None
    shapes: dict[str, tuple[int, ...]] = {}
    for name in sorted(set(files.values())) or ["model.safetensors"]:
        with safe_open(path / name, framework="pt") as file:
            shapes |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    return shapes


def _tied_names(plain: Any) -> dict[str, set[str]]:
    """For every weight, all names it has in memory."""
    names: dict[int, set[str]] = {}
    for name, parameter in plain.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(name.replace(".base_layer.", "."))
    return {name: together for together in names.values() for name in together}


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)
