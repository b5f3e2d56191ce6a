"""Settings of ``jobs/prepare_data.py rate``, and checks that need no data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.config import DataConfig, FieldNames
from pipeline.data.embedded import FIELDS
from pipeline.data.sources import check_embedded, column_names, is_embedded
from pipeline.errors import ConfigError, DataError
from pipeline.questions.ratings.difficulty import LEVELS
from pipeline.questions.ratings.topics import TOPICS

_KNOWN = {
    "question": ("problem", "question"),
    "answer": ("answer", "final_answer"),
    "solution": ("solution",),
    "level": ("level",),
    "type": ("type", "subject", "topic"),
}
"""Field -> names that data sets use for its column."""


@dataclass(frozen=True)
class RateSettings:
    data: Sequence[str]
    """Hub data sets, parquet or JSONL files, directories of such files, or embedded sets."""
    output: Path
    min_quality: float = 0.0
    levels: Sequence[str] = ()
    """Levels to keep, from ``difficulty.LEVELS``. Empty: all."""
    topics: Sequence[str] = ()
    """Topics to keep, from ``topics.TOPICS``. Empty: all."""
    solve_rates: Path | None = None
    """JSONL or parquet file of attempts or shares; see solve_rates.py."""
    licence: Sequence[str] = ()
    """One licence for each data set, in order."""
    subset: str | None = None
    split: str | None = None
    """A split or split expression. None: ``train``; for a directory, every file."""
    question_field: str | None = None
    answer_field: str | None = None
    solution_field: str | None = None
    level_field: str | None = None
    type_field: str | None = None
    """For each of these fields, None means the first known name that the data has."""
    answer_format: Literal["plain", "boxed", "hash"] | None = None
    """None: ``plain``, and ``boxed`` for data without a column of answers."""
    seed: int = 0
    """Seed of the row order. It mixes the data sets, so any part of the file is like the whole."""

    def check(self) -> None:
        """Check the settings before anything is read. Raises ConfigError or DataError."""
        if not 0 <= self.min_quality <= 1:
            raise ConfigError(f"--min-quality must be from 0 to 1, got {self.min_quality:g}.")
        for option, chosen, known in (("levels", self.levels, LEVELS), ("topics", self.topics, TOPICS)):
            if unknown := [name for name in chosen if name not in known]:
                raise ConfigError(f"--{option} must be among {', '.join(known)}, got {', '.join(unknown)}.")
        if self.licence and len(self.licence) != len(self.data):
            raise ConfigError(
                f"--licence must be given once for each --data or not at all, got {len(self.licence)} for "
                f"{len(self.data)}: each is the licence of one data set."
            )
        output = self.output.expanduser().resolve()
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise DataError(f"output {self.output} must be a new or empty directory. Choose another --output.")

    def data_config(self, name: str) -> DataConfig:
        """The settings that read one of the data sets, with the columns that it has.

        Raises:
            DataError: the data set cannot be read, or has no rows.
        """
        config = DataConfig(name=name, subset=self.subset)
        if is_embedded(config):
            check_embedded(config)
            return config.model_copy(update={"fields": FIELDS, "answer_format": "plain"})
        names = column_names(config, self.split)
        found = {field: self._column(field, names) for field in _KNOWN}
        if not found["answer"] and self.answer_format == "plain":
            found["answer"] = "answer"  # the error then names this column
        answer_format = self.answer_format or ("plain" if found["answer"] else "boxed")
        if answer_format != "plain" and not self.answer_field and (answer_format == "boxed" or not found["answer"]):
            found["answer"] = found["solution"] or "solution"
        if found["answer"] == found["solution"]:
            found["solution"] = None
        question = found["question"] or "problem"
        fields = FieldNames(
            question=question,
            answer=found["answer"] or "answer",
            solution=found["solution"],
            level=found["level"],
            type=found["type"],
        )
        return config.model_copy(update={"fields": fields, "answer_format": answer_format})

    def _column(self, field: str, names: Sequence[str]) -> str | None:
        chosen: str | None = getattr(self, f"{field}_field")
        return chosen or next((name for name in _KNOWN[field] if name in names), None)
