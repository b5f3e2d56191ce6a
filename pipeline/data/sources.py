"""Reads the rows of a data set: embedded, local parquet or JSONL files, Hugging Face or ModelScope."""

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from pipeline.config import DataConfig, EmbeddedSetsConfig
from pipeline.data import arithmetic, operations, stories
from pipeline.data.arrow_files import ROWS_PER_BATCH
from pipeline.data.local_sets import local_splits
from pipeline.data.rows import SUFFIXES, Place, Row, file_rows, num_rows, require_library, table_rows
from pipeline.errors import DataError, first_line
from pipeline.fields import columns_of
from pipeline.files import sha256
from pipeline.models.hub import CHECK_TIMEOUT_S, hub_info, import_modelscope, looks_like_path, may_move
from pipeline.types import SplitName

_EMBEDDED = {
    arithmetic.NAME: arithmetic.arithmetic_rows,
    operations.NAME: operations.operations_rows,
    stories.NAME: stories.story_rows,
}
_MISSING_FIX = "Set data.fields, or change data.prompt_template."


def split_expression(config: DataConfig, split: SplitName) -> str:
    return config.train_split if split == "train" else config.eval_split


def is_embedded(config: DataConfig) -> bool:
    return config.name.startswith("embedded:")


def embedded_rows(config: DataConfig, split: SplitName) -> Iterator[Row]:
    """Rows with ``embedded.FIELDS``. Raises DataError as ``check_embedded`` does."""
    rows = _embedded_values(config, split)
    return (Row(values, Place(config.name, "row", number)) for number, values in enumerate(rows, 1))


def _embedded_values(config: DataConfig, split: SplitName) -> tuple[dict[str, Any], ...]:
    check_embedded(config)
    require_library("reasoning_gym", config.name)
    return _generated(config.name, config.arithmetic.model_dump_json(), split)


@lru_cache(maxsize=8)  # a job asks several times, and the operations take a second to generate
def _generated(name: str, settings: str, split: SplitName) -> tuple[dict[str, Any], ...]:
    return tuple(_EMBEDDED[name](EmbeddedSetsConfig.model_validate_json(settings), split))


def check_embedded(config: DataConfig) -> None:
    """Raises DataError for an unknown embedded name or split."""
    if config.name not in _EMBEDDED:
        raise DataError(f"data.name must be {' or '.join(_EMBEDDED)} for embedded data, got {config.name}.")
    if (config.train_split, config.eval_split) != ("train", "test"):
        raise DataError(
            f"data.train_split and data.eval_split must be train and test for {config.name}, got "
            f"{config.train_split} and {config.eval_split}. Its sizes are set in data.arithmetic."
        )


def iter_rows(
    config: DataConfig,
    expression: str,
    needed: Sequence[str] = (),
    optional: Sequence[str] = (),
    *,
    fix: str = _MISSING_FIX,
) -> Iterator[Row]:
    """The rows of a split expression, one at a time.

    Args:
        needed: fields besides those of the configuration.
        optional: fields that the data may lack.
        fix: advice to the user about a missing field.

    Raises:
        DataError: no such data set or split; at the end, if there was no row, or a field was in none of them.
    """
    needed = [name for name in (*config.fields.model_dump().values(), *needed) if name]
    missing, num_read = set(needed), 0
    for row in _open(config, expression, [*needed, *optional]):
        num_read += 1
        if missing:
            missing = {name for name in missing if name not in row}
        yield row
    if not num_read:
        raise DataError(f"data {config.name} must have rows, got no rows in split {expression}.")
    if missing:
        lacking, names = ", ".join(sorted(missing, key=needed.index)), ", ".join(_names(config, expression))
        raise DataError(f"data {config.name} has no field {lacking}: it has {names}. {fix}")


def pooled_rows(
    config: DataConfig, expression: str | None, optional: Sequence[str] = (), *, fix: str = _MISSING_FIX
) -> Iterator[tuple[str, Iterable[Row]]]:
    """Name and rows of each file of a directory, or of a single data set.

    Args:
        expression: a split expression. None: ``train``; of a directory every file, of an embedded set both splits.
        optional, fix: as for iter_rows.
    """
    if is_embedded(config):
        yield config.name, chain(embedded_rows(config, "train"), embedded_rows(config, "eval"))
        return
    path = local_path(config.name)
    if not path or path.is_file() or expression:
        rows = iter_rows(config, expression or "train", optional=optional, fix=fix)
        yield path.resolve().name if path else config.name, rows
        return
    for file in chain.from_iterable(local_splits(path, config.subset).values()):
        rows = iter_rows(config.model_copy(update={"name": str(file)}), "train", optional=optional, fix=fix)
        yield f"{path.resolve().name}/{file.relative_to(path).as_posix()}", rows


def column_names(config: DataConfig, expression: str | None = None) -> list[str]:
    """The columns of the first row of ``pooled_rows``. Raises DataError if there is no row."""
    if is_embedded(config):
        return [name for name in config.fields.model_dump().values() if name]
    path = local_path(config.name)
    if path and path.is_dir() and not expression:
        first = next(chain.from_iterable(local_splits(path, config.subset).values()))
        config = config.model_copy(update={"name": str(first)})
    row = next(_open(config, expression or "train", None), None)
    if row is None:
        raise DataError(f"data {config.name} must have rows, got no rows in split {expression or 'train'}.")
    return row.names()


def _open(config: DataConfig, expression: str, names: Sequence[str] | None) -> Iterator[Row]:
    """Rows with these fields, None for all."""
    if path := local_path(config.name):
        splits = local_splits(path, config.subset)
        parts = _parts(config, expression, splits)
        return chain.from_iterable(_part_rows(splits[split], names, start, stop) for split, start, stop in parts)
    return _hub_rows(config, expression, names)


def _names(config: DataConfig, expression: str) -> list[str]:
    return next(_open(config, expression, None)).names()


def _part_rows(files: Sequence[Path], names: Sequence[str] | None, start: int, stop: int) -> Iterator[Row]:
    for file in files:
        yield from file_rows(file, names, start, stop)
        if (start, stop) != (0, sys.maxsize) and file != files[-1]:
            count = num_rows(file)
            start, stop = max(start - count, 0), max(stop - count, 0)


def _parts(config: DataConfig, expression: str, splits: dict[str, list[Path]]) -> list[tuple[str, int, int]]:
    """The parts of an expression: split, first row, and the row after the last.

    Raises:
        DataError: an invalid expression, or no such split.
    """
    if expression in splits:
        return [(expression, 0, sys.maxsize)]
    instruction = _parse_split(config, expression)
    try:
        used = {part.splitname for part in instruction.to_absolute(dict.fromkeys(splits, sys.maxsize))}
    except ValueError:
        raise DataError(
            f"data {config.name} has no split {expression}: it has {', '.join(splits)}. Set data.train_split or "
            "data.eval_split."
        ) from None
    lengths = {split: sum(map(num_rows, splits[split])) for split in used}
    with _explained(config, expression):
        return [(part.splitname, part.from_, part.to) for part in instruction.to_absolute(lengths)]


def source_digest(config: DataConfig, split: SplitName) -> str:
    """Changes with the rows of a split: a hash of local files or of embedded rows, the version of a hub data set.

    Raises:
        DataError: as iter_rows.
    """
    expression = split_expression(config, split)
    if is_embedded(config):
        rows = json.dumps(_embedded_values(config, split), sort_keys=True)
        return hashlib.sha256(rows.encode()).hexdigest()
    if path := local_path(config.name):
        splits = local_splits(path, config.subset)
        used = dict.fromkeys(part[0] for part in _parts(config, expression, splits))
        return " ".join(f"{name}={sha256(file)}" for name in used for file in splits[name])
    return str(_hub_dataset(config, expression)._fingerprint)


def pinned_data(config: DataConfig) -> DataConfig:
    """The settings with a hub's branch or tag replaced by the commit that it now stands for.

    Without an answer from the hub they stay as they are: only the driver reads the data.

    Raises:
        DataError: no such data set.
    """
    if is_embedded(config) or local_path(config.name) or not may_move(config):
        return config
    info = hub_info("dataset", config.name, config.revision)
    return config.model_copy(update={"revision": info.sha}) if info else config


def check_hub_data(config: DataConfig) -> str:
    """One line on a hub data set. Downloads nothing. Raises DataError if it cannot be found."""
    for expression in (config.train_split, config.eval_split):
        _parse_split(config, expression)
    if config.hub == "modelscope":
        if not import_modelscope(DataError).HubApi().repo_exists(config.name, repo_type="dataset"):
            raise DataError(f"data {config.name} cannot be found on ModelScope. Check data.name and the network.")
        return f"{config.name} on ModelScope"
    info = hub_info("dataset", config.name, config.revision, timeout_s=CHECK_TIMEOUT_S)
    if info is None:
        return f"{config.name}, in cache: {_cached_builder(config).cache_dir}"
    return f"{config.name} on the Hugging Face hub, revision {info.sha}"


def local_path(name: str) -> Path | None:
    """The file or directory; None for a name that can only be a hub data set's.

    Raises:
        DataError: the name is empty, or a path that does not exist or cannot be one.
    """
    if not name.strip():
        raise DataError("data.name must name a file, a directory or a data set, got an empty text.")
    try:
        path = Path(name).expanduser()
        if path.exists():
            return path
    except (OSError, RuntimeError) as error:  # the name is too long, or ~user is unknown
        reason = getattr(error, "strerror", None) or first_line(error).rstrip(".")
        shown = name if len(name) <= 80 else f"{name[:80]}..."
        raise DataError(f"data file or directory {shown} cannot be read: {reason}. Check the path.") from None
    if looks_like_path(name) or path.suffix in SUFFIXES:
        raise DataError(f"data file or directory {name} does not exist. Check the path.")
    return None


@contextmanager
def _explained(config: DataConfig, expression: str) -> Iterator[None]:
    """Errors in the block become DataErrors of one line."""
    import datasets
    from huggingface_hub import errors as hf

    try:
        yield
    except hf.HTTPError as error:  # type: ignore[attr-defined]
        raise DataError(
            f"data {config.name} cannot be downloaded whole: {first_line(error)}. Nothing of it is used. Try again."
        ) from None
    except (ValueError, OSError, StopIteration, datasets.exceptions.DatasetsError) as error:
        cause = error.__cause__ or error
        raise DataError(f"data {config.name}, split {expression}, cannot be read: {first_line(cause)}") from None


def _hub_rows(config: DataConfig, expression: str, names: Sequence[str] | None) -> Iterator[Row]:
    dataset = _hub_dataset(config, expression)
    columns = columns_of(names, dataset.column_names)
    features, first = dataset.features.to_dict(), 0
    for table in dataset.select_columns(columns).with_format("arrow").iter(ROWS_PER_BATCH):
        yield from table_rows(table, columns, features, config.name, first)
        first += table.num_rows


def _hub_dataset(config: DataConfig, expression: str) -> Any:
    """A ``Dataset`` of the datasets library, which stays on disk."""
    for library in ("datasets", "huggingface_hub"):
        require_library(library, f"data {config.name} of a hub")
    import datasets

    instruction = _parse_split(config, expression)
    with _explained(config, expression):
        if config.hub == "modelscope":
            return _read_modelscope(config, expression)
        if hub_info("dataset", config.name, config.revision) is None:
            _cached_builder(config)
        return datasets.load_dataset(config.name, config.subset, split=instruction, revision=config.revision)


def _parse_split(config: DataConfig, expression: str) -> Any:
    """The datasets library's ReadInstruction. Raises DataError if the expression is invalid."""
    require_library("datasets", f"split {expression} of data {config.name}")
    import datasets

    try:
        return datasets.ReadInstruction.from_spec(expression)
    except ValueError as error:
        raise DataError(
            f"data {config.name} has no split {expression!r}: {first_line(error).rstrip('. ')}. Write train, "
            "train[:1000], train[10%:20%], or a sum of such."
        ) from None


def _cached_builder(config: DataConfig) -> Any:
    """The builder of a data set in the datasets library's cache. Raises DataError if it was never downloaded."""
    import datasets

    is_offline = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True  # otherwise the library retries for half a minute
    try:
        return datasets.load_dataset_builder(config.name, config.subset, revision=config.revision)
    except (ValueError, OSError, datasets.exceptions.DatasetsError):
        reason = "HF_HUB_OFFLINE is set" if is_offline else "the hub cannot be reached"
        raise DataError(
            f"data {config.name} cannot be downloaded: {reason} and it is not in the cache. "
            "Go online, set HF_ENDPOINT to a mirror, or name a local path or embedded:arithmetic."
        ) from None


def _read_modelscope(config: DataConfig, expression: str) -> Any:
    modelscope = import_modelscope(DataError)
    version = {"version": config.revision} if config.revision else {}
    try:
        dataset = modelscope.MsDataset.load(config.name, subset_name=config.subset, split=expression, **version)
    except Exception as error:  # the library has no common error class
        raise DataError(f"data {config.name} cannot be downloaded from ModelScope: {first_line(error)}") from None
    return dataset.to_hf_dataset() if hasattr(dataset, "to_hf_dataset") else dataset
