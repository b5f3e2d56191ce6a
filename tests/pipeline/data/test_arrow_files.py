import threading

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data import arrow_files
from pipeline.data.arrow_files import ArrowRows, code_digest, list_lengths, made_once, write_batches
from tests.support.properties import examples

SCHEMA = pa.schema([("n", pa.int64()), ("text", pa.string())])


def batches(*sizes: int) -> list[pa.RecordBatch]:
    """Rows counted through all batches."""
    built, start = [], 0
    for size in sizes:
        numbers = list(range(start, start + size))
        built.append(pa.record_batch([numbers, [f"row {n}" for n in numbers]], schema=SCHEMA))
        start += size
    return built


@given(sizes=st.lists(st.integers(0, 4), min_size=1, max_size=4), data=st.data())
@examples()
def test_any_rows_in_any_order_are_read(tmp_path, sizes, data):
    write_batches(tmp_path / "a.arrow", SCHEMA, batches(*sizes))
    file = ArrowRows(tmp_path / "a.arrow")
    assert file.num_rows == sum(sizes)
    if not sum(sizes):
        return
    wanted = data.draw(st.lists(st.integers(0, sum(sizes) - 1), max_size=10))
    assert [file.row(n) for n in wanted] == [{"n": n, "text": f"row {n}"} for n in wanted]
    read = list(file.batches(np.array(wanted, dtype=np.int64), ["text"]))
    assert [row for batch in read for row in batch.to_pylist()] == [{"text": f"row {n}"} for n in wanted]


def test_consecutive_rows_of_a_batch_come_together(tmp_path):
    write_batches(tmp_path / "a.arrow", SCHEMA, batches(3, 3))
    file = ArrowRows(tmp_path / "a.arrow")
    assert [batch["n"].to_pylist() for batch in file.batches(np.array([1, 0, 5, 4, 2]))] == [[1, 0], [5, 4], [2]]


def test_pages_are_given_back_while_single_rows_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(arrow_files, "ROWS_IN_MEMORY", 2)
    write_batches(tmp_path / "a.arrow", SCHEMA, batches(5))
    file = ArrowRows(tmp_path / "a.arrow")
    assert [file.row(n)["n"] for n in (4, 3, 2, 1, 0)] == [4, 3, 2, 1, 0]


def test_lists_are_measured_in_any_slice():
    lists = pa.array([[1, 2], [], [3], [4, 5, 6]])
    assert list_lengths(lists).tolist() == [2, 0, 1, 3]
    assert list_lengths(lists[1:3]).tolist() == [0, 1]


@pytest.mark.parametrize("left_behind", [b"", b"ARROW1", None])
def test_a_file_is_made_once_and_an_incomplete_one_is_replaced(tmp_path, left_behind):
    path = tmp_path / "a.arrow"
    if left_behind is not None:
        path.write_bytes(left_behind)
    with made_once(path) as hidden:
        assert hidden is not None and hidden.parent == tmp_path
        write_batches(hidden, SCHEMA, batches(2))
        assert left_behind is not None or not path.exists()
    assert ArrowRows(path).num_rows == 2
    with made_once(path) as hidden:
        assert hidden is None
    assert sorted(file.name for file in tmp_path.iterdir()) == [".a.arrow.lock", "a.arrow"]


def test_a_failure_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="no more"), made_once(tmp_path / "a.arrow") as hidden:
        assert hidden is not None
        hidden.write_bytes(b"ARROW1")
        raise RuntimeError("no more")
    assert [file.name for file in tmp_path.iterdir()] == [".a.arrow.lock"]


def test_others_wait_for_the_one_that_makes_the_file(tmp_path):
    path, seen = tmp_path / "a.arrow", []

    def make() -> None:
        with made_once(path) as hidden:
            seen.append(hidden is not None)
            if hidden:
                write_batches(hidden, SCHEMA, batches(2))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == [False, False, False, True]


def test_changed_code_has_another_digest(tmp_path):
    first, second = tmp_path / "a.py", tmp_path / "b.py"
    first.write_text("a = 1")
    second.write_text("b = 1")
    before = code_digest(str(first), str(second))
    assert code_digest(str(first), str(second)) == before != code_digest(str(first))
    second.write_text("b = 2")
    assert code_digest(str(first), str(second)) != before
