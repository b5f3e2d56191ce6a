"""Loads the problems of a data set: a registered one, an embedded one, a file, or one on a hub."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.config import DataConfig
from pipeline.config.evaluation import EvaluationConfig
from pipeline.data import embedded
from pipeline.data.answers import read_answer
from pipeline.data.problems import problem_rows
from pipeline.data.rows import Row
from pipeline.data.sources import local_path
from pipeline.errors import DataError
from pipeline.evaluation.problems import EvalProblem, choose_problems, filter_values
from pipeline.evaluation.registry import BOXED_TEMPLATE, DATA_SETS, DataSet, Source
from pipeline.types import Problem, SplitName


@dataclass(frozen=True)
class Loaded:
    """The problems of one data set that are asked, and how many were left out."""

    name: str
    problems: list[EvalProblem]
    shots: list[EvalProblem]
    """Solved training problems, shown before every question."""
    template: str
    """The plain prompt."""
    num_rows: int
    num_without_answer: int
    unscorable: list[str]
    """Ids of problems whose gold answer cannot be compared here."""
    num_filtered: int
    """Problems excluded by the ``problems`` settings, or used as solved examples."""
    num_seen_left_out: int = field(default=0, kw_only=True)
    """Problems excluded because the training data contains them."""
    licence: str | None
    """None: not registered."""

    def without_seen(self, kept: list[EvalProblem]) -> "Loaded":
        """A copy with only these problems: the training data contains the others."""
        return replace(self, problems=kept, num_seen_left_out=len(self.problems) - len(kept))


def load_data_set(name: str, config: EvaluationConfig) -> Loaded:
    """The problems to ask.

    Args:
        name: registered, embedded, a path, or a hub name.

    Raises:
        DataError: no such data set, field or row, or the filters leave nothing.
    """
    entry = DATA_SETS.get(name)
    data, source = _reading(name, entry, config)
    row_ids: list[str] = []
    answered: list[EvalProblem] = []
    for row, problem in _matching_rows(name, data, "eval", source):
        row_ids.append(problem.id if problem else "")
        if problem:
            answered.append(_eval_problem(row, problem, data, source))
    if not answered:
        raise DataError(
            f"dataset {name} must have rows with a question and a gold answer, and has none in {len(row_ids)} rows of "
            f"{data.eval_split}. Set data.fields and data.answer_format."
        )
    unscorable = [p.id for p in answered if entry and entry.lean_answers and is_lean(p.gold)]
    scorable = [p for p in answered if p.id not in set(unscorable)]
    shots = _shots(name, data, source, _num_shots(entry, config))
    shown = [shot.asked for shot in shots]  # both may come from the same split
    chosen = choose_problems(scorable, config.problems, row_ids, name, config.seed)
    kept = [problem for problem in chosen if problem.asked not in shown]
    if not kept:
        raise DataError(
            f"dataset {name} must have problems left to ask, got 0 of {len(scorable)} after "
            f"{config.problems.model_dump(exclude_none=True)}. {filter_values(scorable)}"
        )
    return Loaded(
        name=name,
        problems=kept,
        shots=shots,
        template=config.prompt.template or (entry.template if entry else BOXED_TEMPLATE),
        num_rows=len(row_ids),
        num_without_answer=len(row_ids) - len(answered),
        unscorable=unscorable,
        num_filtered=len(scorable) - len(kept),
        licence=entry.licence if entry else None,
    )


def split_questions(name: str, split: SplitName, config: EvaluationConfig) -> list[str]:
    """All questions in a split of a data set. Raises DataError as ``load_data_set`` does."""
    data, source = _reading(name, DATA_SETS.get(name), config)
    return [problem.question for _, problem in _matching_rows(name, data, split, source) if problem]


def has_source(name: str, config: EvaluationConfig) -> bool:
    """True for a registered data set that has a place to read it from: below ``data_root`` if that is set, else on the
    hub. Embedded ones always have."""
    entry = DATA_SETS[name]
    return name.startswith("embedded:") or (entry.local if config.data_root else entry.hub) is not None


def is_lean(gold: str) -> bool:
    """True for a Lean term that is more than a plain number, list or truth value: a function, set or power series."""
    return bool(re.search(r"\bfun\b|\||[∃∧∏∣⌈⌊ℤℝ√]|\bPowerSeries\b|\bNat\.|\bReal\.", gold))


def _reading(name: str, entry: DataSet | None, config: EvaluationConfig) -> tuple[DataConfig, Source | None]:
    """Settings that read the rows, without the prompt template of training: ``Prompter`` makes the prompts."""
    if entry is None or name.startswith("embedded:"):
        if not name.startswith("embedded:"):
            _check_name(name)
        return config.data.model_copy(update={"name": name, "prompt_template": None}), None
    source = entry.local if config.data_root else entry.hub
    if source is None:
        raise DataError(_unavailable(name, config.data_root))
    place = str(Path(config.data_root).expanduser() / source.name) if config.data_root else source.name
    settings: dict[str, Any] = {"name": place, "subset": source.subset, "eval_split": source.eval_split}
    return DataConfig(**settings, fields=source.fields, answer_format=source.answer_format), source


def _unavailable(name: str, data_root: str | None) -> str:
    if data_root is None:
        return f"dataset {name} has no registered hub location. Set data_root to a directory with local copies."
    return (
        f"dataset {name} has no local form. Leave data_root out, or select its problems by row number from a data set "
        "that has one: dataset=math problems.index_file=FILE."
    )


def _check_name(name: str) -> None:
    """Raises DataError for a name that is neither registered nor a path nor a hub name."""
    if local_path(name) is None and "/" not in name:
        raise DataError(
            f"dataset must be registered ({', '.join(DATA_SETS)}), a parquet or JSONL file, a directory of "
            f"<split>.parquet|jsonl, or a hub name, got {name}."
        )


def _rows(data: DataConfig, split: SplitName, source: Source | None) -> Iterator[tuple[Row, Problem | None]]:
    """The rows with their problems, without those that ``source.where`` excludes."""
    where = source.where if source else None
    columns = [*source.columns.values(), *(where or ())[:1]] if source else []
    for row, problem in problem_rows(data, split, columns):
        if where is None or row.text(where[0]) == where[1]:
            yield row, problem


def _matching_rows(
    name: str, data: DataConfig, split: SplitName, source: Source | None
) -> Iterator[tuple[Row, Problem | None]]:
    """As ``_rows``. Raises DataError if there are none."""
    is_empty = True
    for row, problem in _rows(data, split, source):
        is_empty = False
        yield row, problem
    if is_empty and source and source.where:
        raise DataError(f"dataset {name} must have rows with {source.where[0]}={source.where[1]}, got none.")


def _eval_problem(row: Row, problem: Problem, data: DataConfig, source: Source | None) -> EvalProblem:
    fields = embedded.FIELDS if data.name.startswith("embedded:") else data.fields
    solution = row.text(fields.solution or fields.answer)
    columns = source.columns if source else {}
    tags = {tag: _tag(row.first_text(column)) for tag, column in columns.items() if column in row}
    return EvalProblem(
        id=problem.id,
        question=problem.question,
        gold=problem.gold,
        **{"level": problem.level, "type": problem.type} | tags,
        solution=solution,
        reasoning=read_answer(solution, data)[0] or (solution if fields.solution else ""),
        messages=row.messages(fields.question) or (),
    )


def _tag(text: str) -> str | None:
    """A subject is cut to two levels: ``Mathematics -> Algebra``."""
    return " -> ".join(text.split(" -> ")[:2]) or None


def _num_shots(entry: DataSet | None, config: EvaluationConfig) -> int:
    if config.prompt.num_shots is not None:
        return config.prompt.num_shots
    return entry.num_shots if entry else 0


def _shots(name: str, data: DataConfig, source: Source | None, count: int) -> list[EvalProblem]:
    """The first ``count`` problems of the training split."""
    if not count:
        return []
    shots: list[EvalProblem] = []
    for row, problem in _rows(data, "train", source):
        if problem:
            shots.append(_eval_problem(row, problem, data, source))
        if len(shots) == count:
            return shots
    raise DataError(
        f"prompt.num_shots must be at most the number of problems in the training split of {name}, "
        f"got {count} of {len(shots)}."
    )
