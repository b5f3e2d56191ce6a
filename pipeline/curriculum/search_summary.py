"""``summary.json`` of a search, and the part about the curriculum in a run's own ``summary.json``."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pipeline.curriculum.chain_results import ChainResult, CurriculumResults
from pipeline.curriculum.comparisons import Comparison
from pipeline.curriculum.estimates import summarize, summary_rows
from pipeline.curriculum.findings import Findings
from pipeline.curriculum.forgetting import Array, ChainAnswers, forgetting_by_level
from pipeline.reports import page
from pipeline.runs.records import Row, number


def summarize_search(name: str, results: CurriculumResults, findings: Mapping[str, Findings]) -> dict[str, Any]:
    """The content of a search's ``summary.json``."""
    return {
        "run": name,
        "kind": "search",
        "baseline": next(iter(results.baselines), None),
        "num_chains": dict(Counter(chain.status for chain in results.chains)),
        "stages": _stage_counts(results),
        **{measure: _plain_findings(by_measure) for measure, by_measure in findings.items()},
        "chains": [summarize_chain(chain) for chain in results.chains],
        "versions": page.versions(),
    }


def summarize_chain(chain: ChainResult, *, with_metrics: bool = False) -> dict[str, Any]:
    """One chain for ``summary.json``: how far it came, and what it learned and forgot by each measure."""
    measured: dict[str, Any] = {}
    for measure, answers in chain.answers.items():
        matrix = answers.matrix()
        measured[measure] = {
            "levels": list(answers.levels),
            "stages": ["before", *answers.stages],
            "matrix": [_by_level(answers, row) for row in matrix],
            "forgetting_by_level": _by_level(answers, forgetting_by_level(matrix)[-1]),
        }
        if with_metrics:
            (measured[measure]["metrics"],) = summary_rows(summarize([answers]))
    return {
        **chain.record.model_dump(include={"name", "setting", "seed", "is_baseline"}),
        "status": chain.status,
        "num_done": chain.num_done,
        "num_stages": len(chain.record.stages),
        "score": chain.score,
        "sampled_tokens": chain.sampled_tokens,
        "token_budget": chain.token_budget,
        "problem": chain.problem or None,
        **measured,
    }


def stage_uses(results: CurriculumResults) -> Counter[str]:
    """Number of chains that share each stage, by key."""
    return Counter(stage.key or "" for chain in results.chains for stage in chain.record.stages)


def stage_seconds(marker: Row) -> float | None:
    """Seconds a finished stage took; None if its marker does not say."""
    started, ended = number(marker, "started"), number(marker, "ended")
    return None if started is None or ended is None else ended - started


def _plain_findings(findings: Findings) -> dict[str, Any]:
    return {
        "settings": summary_rows(findings.summaries),
        "comparison": findings.comparison and _plain_comparison(findings.comparison),
        "comparisons": [_plain_comparison(each) for each in findings.comparisons],
        "trend": findings.trend and asdict(findings.trend),
        "statements": findings.statements,
    }


def _plain_comparison(comparison: Comparison) -> dict[str, Any]:
    return asdict(comparison) | {"statement": comparison.statement}


def _by_level(answers: ChainAnswers, row: Array) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {level: None if math.isnan(x) else float(x) for level, x in zip(answers.levels, row, strict=True)}


def _stage_counts(results: CurriculumResults) -> dict[str, Any]:
    uses = stage_uses(results)
    markers = [results.markers.get(key, {}) for key in uses]
    times = [time for marker in markers for name in ("started", "ended") if (time := number(marker, name))]
    return {
        "num_in_chains": sum(len(chain.record.stages) for chain in results.chains),
        "num_different": len(uses),
        "num_shared": sum(count > 1 for count in uses.values()),
        "num_trained": sum(key in results.markers for key in uses),
        "num_ledger_violations": round(sum(number(marker, "num_ledger_violations") or 0 for marker in markers)),
        "total_s": sum(stage_seconds(marker) or 0.0 for marker in markers),
        "wall_time_s": max(times) - min(times) if times else 0.0,
    }
