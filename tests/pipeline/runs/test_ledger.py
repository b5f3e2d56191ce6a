import os
from pathlib import Path

import pandas
import pytest

from pipeline.errors import CheckpointError
from pipeline.runs import ledger
from pipeline.runs.ledger import LedgerFiles, LedgerWriter, ledger_path, ledger_rows, read_ledger
from pipeline.types import EngineRecord, Problem, RolloutGroup, WeightId
from tests.support.ledgers import good_rows, group


def names(run_dir: Path) -> list[str]:
    return sorted(path.name for path in ledger_path(run_dir).iterdir())


def test_a_group_becomes_a_row():
    (row,) = ledger_rows([group(3, 4, EngineRecord("e", 6, "abc", 2))], ["trained"], "rl", 3, 1, first_position=4)
    assert (row.stage, row.step, row.position, row.step_asked, row.problem_id) == ("rl", 3, 4, 1, "p4")
    assert (row.seeds, row.weight_attempt, row.oldest_version, row.newest_version) == ((34, 7), 5, 2, 2)
    assert (row.checksum, row.engine, row.order) == ("abc", "e", 6)
    assert (row.num_correct, row.num_unparsed, row.num_incorrect, row.num_truncated, row.num_tokens) == (1, 1, 0, 1, 5)
    assert (row.reward_mean, row.reward_std, row.reward_min, row.reward_max) == (0.5, 0.5, 0.0, 1.0)


def test_a_group_that_was_never_answered_has_a_row_without_rewards():
    asked = RolloutGroup(Problem("p", (), ""), (1,), (), WeightId(1, 2), seeds=(3,))
    (row,) = ledger_rows([asked], ["stage_ended"], "rl", 4, 2)
    assert (row.num_completions, row.num_tokens, row.reward_mean, row.engine) == (0, 0, None, None)


def test_what_is_written_is_read_back_as_one_table(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "ROWS_PER_PART", 3)
    rows, writer = good_rows(), LedgerWriter(tmp_path, 0)
    for step in range(1, 5):
        writer.write([row for row in rows if row.step == step])
        assert read_ledger(tmp_path) == [row for row in rows if row.step <= step]
    assert names(tmp_path) == ["part_00001.parquet", "part_00002.parquet"]  # 4 rows each
    assert list(pandas.read_parquet(ledger_path(tmp_path))["step"]) == [1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize("last_step", range(5))
def test_a_resumed_run_drops_later_steps_and_goes_on(tmp_path, monkeypatch, last_step):
    monkeypatch.setattr(ledger, "ROWS_PER_PART", 3)
    rows, writer = good_rows(), LedgerWriter(tmp_path, 0)
    for step in range(1, 5):
        writer.write([row for row in rows if row.step == step])
    kept = [row for row in rows if row.step <= last_step]
    resumed = LedgerWriter(tmp_path, last_step)
    assert read_ledger(tmp_path) == kept
    resumed.write([row for row in rows if row.step > last_step])
    assert read_ledger(tmp_path) == rows


def test_a_kill_while_a_part_is_written_leaves_the_one_before(tmp_path, monkeypatch):
    rows, writer = good_rows(), LedgerWriter(tmp_path, 0)
    writer.write(rows[:2])

    def killed(self: Path, target: Path) -> None:
        os.link(self, target.with_name(f".{target.name}.0123456789abcdef.tmp"))  # what finally cannot remove
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", killed)
        writer.write(rows[2:4])
    assert read_ledger(tmp_path) == rows[:2] and len(pandas.read_parquet(ledger_path(tmp_path))) == 2
    LedgerWriter(tmp_path, 1)
    assert names(tmp_path) == ["part_00001.parquet"]


def test_parts_are_on_the_disk_before_they_replace_older_ones_and_their_names_after_a_sync(tmp_path, monkeypatch):
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    writer = LedgerWriter(tmp_path, 0)
    writer.sync()
    assert not ledger_path(tmp_path).exists()  # a run without GRPO leaves none
    writer.write(good_rows())
    directory = ledger_path(tmp_path)
    assert synced == [(directory / "part_00001.parquet").stat().st_ino]
    writer.sync()
    assert synced[1:] == [directory.stat().st_ino]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PAR1", "part_00001.parquet must hold rows of a ledger: the file is corrupt"),
        (b"", "must hold rows of a ledger"),
        (None, "must hold part_00001.parquet, got part_00002.parquet: a part is missing"),
        ("columns", "must hold rows of a ledger"),
        ("null", "must have a step in every row"),
    ],
)
def test_a_corrupt_ledger_is_named(tmp_path, content, message):
    LedgerWriter(tmp_path, 0).write(good_rows())
    part = ledger_path(tmp_path) / "part_00001.parquet"
    table = pandas.read_parquet(part)
    if content is None:
        part.rename(part.with_name("part_00002.parquet"))
    elif content == "columns":
        table.drop(columns="use").to_parquet(part)
    elif content == "null":
        table.assign(step=None).to_parquet(part)
    else:
        part.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_ledger(tmp_path)


def test_a_reader_reads_only_parts_that_have_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "ROWS_PER_PART", 2)
    rows, writer, reader = good_rows(), LedgerWriter(tmp_path, 0), LedgerFiles(tmp_path)
    read: list[str] = []
    read_part = ledger._read_part

    def noted(path):
        read.append(path.name)
        return read_part(path)

    monkeypatch.setattr(ledger, "_read_part", noted)
    assert reader.read() == []
    for step in (1, 2, 3):
        writer.write([row for row in rows if row.step == step])
        assert reader.read() == reader.read() == [row for row in rows if row.step <= step]
    assert read == ["part_00001.parquet", "part_00002.parquet", "part_00003.parquet"]


def test_a_part_that_goes_while_it_is_read_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "_parts", lambda directory: [directory / "part_00001.parquet"])
    with pytest.raises(CheckpointError, match="must stay while it is read"):
        read_ledger(tmp_path)
