"""The newest change of a success rate that chance does not explain."""

from collections.abc import Sequence
from math import log
from typing import Any

MIN_BAYES_FACTOR = 10.0
"""Strong evidence on Jeffreys' scale."""
MIN_CHANGE = 0.25


def newest_change(correct: Sequence[int], attempts: Sequence[int]) -> float:
    """The rate after the change minus the rate before it; 0.0 if one rate explains all attempts.

    The visits are split where two rates explain them best. That is a change if these explain the attempts at least
    ``MIN_BAYES_FACTOR`` times as well as one rate does, all with uniform priors, and differ by at least ``MIN_CHANGE``.
    Then the visits after it are searched for a newer one.

    Args:
        correct, attempts: in every visit. Visits have attempts.
    """
    import numpy as np

    right, tried = np.cumsum(correct), np.cumsum(attempts)
    change = 0.0
    while 0 < right[-1] < tried[-1] and len(right) > 1:
        early, late = (right[:-1], tried[:-1]), (right[-1] - right[:-1], tried[-1] - tried[:-1])
        evidence = _evidence(*early) + _evidence(*late) - _evidence(right[-1], tried[-1])
        split = int(evidence.argmax())
        difference = late[0][split] / late[1][split] - early[0][split] / early[1][split]
        if evidence[split] < log(MIN_BAYES_FACTOR) or abs(difference) < MIN_CHANGE:
            break
        change = float(difference)
        right, tried = right[split + 1 :] - right[split], tried[split + 1 :] - tried[split]
    return change


def _evidence(correct: Any, attempts: Any) -> Any:
    """Log probability of these attempts, in their order, under a rate with a uniform prior."""
    from scipy.special import betaln

    return betaln(1 + correct, 1 + attempts - correct)
