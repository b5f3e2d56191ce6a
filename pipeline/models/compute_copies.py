"""Copies of float32 weights in the dtype that a model computes in.

Autocast casts every weight once per micro-batch, and leaves embeddings, norms and the residual stream in float32. With
copies, weights are cast once per update, and everything between them is in the model's dtype, as it is in the engines.
Master weights, the sum of their gradients over micro-batches, and the optimizer stay in float32: the usual mixed
precision, arXiv:1710.03740.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn


@contextmanager
def computing_in(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Within the block the model's float32 weights are copies in ``dtype``, and their gradients are added to those of
    the weights themselves. Forward and backward passes must both be inside; the optimizer's step must not.

    Weights that the model's class keeps in float32 stay as they are.
    """
    copies = _copies(model, dtype)
    places = [
        (module, name, parameter)
        for module in model.modules()
        for name, parameter in module._parameters.items()
        if parameter is not None and id(parameter) in copies
    ]
    try:
        for module, name, parameter in places:
            module._parameters[name] = copies[id(parameter)]
        yield
    finally:
        for module, name, parameter in places:
            module._parameters[name] = parameter


def _copies(model: nn.Module, dtype: torch.dtype) -> dict[int, nn.Parameter]:
    """By the ``id`` of the weight. Tied weights are one parameter and have one copy."""
    kept = tuple(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    copies = {}
    for name, parameter in model.named_parameters():
        if dtype != torch.float32 and parameter.dtype == torch.float32 and not any(part in name for part in kept):
            copy = nn.Parameter(parameter.detach().to(dtype), requires_grad=parameter.requires_grad)
            if copy.requires_grad:
                copy.register_post_accumulate_grad_hook(partial(_hand_over, parameter))
            copies[id(parameter)] = copy
    return copies


def _hand_over(parameter: nn.Parameter, copy: Tensor) -> None:
    """The gradient of a copy. The hook must not hold the copy, which holds it: nothing would ever free the two."""
    assert copy.grad is not None
    if parameter.grad is None:
        parameter.grad = copy.grad.to(parameter.dtype)
    else:
        parameter.grad.add_(copy.grad)
    copy.grad = None
