"""Problems in Arrow files: the same as in a list, made once."""

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import DataConfig, FieldNames, ProblemFilter, WritingConfig, validate_config
from pipeline.curriculum.keys import problems_digest
from pipeline.curriculum.replay import ReplayBuffer, ReplayItem
from pipeline.data import load_problems
from pipeline.data import table as tables
from pipeline.data.selection import choose_problems
from pipeline.data.table import ProblemTable, data_cache, heads, load_table, num_shared
from pipeline.errors import ConfigError, DataError

STAGE = {"name": "a", "kind": "sft"}


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(tables, "ROWS_PER_BATCH", 7)
    monkeypatch.setattr("pipeline.data.arrow_files.ROWS_IN_MEMORY", 3)


def write(path: Path, num_rows: int = 40, **changed) -> DataConfig:
    rows: list[dict] = [
        {"question": f"{n} + 1?", "answer": str(n + 1), "steps": f"so {n + 1}", "level": str(n % 3)}
        for n in range(num_rows)
    ]
    rows[3]["answer"] = ""
    rows[5]["steps"] = None
    rows[6] = rows[4]
    path.write_text("".join(json.dumps({**row, **changed}) + "\n" for row in rows))
    return DataConfig(name=str(path), fields=FieldNames(solution="steps", level="level"))


TURNS = [{"role": role, "content": f"{role}?"} for role in ("system", "user", "assistant", "user")]
CONFIGS = {
    "chat": lambda folder: write(folder / "a.jsonl"),
    "no system prompt": lambda folder: write(folder / "a.jsonl").model_copy(update={"system_prompt": ""}),
    "plain text": lambda folder: write(folder / "a.jsonl").model_copy(update={"prompt_template": "Q: {question}\nA: "}),
    "part": lambda folder: write(folder / "a.jsonl").model_copy(update={"train_split": "train[10:50%]"}),
    "conversation": lambda folder: write(folder / "a.jsonl", question=TURNS),
    "embedded": lambda folder: DataConfig(name="embedded:operations"),
}


@pytest.mark.parametrize("make", CONFIGS.values(), ids=CONFIGS)
def test_a_table_holds_what_a_list_does(make, tmp_path):
    config = make(tmp_path)
    expected, table = load_problems(config, "train"), load_table(config, "train", tmp_path / "cache")
    assert len(table) == len(expected) and list(table) == expected
    assert [table[row] for row in range(len(table))] == expected and table[-1] == expected[-1]
    assert list(heads(table)) == list(heads(expected))
    chosen = table.take([5, 2, 2, 8])
    assert (
        list(chosen) == [expected[5], expected[2], expected[2], expected[8]] == list(pickle.loads(pickle.dumps(chosen)))
    )
    assert list(chosen.take([3, 0])) == [expected[8], expected[5]]
    assert list(table[2:4]) == expected[2:4] and list(table[:0]) == []


def test_a_pickled_table_is_as_small_as_its_rows(tmp_path):
    table = load_table(write(tmp_path / "a.jsonl", 400), "train", tmp_path / "cache")
    assert table[0]  # opens the file
    assert len(pickle.dumps(table)) < 8 * 400 + 1000


def test_a_table_is_made_once(tmp_path, monkeypatch):
    config = write(tmp_path / "a.jsonl")
    first = load_table(config, "train", tmp_path / "cache")
    before = os.stat(first.path)
    monkeypatch.setattr(tables, "iter_problems", None)
    second = load_table(config, "train", tmp_path / "cache")
    after = os.stat(second.path)
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert second.digest == first.digest and list(second) == list(first)
    unused = config.model_copy(update={"eval_split": "validation"})
    assert load_table(unused, "train", tmp_path / "cache").path == first.path


def test_a_setting_that_problems_depend_on_makes_another_table(tmp_path):
    config = write(tmp_path / "a.jsonl")
    changes: tuple[dict, ...] = (
        {},
        {"system_prompt": "?"},
        {"train_split": "train[:9]"},
        {"prompt_template": "{question}"},
    )
    loaded = [load_table(config.model_copy(update=change), "train", tmp_path / "cache") for change in changes]
    write(tmp_path / "a.jsonl", level="9")
    loaded.append(load_table(config, "train", tmp_path / "cache"))
    assert len({table.path for table in loaded}) == len({table.digest for table in loaded}) == 5
    assert {head.level for head in loaded[-1].heads()} == {"9"}


@pytest.mark.parametrize("size", [0, 10, 1000])
def test_an_incomplete_table_is_recreated(size, tmp_path):
    config = write(tmp_path / "a.jsonl")
    path = load_table(config, "train", tmp_path / "cache").path
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    path.with_name(f".{path.name}.partial").write_bytes(whole[:size])
    assert list(load_table(config, "train", tmp_path / "cache")) == load_problems(config, "train")
    assert path.read_bytes() == whole
    assert sorted(item.name for item in path.parent.iterdir()) == [".problems.arrow.lock", "problems.arrow"]


def test_an_error_leaves_no_table(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"question": "", "answer": "1"}\n')
    with pytest.raises(DataError, match="has none of train"):
        load_table(DataConfig(name=str(tmp_path / "a.jsonl")), "train", tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*arrow")) and not list((tmp_path / "cache").rglob("*partial"))


def test_the_digest_covers_the_chosen_rows(tmp_path):
    table = load_table(write(tmp_path / "a.jsonl"), "train", tmp_path / "cache")
    parts = [table, table.take([0, 1]), table.take([1, 0]), table[:0]]
    assert len({problems_digest(part) for part in parts}) == 4
    assert problems_digest(table.take([0, 1])) == problems_digest(table[:2])


def test_stages_choose_the_same_problems_from_a_table_and_from_a_list(tmp_path):
    config = write(tmp_path / "a.jsonl")
    problems, table = load_problems(config, "train"), load_table(config, "train", tmp_path / "cache")
    for wanted in (ProblemFilter(), ProblemFilter(levels=["1", "2"], max_per_level=4)):
        chosen = [choose_problems(each, wanted, seed=1, with_solution=True) for each in (problems, table)]
        assert isinstance(chosen[1], ProblemTable) and list(chosen[1]) == chosen[0]
    buffer = ReplayBuffer(5).add(ReplayItem(problem.id, problem.level) for problem in problems)
    assert list(buffer.pick(table)) == buffer.pick(problems)


@pytest.mark.parametrize(
    ("splits", "shared"),
    [(("train", "train"), 39), (("train[:90%]", "train[80%:]"), 4), (("train[:20]", "train[20:]"), 0)],
)
def test_held_out_problems_that_are_trained_on_are_counted(tmp_path, splits, shared):
    changes = dict(zip(("train_split", "eval_split"), splits, strict=True))
    config = write(tmp_path / "a.jsonl").model_copy(update=changes)
    assert num_shared(load_table(config, "train", tmp_path / "cache"), load_problems(config, "eval")) == shared


def test_conversations_with_the_same_last_message_are_not_the_same(tmp_path):
    config = write(tmp_path / "a.jsonl", 10, question=TURNS)
    table, [first, *_] = load_table(config, "train", tmp_path / "cache"), load_problems(config, "train")
    other = replace(first, prompt=({"role": "user", "content": "0?"}, *first.prompt))
    assert num_shared(table, [first, other]) == 1 and num_shared(table, []) == 0


def test_an_output_root_that_is_a_file_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    config = validate_config({"stages": [STAGE], "output": {"root": str(tmp_path / "file")}})
    with pytest.raises(ConfigError, match=r"output\.root must be writable, got .*/file"):
        load_table(config.data, "train", data_cache(config))


def test_rows_are_numbers_not_copies(tmp_path):
    table = load_table(write(tmp_path / "a.jsonl"), "train", tmp_path / "cache")
    assert table.take(np.array([4, 1])).rows.tolist() == [4, 1]


def test_changed_code_makes_a_new_table_of_the_same_data(tmp_path, monkeypatch):
    """So a run started by other code recognizes its data."""
    config = write(tmp_path / "a.jsonl")
    before = load_table(config, "train", tmp_path / "cache")
    monkeypatch.setattr(tables, "code_digest", lambda *files: "other code")
    after = load_table(config, "train", tmp_path / "cache")
    assert after.path != before.path and after.digest == before.digest
    assert list(after) == list(before)


def test_the_digest_of_a_table_is_the_one_it_has_always_been(tmp_path):
    """Keys of earlier searches hold it."""
    assert load_table(DataConfig(), "train", tmp_path).digest == "87029a3180b9abde"
    assert load_table(DataConfig(write=WritingConfig()), "train", tmp_path).digest != "87029a3180b9abde"
