"""The registered data sets, and the problems of these and of any other."""

import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pipeline.config import DataConfig, FieldNames
from pipeline.config.evaluation import EvaluationConfig, ProblemsConfig
from pipeline.data import embedded
from pipeline.data.sources import Row, Split, as_text, local_path, problem_rows, read_answer
from pipeline.errors import DataError
from pipeline.seeds import derive_seed
from pipeline.templates import TEMPLATES

BOXED_TEMPLATE = (
    "Solve the problem step by step, then put the final answer in \\boxed{{}}.\n\n"
    "### Question:\n{question}\n\n### Answer:\n"
)
TAGS = ("level", "type", "source", "difficulty")
"""What results are broken down by, besides the length of completions."""

_MATH = FieldNames(question="problem", answer="solution", level="level", type="type")
_PLAIN = FieldNames(question="problem", answer="answer")


@dataclass(frozen=True)
class Source:
    """Where rows are and what their columns mean."""

    name: str
    """On the Hugging Face hub, or a path below ``data_root``."""
    fields: FieldNames
    answer_format: Literal["plain", "hash", "boxed"] = "plain"
    subset: str | None = None
    eval_split: str = "test"
    columns: dict[str, str] = field(default_factory=dict)
    """Breakdown (of TAGS) -> column."""
    where: tuple[str, str] | None = None
    """Only rows with this value in this column."""


@dataclass(frozen=True)
class DataSet:
    """One entry of the registry."""

    licence: str
    size: int
    """Problems that can be scored."""
    answer_form: str
    hub: Source | None
    local: Source | None
    template: str = BOXED_TEMPLATE
    num_shots: int = 0
    """0: zero-shot."""
    lean_answers: bool = False
    """Some gold answers are Lean terms that nothing here can compare: they are counted and not asked."""


def _olympiad(value: str | None) -> Source:
    columns = {"source": "dataset", "type": "subject", "difficulty": "difficulty"}
    where = ("dataset", value) if value else None
    return Source("olympiad", _PLAIN, columns=columns, where=where)


_LATEX = "LaTeX or a number"
DATA_SETS: dict[str, DataSet] = {
    "gsm8k": DataSet(
        "MIT", 1319, "an integer after ####",
        Source("openai/gsm8k", FieldNames(), "hash", "main"), Source("gsm8k", FieldNames(), "hash"),
        template=TEMPLATES["gsm8k"],
    ),
    "math": DataSet(
        "MIT", 5000, "LaTeX, the last box of the solution",
        Source("DigitalLearningGmbH/MATH-lighteval", _MATH, "boxed"), Source("math", _MATH, "boxed"),
    ),
    "math500": DataSet(
        "MIT", 500, _LATEX,
        Source("HuggingFaceH4/MATH-500", _PLAIN.model_copy(update={"level": "level", "type": "subject"})),
        None,
    ),
    "combibench": DataSet(
        "MIT", 28, "a number; some are Lean terms", None,
        Source("combibench", FieldNames(question="problem", answer="answer", id="id"), columns={"source": "tag"}),
        lean_answers=True,
    ),
    "olympiad": DataSet("see its parts", 3621, _LATEX, None, _olympiad(None)),
    "omni_math": DataSet(
        "not stated", 2816, _LATEX,
        None, _olympiad("Omni-MATH-Rule"),
    ),
    "olympiadbench": DataSet("MIT", 675, _LATEX, None, _olympiad("OlympiadBench-OE_TO_maths_en_COMP")),
    "amc23": DataSet("not stated", 40, "an integer", None, _olympiad("AMC 2023")),
    "aime24": DataSet(
        "not stated", 30, "an integer",
        Source("HuggingFaceH4/aime_2024", _PLAIN, eval_split="train"), _olympiad("AIME 2024"),
    ),
    "aime25": DataSet("not stated", 30, "an integer", None, _olympiad("AIME 2025")),
    "hmmt25": DataSet(
        "not stated", 30, _LATEX,
        Source("MathArena/hmmt_feb_2025", _PLAIN, eval_split="train"), _olympiad("HMMT February 2025"),
    ),
    "embedded:arithmetic": DataSet("Apache-2.0 (reasoning-gym)", 1000, "an integer", None, None),
    "embedded:operations": DataSet("Apache-2.0 (reasoning-gym)", 892, "an integer", None, None),
}  # fmt: skip


@dataclass(frozen=True)
class EvalProblem:
    """One problem to be asked."""

    id: str
    question: str
    gold: str
    level: str | None = None
    type: str | None = None
    source: str | None = None
    difficulty: str | None = None
    solution: str = ""
    """As the data has it: what a solved example shows in a plain prompt."""
    reasoning: str = ""
    """The solution without its answer: what one shows in a chat. Empty where the data has the answer alone."""


@dataclass(frozen=True)
class Loaded:
    """The problems of one data set after all filters, and what was left out."""

    name: str
    problems: list[EvalProblem]
    shots: list[EvalProblem]
    """Solved training problems that stand before every question."""
    template: str
    """Of the plain prompt."""
    num_rows: int
    num_without_answer: int
    unscorable: list[str]
    """Ids of problems whose gold answer nothing here can compare."""
    num_filtered: int
    """Problems that ``problems`` of the configuration leaves out, and those that are shown as solved examples."""
    num_seen_left_out: int = field(default=0, kw_only=True)
    """Problems that are in the training data and were therefore left out."""
    licence: str | None
    """None: not registered."""

    def without_seen(self, kept: list[EvalProblem]) -> "Loaded":
        """With these problems alone: the others are in the training data."""
        return replace(self, problems=kept, num_seen_left_out=len(self.problems) - len(kept))


def load_data_set(name: str, config: EvaluationConfig) -> Loaded:
    """The problems that are asked.

    Args:
        name: registered, embedded, a path, or a hub name.

    Raises:
        DataError: there is no such data set, field or row, or nothing is left after the filters.
    """
    entry = DATA_SETS.get(name)
    data, source = _reading(name, entry, config)
    rows = _matching(name, problem_rows(data, "eval"), source)
    found = [_eval_problem(row, problem, data, source) for row, problem in rows if problem]
    if not found:
        raise DataError(
            f"dataset {name} must have rows with a question and a gold answer, and has none in {len(rows)} rows of "
            f"{data.eval_split}. Set data.fields and data.answer_format."
        )
    unscorable = [p.id for p in found if entry and entry.lean_answers and is_lean(p.gold)]
    scorable = [p for p in found if p.id not in set(unscorable)]
    num_shots = config.prompt.num_shots if config.prompt.num_shots is not None else entry.num_shots if entry else 0
    shots = _shots(name, data, source, num_shots)
    shown = {shot.question for shot in shots}  # the two splits may be one
    chosen = _choose(scorable, config, name, [problem.id if problem else "" for _, problem in rows])
    kept = [problem for problem in chosen if problem.question not in shown]
    if not kept:
        raise DataError(
            f"dataset {name} must have problems left to ask, got 0 of {len(scorable)} after "
            f"{config.problems.model_dump(exclude_none=True)}. {_what_there_is(scorable)}"
        )
    return Loaded(
        name=name,
        problems=kept,
        shots=shots,
        template=config.prompt.template or (entry.template if entry else BOXED_TEMPLATE),
        num_rows=len(rows),
        num_without_answer=len(rows) - len(found),
        unscorable=unscorable,
        num_filtered=len(scorable) - len(kept),
        licence=entry.licence if entry else None,
    )


def training_questions(name: str, config: EvaluationConfig) -> list[str]:
    """Questions of the training split of a data set, for the guard. Raises DataError as load_data_set."""
    data, source = _reading(name, DATA_SETS.get(name), config)
    return [problem.question for _, problem in _matching(name, problem_rows(data, "train"), source) if problem]


def is_lean(gold: str) -> bool:
    """Whether it is a Lean term that is no plain number, list or truth value: a function, a set, a power series."""
    return bool(re.search(r"\bfun\b|\||[∃∧∏∣⌈⌊ℤℝ√]|\bPowerSeries\b|\bNat\.|\bReal\.", gold))


def _reading(name: str, entry: DataSet | None, config: EvaluationConfig) -> tuple[DataConfig, Source | None]:
    """How rows are read. The prompt is not made here: templates of training are left out."""
    if entry is None or name.startswith("embedded:"):
        if not name.startswith("embedded:"):
            _check_name(name)
        return config.data.model_copy(update={"name": name, "prompt_template": None}), None
    source = entry.local if config.data_root else entry.hub
    if source is None:
        raise DataError(_not_there(name, config.data_root))
    place = str(Path(config.data_root).expanduser() / source.name) if config.data_root else source.name
    settings: dict[str, Any] = {"name": place, "subset": source.subset, "eval_split": source.eval_split}
    return DataConfig(**settings, fields=source.fields, answer_format=source.answer_format), source


def _not_there(name: str, data_root: str | None) -> str:
    if data_root is None:
        return f"dataset {name} is on no hub that is registered. Set data_root to a directory with local copies."
    return (
        f"dataset {name} has no local form. Leave data_root out, or give the row numbers of its problems in a data set "
        "that has one: dataset=math problems.index_file=FILE."
    )


def _check_name(name: str) -> None:
    """Raises DataError for what can be neither registered nor a path nor a hub name."""
    if local_path(name) is None and "/" not in name:
        raise DataError(
            f"dataset must be registered ({', '.join(DATA_SETS)}), a parquet or JSONL file, a directory of "
            f"<split>.parquet|jsonl, or a hub name, got {name}."
        )


def _matching(name: str, rows: Iterable[tuple[Row, Any]], source: Source | None) -> list[tuple[Row, Any]]:
    if source is None or source.where is None:
        return list(rows)
    column, value = source.where
    kept = [(row, problem) for row, problem in rows if row.get(column) == value]
    if not kept:
        raise DataError(f"dataset {name} must have rows with {column}={value}, got none.")
    return kept


def _eval_problem(row: Row, problem: Any, data: DataConfig, source: Source | None) -> EvalProblem:
    fields = embedded.FIELDS if data.name.startswith("embedded:") else data.fields
    written = as_text(row[fields.solution or fields.answer])
    columns = source.columns if source else {}
    tags = {tag: _tag(row[column]) for tag, column in columns.items() if column in row}
    return EvalProblem(
        id=problem.id,
        question=problem.question,
        gold=problem.gold,
        **{"level": problem.level, "type": problem.type} | tags,
        solution=written,
        reasoning=read_answer(written, data)[0] or (written if fields.solution else ""),
    )


def _tag(value: Any) -> str | None:
    """Of several subjects the first, as far as ``Mathematics -> Algebra``."""
    first = value[0] if isinstance(value, list) and value else value
    return " -> ".join(as_text(first).split(" -> ")[:2]) or None


def _choose(
    problems: list[EvalProblem], config: EvaluationConfig, name: str, row_ids: Sequence[str]
) -> list[EvalProblem]:
    chosen: ProblemsConfig = config.problems
    kept = problems
    for tag, wanted in (("level", chosen.levels), ("type", chosen.types), ("source", chosen.sources)):
        if wanted is not None:
            kept = [problem for problem in kept if getattr(problem, tag) in wanted]
    if chosen.index_file:
        ids = _indexed(chosen.index_file, row_ids)
        kept = [problem for problem in kept if problem.id in ids]
    if chosen.max_problems and len(kept) > chosen.max_problems:
        draw = random.Random(derive_seed(config.seed, "problems", name))
        kept = [kept[index] for index in sorted(draw.sample(range(len(kept)), chosen.max_problems))]
    return kept


def _indexed(index_file: str, row_ids: Sequence[str]) -> set[str]:
    """The ids that an index file names."""
    try:
        index = json.loads(Path(index_file).expanduser().read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"problems.index_file {index_file} cannot be read: {error}.") from None
    if not isinstance(index, list) or not all(type(item) in (int, str) for item in index):
        raise DataError(f"problems.index_file {index_file} must be a JSON list of row numbers or problem ids.")
    known = set(row_ids)
    wrong = [i for i in index if (i not in known if isinstance(i, str) else not 0 <= i < len(row_ids))]
    if wrong:
        raise DataError(
            f"problems.index_file {index_file} must hold rows of the {len(row_ids)} there are, got {wrong[0]!r}."
        )
    return {row_ids[item] if isinstance(item, int) else item for item in index}


def _what_there_is(problems: list[EvalProblem]) -> str:
    """The levels, types and sources that a filter could name."""
    found = {tag: sorted({str(getattr(p, tag)) for p in problems} - {"None"}) for tag in ("level", "type", "source")}
    return "There are " + "; ".join(f"{tag}s {', '.join(names[:12])}" for tag, names in found.items() if names) + "."


def _shots(name: str, data: DataConfig, source: Source | None, count: int) -> list[EvalProblem]:
    """The first problems of the training split."""
    if not count:
        return []
    split: Split = "train"
    shots: list[EvalProblem] = []
    for row, problem in problem_rows(data, split):
        if problem and (source is None or source.where is None or row.get(source.where[0]) == source.where[1]):
            shots.append(_eval_problem(row, problem, data, source))
        if len(shots) == count:
            return shots
    raise DataError(
        f"prompt.num_shots must be at most the problems of {name}'s training split, got {count} of {len(shots)}."
    )
