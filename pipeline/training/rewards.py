"""Reward functions, looked up by name, and the weighted sum of their values.

A reward function sees all completions of one prompt with their verdicts, and returns one value per completion::

    @register("short")
    def short(group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
        return [1.0 / len(completion.token_ids) for completion in group.completions]
"""

import difflib
import importlib
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from pipeline.config import RewardTerm
from pipeline.errors import RewardError
from pipeline.types import RewardBreakdown, RolloutGroup
from pipeline.verifier import Grader, Verdict

RewardFunction = Callable[[RolloutGroup, Sequence[Verdict]], Sequence[float]]

_REGISTRY: dict[str, RewardFunction] = {}
_TAGS = ("<reasoning>", "</reasoning>", "<answer>", "</answer>")


def register(name: str) -> Callable[[RewardFunction], RewardFunction]:
    """Decorator: make a reward function available under ``name``."""

    def add(function: RewardFunction) -> RewardFunction:
        _REGISTRY[name] = function
        return function

    return add


@register("correctness")
def correctness(group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
    """2.0 for exactly the gold answer, 1.5 for the same in another form, otherwise 0.0."""
    return [0.0 if verdict.outcome != "correct" else 2.0 if verdict.method == "exact" else 1.5 for verdict in verdicts]


@register("format")
def tag_format(group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
    """0.2 for each of the four tags that appears."""
    return [0.2 * sum(tag in completion.text for tag in _TAGS) for completion in group.completions]


def resolve(name: str) -> RewardFunction:
    """The reward function that is registered as ``name``, or that ``module:function`` names.

    Raises:
        RewardError: unknown name, or the module cannot be imported.
    """
    if name in _REGISTRY:
        return _REGISTRY[name]
    module_name, separator, function_name = name.partition(":")
    if not separator:
        near = difflib.get_close_matches(name, _REGISTRY, n=1, cutoff=0.5) or sorted(_REGISTRY)
        raise RewardError(f"unknown reward {name!r}. Did you mean {' or '.join(near)}? A plug-in is module:function.")
    try:
        function: object = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:  # importing a plug-in can raise anything
        reason = " ".join(str(error).split())
        raise RewardError(f"reward {name!r} cannot be imported: {type(error).__name__}: {reason}") from error
    if not callable(function):
        raise RewardError(f"reward {name!r} must be a function, got {type(function).__name__}.")
    return cast(RewardFunction, function)


def score_group(group: RolloutGroup, terms: Sequence[RewardTerm], grader: Grader) -> tuple[RewardBreakdown, ...]:
    """One breakdown per completion, in order.

    Raises:
        RewardError: a reward is unknown, or returned anything but one finite number per completion, or the weighted sum
            is not finite. Advantages are computed from float32 numbers, so they must be finite in float32.
    """
    verdicts = grader.grade_batch([(completion.text, group.problem.gold) for completion in group.completions])
    values = {term.name: _call(term.name, group, verdicts) for term in terms}
    totals = [sum(term.weight * values[term.name][index] for term in terms) for index in range(len(verdicts))]
    if not _all_finite(totals):
        weights = ", ".join(f"{term.weight:g} {term.name}" for term in terms)
        raise RewardError(
            f"the weighted sum of rewards ({weights}) must be finite in float32, got {totals}. Lower the weights in "
            "reward.functions."
        )
    return tuple(
        RewardBreakdown(
            total=totals[index],
            parts={name: column[index] for name, column in values.items()},
            outcome=verdict.outcome,
        )
        for index, verdict in enumerate(verdicts)
    )


def _call(name: str, group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
    result = resolve(name)(group, verdicts)
    try:
        values = [float(value) for value in result]
    except (TypeError, ValueError, OverflowError):
        raise RewardError(f"reward {name!r} must return one number per completion, got {result!r:.100}.") from None
    if len(values) != len(verdicts):
        raise RewardError(f"reward {name!r} must return {len(verdicts)} values, one per completion, got {len(values)}.")
    if not _all_finite(values):
        raise RewardError(
            f"reward {name!r} must return values that are finite in float32, got {values}: one spoils the whole group."
        )
    return values


def _all_finite(values: Sequence[float]) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.isfinite(np.asarray(values, dtype=np.float64).astype(np.float32)).all())
