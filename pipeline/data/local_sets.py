"""The splits of a data set on disk: a file, a directory of files, or a clone of a repository of a hub."""

import fnmatch
import os
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
_SHARD = re.compile(r"(?P<split>.+)-(?P<index>\d{5})-of-(?P<total>\d{5})(-[0-9a-f]+)?")
_SPLIT_FOLDERS = {"train", "test", "validation", "valid", "val", "dev", "eval"}
"""Folders that hold the files of the split of that name. Any other folder is a subset."""
_MAX_DEPTH = 8
_HEADER = re.compile(r"---[ \t]*\n(.*?\n)---[ \t]*(\n|\Z)", re.DOTALL)


def local_splits(path: Path, subset: str | None = None) -> Splits:
    """The splits of a data set.

    A single file is the split ``train``. In a directory, ``train.jsonl``, ``train-00000-of-00002.parquet`` or a file in
    ``train/`` belongs to the split ``train``; other folders are subsets, apart from ``data``. What the repository's
    README says about a file comes first, and a split that it states has no other files.

    Args:
        subset: None for the files outside of subsets, or the only subset. Ignored if there are no subsets.

    Raises:
        DataError: no such subset, no data, files that cannot be one split, or the README names a file that is missing.
    """
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise DataError(f"data file {path} must be {' or '.join(SUFFIXES)}, got {path.suffix or 'no suffix'}.")
        return {"train": [path]}
    layout = _layout(path)
    chosen = _chosen(path, layout, subset)
    if missing := layout.missing.get(chosen):
        raise DataError(
            f"{path / 'README.md'} must name {' or '.join(SUFFIXES)} files that exist, got {missing[0]}. Get the file, "
            "or name the one that you mean in data.name."
        )
    for split, files in layout.subsets[chosen].items():
        _check_one_split(path, split, files, is_stated=(chosen, split) in layout.stated)
    return layout.subsets[chosen]


class _Layout(NamedTuple):
    """Data files of a directory."""

    subsets: dict[str, Splits]
    """By name; "" for the files outside of subsets."""
    stated: set[tuple[str, str]]
    """Subset and split of the files that the README speaks of."""
    default: str
    """The subset that the README calls the default, or the only one that it has."""
    missing: dict[str, list[str]]
    """Subset -> what the README names and the directory lacks."""


def _layout(path: Path) -> _Layout:
    files = [file for file in _files(path) if file.suffix in SUFFIXES]
    if not files:
        others = ", ".join(str(file.relative_to(path)) for file in islice(_files(path), 5))
        raise DataError(f"data directory {path} must hold {' or '.join(SUFFIXES)} files, got {others or 'no files'}.")
    configs = _readme_configs(path)
    layout = _Layout({}, set(), _default(configs), {})
    names = {file.relative_to(path): file for file in files}
    for config in configs:
        _add_stated(layout, config, names)
    spoken_of = {file for splits in layout.subsets.values() for files in splits.values() for file in files}
    for name, file in names.items():
        subset, split = _place(name)
        if file not in spoken_of and (subset, split) not in layout.stated:
            layout.subsets.setdefault(subset, {}).setdefault(split, []).append(file)
    return layout


def _add_stated(layout: _Layout, config: dict[str, Any], names: dict[Path, Path]) -> None:
    """Add the files that a configuration of the README names, each once."""
    subset = _subset(config)
    splits = layout.subsets.get(subset, {})
    for item in _as_list(config.get("data_files")):
        stated = item if isinstance(item, dict) else {"path": item}
        split = str(stated.get("split") or "train")
        for pattern in map(str, _as_list(stated.get("path"))):
            wanted = pattern.removeprefix("./").split("/")
            found = [file for name, file in names.items() if _matches(name.parts, wanted)]
            if not found:
                layout.missing.setdefault(subset, []).append(pattern)
            chosen = splits.setdefault(split, [])
            chosen += [file for file in found if file not in chosen]
            layout.stated.add((subset, split))
    if any(splits.values()):
        layout.subsets[subset] = {split: sorted(files) for split, files in splits.items()}


def _matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Match the folders and the name of a file as hubs do: ``*`` stays in a folder, ``**`` is any number of them."""
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_matches(parts[start:], patterns[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], patterns[0]) and _matches(parts[1:], patterns[1:])


def _files(path: Path) -> Iterator[Path]:
    """Files that are not hidden, in order of their names."""
    found: list[Path] = []
    for folder, folders, names in os.walk(path, followlinks=True):
        here = Path(folder)
        folders[:] = [name for name in folders if not name.startswith(".")]
        if folders and len(here.relative_to(path).parts) == _MAX_DEPTH:
            raise DataError(
                f"data directory {path} must have at most {_MAX_DEPTH} folders inside each other, got "
                f"{here.relative_to(path) / folders[0]}. Name the folder that you mean in data.name."
            )
        found += [here / name for name in names if not name.startswith(".") and (here / name).is_file()]
    return iter(sorted(found))


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
    text = readme.read_text(encoding="utf-8-sig", errors="replace") if readme.is_file() else ""
    try:
        found = _HEADER.match(text)
        header = yaml.load(found[1], yaml.BaseLoader) if found else {}  # texts only: an impossible date is no error
    except (yaml.YAMLError, RecursionError):
        header = {}
    configs = _as_list(header.get("configs")) if isinstance(header, dict) else []
    return [config for config in configs if isinstance(config, dict) and "config_name" in config]


def _subset(config: dict[str, Any]) -> str:
    return "" if config["config_name"] == "default" else str(config["config_name"])


def _default(configs: list[dict[str, Any]]) -> str:
    marked = [config for config in configs if str(config.get("default")).lower() == "true"]
    candidates = marked or configs[: len(configs) == 1]
    return _subset(candidates[0]) if candidates else ""


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def _chosen(path: Path, layout: _Layout, subset: str | None) -> str:
    named, known = sorted(filter(None, layout.subsets)), {*layout.subsets, *layout.missing}
    if subset in known:
        return subset
    if subset is None or not named:
        for name in (layout.default, "", *named[: len(named) == 1]):
            if name in known:
                return name
    got = "none" if subset is None else subset
    raise DataError(f"data.subset must name a subset of {path}, got {got}: it has {', '.join(named)}.")


def _check_one_split(path: Path, split: str, files: Sequence[Path], *, is_stated: bool) -> None:
    """Raises DataError unless the files are one file, all shards of one, a folder of one format, or as stated."""
    shards = [_SHARD.fullmatch(file.stem) for file in files]
    kinds = {(file.suffix, bool(shard), file.parent): file for file, shard in zip(files, shards, strict=True)}
    if len({file.suffix for file in files}) > 1 or (len(kinds) > 1 and not is_stated):
        first, second, *_ = (str(file.relative_to(path)) for file in kinds.values())
        raise DataError(
            f"split {split} of {path} must be one file or its shards, got {first} and {second}. Remove one of them, "
            "or name the file that you mean in data.name."
        )
    _check_shards(path, split, [(file, shard) for file, shard in zip(files, shards, strict=True) if shard])


def _check_shards(path: Path, split: str, shards: Sequence[tuple[Path, re.Match[str]]]) -> None:
    """Raises DataError unless all shards are there, each once."""
    sets: dict[tuple[Path, str], list[re.Match[str]]] = {}
    for file, shard in shards:
        sets.setdefault((file.parent, shard["split"]), []).append(shard)
    for group in sets.values():
        total = max(int(shard["total"]) for shard in group)
        indices = sorted((int(shard["index"]), int(shard["total"])) for shard in group)
        if indices != [(index, total) for index in range(total)]:
            names = ", ".join(shard[0] for shard in group[:4]) + ", ..." * (len(group) > 4)
            raise DataError(
                f"split {split} of {path} must have all its {total} files, each once, got {len(group)}: {names}."
            )
