"""Settings of ``jobs/prepare_data.py split``, and the checks that need no data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.config import DataConfig, FieldNames
from pipeline.data.embedded import FIELDS
from pipeline.data.sources import check_embedded, local_path
from pipeline.errors import ConfigError, DataError


@dataclass(frozen=True)
class SplitSettings:
    data: str
    """A hub data set, a parquet or JSONL file, a directory of such files (pooled, then split), or embedded."""
    output: Path
    subset: str | None = None
    split: str | None = None
    """A split or split expression. None: ``train``; for a directory, every file."""
    test_fraction: float = 0.2
    stratify_by: tuple[Literal["level", "type"], ...] = ("level",)
    """``("level",)``, or ``("level", "type")``."""
    seed: int = 0
    question_field: str = "problem"
    answer_field: str | None = None
    """None: ``answer`` if the format is plain, else the field of the solution."""
    solution_field: str = "solution"
    """Empty: no solutions, except those inside answers that are not plain."""
    level_field: str = "level"
    type_field: str = "type"
    """Empty: the data has no types."""
    answer_format: Literal["boxed", "hash", "plain"] = "boxed"
    max_per_level: int | None = None
    """Rows to keep of each level, both sides together. None: all."""
    force: bool = False
    """Write into a directory that is not empty. Only an earlier split in it is replaced."""

    @property
    def is_embedded(self) -> bool:
        return self.data.startswith("embedded:")

    def data_config(self) -> DataConfig:
        """Settings that read the source.

        Raises:
            ConfigError: the name of a column is empty.
            DataError: unknown embedded set.
        """
        if self.is_embedded:
            config = DataConfig(name=self.data, fields=FIELDS, answer_format="plain")
            check_embedded(config)
            return config
        answer = self.answer_field or ("answer" if self.answer_format == "plain" else self.solution_field)
        for option, name in (("question", self.question_field), ("answer", answer), ("level", self.level_field)):
            if not name:
                raise ConfigError(f"--{option}-field must name a column, got an empty text: every row needs one.")
        names = FieldNames(
            question=self.question_field,
            answer=answer,
            solution=None if self.solution_field == answer else self.solution_field or None,
            level=self.level_field,
            type=self.type_field or None,
        )
        return DataConfig(name=self.data, subset=self.subset, fields=names, answer_format=self.answer_format)

    def check(self) -> None:
        """Check the settings before anything is read. Raises ConfigError or DataError."""
        if not 0 < self.test_fraction < 1:
            raise ConfigError(
                f"--test-fraction must be above 0 and below 1, got {self.test_fraction:g}: both files need rows."
            )
        if self.max_per_level is not None and self.max_per_level < 1:
            raise ConfigError(f"--max-per-level must be at least 1, got {self.max_per_level}.")
        if self.is_embedded and (self.split or self.subset):
            raise ConfigError(f"--split and --subset must be left out for {self.data}: it has none to choose from.")
        self._check_output()

    def _check_output(self) -> None:
        output = self.output.expanduser().resolve()
        if not output.is_dir():
            if output.exists():
                raise DataError(f"output {self.output} must be a directory, and is a file. Choose another --output.")
            return
        if any(output.iterdir()) and not self.force:
            raise DataError(
                f"output {self.output} is not empty. Choose another --output, or replace the split in it with --force."
            )
        source = None if self.is_embedded else local_path(self.data)
        if source and output in (source.resolve(), source.resolve().parent):
            raise DataError(f"output {self.output} holds the data to be split. Choose another --output.")
