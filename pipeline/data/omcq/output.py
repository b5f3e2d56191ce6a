"""Writes converted rows, what was rejected and why, and how the file was made."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.data.omcq.convert import ConvertSettings
from pipeline.data.omcq.parts import file_parts
from pipeline.errors import ConfigError, DataError
from pipeline.files import content_digest, hidden_name, write_json, write_jsonl

EXAMPLES_PER_REASON = 5
Results = Callable[[Sequence[Path], ConvertSettings], Iterator[pa.RecordBatch]]
"""Converts files: results with the columns of ``parts.RESULTS``, in the order of the rows."""


@dataclass(frozen=True)
class OmcqSettings:
    """Settings of ``jobs/prepare_data.py omcq``."""

    sources: tuple[Path, ...]
    output: Path
    max_samples: int | None = None
    """Stop after so many converted rows. None: convert all."""
    force: bool = False
    convert: ConvertSettings = field(default_factory=ConvertSettings)

    @property
    def rejected(self) -> Path:
        return self.output.with_name(f"{self.output.stem}.rejected.jsonl")

    @property
    def summary(self) -> Path:
        return self.output.with_suffix(".json")

    def check(self) -> None:
        """Raises ConfigError or DataError."""
        if self.output.suffix != ".jsonl":
            raise ConfigError(f"--output must be a .jsonl file, got {self.output}: training reads it by its suffix.")
        for name, value in (("max-samples", self.max_samples), ("max-chars", self.convert.max_chars)):
            if value is not None and value < 1:
                raise ConfigError(f"--{name} must be at least 1, got {value}.")
        files = (self.output, self.rejected, self.summary)
        if taken := {path.resolve() for path in self.sources} & {path.resolve() for path in files}:
            raise ConfigError(f"--output must leave the sources alone, got {min(taken)}, which it would replace.")
        check_free(files, force=self.force)


def check_free(files: Sequence[Path], *, force: bool) -> None:
    """Raises DataError if a file that would be written exists."""
    for path in files:
        if path.is_dir() or (path.exists() and not force):
            raise DataError(f"output {path} exists. Choose another --output, or replace it with --force.")


@dataclass
class Converted:
    """Counts of a conversion."""

    num_converted: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """Reason -> rows."""
    examples: list[dict[str, Any]] = field(default_factory=list)
    """The first rejected rows of each reason."""
    num_lines: Counter[int] = field(default_factory=Counter)
    """Source -> lines that were read, or items of an array."""

    def add(self, batch: pa.RecordBatch, sources: Sequence[Path]) -> None:
        """Count results of one source."""
        source = batch["source"][0].as_py()
        self.num_converted += len(batch) - batch["text"].null_count
        for row in pc.indices_nonzero(batch["reason"].is_valid()).to_pylist():
            result = batch.slice(row, 1).to_pylist()[0]
            self.rejected[result["reason"]] += 1
            if self.rejected[result["reason"]] <= EXAMPLES_PER_REASON:
                line = self.num_lines[source] + row + 1
                self.examples.append(_example(result, sources[source], line))
        self.num_lines[source] += len(batch)


def _example(result: dict[str, Any], source: Path, line: int) -> dict[str, Any]:
    excerpt = (result["excerpt"] or b"").decode(errors="backslashreplace").rstrip()
    return {"reason": result["reason"], "detail": result["detail"], "file": source.name, "row": line, "text": excerpt}


def convert_omcq(settings: OmcqSettings, results: Results) -> Converted:
    """Convert the sources and write the output, examples of rejected rows, and a summary.

    Raises:
        ConfigError: a setting is out of range.
        DataError: a source cannot be read, no row can be converted, or the output cannot be written.
    """
    settings.check()
    file_parts(settings.sources)  # all must be readable before anything is converted
    try:
        return _convert(settings, results)
    except OSError as error:
        raise DataError(f"output {settings.output} cannot be written: {error.strerror}. Change --output.") from None


def _convert(settings: OmcqSettings, results: Results) -> Converted:
    hidden = hidden_name(settings.output)
    with hidden.open("wb") as file:
        try:
            counts = _write(file, results(settings.sources, settings.convert), settings)
            write_jsonl(settings.rejected, counts.examples)
            if not counts.num_converted:
                raise DataError(
                    f"the sources must have rows that can be converted, got none of {counts.rejected.total():,}: see "
                    f"{settings.rejected}."
                )
            file.flush()
            write_json(settings.summary, _summary(settings, counts))
            hidden.replace(settings.output)
        finally:
            hidden.unlink(missing_ok=True)
    return counts


def _write(file: IO[bytes], results: Iterator[pa.RecordBatch], settings: OmcqSettings) -> Converted:
    counts = Converted()
    for batch in results:
        if settings.max_samples is not None:
            batch = _first(batch, settings.max_samples - counts.num_converted)
        counts.add(batch, settings.sources)
        file.writelines(batch["text"].drop_null().to_pylist())
        if counts.num_converted == settings.max_samples:
            break
    return counts


def _first(batch: pa.RecordBatch, num_converted: int) -> pa.RecordBatch:
    """The rows up to the one that was converted as number ``num_converted``."""
    rows = pc.indices_nonzero(batch["text"].is_valid())
    return batch if len(rows) < num_converted else batch.slice(0, rows[num_converted - 1].as_py() + 1)


def _summary(settings: OmcqSettings, counts: Converted) -> dict[str, Any]:
    return {
        "sources": [{"file": str(path), "digest": content_digest(path)} for path in settings.sources],
        "settings": {**asdict(settings.convert), "max_samples": settings.max_samples},
        "num_converted": counts.num_converted,
        "num_rejected": counts.rejected.total(),
        "rejected": dict(counts.rejected.most_common()),
    }
