"""The files of a directory as splits and subsets."""

from pathlib import Path

import pytest

from pipeline.config import DataConfig
from pipeline.data import load_problems
from pipeline.data.local_sets import local_splits
from pipeline.errors import DataError
from tests.support.data import write_jsonl, write_parquet

SHARDS = ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet"]
README = """---
license: mit
configs:
- config_name: main
  data_files:
  - split: train
    path: main/train-*
---
# A data set
"""


def splits(folder: Path, *files: str, readme: str = "", subset: str | None = None) -> dict[str, list[str]]:
    """The splits of a directory of empty files, by their names."""
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    (folder / "README.md").write_text(readme)
    found = local_splits(folder, subset)
    return {split: [file.relative_to(folder).as_posix() for file in files] for split, files in found.items()}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["train.jsonl", "dev.parquet", "notes.txt"], {"dev": ["dev.parquet"], "train": ["train.jsonl"]}),
        (SHARDS, {"test": SHARDS[2:], "train": SHARDS[:2]}),
        (["train-00000-of-00001-0a1b2c3d.parquet"], {"train": ["train-00000-of-00001-0a1b2c3d.parquet"]}),
        (["data/train.jsonl", "data/test.jsonl"], {"test": ["data/test.jsonl"], "train": ["data/train.jsonl"]}),
        (["train/0.parquet", "train/1.parquet"], {"train": ["train/0.parquet", "train/1.parquet"]}),
        (["main/train/0000.parquet"], {"train": ["main/train/0000.parquet"]}),
        (["main/train.jsonl"], {"train": ["main/train.jsonl"]}),  # the only subset
        (["train.jsonl", "old/train.jsonl", "new/train.jsonl"], {"train": ["train.jsonl"]}),
        (["train.jsonl", ".cache/train.jsonl", ".train.jsonl"], {"train": ["train.jsonl"]}),
    ],
)
def test_a_files_name_says_its_split(tmp_path, files, expected):
    assert splits(tmp_path, *files) == expected


@pytest.mark.parametrize("subset", ["main", "socratic"])
def test_folders_are_subsets(tmp_path, subset):
    files = [f"{name}/{file}" for name in ("main", "socratic") for file in SHARDS]
    assert splits(tmp_path, *files, subset=subset) == {
        "test": [f"{subset}/{SHARDS[2]}"],
        "train": [f"{subset}/{name}" for name in SHARDS[:2]],
    }


@pytest.mark.parametrize("subset", [None, "other"])
def test_one_of_several_subsets_must_be_named(tmp_path, subset):
    with pytest.raises(DataError, match=rf"data\.subset must .* got {subset or 'none'}: it has main, socratic\."):
        splits(tmp_path, "main/train.jsonl", "socratic/train.jsonl", subset=subset)


def test_a_subset_is_ignored_where_there_are_none(tmp_path):
    """So that ``data.name=DIR`` can replace the hub's name in a recipe."""
    assert splits(tmp_path, "train.jsonl", subset="main") == {"train": ["train.jsonl"]}


def test_a_clone_has_the_splits_of_its_readme_and_of_its_other_files(tmp_path):
    files = ["main/train-00000-of-00001.parquet", "main/test-00000-of-00001.parquet"]
    expected = {"test": [files[1]], "train": [files[0]]}
    assert splits(tmp_path, *files, readme=README) == expected
    assert splits(tmp_path, *files, readme=README, subset="main") == expected
    assert set(local_splits(tmp_path / "main")) == {"test", "train"}


STATED = """---
configs:
- {config_name: I, default: true, data_files: [{split: test, path: 2025-I.jsonl}]}
- {config_name: II, data_files: [{split: test, path: 2025-II.jsonl}]}
- {config_name: all, data_files: "*.jsonl"}
---
"""


@pytest.mark.parametrize(
    ("subset", "expected"),
    [
        (None, {"test": ["2025-I.jsonl"]}),
        ("II", {"test": ["2025-II.jsonl"]}),
        ("all", {"train": ["2025-I.jsonl", "2025-II.jsonl"]}),
    ],
)
def test_the_readme_can_give_any_file_a_split_and_a_subset(tmp_path, subset, expected):
    assert splits(tmp_path, "2025-I.jsonl", "2025-II.jsonl", readme=STATED, subset=subset) == expected


def readme(*stated: str, config: str = "default") -> str:
    """The README of a data set with one configuration, by ``split: pattern``."""
    files = "".join(f"  - {{split: {item.split(': ')[0]}, path: '{item.split(': ')[1]}'}}\n" for item in stated)
    return f"---\nconfigs:\n- config_name: {config}\n  data_files:\n{files}---\n# A data set\n"


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("config", ["default", "main"])
def test_a_split_that_the_readme_states_has_no_other_files(tmp_path, line_end, config):
    stated = readme("train: foo.jsonl", config=config).replace("\n", line_end)
    found = splits(tmp_path, "foo.jsonl", "train.jsonl", "test.jsonl", readme=stated)
    assert found["train"] == ["foo.jsonl"]
    assert config == "main" or found["test"] == ["test.jsonl"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("data/**/*.jsonl", ["data/a.jsonl", "data/sub/b.jsonl"]),
        ("**/a.jsonl", ["data/a.jsonl"]),
        ("data/**", ["data/a.jsonl", "data/sub/b.jsonl"]),
        ("data/*", ["data/a.jsonl"]),
        ("./*.jsonl", ["c.jsonl"]),
        ("[!a-b].jsonl", ["c.jsonl"]),
        ("data/sub/?.jsonl", ["data/sub/b.jsonl"]),
    ],
)
def test_only_two_stars_of_a_pattern_cross_folders(tmp_path, pattern, expected):
    files = ["data/a.jsonl", "data/sub/b.jsonl", "c.jsonl"]
    assert splits(tmp_path, *files, readme=readme(f"chosen: {pattern}"))["chosen"] == expected


@pytest.mark.parametrize(
    "header",
    [
        "\ufeff---\n",
        "---\ntitle: a --- b\n",
        "---  \nrule: |\n  ---\n",
        "---\ndate: 2024-02-30\n",
    ],
)
def test_the_header_of_a_readme_is_read_whatever_else_it_holds(tmp_path, header):
    stated = readme("train: foo.jsonl").replace("---\n", header, 1)
    assert splits(tmp_path, "foo.jsonl", "train.jsonl", readme=stated) == {"train": ["foo.jsonl"]}


@pytest.mark.parametrize("subset", [None, "main"])
@pytest.mark.parametrize("pattern", ["foo.jsonl", "data/train-*", "notes.txt"])
@pytest.mark.parametrize("config", ["default", "main"])
def test_a_file_that_the_readme_names_must_exist(tmp_path, pattern, config, subset):
    stated = readme("test: test.jsonl", f"train: {pattern}", config=config)
    with pytest.raises(DataError, match=r"README\.md must name .* files that exist, got [fdn].*\. Get the file"):
        splits(tmp_path, "test.jsonl", "train.jsonl", "notes.txt", readme=stated, subset=subset)


def test_subsets_that_are_not_used_need_not_be_there(tmp_path):
    stated = STATED.replace("2025-II", "2025-III")
    assert splits(tmp_path, "2025-I.jsonl", readme=stated) == {"test": ["2025-I.jsonl"]}
    with pytest.raises(DataError, match=r"got 2025-III\.jsonl"):
        local_splits(tmp_path, "II")


@pytest.mark.parametrize("stated", ["", readme("train: data/train-*")])
@pytest.mark.parametrize(
    "shards",
    [
        ["00000-of-00002"],
        ["00001-of-00002", "00002-of-00002"],
        ["00000-of-00002-aa", "00000-of-00002-bb"],
        ["00000-of-00002", "00001-of-00003"],
    ],
)
def test_every_shard_must_be_there_once(tmp_path, stated, shards):
    with pytest.raises(DataError, match=r"split train of .* must have all its [23] files, each once, got"):
        splits(tmp_path, *(f"data/train-{shard}.jsonl" for shard in shards), readme=stated)


def test_files_in_deep_folders_are_read_or_refused(tmp_path):
    deep = "data/main/en/train.jsonl"
    assert splits(tmp_path, deep, "data/train.jsonl", subset="main/en") == {"train": [deep]}
    with pytest.raises(DataError, match=r"must have at most 8 folders inside each other, got 0/1/2/3/4/5/6/7/8"):
        splits(tmp_path, "0/1/2/3/4/5/6/7/8/train.jsonl")


@pytest.mark.parametrize("readme", ["---\n: [\n---\n", "---\n- a\n---\n", "---\nconfigs: 7\n---\n", "# Title\n---\n"])
def test_a_readme_without_a_header_says_nothing(tmp_path, readme):
    assert splits(tmp_path, "train.jsonl", readme=readme) == {"train": ["train.jsonl"]}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train.jsonl", "train.parquet"], r"split train .* got train\.jsonl and train\.parquet\. Remove one"),
        (["data/train.jsonl", "train.jsonl"], r"got data/train\.jsonl and train\.jsonl"),
        (["train.parquet", SHARDS[0], SHARDS[1]], r"got train-00001-of-00002\.parquet and train\.parquet"),
        (["train/a.jsonl", "train/b.parquet"], r"got train/a\.jsonl and train/b\.parquet"),
        (SHARDS[1:], r"split train of .* must have all its 2 files, each once, got 1: train-00001-of-00002"),
        (["train.json", "test.csv"], r"must hold \.parquet or \.jsonl files, got README\.md, test\.csv, train\.json"),
    ],
)
def test_files_that_cannot_be_one_split_are_named(tmp_path, files, message):
    with pytest.raises(DataError, match=message):
        splits(tmp_path, *files)


def test_a_file_of_another_format_is_named(tmp_path):
    (tmp_path / "a.csv").touch()
    with pytest.raises(DataError, match=r"a\.csv must be \.parquet or \.jsonl, got \.csv"):
        local_splits(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("expression", "golds"),
    [("train", "0123456"), ("train[1:4]", "123"), ("train[-2:]", "56"), ("train[:50%]", "0123"), ("train[3:5]", "34")],
)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_the_shards_of_a_split_are_one_after_the_other(tmp_path, suffix, expression, golds):
    first = 0
    for shard, size in enumerate([3, 1, 3]):
        rows = [{"question": f"{n}?", "answer": str(n)} for n in range(first, first + size)]
        path = tmp_path / f"train-{shard:05}-of-00003.{suffix}"
        if suffix == "jsonl":
            write_jsonl(path, *rows)
        else:
            write_parquet(path, {name: [row[name] for row in rows] for name in ("question", "answer")})
        first += size
    problems = load_problems(DataConfig(name=str(tmp_path), train_split=expression), "train")
    assert "".join(problem.gold for problem in problems) == golds


def test_a_split_may_have_a_name_that_is_no_expression(tmp_path):
    write_jsonl(tmp_path / "2025-I.jsonl", {"question": "1+1?", "answer": "2"})
    assert len(load_problems(DataConfig(name=str(tmp_path), train_split="2025-I"), "train")) == 1


def test_a_clone_without_its_large_files_says_how_to_get_them(tmp_path):
    (tmp_path / "train.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(DataError, match=r"train\.parquet holds no data, .*`git lfs pull`"):
        load_problems(DataConfig(name=str(tmp_path)), "train")
