"""The total reward of each completion of a group, from its parts: pure functions on plain numbers."""

from collections.abc import Mapping, Sequence

from pipeline.config import RewardConfig, RewardTerm
from pipeline.rewards.normalize import z_scores

Parts = Mapping[str, float]


def passes_gate(parts: Parts, terms: Sequence[RewardTerm]) -> bool:
    """True unless the value of a gate term is 0."""
    return all(parts[term.name] != 0 for term in terms if term.gate)


def totals(group: Sequence[Parts], config: RewardConfig, history: Mapping[str, Sequence[float]]) -> list[float]:
    """Weighted sums of a group's parts, with failing completions below all others.

    A completion that fails the gate gets 0. With z-scores, or if a passing sum is 0 or less because a custom part is
    negative, it gets the lowest passing sum minus the weights of the gate terms. Z-scores are taken only of parts that
    are no gates, and only for completions that pass.

    Args:
        group: raw parts of each completion.
        history: raw values of each part before this step. Used with ``reward.normalize``.

    Returns:
        [num_completions]
    """
    terms = config.functions
    passing = [index for index, parts in enumerate(group) if passes_gate(parts, terms)]
    columns = {term.name: [group[index][term.name] for index in passing] for term in terms}
    if config.normalize:
        for term in terms:
            if not term.gate:
                columns[term.name] = z_scores(columns[term.name], history.get(term.name, ()), config.zscore)
    sums = [sum(term.weight * columns[term.name][place] for term in terms) for place in range(len(passing))]
    lowest = min(sums, default=0.0)
    is_above_zero = not sums or lowest > 0
    failing = 0.0 if is_above_zero and not config.normalize else lowest - _gate_weight(terms)
    found = dict(zip(passing, sums, strict=True))
    return [found.get(index, failing) for index in range(len(group))]


def quality(parts: Parts, terms: Sequence[RewardTerm]) -> float:
    """The weighted mean of the raw parts; 0 for a completion that fails the gate. In [0, 1] if the parts are."""
    if not passes_gate(parts, terms):
        return 0.0
    return sum(term.weight * parts[term.name] for term in terms) / (sum(abs(term.weight) for term in terms) or 1.0)


def _gate_weight(terms: Sequence[RewardTerm]) -> float:
    return sum(term.weight for term in terms if term.gate)
