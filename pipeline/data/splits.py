"""Training and held-out problems from any data set: stratified, seeded, and never the same problem in both.

Two problems are the same when nothing but case, white space, punctuation and signs tells them apart; they go to one
side together. Everything random is the order of SHA-256 digests of the seed and a text, so that a split depends on
neither the machine, nor a library's generator, nor the rows' order in the source (but of a repeated row the first
one is kept).
"""

import hashlib
import os
import shutil
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from pipeline.config import DataConfig, FieldNames
from pipeline.data.embedded import FIELDS
from pipeline.data.selection import natural_order
from pipeline.data.sources import (
    Row,
    as_text,
    check_embedded,
    embedded_rows,
    file_format,
    local_path,
    read_answer,
    read_rows,
    unique_name,
)
from pipeline.errors import ConfigError, DataError
from pipeline.files import sha256, write_json

SIDES = ("train", "test")
NUM_EXAMPLES = 3
Key = TypeVar("Key", str, tuple[str, str])
_NO_LEVEL = {"", "nan", "none", "null", "na", "unknown"}


@dataclass(frozen=True)
class SplitSettings:
    data: str
    """A hub data set, a parquet or JSONL file, a directory of several (all are split anew), or embedded."""
    output: Path
    subset: str | None = None
    split: str | None = None
    """A split or split expression. None: ``train``; of a directory every file."""
    test_fraction: float = 0.2
    stratify_by: tuple[Literal["level", "type"], ...] = ("level",)
    """``("level",)``, or ``("level", "type")``."""
    seed: int = 0
    question_field: str = "problem"
    answer_field: str | None = None
    """None: ``answer`` when the format is plain, else the field of the solution."""
    solution_field: str = "solution"
    """Empty: the data has none but what an answer that is not plain holds."""
    level_field: str = "level"
    type_field: str = "type"
    """Empty: the data has none."""
    answer_format: Literal["boxed", "hash", "plain"] = "boxed"
    max_per_level: int | None = None
    """Rows of a level that are kept, both sides together."""
    force: bool = False
    """Write into a directory that is not empty. Of what is there only an earlier split is replaced."""

    def data_config(self) -> DataConfig:
        """What reads the source. Raises ConfigError for names that cannot be."""
        if self.data.startswith("embedded:"):
            config = DataConfig(name=self.data, fields=FIELDS, answer_format="plain")
            check_embedded(config)
            return config
        answer = self.answer_field or ("answer" if self.answer_format == "plain" else self.solution_field)
        for option, name in (("question", self.question_field), ("answer", answer), ("level", self.level_field)):
            if not name:
                raise ConfigError(f"--{option}-field must name a column, got an empty text. Rows cannot do without.")
        names = FieldNames(
            question=self.question_field,
            answer=answer,
            solution=None if self.solution_field == answer else self.solution_field or None,
            level=self.level_field,
            type=self.type_field or None,
        )
        return DataConfig(name=self.data, subset=self.subset, fields=names, answer_format=self.answer_format)


@dataclass(frozen=True)
class Record:
    """A usable row, and the columns of the files that are written."""

    problem: str
    solution: str | None
    answer: str
    level: str
    type: str | None
    source: str
    """Hub name, file name, or directory and file name: the same on every machine."""
    id: str
    """Of the problem's text alone, with -2, -3 where the same text has several answers."""


@dataclass
class LeftOut:
    """Rows that are in neither file, by reason."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Where the first few were: file and row, from 1."""

    def add(self, reason: str, where: str) -> None:
        self.counts[reason] += 1
        if len(self.examples[reason]) < NUM_EXAMPLES:
            self.examples[reason].append(where)

    def lines(self) -> list[str]:
        """``2 without a usable level (math/train.parquet row 7, ...)``"""
        return [
            f"{count:,} {reason} ({', '.join(self.examples[reason])}{', ...' if count > NUM_EXAMPLES else ''})"
            for reason, count in sorted(self.counts.items())
        ]


class Split(NamedTuple):
    """What ``prepare_split`` wrote."""

    train: list[Record]
    test: list[Record]
    left_out: LeftOut
    notes: list[str]
    """A line for every level that is on one side only."""

    def counts(self, key: Callable[[Record], str | None]) -> dict[str, dict[str, int]]:
        """Level or type -> rows in train and test, in natural order."""
        train, test = (Counter(key(record) or "-" for record in side) for side in (self.train, self.test))
        return {name: {"train": train[name], "test": test[name]} for name in sorted(train | test, key=natural_order)}


def prepare_split(settings: SplitSettings) -> Split:
    """Read, split, and write ``train.parquet``, ``test.parquet`` and ``split.json``, all or nothing.

    Raises:
        ConfigError: a setting is out of range.
        DataError: the data cannot be read or used, or the output not be written.
    """
    _check(settings)
    records, left_out = read_records(settings)
    if settings.max_per_level is not None:
        records = _capped(records, settings, left_out)
    if not records:
        reasons = "; ".join(left_out.lines()) or "it has no rows at all"
        raise DataError(f"data {settings.data} must have usable rows, and has none: {reasons}.")
    by_type = "type" in settings.stratify_by
    train, test = split_records(records, settings.test_fraction, by_type=by_type, seed=settings.seed)
    if not train or not test:
        raise DataError(
            f"data {settings.data} cannot be split: of {len(records)} usable rows none can be held out without "
            "emptying a level or parting a problem. Give more rows."
        )
    split = Split(train, test, left_out, _one_sided(train, test))
    _write(settings, split)
    return split


def read_records(settings: SplitSettings) -> tuple[list[Record], LeftOut]:
    """The usable rows, each problem and answer once. What lacks something is left out and counted, never guessed.

    A solution is demanded wherever a field is said to hold one. The embedded sets have it for some rows only.
    """
    config = settings.data_config()
    records, left_out = [], LeftOut()
    ids: dict[str, int] = {}
    seen: set[tuple[str, str]] = set()
    for source, rows in _sources(settings, config):
        for number, row in enumerate(rows, 1):
            where = f"{source} row {number}"
            record = _record(row, config, source)
            if isinstance(record, str):
                left_out.add(record, where)
            elif (record.problem, record.answer) in seen:
                left_out.add("repeating a problem and its answer", where)
            else:
                seen.add((record.problem, record.answer))
                unique_id = unique_name(hashlib.sha256(record.problem.encode()).hexdigest()[:12], ids)
                records.append(replace(record, id=unique_id))
    return records, left_out


def split_records(
    records: Sequence[Record], test_fraction: float, *, by_type: bool = False, seed: int = 0
) -> tuple[list[Record], list[Record]]:
    """Training and held-out records, each in a seeded order.

    Groups of the same problem are taken in a seeded order, and held out while they fit into what ``held_out_quotas``
    leaves open. Where that ends short of a quota, a group that oversteps by less is held out as well.
    """
    groups = defaultdict(list)
    for record in records:
        groups[normalized(record.problem)].append(record)
    open_places = held_out_quotas(records, test_fraction, by_type=by_type)
    order = sorted(groups, key=lambda key: _rank(seed, "split", key))
    held_out: set[str] = set()
    for suits in (_fits, _brings_nearer):
        for key in order:
            sizes = Counter(_stratum(record, by_type) for record in groups[key])
            if key not in held_out and suits(sizes, open_places):
                open_places.subtract(sizes)
                held_out.add(key)
    in_order = sorted(records, key=lambda record: _rank(seed, "order", record.id))
    sides: tuple[list[Record], list[Record]] = ([], [])
    for record in in_order:
        sides[normalized(record.problem) in held_out].append(record)
    return sides


def held_out_quotas(
    records: Sequence[Record], test_fraction: float, *, by_type: bool = False
) -> Counter[tuple[str, str]]:
    """(level, type) -> how many rows to hold out; the type is empty unless ``by_type``.

    By largest remainders: first over levels, then over the types of each level, so that a level's number does not
    depend on its types. A level of two rows or more has at least one on each side; a single row is for training.
    """
    levels = Counter(record.level for record in records)
    quotas: Counter[tuple[str, str]] = Counter()
    for level, quota in apportion(levels, Fraction(str(test_fraction))).items():
        quota = min(max(quota, 1), levels[level] - 1)
        strata = Counter(_stratum(record, by_type) for record in records if record.level == level)
        quotas.update(apportion(strata, Fraction(quota, levels[level])))
    return quotas


def apportion(sizes: Mapping[Key, int], share: Fraction) -> dict[Key, int]:
    """A share of every size in whole numbers, that add up to the rounded share of the whole.

    The largest remainders are rounded up; the first names win a tie.
    """
    exact = {key: sizes[key] * share for key in sorted(sizes)}
    parts = {key: int(value) for key, value in exact.items()}
    num_up = round(sum(exact.values())) - sum(parts.values())
    for key in sorted(exact, key=lambda key: parts[key] - exact[key])[:num_up]:
        parts[key] += 1
    return parts


def normalized(problem: str) -> str:
    """Letters and digits alone, case folded. A text that has none stays as it is."""
    folded = unicodedata.normalize("NFKC", problem).casefold()
    return "".join(letter for letter in folded if letter.isalnum()) or problem.strip()


def _check(settings: SplitSettings) -> None:
    """What can be known to be wrong before anything is read."""
    if not 0 < settings.test_fraction < 1:
        raise ConfigError(
            f"--test-fraction must be above 0 and below 1, got {settings.test_fraction:g}: both files need rows."
        )
    if settings.max_per_level is not None and settings.max_per_level < 1:
        raise ConfigError(f"--max-per-level must be at least 1, got {settings.max_per_level}.")
    if settings.data.startswith("embedded:") and (settings.split or settings.subset):
        raise ConfigError(f"--split and --subset must be left out for {settings.data}: it has none to choose from.")
    output = settings.output.expanduser().resolve()
    if not output.is_dir():
        if output.exists():
            raise DataError(f"output {settings.output} must be a directory, and is a file. Choose another --output.")
        return
    if any(output.iterdir()) and not settings.force:
        raise DataError(
            f"output {settings.output} is not empty. Choose another --output, or replace the split in it by --force."
        )
    source = None if settings.data.startswith("embedded:") else local_path(settings.data)
    if source and output in (source.resolve(), source.resolve().parent):
        raise DataError(f"output {settings.output} holds the data that is to be split. Choose another --output.")


def _sources(settings: SplitSettings, config: DataConfig) -> Iterator[tuple[str, list[Row]]]:
    """Name and rows of each file, or of the one data set there is."""
    fix = "Name yours by --question-field, --answer-field, --solution-field, --level-field, --type-field."
    if settings.data.startswith("embedded:"):
        rows = [row for split in ("train", "eval") for row in embedded_rows(config, split)]
        yield settings.data, rows
        return
    path = local_path(settings.data)
    if not path or path.is_file() or settings.split:
        rows = read_rows(config, settings.split or "train", fix=fix)
        yield path.resolve().name if path else settings.data, rows
        return
    files = [file for file in sorted(path.iterdir()) if file_format(file)]
    if not files:
        raise DataError(f"data directory {settings.data} must hold .parquet or .jsonl files, and holds none.")
    for file in files:
        rows = read_rows(config.model_copy(update={"name": str(file)}), "train", fix=fix)
        yield f"{path.resolve().name}/{file.name}", rows


def _record(row: Row, config: DataConfig, source: str) -> Record | str:
    """A record without an id, or the reason why there is none."""
    names = config.fields
    problem, level = _field(row, names.question), _field(row, names.level)
    solution, answer = read_answer(_field(row, names.answer), config)
    if names.solution:
        solution = _field(row, names.solution)
    needs_solution = not config.name.startswith("embedded:") and (names.solution or config.gold_format != "plain")
    if not problem:
        return "without a problem"
    if not _usable_level(level):
        return "without a usable level"
    if needs_solution and not solution:
        return "without a solution"
    if not answer:
        return "without an answer"
    return Record(problem, solution or None, answer, level, _field(row, names.type) or None, source, id="")


def _field(row: Row, name: str | None) -> str:
    return as_text(row[name]) if name else ""


def _usable_level(level: str) -> bool:
    """``Level 3``, ``3``, ``hard``; not ``Level ?``, an empty one, or NaN."""
    name = level.casefold().removeprefix("level")
    return "".join(letter for letter in name if letter.isalnum()) not in _NO_LEVEL


def _capped(records: list[Record], settings: SplitSettings, left_out: LeftOut) -> list[Record]:
    per_level: Counter[str] = Counter()
    kept = []
    for record in sorted(records, key=lambda record: _rank(settings.seed, "cap", record.id)):
        per_level[record.level] += 1
        if per_level[record.level] <= (settings.max_per_level or 0):
            kept.append(record)
        else:
            left_out.add("beyond --max-per-level", f"id {record.id}")
    return kept


def _stratum(record: Record, by_type: bool) -> tuple[str, str]:
    return record.level, (record.type or "") if by_type else ""


def _fits(sizes: Counter[tuple[str, str]], open_places: Counter[tuple[str, str]]) -> bool:
    return all(open_places[stratum] >= size for stratum, size in sizes.items())


def _brings_nearer(sizes: Counter[tuple[str, str]], open_places: Counter[tuple[str, str]]) -> bool:
    change = [abs(open_places[stratum] - size) - abs(open_places[stratum]) for stratum, size in sizes.items()]
    return sum(change) < 0


def _rank(seed: int, purpose: str, text: str) -> bytes:
    return hashlib.sha256(f"{seed} {purpose} {text}".encode()).digest()


def _one_sided(train: list[Record], test: list[Record]) -> list[str]:
    in_train, in_test = (Counter(record.level for record in side) for side in (train, test))
    notes = []
    for level in sorted(in_train.keys() ^ in_test.keys(), key=natural_order):
        count, side = in_train[level] + in_test[level], "train" if in_train[level] else "test"
        rows = "its 1 row is" if count == 1 else f"its {count} rows are one problem, or too few, and are"
        notes.append(f"level {level} cannot be split: {rows} in {side}")
    return notes


def _write(settings: SplitSettings, split: Split) -> None:
    """A new directory appears whole. In one that is there, no moment sees files of two splits side by side."""
    output = settings.output.expanduser().resolve()
    exists = output.is_dir()
    staging = output / f".split.{os.getpid()}" if exists else output.with_name(f".{output.name}.{os.getpid()}")
    try:
        staging.mkdir(parents=True)
        try:
            _write_files(staging, settings, split)
            if not exists:
                os.rename(staging, output)
                return
            for name in ("split.json", "test.parquet"):
                (output / name).unlink(missing_ok=True)
            for name in ("train.parquet", "test.parquet", "split.json"):
                os.replace(staging / name, output / name)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"output {settings.output} cannot be written: {reason}. Choose another --output.") from None


def _write_files(folder: Path, settings: SplitSettings, split: Split) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(column.name, pa.string()) for column in fields(Record)])
    for side in SIDES:
        rows = [asdict(record) for record in getattr(split, side)]
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / f"{side}.parquet")
    checksums = {f"{side}.parquet": sha256(folder / f"{side}.parquet") for side in SIDES}
    write_json(folder / "split.json", _summary(settings, split) | {"sha256": checksums})


def _summary(settings: SplitSettings, split: Split) -> dict[str, Any]:
    chosen = asdict(settings) | {"output": None, "force": None}
    num_train, num_test = len(split.train), len(split.test)
    return {
        "settings": {key: value for key, value in chosen.items() if value is not None},
        "sources": dict(sorted(Counter(record.source for record in split.train + split.test).items())),
        "num_rows": {"train": num_train, "test": num_test},
        "test_frac": num_test / (num_train + num_test),
        "levels": split.counts(lambda record: record.level),
        "types": split.counts(lambda record: record.type),
        "left_out": {
            reason: {"count": count, "examples": split.left_out.examples[reason]}
            for reason, count in sorted(split.left_out.counts.items())
        },
        "notes": split.notes,
    }
