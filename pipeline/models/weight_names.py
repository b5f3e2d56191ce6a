"""Compares what is handed over to engines and the final model with the model's files, by name."""

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
        ModelError: some names differ.
    """
    saved, plain = saved_names(path), without_peft(model)
    if saved is None:
        return
    handed_over = {spec[0] for spec in weight_specs(model, torch.float32)}
    tied = _tied_names(plain)
    unused = [*(plain._keys_to_ignore_on_load_unexpected or ()), r"rotary_emb\.inv_freq$"]
    made = plain._keys_to_ignore_on_load_missing or ()
    left_out = {n for n in saved - handed_over if not tied.get(n, set()) & handed_over and not _matches(n, unused)}
    added = {n for n in handed_over - saved if not tied.get(n, set()) & saved and not _matches(n, made)}
    if left_out or added:
        raise ModelError(
            f"model {name} must hand over the weights in its files and nothing else, got {len(left_out)} left out "
            f"{sorted(left_out)[:3]} and {len(added)} added {sorted(added)[:3]}: engines and the final model would not "
            "be the model that is trained. Choose another model."
        )


def saved_names(path: Path) -> set[str] | None:
    """Names of the weights in a model's files; None if they are not where transformers writes them."""
    if names := weight_map(path):
        return set(names)
    single = path / "model.safetensors"
    if not single.exists():
        return None
    with safe_open(single, framework="pt") as file:
        return set(file.keys())


def _tied_names(plain: Any) -> dict[str, set[str]]:
    """For every weight, all names it has in memory."""
    names: dict[int, set[str]] = {}
    for name, parameter in plain.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(name.replace(".base_layer.", "."))
    return {name: together for together in names.values() for name in together}


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)
