"""The total reward of each completion of a group, from its parts: pure functions on plain numbers."""

from collections.abc import Mapping, Sequence

from pipeline.config import RewardConfig, RewardTerm
from pipeline.rewards.normalize import z_scores

Parts = Mapping[str, float]


def passes_gate(parts: Parts, terms: Sequence[RewardTerm]) -> bool:
    """True unless the value of a gate term is 0."""
    return all(parts[term.name] != 0 for term in terms if term.gate)


def totals(group: Sequence[Parts], config: RewardConfig, history: Mapping[str, Sequence[float]]) -> list[float]:
    """Weighted sums of a group's parts, behind the gate.

    What fails the gate gets 0. Where a sum that passes is no higher, as with z-scores or a part of the user's own that
    is negative, what fails gets the lowest of these sums minus the weights of the gate terms. Z-scores are taken over
    completions that pass, of every part that is no gate.

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
    """The weighted mean of raw parts, behind the gate. In [0, 1] if the parts are, and never normalised."""
    if not passes_gate(parts, terms):
        return 0.0
    return sum(term.weight * parts[term.name] for term in terms) / (sum(abs(term.weight) for term in terms) or 1.0)


def _gate_weight(terms: Sequence[RewardTerm]) -> float:
    return sum(term.weight for term in terms if term.gate)
