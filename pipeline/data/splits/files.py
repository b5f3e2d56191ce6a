"""Writes a split: ``train.parquet``, ``test.parquet`` and ``split.json``, which says how they were made."""

import os
import shutil
from collections import Counter
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from pipeline.data.splits.records import Record, SplitResult
from pipeline.data.splits.settings import SplitSettings
from pipeline.errors import DataError
from pipeline.files import hidden_name, sha256, write_json


def write_split(settings: SplitSettings, result: SplitResult) -> None:
    """Write all files or none. A new directory appears whole; an existing one never holds files of two splits.

    Raises:
        DataError: the output cannot be written.
    """
    output = settings.output.expanduser().resolve()
    exists = output.is_dir()
    staging = hidden_name(output / "split" if exists else output)
    try:
        staging.mkdir(parents=True)
        try:
            _write_files(staging, settings, result)
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


def _write_files(folder: Path, settings: SplitSettings, result: SplitResult) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(column.name, pa.string()) for column in fields(Record)])
    checksums = {}
    for name, records in (("train.parquet", result.train), ("test.parquet", result.test)):
        rows = [asdict(record) for record in records]
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / name)
        checksums[name] = sha256(folder / name)
    write_json(folder / "split.json", _summary(settings, result) | {"sha256": checksums})


def _summary(settings: SplitSettings, result: SplitResult) -> dict[str, Any]:
    chosen = asdict(settings) | {"output": None, "force": None}
    num_train, num_test = len(result.train), len(result.test)
    return {
        "settings": {key: value for key, value in chosen.items() if value is not None},
        "sources": dict(sorted(Counter(record.source for record in result.train + result.test).items())),
        "num_rows": {"train": num_train, "test": num_test},
        "test_frac": num_test / (num_train + num_test),
        "levels": result.counts(lambda record: record.level),
        "types": result.counts(lambda record: record.type),
        "left_out": {
            reason: {"count": count, "examples": result.left_out.examples[reason]}
            for reason, count in sorted(result.left_out.counts.items())
        },
        "notes": result.notes,
    }
