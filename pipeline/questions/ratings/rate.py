"""Rates the problems of data sets, and selects those that pass the filters."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import NamedTuple

from pipeline.config import DataConfig
from pipeline.data.answers import read_answer
from pipeline.data.problems import unique_name
from pipeline.data.rows import Row, require_library
from pipeline.data.sources import pooled_rows
from pipeline.data.splits.records import LeftOut
from pipeline.errors import DataError
from pipeline.questions.ratings.difficulty import difficulty_of, level_name, stated_difficulty
from pipeline.questions.ratings.quality import Quality, Stated, rate_quality
from pipeline.questions.ratings.settings import RateSettings
from pipeline.questions.ratings.solve_rates import SolveRates, read_solve_rates
from pipeline.questions.ratings.topics import topic_of
from pipeline.seeds import derive_seed

_OPTIONAL = ("difficulty", "dataset", "source", "id")
"""Further columns, read if the data has them."""
_VAGUE = re.compile("junior|national|selection|international", re.IGNORECASE)
"""Words that name a contest in a row, and may mean anything in a file's name."""
_FIX = "Name yours by --question-field, --answer-field, --solution-field, --level-field, --type-field."


@dataclass(frozen=True, slots=True)
class RatedProblem:
    """A row of ``train.parquet``."""

    problem: str
    solution: str | None
    answer: str
    level: str
    """The name of the range that its difficulty is in, or ``unrated``."""
    difficulty: float | None
    topic: str
    quality: float
    quality_reasons: str
    source: str
    """Data set or file, with the part of it that the row names."""
    id: str


@dataclass
class Ratings:
    """The results of one rating run."""

    kept: list[RatedProblem]
    left_out: LeftOut
    sources: Counter[str]
    """Data set -> number of rated rows."""
    checks: Counter[str] = field(default_factory=Counter)
    """Check -> number of problems whose quality it lowered."""
    qualities: list[float] = field(default_factory=list)
    """Quality of every rated problem, including those that a filter rejects."""


class _Read(NamedTuple):
    """A row as it was read."""

    stated: Stated
    difficulty: float | None
    topic: str
    source: str
    id: str
    where: str


def rate(settings: RateSettings) -> Ratings:
    """Rate all problems and apply the filters. Nothing is written.

    Raises:
        ConfigError: a setting is out of range.
        DataError: a data set cannot be read, has no rows or lacks a column; a library is missing; no problem is left.
    """
    settings.check()
    require_library("sympy", "rating answers")
    rates = read_solve_rates(settings.solve_rates)
    left_out, sources = LeftOut(), Counter[str]()
    read = [row for name in settings.data for row in _rows(settings, name, rates, left_out, sources)]
    qualities = rate_quality([row.stated for row in read])
    ratings = Ratings([], left_out, sources)
    ids: dict[str, int] = {}
    for row, quality in zip(read, qualities, strict=True):
        _add(ratings, settings, row, quality, ids)
    if not ratings.kept:
        reasons = "; ".join(left_out.lines()) or "they have no rows at all"
        raise DataError(f"data {', '.join(settings.data)} must have problems to keep, and has none: {reasons}.")
    ratings.kept.sort(key=lambda problem: derive_seed(settings.seed, problem.id))
    return ratings


def _rows(
    settings: RateSettings, name: str, rates: SolveRates, left_out: LeftOut, sources: Counter[str]
) -> Iterator[_Read]:
    """The rows with a problem and an answer. The others are counted."""
    config = settings.data_config(name)
    for source, rows in pooled_rows(config, settings.split, _OPTIONAL, fix=_FIX):
        for number, row in enumerate(rows, 1):
            read = _read(row, config, source, f"{source} row {number}", rates)
            if not read.stated.statement or not read.stated.answer:
                lacking = "an answer" if read.stated.statement else "a problem"
                left_out.add(f"without {lacking}", read.where)
                continue
            sources[name] += 1
            yield read


def _read(row: Row, config: DataConfig, source: str, where: str, rates: SolveRates) -> _Read:
    names = config.fields
    solution, answer = read_answer(row.text(names.answer), config)
    solution = row.text(names.solution) or solution
    stated = Stated(row.question(names.question), solution, answer)
    part, address = (row.first_text(name) if name in row else "" for name in ("dataset", "source"))
    level = row.text(names.level)
    data_set = _VAGUE.sub("", PurePath(config.name).name)
    by_source = stated_difficulty(row.text("difficulty"), level, (data_set, part, address))
    subject = row.first_text(names.type) if names.type else ""
    return _Read(
        stated,
        difficulty_of(by_source, rates.find(stated.statement, row.text("id"))),
        topic_of(subject, stated.statement),
        f"{source}: {part}" if part else source,
        row.text("id") or hashlib.sha256(stated.statement.encode()).hexdigest()[:12],
        where,
    )


def _add(ratings: Ratings, settings: RateSettings, row: _Read, quality: Quality, ids: dict[str, int]) -> None:
    level = level_name(row.difficulty)
    ratings.qualities.append(quality.score)
    ratings.checks.update(list(quality.findings))
    if quality.score < settings.min_quality:
        worst = min(quality.findings, key=lambda name: quality.findings[name].share)
        ratings.left_out.add(f"below the quality asked for, mostly by {worst}", row.where)
    elif settings.levels and level not in settings.levels:
        ratings.left_out.add("of another level", row.where)
    elif settings.topics and row.topic not in settings.topics:
        ratings.left_out.add("of another topic", row.where)
    else:
        stated = row.stated
        kept = RatedProblem(
            problem=stated.statement,
            solution=stated.solution or None,
            answer=stated.answer,
            level=level,
            difficulty=row.difficulty,
            topic=row.topic,
            quality=quality.score,
            quality_reasons=quality.reasons,
            source=row.source,
            id=unique_name(row.id, ids),
        )
        ratings.kept.append(kept)
