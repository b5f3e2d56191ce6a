"""The chains of a run or a search, read back from its files.

docs/run_directory.md names the files. The search need not be over: unfinished chains keep their status.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, RootModel, ValidationError

from pipeline.config import StageKind
from pipeline.curriculum.forgetting import ChainAnswers, chain_answers
from pipeline.curriculum.markers import read_markers
from pipeline.curriculum.stage_queue import ChainStatus
from pipeline.errors import CheckpointError
from pipeline.files import safe_name
from pipeline.runs.metrics_log import read_metrics
from pipeline.runs.records import Row, number, read_config, read_jsonl, stage_settings

CORRECT_BY = ("tagged", "last_number")
"""Fields of an evaluated problem that say whether the answer is correct. The first is the one to judge by."""
TOKENS = "sampled_tokens_total"
"""In the metrics of a GRPO stage's steps: tokens it has sampled so far."""


class StageRecord(BaseModel):
    """A stage in ``chains.json``."""

    name: str
    kind: StageKind
    levels: list[str] | None
    """The levels it trained on. None: all."""
    key: str | None
    """None in a run that is not a search."""
    directory: str
    """Relative to the run directory."""


class ChainRecord(BaseModel):
    """A chain in ``chains.json``."""

    name: str
    setting: str
    seed: int
    is_baseline: bool
    values: dict[str, Any]
    """Its settings by dotted key."""
    stages: list[StageRecord] = Field(min_length=1)

    @property
    def file_name(self) -> str:
        return safe_name(self.name, signs="_.,=+-")


class _ChainsFile(BaseModel):
    kind: Literal["chain", "search"]
    chains: list[ChainRecord] = Field(min_length=1)


class _Ending(BaseModel):
    status: ChainStatus
    error: str | None = None


class _OutcomeFile(RootModel[dict[str, _Ending]]):
    pass


@dataclass(frozen=True)
class ChainResult:
    """One chain, how far it came, and its held-out answers."""

    record: ChainRecord
    status: ChainStatus
    num_done: int
    score: float | None
    """Score of the last finished stage."""
    sampled_tokens: int | None
    """By its finished GRPO stages. None: it has none, or they were not counted."""
    token_budget: int | None
    """Sum of ``grpo.max_sampled_tokens`` of the same stages. None: not all of them have it."""
    answers: dict[str, ChainAnswers]
    """By field of ``CORRECT_BY``, over the finished stages. Empty: no evaluation that can be compared."""
    problem: str
    """Why the chain failed, or why it has no answers although stages are done."""

    @property
    def is_complete(self) -> bool:
        return self.status == "finished" and bool(self.answers)


@dataclass(frozen=True)
class CurriculumResults:
    """All chains of a run directory: a single one, or every chain of a search."""

    kind: Literal["chain", "search"]
    chains: tuple[ChainResult, ...]
    markers: dict[str, Row]
    """Results of a search's finished stages, by key."""

    def complete(self, measure: str) -> list[ChainAnswers]:
        return [chain.answers[measure] for chain in self.chains if chain.is_complete]

    @property
    def settings(self) -> list[str]:
        return list(dict.fromkeys(chain.record.setting for chain in self.chains))

    @property
    def baselines(self) -> list[str]:
        """Names of the baseline settings. Other settings are compared with the first."""
        return list(dict.fromkeys(chain.record.setting for chain in self.chains if chain.record.is_baseline))


def read_chains(run_dir: str | Path) -> CurriculumResults | None:
    """The chains of a run directory; None if the run followed no curriculum.

    Raises:
        CheckpointError: a file is corrupt.
    """
    run_dir = Path(run_dir)
    file = _read(run_dir / "chains.json", _ChainsFile)
    if file is None:
        return None
    markers = read_markers(run_dir / "results") if file.kind == "search" else {}
    endings = _read(run_dir / "outcome.json", _OutcomeFile) or _OutcomeFile({})
    names = [record.file_name for record in file.chains]
    if len(set(names)) < len(names):
        raise CheckpointError(f"{run_dir / 'chains.json'} must name every chain differently, got {names}.")
    chains: list[ChainResult] = []
    problems: set[tuple[str, str]] = set()
    for record in file.chains:
        num_done = _num_done(run_dir, record, file.kind, markers)
        evaluations = _evaluations(run_dir, record.stages[:num_done])
        problems = problems or _problems(evaluations)
        answers, problem = _answers(record, evaluations, problems)
        ending = endings.root.get(record.name)
        status = _status(num_done == len(record.stages), ending)
        error = ending.error if ending and status == "failed" else None
        sampled_tokens, token_budget = _tokens(run_dir, record.stages[:num_done])
        chains.append(
            ChainResult(
                record=record,
                status=status,
                num_done=num_done,
                score=number(markers.get(record.stages[num_done - 1].key or "", {}), "score") if num_done else None,
                sampled_tokens=sampled_tokens,
                token_budget=token_budget,
                answers=answers,
                problem=error or problem,
            )
        )
    return CurriculumResults(file.kind, tuple(chains), markers)


def require_chains(run_dir: str | Path) -> CurriculumResults:
    """The chains of a run directory.

    Raises:
        CheckpointError: the run followed no curriculum, or a file is corrupt.
    """
    results = read_chains(run_dir)
    if results is None:
        raise CheckpointError(f"run {run_dir} must have a chains.json, got none: it followed no curriculum.")
    return results


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


def _num_done(run_dir: Path, record: ChainRecord, kind: str, markers: Mapping[str, Row]) -> int:
    """Finished stages, from the first on. They have a marker in a search, otherwise an evaluation."""

    def is_done(stage: StageRecord) -> bool:
        if kind == "search":
            return stage.key in markers
        return (run_dir / stage.directory / "eval" / f"{stage.name}.json").exists()

    return next((index for index, stage in enumerate(record.stages) if not is_done(stage)), len(record.stages))


def _status(is_finished: bool, ending: _Ending | None) -> ChainStatus:
    """The stages' results decide what is finished. The outcome file, if any, only says why a chain is not."""
    if is_finished:
        return "finished"
    return ending.status if ending and ending.status != "finished" else "unfinished"


def _tokens(run_dir: Path, stages: Sequence[StageRecord]) -> tuple[int | None, int | None]:
    """Sampled tokens and budget of the GRPO stages among ``stages``."""
    sampled, budgets = list[float | None](), list[float | None]()
    for stage in stages:
        if stage.kind == "grpo":
            rows = [row for row in read_metrics(run_dir / stage.directory) if row.get("stage") == stage.name]
            sampled.append(number(rows[-1], TOKENS) if rows else None)
            settings = stage_settings(read_config(run_dir / stage.directory), stage.kind, stage.name)
            budgets.append(number(settings, "max_sampled_tokens"))
    return _total(sampled), _total(budgets)


def _total(counts: Sequence[float | None]) -> int | None:
    known = [round(count) for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def _evaluations(run_dir: Path, stages: Sequence[StageRecord]) -> list[list[Row]]:
    """[1 + num_stages] rows of evaluations, the one before training first; [] for a missing one."""
    if not stages:
        return []
    first = run_dir / stages[0].directory
    places = [(first, "before"), *((run_dir / stage.directory, stage.name) for stage in stages)]
    return [evaluated_problems(directory, name) for directory, name in places]


def evaluated_problems(directory: Path, name: str) -> list[Row]:
    """The rows of an evaluation, whether between stages or while one trained; [] if there was none.

    Args:
        directory: of the run.

    Raises:
        CheckpointError: the file is corrupt.
    """
    path = directory / "samples" / f"eval_{name}.jsonl"
    rows = read_jsonl(path)
    if any(not {"level", "problem_id", *CORRECT_BY} <= row.keys() for row in rows):
        raise CheckpointError(f"{path} must hold evaluated problems (level, problem_id, {', '.join(CORRECT_BY)}).")
    return rows


def _problems(evaluations: Sequence[Sequence[Row]]) -> set[tuple[str, str]]:
    return {(row["level"], row["problem_id"]) for rows in evaluations for row in rows}


def _answers(
    record: ChainRecord, evaluations: Sequence[list[Row]], problems: set[tuple[str, str]]
) -> tuple[dict[str, ChainAnswers], str]:
    """The answers by measure, or nothing and the reason.

    Without an evaluation before training, row 0 of the matrix is NaN: metrics that need it are undefined.
    """
    before, after = evaluations[:1], evaluations[1:]
    if not after:
        return {}, ""
    stages = record.stages[: len(after)]
    if missing := [stage.name for stage, rows in zip(stages, after, strict=True) if not rows]:
        return {}, f"not evaluated after {', '.join(missing)}"
    if any(_problems([rows]) != problems for rows in evaluations if rows):
        return {}, "not always evaluated on the held-out problems of the first chain: left out of all comparisons"
    if not before[0]:
        before = [[{**row, **dict.fromkeys(CORRECT_BY, math.nan)} for row in after[0]]]
    levels = {level for level, _ in problems}
    trained = [(stage.name, levels if stage.levels is None else stage.levels) for stage in stages]
    rows = [*before, *after]
    return {by: chain_answers(record.setting, record.seed, trained, rows, by) for by in CORRECT_BY}, ""
