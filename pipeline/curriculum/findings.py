"""The findings of a search: estimates per setting, the comparison with the baseline, and the trend over the replay
ratio or, in a search that does not vary it, what every setting gained."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from pipeline.curriculum.chain_results import CORRECT_BY, CurriculumResults
from pipeline.curriculum.comparisons import (
    Comparison,
    Trend,
    compare_all,
    compare_with_baseline,
    gain_statement,
    trend,
    verdict_statement,
)
from pipeline.curriculum.estimates import Estimate, summarize
from pipeline.curriculum.forgetting import ChainAnswers
from pipeline.runs.records import number

RATIO = "curriculum.replay_ratio"
TOKENS_DIFFER_ABOVE = 0.05
"""Relative difference above which sampled tokens do not count as equal to the budget."""


@dataclass(frozen=True)
class Findings:
    """Conclusions from the complete chains of a search, by one measure of correctness."""

    summaries: dict[str, dict[str, Estimate | None]]
    """Setting -> metric -> estimate."""
    comparison: Comparison | None
    """The best setting against the baseline."""
    comparisons: list[Comparison]
    """Every setting against the baseline, in a search that does not vary the replay ratio. The best is the first."""
    trend: Trend | None
    statements: list[str]
    """Plain sentences. If there is nothing to compare they give the reason."""


def judge(results: CurriculumResults, measure: str = CORRECT_BY[0]) -> Findings:
    """The findings so far, from the chains that are complete."""
    complete = results.complete(measure)
    if not complete:
        return Findings({}, None, [], None, ["No chain has finished: there is nothing to compare yet."])
    summaries = summarize(complete)
    comparison, compared = _compare(results, complete)
    statements, slope, comparisons = [compared], None, list[Comparison]()
    if len(set(replay_ratios(results).values())) > 1:
        slope, sloped = _trend(results, complete, forgetting_metric(results, summaries))
        statements.append(sloped)
    else:
        if results.baselines:
            rivals = [answers for answers in complete if answers.setting not in results.baselines[1:]]
            comparisons = compare_all(rivals, results.baselines[0], _num_planned(results))
        if len(comparisons) > 1:
            statements.append(verdict_statement(comparisons))
        if gains := {setting: gain for setting, metrics in summaries.items() if (gain := metrics["gain"])}:
            statements.append(gain_statement(gains))
    statements += _token_statements(results)
    if any(math.isnan(answers.matrix()[0, 0]) for answers in complete):
        statements.append(
            "The model was not evaluated before training (eval.at_start): gain, forgetting and forward transfer, which "
            "need it, are left out. Trained forgetting counts from the first stage."
        )
    return Findings(summaries, comparison, comparisons, slope, statements)


def _compare(results: CurriculumResults, complete: Sequence[ChainAnswers]) -> tuple[Comparison | None, str]:
    if not results.baselines:
        return None, "There is no baseline to compare with: search.baselines is empty."
    baseline, *others = results.baselines
    rivals = [answers for answers in complete if answers.setting not in others]
    settings = {answers.setting for answers in rivals}
    if baseline not in settings:
        return None, f"The best setting cannot be compared with the baseline yet: no chain of {baseline} has finished."
    if len(settings) < 2:
        return None, "The best setting cannot be compared with the baseline yet: only baselines have finished."
    try:
        comparison = compare_with_baseline(rivals, baseline, _num_planned(results))
    except ValueError as error:  # no other setting finished with a seed of the baseline
        return None, f"The best setting cannot be compared with the baseline: {error}."
    return comparison, comparison.statement


def _token_statements(results: CurriculumResults) -> list[str]:
    """Names the chains whose sampled tokens are not equal to the budget or, if the chains have no budget in common, to
    the baseline's. Empty if there is nothing to compare with."""
    sampled = {c.record.name: c.sampled_tokens for c in results.chains if c.is_complete and c.sampled_tokens}
    chains = [chain for chain in results.chains if chain.record.name in sampled]
    budgets = {chain.token_budget for chain in chains}
    baseline = [sampled[chain.record.name] for chain in chains if chain.record.setting in results.baselines[:1]]
    if len(budgets) == 1 and (budget := budgets.pop()):
        expected, title = float(budget), f"the budget of {budget:,} (grpo.max_sampled_tokens)"
    elif 0 < len(baseline) < len(chains):
        expected = fmean(baseline)
        title = f"{expected:,.0f}, the mean of {results.baselines[0]}"
    else:
        return []
    unequal = [
        f"{name} {tokens:,} ({100 * (tokens / expected - 1):+.1f} %)"
        for name, tokens in sampled.items()
        if abs(tokens - expected) > TOKENS_DIFFER_ABOVE * expected
    ]
    others = ["all others within 5 %" if unequal else "all within 5 %"] * (len(unequal) < len(sampled))
    return [f"Tokens sampled by GRPO, against {title}: {'; '.join([*unequal, *others])}."]


def _num_planned(results: CurriculumResults) -> int:
    """Number of settings to compare with the baseline once the search is over."""
    return len(results.settings) - len(results.baselines)


def _trend(
    results: CurriculumResults, complete: Sequence[ChainAnswers], metric: str | None
) -> tuple[Trend | None, str]:
    finished = {answers.setting for answers in complete}
    searched = replay_ratios(results)
    ratios = {setting: ratio for setting, ratio in searched.items() if setting in finished}
    if len(set(ratios.values())) < 2:
        return None, "There is no trend over the replay ratio yet: fewer than two replay ratios have finished."
    if metric is None:
        return None, "There is no trend over the replay ratio: forgetting is not defined for all settings."
    try:
        slope = trend(complete, ratios, metric)
    except ValueError as error:  # no seed that all settings finished
        return None, f"There is no trend over the replay ratio: {error}."
    left_out = "" if len(ratios) == len(searched) else " Settings that did not finish are left out."
    return slope, slope.statement + left_out


def replay_ratios(results: CurriculumResults) -> dict[str, float]:
    """Replay ratios by setting, without baselines."""
    records = [chain.record for chain in results.chains if not chain.record.is_baseline]
    ratios = {record.setting: number(record.values, RATIO) for record in records}
    return {setting: ratio for setting, ratio in ratios.items() if ratio is not None}


def forgetting_metric(results: CurriculumResults, summaries: Mapping[str, Mapping[str, Estimate | None]]) -> str | None:
    """``forgetting`` or, if the model was not evaluated before training, ``trained_forgetting``.

    None if neither is defined for every setting with a replay ratio.
    """
    estimates = [summaries[setting] for setting in replay_ratios(results) if setting in summaries]
    names = ("forgetting", "trained_forgetting")
    return next((name for name in names if all(metrics[name] for metrics in estimates)), None)
