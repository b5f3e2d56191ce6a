"""The splits of a data set on disk: a file, a directory of files, or a clone of a repository of a hub."""

import fnmatch
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipeline.data.rows import SUFFIXES
from pipeline.errors import DataError

Splits = dict[str, list[Path]]
"""Split -> its files, in order."""
_SHARD = re.compile(r"(?P<split>.+)-\d{5}-of-(?P<total>\d{5})(-[0-9a-f]+)?")
_SPLIT_FOLDERS = {"train", "test", "validation", "valid", "val", "dev", "eval"}
"""Folders that hold the files of the split of that name. Any other folder is a subset."""
_MAX_DEPTH = 3


def local_splits(path: Path, subset: str | None = None) -> Splits:
    """The splits of a data set.

    A single file is the split ``train``. In a directory, ``train.jsonl``, ``train-00000-of-00002.parquet`` or a file in
    ``train/`` belongs to the split ``train``; other folders are subsets, apart from ``data``. What the repository's
    README says about a file comes first.

    Args:
        subset: None for the files outside of subsets, or the only subset. Ignored if there are no subsets.

    Raises:
        DataError: no such subset, no data, or files that cannot be one split.
    """
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise DataError(f"data file {path} must be {' or '.join(SUFFIXES)}, got {path.suffix or 'no suffix'}.")
        return {"train": [path]}
    layout = _layout(path)
    chosen = _chosen(path, layout, subset)
    for split, files in layout.subsets[chosen].items():
        _check_one_split(path, split, files, is_stated=(chosen, split) in layout.stated)
    return layout.subsets[chosen]


class _Layout(NamedTuple):
    """What a directory holds."""

    subsets: dict[str, Splits]
    """By name; "" for the files outside of subsets."""
    stated: set[tuple[str, str]]
    """Subset and split of the files that the README speaks of."""
    default: str
    """The subset that the README calls the default."""


def _layout(path: Path) -> _Layout:
    files = [file for file in _files(path) if file.suffix in SUFFIXES]
    if not files:
        others = ", ".join(str(file.relative_to(path)) for file in islice(_files(path), 5))
        raise DataError(f"data directory {path} must hold {' or '.join(SUFFIXES)} files, got {others or 'no files'}.")
    configs = _readme_configs(path)
    default = next((_subset(config) for config in configs if config.get("default")), "")
    layout = _Layout({}, set(), default)
    for file in files:
        name = file.relative_to(path)
        stated = [place for config in configs for place in _stated_places(config, name)]
        layout.stated.update(stated)
        for subset, split in stated or [_place(name)]:
            layout.subsets.setdefault(subset, {}).setdefault(split, []).append(file)
    return layout


def _files(path: Path) -> Iterator[Path]:
    """Files that are not hidden, in order of their names."""
    patterns = ("/".join(["*"] * depth) for depth in range(1, _MAX_DEPTH + 1))
    files = sorted(file for pattern in patterns for file in path.glob(pattern) if file.is_file())
    return (file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts))


def _place(name: Path) -> tuple[str, str]:
    """Subset and split by a file's name, relative to the directory."""
    folders = list(name.parts[:-1])
    shard = _SHARD.fullmatch(name.stem)
    split = shard["split"] if shard else name.stem
    if folders and folders[-1] in _SPLIT_FOLDERS:
        split = folders.pop()
    return "/".join(folders[1:] if folders[:1] == ["data"] else folders), split


def _readme_configs(path: Path) -> list[dict[str, Any]]:
    """``configs`` in the README's header, as hubs read it. A header that is not YAML says nothing."""
    readme = path / "README.md"
    text = readme.read_text(errors="replace") if readme.is_file() else ""
    try:
        header = yaml.safe_load(text.split("---", 2)[1]) if text.startswith("---") and text.count("---") > 1 else {}
    except yaml.YAMLError:
        header = {}
    configs = _as_list(header.get("configs")) if isinstance(header, dict) else []
    return [config for config in configs if isinstance(config, dict) and "config_name" in config]


def _stated_places(config: dict[str, Any], name: Path) -> Iterator[tuple[str, str]]:
    """Subset and split that a configuration of the README gives to a file, if any."""
    for item in _as_list(config.get("data_files")):
        stated = item if isinstance(item, dict) else {"path": item}
        patterns = (str(pattern).removeprefix("./") for pattern in _as_list(stated.get("path")))
        if any(fnmatch.fnmatchcase(name.as_posix(), pattern) for pattern in patterns):
            yield _subset(config), str(stated.get("split", "train"))
            return


def _subset(config: dict[str, Any]) -> str:
    return "" if config["config_name"] == "default" else str(config["config_name"])


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _chosen(path: Path, layout: _Layout, subset: str | None) -> str:
    named = sorted(filter(None, layout.subsets))
    if subset in layout.subsets:
        return subset
    if subset is None or not named:
        for name in (layout.default, "", *named[: len(named) == 1]):
            if name in layout.subsets:
                return name
    got = "none" if subset is None else subset
    raise DataError(f"data.subset must name a subset of {path}, got {got}: it has {', '.join(named)}.")


def _check_one_split(path: Path, split: str, files: Sequence[Path], *, is_stated: bool) -> None:
    """Raises DataError unless the files are one file, all shards of one, a folder of one format, or as stated."""
    shards = [_SHARD.fullmatch(file.stem) for file in files]
    totals = {int(shard["total"]) for shard in shards if shard}
    kinds = {(file.suffix, bool(shard), file.parent): file for file, shard in zip(files, shards, strict=True)}
    if len({file.suffix for file in files}) > 1 or (len(kinds) > 1 and not is_stated):
        first, second, *_ = (str(file.relative_to(path)) for file in kinds.values())
        raise DataError(
            f"split {split} of {path} must be one file or its shards, got {first} and {second}. Remove one of them, "
            "or name the file that you mean in data.name."
        )
    if totals and totals != {len(files)} and not is_stated:
        raise DataError(f"split {split} of {path} must have all its {max(totals)} files, got {len(files)}.")
