"""The chains of a run or a search, read back from its files, and what they say.

docs/run_directory.md names the files. Nothing here needs the search to be over: chains that did not finish are kept
with their status, and the others are judged.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, RootModel, ValidationError

from pipeline.curriculum.forgetting import (
    ChainOutcomes,
    Comparison,
    Estimate,
    Trend,
    chain_outcomes,
    compare_with_baseline,
    summarize,
    trend,
)
from pipeline.curriculum.stage_queue import ChainStatus, read_markers
from pipeline.errors import CheckpointError
from pipeline.runs.records import Row, number, read_jsonl

MEASURES = ("tagged", "last_number")
"""What counts as right. The first is the one to judge by."""
RATIO = "curriculum.replay_ratio"

# Reading -----------------------------------------------------------------------------------------


class StageEntry(BaseModel):
    name: str
    kind: Literal["sft", "grpo"]
    levels: list[str] | None
    """What it trained on; None: all."""
    key: str | None
    directory: str


class ChainEntry(BaseModel):
    name: str
    setting: str
    seed: int
    is_baseline: bool
    values: dict[str, Any]
    stages: list[StageEntry] = Field(min_length=1)

    @property
    def file_name(self) -> str:
        return re.sub(r"[^A-Za-z0-9_.,=+-]", "", self.name)[:200]


class _ChainsFile(BaseModel):
    kind: Literal["chain", "search"]
    chains: list[ChainEntry] = Field(min_length=1)


class _Ending(BaseModel):
    status: ChainStatus
    error: str | None = None


class _OutcomeFile(RootModel[dict[str, _Ending]]):
    pass


@dataclass(frozen=True)
class Chain:
    """One chain and how far it came."""

    entry: ChainEntry
    status: ChainStatus
    num_done: int
    score: float | None
    """Of the last stage that is done."""
    outcomes: dict[str, ChainOutcomes]
    """By measure, of the stages that are done. Empty: no evaluation that can be compared."""
    problem: str
    """Why it failed, or why it has no outcomes although stages are done."""

    @property
    def is_complete(self) -> bool:
        return self.status == "finished" and bool(self.outcomes)


@dataclass(frozen=True)
class Chains:
    """All chains of a run directory."""

    kind: Literal["chain", "search"]
    chains: tuple[Chain, ...]
    results: dict[str, Row]
    """Of the stages of a search that are done, by key."""

    def complete(self, measure: str) -> list[ChainOutcomes]:
        return [chain.outcomes[measure] for chain in self.chains if chain.is_complete]

    @property
    def settings(self) -> list[str]:
        return list(dict.fromkeys(chain.entry.setting for chain in self.chains))

    @property
    def baselines(self) -> list[str]:
        """Settings. The first is the one to compare with."""
        return list(dict.fromkeys(chain.entry.setting for chain in self.chains if chain.entry.is_baseline))


def read_chains(run_dir: str | Path) -> Chains | None:
    """The chains of a run directory; None when it followed no curriculum.

    Raises:
        CheckpointError: a file is corrupt.
    """
    run_dir = Path(run_dir)
    file = _read(run_dir / "chains.json", _ChainsFile)
    if file is None:
        return None
    results = read_markers(run_dir / "results") if file.kind == "search" else {}
    endings = _read(run_dir / "outcome.json", _OutcomeFile) or _OutcomeFile({})
    names = [entry.file_name for entry in file.chains]
    if len(set(names)) < len(names):
        raise CheckpointError(f"{run_dir / 'chains.json'} must name every chain differently, got {names}.")
    chains: list[Chain] = []
    problems: set[tuple[str, str]] = set()
    for entry in file.chains:
        num_done = _num_done(run_dir, entry, file.kind, results)
        evaluations = _evaluations(run_dir, entry.stages[:num_done])
        problems = problems or _problems(evaluations)
        outcomes, problem = _outcomes(entry, evaluations, problems)
        ending = endings.root.get(entry.name)
        status = _status(num_done == len(entry.stages), ending)
        error = ending.error if ending and status == "failed" else None
        chains.append(
            Chain(
                entry=entry,
                status=status,
                num_done=num_done,
                score=number(results.get(entry.stages[num_done - 1].key or "", {}), "score") if num_done else None,
                outcomes=outcomes,
                problem=error or problem,
            )
        )
    return Chains(file.kind, tuple(chains), results)


_Model = TypeVar("_Model", bound=BaseModel)


def _read(path: Path, model: type[_Model]) -> _Model | None:
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        reason = f"{where}: {first['msg']}" if where else first["msg"]
        raise CheckpointError(f"{path} must describe the chains of a run, got {reason}. The file is corrupt.") from None


def _num_done(run_dir: Path, entry: ChainEntry, kind: str, results: Mapping[str, Row]) -> int:
    """Stages from the first on that are done: in a search those with a result, else those with an evaluation."""

    def is_done(stage: StageEntry) -> bool:
        if kind == "search":
            return stage.key in results
        return (run_dir / stage.directory / "eval" / f"{stage.name}.json").exists()

    return next((index for index, stage in enumerate(entry.stages) if not is_done(stage)), len(entry.stages))


def _status(is_finished: bool, ending: _Ending | None) -> ChainStatus:
    """The results decide what is finished; the outcome, which may be missing or old, why a chain is not."""
    if is_finished:
        return "finished"
    return ending.status if ending and ending.status != "finished" else "unfinished"


def _evaluations(run_dir: Path, stages: Sequence[StageEntry]) -> list[list[Row]]:
    """[1 + num_stages] rows of evaluations, before training first; [] for one that is missing."""
    if not stages:
        return []
    first = run_dir / stages[0].directory
    places = [(first, "before"), *((run_dir / stage.directory, stage.name) for stage in stages)]
    return [_evaluation(directory / "samples" / f"eval_{name}.jsonl") for directory, name in places]


def _evaluation(path: Path) -> list[Row]:
    rows = read_jsonl(path)
    if any(not {"level", "problem_id", *MEASURES} <= row.keys() for row in rows):
        raise CheckpointError(f"{path} must hold evaluated problems (level, problem_id, {', '.join(MEASURES)}).")
    return rows


def _problems(evaluations: Sequence[Sequence[Row]]) -> set[tuple[str, str]]:
    return {(row["level"], row["problem_id"]) for rows in evaluations for row in rows}


def _outcomes(
    entry: ChainEntry, evaluations: Sequence[list[Row]], problems: set[tuple[str, str]]
) -> tuple[dict[str, ChainOutcomes], str]:
    """By measure; or nothing, and why. Without an evaluation before training, row 0 of the matrix is NaN: what
    needs it is then not defined, and the rest is as it is."""
    before, after = evaluations[:1], evaluations[1:]
    if not after:
        return {}, ""
    stages = entry.stages[: len(after)]
    if missing := [stage.name for stage, rows in zip(stages, after, strict=True) if not rows]:
        return {}, f"not evaluated after {', '.join(missing)}"
    if any(_problems([rows]) != problems for rows in evaluations if rows):
        return {}, "not evaluated on the held-out problems of the first chain every time: left out of all comparisons"
    if not before[0]:
        before = [[{**row, **dict.fromkeys(MEASURES, math.nan)} for row in after[0]]]
    levels = {level for level, _ in problems}
    trained = [(stage.name, levels if stage.levels is None else stage.levels) for stage in stages]
    found = {m: chain_outcomes(entry.setting, entry.seed, trained, [*before, *after], m) for m in MEASURES}
    return found, ""


# Judging -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Findings:
    """What the complete chains of a search say by one measure."""

    summaries: dict[str, dict[str, Estimate | None]]
    comparison: Comparison | None
    trend: Trend | None
    statements: list[str]
    """Plain sentences; where there is no comparison or no trend, why not."""


def find(chains: Chains, measure: str = MEASURES[0]) -> Findings:
    complete = chains.complete(measure)
    if not complete:
        return Findings({}, None, None, ["No chain has finished: there is nothing to compare yet."])
    summaries = summarize(complete)
    comparison, compared = _compare(chains, complete)
    slope, sloped = _trend(chains, complete, forgetting_metric(chains, summaries))
    statements = [compared, sloped]
    if any(math.isnan(outcomes.matrix()[0, 0]) for outcomes in complete):
        statements.append(
            "The model was not evaluated before training (eval.at_start): forgetting and forward transfer, which need "
            "it, are left out. Trained forgetting counts from the first stage."
        )
    return Findings(summaries, comparison, slope, statements)


def _compare(chains: Chains, complete: Sequence[ChainOutcomes]) -> tuple[Comparison | None, str]:
    if not chains.baselines:
        return None, "There is no baseline to compare with: search.baselines is empty."
    baseline, *others = chains.baselines
    rivals = [outcomes for outcomes in complete if outcomes.setting not in others]
    settings = {outcomes.setting for outcomes in rivals}
    if baseline not in settings or len(settings) < 2:
        unfinished = f"chain but those of the baseline {baseline}" if baseline in settings else f"chain of {baseline}"
        return None, f"The best setting cannot be compared with the baseline yet: no {unfinished} has finished."
    try:
        found = compare_with_baseline(rivals, baseline)
    except ValueError as error:  # the best setting and the baseline finished with different seeds
        return None, f"The best setting cannot be compared with the baseline: {error}."
    return found, found.statement


def _trend(chains: Chains, complete: Sequence[ChainOutcomes], metric: str | None) -> tuple[Trend | None, str]:
    finished = {outcomes.setting for outcomes in complete}
    ratios = {setting: ratio for setting, ratio in replay_ratios(chains).items() if setting in finished}
    if len(set(replay_ratios(chains).values())) < 2:
        return None, "There is no trend over the replay ratio: the search does not vary it."
    if len(set(ratios.values())) < 2:
        return None, "There is no trend over the replay ratio yet: fewer than two replay ratios have finished."
    if metric is None:
        return None, "There is no trend over the replay ratio: forgetting is not defined for all settings."
    try:
        found = trend(complete, ratios, metric=metric)
    except ValueError as error:  # no seed that all settings finished
        return None, f"There is no trend over the replay ratio: {error}."
    left_out = "" if len(ratios) == len(replay_ratios(chains)) else " Settings that did not finish are left out."
    return found, found.statement + left_out


def replay_ratios(chains: Chains) -> dict[str, float]:
    """Replay ratios by setting, baselines left out."""
    ratios = {c.entry.setting: number(c.entry.values, RATIO) for c in chains.chains if not c.entry.is_baseline}
    return {setting: ratio for setting, ratio in ratios.items() if ratio is not None}


def forgetting_metric(chains: Chains, summaries: Mapping[str, Mapping[str, Estimate | None]]) -> str | None:
    """Forgetting, or where the model was not evaluated before training, that of trained levels."""
    found = [summaries[setting] for setting in replay_ratios(chains) if setting in summaries]
    return next((m for m in ("forgetting", "trained_forgetting") if all(metrics[m] for metrics in found)), None)
