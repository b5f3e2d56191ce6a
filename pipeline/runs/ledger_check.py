"""Proves from a run's ledger, metrics and settings that every scheduled group was used once, or says where not."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from pipeline.errors import CheckpointError
from pipeline.runs.ledger import REJECTED, USED, USES, LedgerRow, read_ledger
from pipeline.runs.metrics_log import read_metrics
from pipeline.runs.notices import notify
from pipeline.runs.records import Row, number, read_config, stage_settings

TOLERANCE = 1e-6
"""Relative, for means that were summed in another order."""
Rows = Sequence[LedgerRow]


@dataclass(frozen=True)
class LedgerReport:
    """The result of a check."""

    violations: list[str]
    """One line each, with its place."""
    uses: dict[str, int] = field(default_factory=dict)
    """Groups by what became of them."""
    num_steps: int = 0
    """GRPO steps that were checked."""
    notes: list[str] = field(default_factory=list)
    """What was not checked, and why."""

    def lines(self, limit: int = 20) -> list[str]:
        """The first violations, and how many more there are."""
        num_more = len(self.violations) - limit
        return [*self.violations[:limit], *([f"and {num_more} more"] if num_more > 0 else [])]

    def summary(self) -> Row:
        """For ``summary.json``."""
        return {
            "num_groups": sum(self.uses.values()),
            "num_steps": self.num_steps,
            "uses": self.uses,
            "num_violations": len(self.violations),
            "violations": self.lines(),
            "notes": self.notes,
        }

    def __str__(self) -> str:
        uses = ", ".join(f"{count} {use}" for use, count in self.uses.items())
        verdict = f"{len(self.violations)} violations" if self.violations else "all accounted for once"
        return f"ledger: {sum(self.uses.values())} groups of {self.num_steps} steps ({uses or 'none'}), {verdict}"


def check_ledger(run_dir: str | Path) -> LedgerReport | None:
    """Check the ledger of a run, which may still be in progress or have been killed. None if it has no ledger: it has
    no GRPO steps, or an earlier version made them.

    Raises:
        CheckpointError: metrics or settings are corrupt. A corrupt ledger is a violation.
    """
    metrics, config = read_metrics(run_dir), read_config(run_dir)
    try:
        rows = read_ledger(run_dir)
    except CheckpointError as error:
        return LedgerReport([str(error)])
    last_step = metrics[-1]["step"] if metrics else 0
    finished = [row for row in rows if row.step <= last_step]
    with_rows = {row.step for row in finished}
    grpo = [row for row in metrics if row.get("kind") == "grpo"]
    recorded = {row["step"]: row for row in grpo if "num_groups" in row or row["step"] in with_rows}
    if not recorded and not rows:
        return None
    notes = []
    if len(rows) > len(finished):
        notes.append(f"{len(rows) - len(finished)} groups are of steps after {last_step}, which were not finished")
    if len(recorded) < len(grpo):
        notes.append(f"{len(grpo) - len(recorded)} GRPO steps have no ledger: an earlier version made them")
    uses = Counter(row.use for row in finished)
    return LedgerReport(find_violations(rows, recorded, config, last_step), dict(uses), len(recorded), notes)


def announce_ledger(run_dir: str | Path) -> int:
    """At the end of a run or a stage: a notice on the console if its ledger proves something wrong. Returns the number
    of violations."""
    report = check_ledger(run_dir)
    if report is None or not report.violations:
        return 0
    notify(f"{report}. The first: {report.violations[0]}. All of them: python jobs/check_ledger.py {run_dir}")
    return len(report.violations)


def find_violations(rows: Rows, metrics: Mapping[int, Row], config: Row, last_step: int) -> list[str]:
    """One line for each violation, with its place.

    Args:
        metrics: rows of GRPO steps that have a ledger, by step.
        config: the run's settings, as plain JSON.
        last_step: of the metrics. Later rows belong to a step that a kill cut short.
    """
    finished = [row for row in rows if row.step <= last_step]
    by_step = defaultdict(list)
    for row in finished:
        by_step[row.step].append(row)
    max_staleness = config.get("rollout", {}).get("max_staleness") or 0
    return [
        *_wrong_uses(finished, metrics),
        *_wrong_rejections(finished, config),
        *(line for step in metrics for line in _step_violations(by_step[step], metrics[step], config)),
        *_repeats(rows),
        *_versions(rows, max_staleness),
        *_orders(rows),
        *_attempts(rows),
        *_checksums(rows, {} if config.get("rollout", {}).get("replay") else metrics),
    ]


def _place(row: LedgerRow) -> str:
    return f"stage {row.stage}, step {row.step}, position {row.position}"


def _wrong_uses(rows: Rows, metrics: Mapping[int, Row]) -> Iterator[str]:
    """Unknown uses, reasons that are not so, and groups of steps that were none."""
    last_of_stage = {str(row.get("stage")): step for step, row in sorted(metrics.items())}
    for row in rows:
        stage = metrics.get(row.step, {}).get("stage")
        if row.use not in USES:
            yield f"{_place(row)}: use must be one of {', '.join(USES)}, got {row.use!r:.80}"
        elif row.stage != stage:
            yield f"{_place(row)}: metrics.jsonl must say that this is its stage, got {stage or 'no GRPO step'}"
        elif row.use == "stage_ended" and row.step != last_of_stage[row.stage]:
            yield f"{_place(row)}: its stage must have ended here, got steps until {last_of_stage[row.stage]}"
        elif row.use == "ungraded" and row.num_completions - _num_ungraded(row) > 1:
            num_graded = row.num_completions - _num_ungraded(row)
            yield f"{_place(row)}: dropped as ungraded, but {num_graded} of its completions could be graded"
        elif row.use == "truncated" and not row.num_truncated:
            yield f"{_place(row)}: dropped as truncated, but none of its completions was cut off"


def _num_ungraded(row: LedgerRow) -> int:
    return row.num_timeout + row.num_bad_gold


def _wrong_rejections(rows: Rows, config: Row) -> Iterator[str]:
    """Groups that only a dynamic sampler drops, and only for what their rewards are."""
    for row in rows:
        if row.use not in REJECTED:
            continue
        sampler = stage_settings(config, "grpo", row.stage).get("sampler") or {}
        is_graded = not _num_ungraded(row)  # what could not be graded may not count
        if sampler.get("name") != "dynamic":
            yield f"{_place(row)}: {row.use} needs grpo.sampler.name dynamic, got {sampler.get('name')}"
        elif row.reward_min is None or row.reward_max is None:
            yield f"{_place(row)}: dropped as {row.use}, but it was never graded"
        elif row.use == "refilled" and is_graded and row.reward_min < row.reward_max:
            yield f"{_place(row)}: dropped as refilled, but its rewards differ"
        elif row.use == "surplus" and row.reward_min == row.reward_max:
            yield f"{_place(row)}: dropped as surplus, but its rewards are equal"


def _step_violations(rows: Rows, metrics: Row, config: Row) -> Iterator[str]:
    """Violations within one step: places of the batch, engines, sizes and rewards of groups, and what metrics.jsonl
    says."""
    step, stage = metrics["step"], str(metrics.get("stage"))
    settings = stage_settings(config, "grpo", stage)
    used = [row for row in rows if row.use in USED]
    yield from _places(f"stage {stage}, step {step}", rows, settings.get("batch_size") or len(used))
    yield from _answers(f"stage {stage}, step {step}", [row for row in rows if row.use != "stage_ended"])
    size = settings.get("num_generations")
    for row in used:
        if row.reward_mean is None or (size and row.num_completions != size):
            yield f"{_place(row)}: must have {size} graded completions, got {row.num_completions}"
    yield from _wrong_rewards(used, settings)
    yield from _disagreements(f"stage {stage}, step {step}", rows, metrics)


def _places(step: str, rows: Rows, batch_size: int) -> Iterator[str]:
    at = defaultdict(list)
    for row in rows:
        if row.use != "stage_ended":
            at[row.position].append(row.use)
    for position in range(batch_size):
        used = [use for use in at[position] if use not in REJECTED]
        if not at[position]:
            yield f"{step}, position {position}: must be used once or dropped for a reason, got no row"
        elif not used:
            yield f"{step}, position {position}: dropped ({', '.join(at[position])}), and no other took its place"
        elif len(used) > 1:
            yield f"{step}, position {position}: must be used once, got {len(used)} rows: {', '.join(used)}"
    for position in sorted(at.keys() - range(batch_size)):
        yield f"{step}, position {position}: must be a place in a batch of {batch_size}"


def _answers(step: str, rows: Rows) -> Iterator[str]:
    """Groups that no engine answered, and those of a learner that was gone when the step was made."""
    for row in rows:
        if missing := [name for name in ("engine", "order", "checksum") if getattr(row, name) is None]:
            yield f"{_place(row)}: must name the engine that wrote it and its weights, got no {', '.join(missing)}"
    if len(attempts := sorted({row.weight_attempt for row in rows})) > 1:
        yield f"{step}: groups must be of one weight attempt, got {', '.join(map(str, attempts))}"


def _wrong_rewards(rows: Rows, settings: Row) -> Iterator[str]:
    """Groups without a gradient whose rewards differ, and groups with one whose rewards are equal.

    Says nothing where it cannot be certain: penalties may make rewards equal or different, what could not be graded may
    not count, and terms for KL and entropy, or a baseline over the batch, give equal rewards a gradient.
    """
    has_penalty = settings.get("overlong_buffer_frac") != 0
    is_relative = settings.get("advantage_baseline") in ("group", "leave_one_out")
    has_terms = settings.get("beta") != 0 or settings.get("entropy_coef") != 0
    drops_equal = settings.get("drop_zero_variance_groups") or (is_relative and not has_terms and not has_penalty)
    for row in rows:
        if row.reward_min is None or row.reward_max is None:
            continue
        is_equal = np.float32(row.reward_min) == np.float32(row.reward_max)  # as the learner compares them
        all_count = settings.get("mask_ungraded") is False or not _num_ungraded(row)
        if row.use == "no_variance" and not is_equal and all_count and not has_penalty:
            yield f"{_place(row)}: dropped as no_variance, but its rewards differ"
        elif row.use == "trained" and is_equal and drops_equal:
            yield f"{_place(row)}: trained, but its rewards are equal"


def _disagreements(step: str, rows: Rows, metrics: Row) -> Iterator[str]:
    """Values of metrics.jsonl that are not those of the ledger."""
    for name, value in _recomputed([row for row in rows if row.use != "stage_ended"]).items():
        stated = number(metrics, name)
        if stated is not None and not math.isclose(stated, value, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            yield f"{step}: metrics.jsonl must agree with the ledger, got {name} {stated:.10g}, not {value:.10g}"


def _recomputed(rows: Rows) -> dict[str, float]:
    """Metrics of a step, by their names, from all its groups."""
    counts: dict[str, float] = {
        "num_groups": len(rows),
        "num_groups_trained": sum(row.use == "trained" for row in rows),
        "sampled_tokens": sum(row.num_tokens for row in rows),
        "rejected_groups": sum(row.use in REJECTED for row in rows),
    }
    used = [row for row in rows if row.use in USED and row.num_completions and row.reward_mean is not None]
    total = sum(row.num_completions for row in used)
    if not total:
        return counts
    oldest = min(row.oldest_version for row in used)
    mean = sum((row.reward_mean or 0.0) * row.num_completions for row in used) / total
    spread = sum(
        ((row.reward_std or 0.0) ** 2 + ((row.reward_mean or 0.0) - mean) ** 2) * row.num_completions for row in used
    )
    return counts | {
        "reward_mean": mean,
        "reward_std": math.sqrt(spread / total),
        "correct_frac": sum(row.num_correct for row in used) / total,
        "unparsed_frac": sum(row.num_unparsed for row in used) / total,
        "timeout_frac": sum(row.num_timeout for row in used) / total,
        "bad_gold_frac": sum(row.num_bad_gold for row in used) / total,
        "truncated_frac": sum(row.num_truncated for row in used) / total,
        "completion_length_mean": sum(row.num_tokens for row in used) / total,
        "policy_version": oldest,
        "staleness": used[0].step - 1 - oldest,
    }


def _repeats(rows: Rows) -> Iterator[str]:
    """Problems that were asked for again with the same seeds. Engines that draw their own say nothing about it."""
    seen: dict[tuple[str, tuple[int, ...]], list[LedgerRow]] = defaultdict(list)
    for row in rows:
        if not row.seeds:
            continue
        before = seen[row.problem_id, row.seeds]
        if first := next((each for each in before if _is_repeat(each, row)), None):
            problem = f"problem {row.problem_id!r:.80}"
            yield f"{_place(row)}: {problem} was {_done(first)} with the same seeds at {_place(first)}"
        before.append(row)


def _is_repeat(first: LedgerRow, row: LedgerRow) -> bool:
    """Not if a stage ended before it used what it had asked for: the next stage may ask the same for the same step."""
    return first.stage == row.stage or "stage_ended" not in (first.use, row.use)


def _done(row: LedgerRow) -> str:
    return "used" if row.use in USED else f"dropped ({row.use})"


def _versions(rows: Rows, max_staleness: int) -> Iterator[str]:
    """Versions of one group: asked for, begun, ended and used in this order, and not too late."""
    for row in rows:
        steps = (row.step_asked, row.oldest_version, row.newest_version)
        if list(steps) != sorted(steps):
            asked, oldest, newest = steps
            yield f"{_place(row)}: versions must only rise, got asked at {asked}, oldest {oldest}, newest {newest}"
        elif row.use not in USED:
            continue
        elif row.newest_version >= row.step:
            yield f"{_place(row)}: must be of a version below its step, got {row.newest_version}"
        elif (staleness := row.step - 1 - row.oldest_version) > max_staleness:
            yield (
                f"{_place(row)}: staleness must be at most {max_staleness} (rollout.max_staleness), got {staleness}: "
                f"version {row.oldest_version} wrote it"
            )


def _orders(rows: Rows) -> Iterator[str]:
    """Every engine's process begins groups one after the other, with weights that only get newer."""
    by_engine = defaultdict(list)
    for row in rows:
        if row.engine is not None and row.order is not None:
            by_engine[row.engine].append(row)
    for engine, own in by_engine.items():
        own.sort(key=lambda row: row.order or 0)
        for before, row in pairwise(own):
            if before.order == row.order:
                yield f"{_place(row)}: engine {engine} must begin one group at a time, got {row.order} twice"
            elif _weights(row) < _weights(before):
                yield (
                    f"{_place(row)}: versions of engine {engine} must only rise, got {row.oldest_version} "
                    f"after {before.oldest_version} ({_place(before)})"
                )


def _weights(row: LedgerRow) -> tuple[int, int]:
    return row.weight_attempt, row.oldest_version


def _attempts(rows: Rows) -> Iterator[str]:
    """Learners that were restarted ask again for what is not used yet."""
    newest: LedgerRow | None = None
    for row in sorted((row for row in rows if row.use in USED), key=lambda row: row.step):
        if newest and row.step > newest.step and row.weight_attempt < newest.weight_attempt:
            yield f"{_place(row)}: weight attempts must only rise, got one older than that of {_place(newest)}"
        if newest is None or row.weight_attempt > newest.weight_attempt:
            newest = row


def _checksums(rows: Rows, metrics: Mapping[int, Row]) -> Iterator[str]:
    """Weights of one version are the same for all groups of a stage and attempt, and those that its step published. A
    later attempt may make them anew: merged on another device, adapters give other last bits.

    Args:
        metrics: of steps that published weights. Empty if the run's groups come from another one.
    """
    attempts = {row.step: row.weight_attempt for row in rows if row.use in USED}
    known: dict[tuple[str, int | None, int], tuple[str, str]] = {}
    for step, published in metrics.items():
        if checksum := published.get("weights_checksum"):
            key = str(published.get("stage")), attempts.get(step), step
            known[key] = str(checksum), f"metrics.jsonl, step {step}"
    for row in rows:
        if row.checksum is not None:
            key = row.stage, row.weight_attempt, row.oldest_version
            expected, where = known.setdefault(key, (row.checksum, _place(row)))
            if row.checksum != expected:
                version = row.oldest_version
                yield f"{_place(row)}: version {version} must have checksum {expected} ({where}), got {row.checksum}"
