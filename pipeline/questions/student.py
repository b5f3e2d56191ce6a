"""Data for the student: the kept written problems, and real problems with the same number of tokens.

The same student is trained on each, so the difference shows what the written problems are worth. docs/questions.md.
"""

import hashlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, cycle
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.config import DataConfig, FieldNames, ModelConfig
from pipeline.data import embedded
from pipeline.data.answers import worked_solution
from pipeline.data.rows import Place, Row
from pipeline.data.selection import natural_order
from pipeline.data.sources import embedded_rows, is_embedded, iter_rows, split_expression
from pipeline.data.splits.stratify import seeded_rank
from pipeline.errors import ConfigError, DataError
from pipeline.files import sha256, whole_directory, write_json, write_parquet
from pipeline.models.hub import resolve_model
from pipeline.models.tokenizer import load_tokenizer
from pipeline.questions.filters import TEST_READINGS, Similar, other_names
from pipeline.questions.written_files import PROBLEMS, training_row
from pipeline.runs.checkpoints import read_written
from pipeline.runs.directory import RunDirectory
from pipeline.types import SplitName

FIELDS = FieldNames(question="problem", answer="answer", solution="solution", level="level", type="type")
"""Columns of written problems, and of what ``jobs/prepare_data.py split`` writes."""


@dataclass(frozen=True)
class StudentSettings:
    written: Path
    """``problems.parquet`` or ``problems.jsonl`` of a generation, its directory, or a run whose stages wrote
    problems."""
    data: str
    """The real problems: an embedded set, or a directory made by ``jobs/prepare_data.py split``."""
    output: Path
    model: str = "embedded:smollm2-135m-instruct"
    """The student, whose tokenizer counts the tokens."""
    seed: int = 0
    max_problems: int | None = None
    """Maximum number of written problems, drawn at random. None: all kept ones."""


class Example(NamedTuple):
    """A row of the output files."""

    question: str
    answer: str
    solution: str
    level: str
    type: str
    id: str


class Counted(NamedTuple):
    example: Example
    num_tokens: int
    """Tokens of question and worked solution. Prompt and chat template add equally many to every problem."""


@dataclass(frozen=True)
class StudentData:
    train: dict[str, list[Counted]]
    """Side (``written`` or ``real``) -> training problems."""
    test: list[Example]
    """Held-out problems of both sides."""
    left_out: dict[str, Counter[str]]
    """Side -> reason -> number of problems left out."""

    def counts(self, side: str) -> dict[str, Any]:
        """The numbers of problems and tokens of a side, and of its problems by level."""
        levels = Counter(item.example.level for item in self.train[side])
        return {
            "num_problems": len(self.train[side]),
            "num_tokens": sum(item.num_tokens for item in self.train[side]),
            "levels": {level: levels[level] for level in sorted(levels, key=natural_order)},
        }


def prepare_student(settings: StudentSettings) -> StudentData:
    """Choose the problems of both sides, then write their files and ``student.json``: all of them or none.

    Raises:
        ConfigError: a setting is out of range.
        DataError: no written problem was kept, the data cannot be read or is too small, or the output cannot be
            written.
        ModelError: the model has no tokenizer.
    """
    _check(settings)
    test, left_out = _real(settings, "eval"), {"written": Counter[str](), "real": Counter[str]()}
    held_out = Similar((example.question for example in test), readings=TEST_READINGS)
    pool = _shuffled(_usable(_real(settings, "train"), held_out, left_out["real"]), settings.seed)
    # A real problem with other numbers is a variation. Only the same numbers make it a copy.
    real = Similar((example.question for example in pool), readings=[other_names])
    counts = left_out["written"]
    usable = _without_copies(_usable(_written(settings.written), held_out, counts), real, counts)
    if not usable:
        reasons = _reasons(left_out["written"])
        raise DataError(f"written {settings.written} must hold problems to train on, got none of them: {reasons}.")
    written = _shuffled(usable, settings.seed)[: settings.max_problems]
    counted = _counted([*written, *pool], settings.model)
    train = {"written": counted[: len(written)]}
    train["real"] = same_tokens(train["written"], counted[len(written) :])
    data = StudentData(train, test, left_out)
    _write(settings, data)
    return data


def same_tokens(written: Sequence[Counted], pool: Sequence[Counted]) -> list[Counted]:
    """Real problems with as many tokens as the written ones, to within half a problem.

    For each written problem, take the one of its level whose length brings the two totals closest, or none if that
    would not help. Then add more, taking the same levels in turn, while that helps. So the number of problems, their
    levels and their lengths match too, as far as the pool allows. Among equally long problems the first is taken.

    Raises:
        DataError: the pool is too small.
    """
    left: dict[str, list[Counted]] = {}
    for item in sorted(pool, key=lambda item: item.num_tokens):
        left.setdefault(item.example.level, []).append(item)
    chosen: list[Counted] = []
    missing = 0
    demand = ((item.example.level, item.num_tokens) for item in written)
    more = ((item.example.level, 0) for item in cycle(written))
    for level, num_tokens in chain(demand, more):
        missing += num_tokens
        items = left.get(level) or max(left.values(), key=len, default=[])
        position = _nearest(items, missing)
        if position is not None:
            chosen.append(items.pop(position))
            missing -= chosen[-1].num_tokens
        elif not num_tokens:
            break
    if 2 * missing > min((item.num_tokens for item in pool), default=0):  # nothing is left
        num_tokens = sum(item.num_tokens for item in written)
        raise DataError(
            f"data must have as many tokens of training problems as the written ones, {num_tokens}, got "
            f"{num_tokens - missing}. Use fewer written ones with --max-problems, or larger data."
        )
    return chosen


def _nearest(items: Sequence[Counted], missing: int) -> int | None:
    """Position of the problem whose length is closest to what is missing; None if none brings the totals closer."""
    after = bisect_left(items, missing, key=lambda item: item.num_tokens)
    near = range(max(after - 1, 0), min(after + 1, len(items)))
    distances = ((abs(items[position].num_tokens - missing), position) for position in near)
    distance, position = min(distances, default=(abs(missing), 0))
    return position if distance < abs(missing) else None


def _check(settings: StudentSettings) -> None:
    """Check the settings before anything is read."""
    if settings.max_problems is not None and settings.max_problems < 1:
        raise ConfigError(f"--max-problems must be at least 1, got {settings.max_problems}.")
    output = settings.output.expanduser()
    if output.exists() and not output.is_dir():
        raise DataError(f"output {settings.output} must be a directory, and is a file. Choose another --output.")
    if output.is_dir() and any(output.iterdir()):
        raise DataError(f"output {settings.output} is not empty. Choose another --output.")


def _written(place: Path) -> Iterator[Example]:
    """The kept written problems.

    Raises:
        DataError: none were kept, or the place holds no written problems.
    """
    if (place / "checkpoints").is_dir():
        return _examples(_rows_of_run(place), FIELDS)
    path = place / f"{PROBLEMS}.parquet" if place.is_dir() else place
    config = DataConfig(name=str(path.resolve()), fields=FIELDS, answer_format="plain")
    fix = f"Give {PROBLEMS}.parquet of jobs/generate_problems.py, or a run that wrote problems."
    if not path.exists():
        raise DataError(f"written {path} does not exist. {fix}")
    return _examples(iter_rows(config, "train", fix=fix), FIELDS)


def _rows_of_run(run: Path) -> Iterator[Row]:
    checkpoints = RunDirectory(run).checkpoints.stage_results().values()
    rows = [row for checkpoint in checkpoints for row in read_written(checkpoint)]
    kept = [training_row(row) for row in rows if row["is_kept"]]
    if not kept:
        reasons = _reasons(Counter(row["reason"] for row in rows))
        raise DataError(
            f"run {run} must have written problems that were kept, got none of {len(rows)}: {reasons}. Train it "
            "longer, lower questions.keep, or wait until a stage with `write` is done."
        )
    return (Row(values, Place(run.name, "written problem", number)) for number, values in enumerate(kept, 1))


def _real(settings: StudentSettings, split: SplitName) -> list[Example]:
    config = DataConfig(name=settings.data, fields=FIELDS, answer_format="plain")
    if is_embedded(config):
        return list(_examples(embedded_rows(config, split), embedded.FIELDS))
    fix = "Make such data with jobs/prepare_data.py split."
    return list(_examples(iter_rows(config, split_expression(config, split), fix=fix), FIELDS))


def _examples(rows: Iterable[Row], names: FieldNames) -> Iterator[Example]:
    for row in rows:
        question = row.question(names.question)
        yield Example(
            question=question,
            answer=row.text(names.answer),
            solution=row.text(names.solution),
            level=row.text(names.level),
            type=row.text(names.type),
            id=hashlib.sha256(question.encode()).hexdigest()[:12],
        )


def _usable(examples: Iterable[Example], held_out: Similar, left_out: Counter[str]) -> list[Example]:
    """The complete problems, each once, without copies of held-out ones. The others are counted."""
    usable: dict[str, Example] = {}
    for example in examples:
        if not (example.question and example.answer and example.solution):
            left_out["without a question, an answer or a solution"] += 1
        elif match := held_out.find(example.question):
            left_out[f"held-out problem ({match.kind})"] += 1
        elif example.id in usable:
            left_out["repeated"] += 1
        else:
            usable[example.id] = example
    return list(usable.values())


def _without_copies(examples: Iterable[Example], real: Similar, left_out: Counter[str]) -> list[Example]:
    """The problems that do not copy real ones. The others are counted."""
    kept = []
    for example in examples:
        if match := real.find(example.question):
            left_out[f"copy of a real problem ({match.kind})"] += 1
        else:
            kept.append(example)
    return kept


def _shuffled(examples: Iterable[Example], seed: int) -> list[Example]:
    return sorted(examples, key=lambda example: seeded_rank(seed, "student", example.id))


def _counted(examples: Sequence[Example], model: str) -> list[Counted]:
    config = ModelConfig(name=model)
    tokenizer = load_tokenizer(resolve_model(config), config)
    questions = [example.question for example in examples]
    solutions = [worked_solution(example.solution, example.answer) for example in examples]
    tokens = (tokenizer(texts, add_special_tokens=False)["input_ids"] for texts in (questions, solutions))
    return [
        Counted(example, len(question) + len(solution))
        for example, question, solution in zip(examples, *tokens, strict=True)
    ]


def _reasons(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common()) or "nothing was written"


def _write(settings: StudentSettings, data: StudentData) -> None:
    output = settings.output.expanduser().resolve()
    try:
        with whole_directory(output) as folder:
            checksums = {}
            for side, train in data.train.items():
                rows = {"train": [item.example for item in train], "test": data.test}
                for split, examples in rows.items():
                    path = folder / side / f"{split}.parquet"
                    _write_parquet(path, examples)
                    checksums[str(path.relative_to(folder))] = sha256(path)
            write_json(folder / "student.json", _record(settings, data) | {"sha256": checksums})
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"output {settings.output} cannot be written: {reason}. Choose another --output.") from None


def _write_parquet(path: Path, examples: Sequence[Example]) -> None:
    import pyarrow as pa

    path.parent.mkdir(exist_ok=True)
    write_parquet(path, [example._asdict() for example in examples], dict.fromkeys(Example._fields, pa.string()))


def _record(settings: StudentSettings, data: StudentData) -> dict[str, Any]:
    """The record of how the data was made."""
    values = {name: str(value) if isinstance(value, Path) else value for name, value in vars(settings).items()}
    return {
        "settings": {name: value for name, value in values.items() if name != "output"},
        **{side: data.counts(side) | {"left_out": dict(data.left_out[side])} for side in data.train},
        "test": {"num_problems": len(data.test)},
    }
