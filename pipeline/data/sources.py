"""Reads the rows of a data set: embedded, local parquet or JSONL files, Hugging Face or ModelScope."""

import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from pipeline.config import DataConfig, EmbeddedSetsConfig
from pipeline.data import arithmetic, operations
from pipeline.errors import DataError, first_line
from pipeline.files import sha256
from pipeline.models.hub import CHECK_TIMEOUT_S, hub_info, import_modelscope, looks_like_path, may_move
from pipeline.types import SplitName

Row = dict[str, Any]
_FORMATS = {".parquet": "parquet", ".jsonl": "json"}
_EMBEDDED = {arithmetic.NAME: arithmetic.arithmetic_rows, operations.NAME: operations.operations_rows}


class Rows(Protocol):
    """The parts we use of a ``Dataset`` of the datasets library, which stays on disk."""

    column_names: list[str]
    _fingerprint: str

    def __iter__(self) -> Iterator[Row]: ...


def split_expression(config: DataConfig, split: SplitName) -> str:
    return config.train_split if split == "train" else config.eval_split


def is_embedded(config: DataConfig) -> bool:
    return config.name.startswith("embedded:")


def embedded_rows(config: DataConfig, split: SplitName) -> tuple[Row, ...]:
    """Rows with ``embedded.FIELDS``. Raises DataError as ``check_embedded`` does."""
    check_embedded(config)
    return _generated(config.name, config.arithmetic.model_dump_json(), split)


@lru_cache(maxsize=8)  # a job asks several times, and the operations take a second to generate
def _generated(name: str, settings: str, split: SplitName) -> tuple[Row, ...]:
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


def read_rows(config: DataConfig, expression: str, *, fix: str = "Set data.fields.") -> list[Row]:
    """All rows of a split expression, each with every configured field.

    Args:
        fix: advice to the user about a missing field.

    Raises:
        DataError: no such data set, split or field.
    """
    with open_rows(config, expression, fix=fix) as rows:
        return list(rows)


@contextmanager
def open_rows(
    config: DataConfig, expression: str, *, fix: str = "Set data.fields.", scratch: Path | None = None
) -> Iterator[Rows]:
    """The rows of ``read_rows``, left on disk.

    Args:
        fix: advice to the user about a missing field.
        scratch: a directory in which local files are laid out as Arrow while the block lasts. None: the system's
            directory for temporary files.

    Raises:
        DataError: as read_rows.
    """
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".rows-", ignore_cleanup_errors=True) as folder:
        rows = _open(config, expression, folder)
        missing = [name for name in config.fields.model_dump().values() if name and name not in rows.column_names]
        if missing:
            columns = ", ".join(rows.column_names)
            raise DataError(f"data {config.name} has no field {', '.join(missing)}: it has {columns}. {fix}")
        yield rows


def source_digest(config: DataConfig, split: SplitName) -> str:
    """Changes with the rows of a split: a hash of local files or of embedded rows, the version of a hub data set.

    Raises:
        DataError: as read_rows.
    """
    expression = split_expression(config, split)
    if is_embedded(config):
        rows = json.dumps(embedded_rows(config, split), sort_keys=True)
        return hashlib.sha256(rows.encode()).hexdigest()
    if path := local_path(config.name):
        with _explained(config, expression):
            files = _split_files(path, _parse_split(config, expression))
            return " ".join(f"{name}={sha256(file)}" for name, file in files.items())
    with open_rows(config, expression) as hub_rows:
        return hub_rows._fingerprint


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
        DataError: the name is a path that does not exist.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    if looks_like_path(name) or path.suffix in _FORMATS:
        raise DataError(f"data file or directory {name} does not exist. Check the path.")
    return None


def file_format(file: Path) -> str | None:
    """The datasets library's name for the format; None for a file that holds no data."""
    return _FORMATS.get(file.suffix)


@contextmanager
def _explained(config: DataConfig, expression: str) -> Iterator[None]:
    """Errors in the block become DataErrors of one line."""
    import datasets

    try:
        yield
    except (ValueError, OSError, StopIteration, datasets.exceptions.DatasetsError) as error:
        cause = error.__cause__ or error
        raise DataError(f"data {config.name}, split {expression}, cannot be read: {first_line(cause)}") from None


def _open(config: DataConfig, expression: str, folder: str) -> Rows:
    import datasets

    path = local_path(config.name)
    instruction = _parse_split(config, expression)
    rows: Rows
    with _explained(config, expression):
        if path:
            rows = _open_local(path, instruction, folder)
        elif config.hub == "modelscope":
            rows = _read_modelscope(config, expression)
        else:
            if hub_info("dataset", config.name, config.revision) is None:
                _cached_builder(config)
            rows = datasets.load_dataset(config.name, config.subset, split=instruction, revision=config.revision)
    return rows


def _parse_split(config: DataConfig, expression: str) -> Any:
    """The datasets library's ReadInstruction. Raises DataError if the expression is invalid."""
    import datasets

    try:
        return datasets.ReadInstruction.from_spec(expression)
    except ValueError as error:
        raise DataError(
            f"data {config.name} has no split {expression!r}: {first_line(error).rstrip('. ')}. Write train, "
            "train[:1000], train[10%:20%], or a sum of such."
        ) from None


def _split_files(path: Path, instruction: Any) -> dict[str, Path]:
    """The files of a local data set that an expression names. Raises ValueError for an unknown split."""
    files = (
        {"train": path} if path.is_file() else {file.stem: file for file in sorted(path.iterdir()) if file_format(file)}
    )
    lengths = dict.fromkeys(files, sys.maxsize)  # unknown until the files are read, and not needed here
    return {part.splitname: files[part.splitname] for part in instruction.to_absolute(lengths)}


def _open_local(path: Path, instruction: Any, folder: str) -> Any:
    import datasets

    files = _split_files(path, instruction)
    formats = {file_format(file) for file in files.values()}
    if len(formats) > 1 or None in formats:
        raise ValueError(f"files must all be .parquet or all .jsonl, got {', '.join(map(str, files.values()))}")
    data_files = {name: str(file) for name, file in files.items()}
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # errors are raised as well as logged
    return datasets.load_dataset(str(formats.pop()), data_files=data_files, split=instruction, cache_dir=folder)


def _cached_builder(config: DataConfig) -> Any:
    """The builder of a data set in the datasets library's cache. Raises DataError if it was never downloaded."""
    import datasets

    datasets.config.HF_HUB_OFFLINE = True  # otherwise the library retries for half a minute
    try:
        return datasets.load_dataset_builder(config.name, config.subset, revision=config.revision)
    except (ValueError, OSError, datasets.exceptions.DatasetsError):
        raise DataError(
            f"data {config.name} cannot be downloaded: the hub cannot be reached and it is not in the cache. "
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
