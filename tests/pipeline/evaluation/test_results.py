"""eval_results.jsonl: written, read back, and resumed after a kill."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import CheckpointError
from pipeline.evaluation.results import TEXTS, Chunk, ResultsFile
from tests.support.evaluations import PROBLEMS, result_row
from tests.support.properties import examples


def chunks_of(model: str, size: int) -> list[Chunk]:
    return [Chunk(model, "sums", PROBLEMS[start : start + size]) for start in range(0, len(PROBLEMS), size)]


def test_only_whole_chunks_count_and_the_rest_is_cut_off(tmp_path):
    results, chunks = ResultsFile(tmp_path), chunks_of("m", 2)
    assert results.num_done(chunks, 1) == 0
    results.append([result_row("m", problem, "1") for problem in PROBLEMS[:3]])
    with results.path.open("a") as file:
        file.write('{"model": "m", "dataset"')  # a kill in the middle of a line
    assert results.num_done(chunks, 1) == 1
    assert [row["problem_id"] for row in results.rows()] == ["p0", "p1"]
    results.append([result_row("m", problem, "1") for problem in PROBLEMS[2:]])
    assert results.num_done(chunks, 1) == 3
    assert [row["problem_id"] for row in results.rows()] == [problem.id for problem in PROBLEMS]


def test_rows_of_another_evaluation_are_an_error(tmp_path):
    results, chunks = ResultsFile(tmp_path), chunks_of("m", 3)
    results.append([result_row("m", problem, "1") for problem in (PROBLEMS[0], PROBLEMS[2])])
    with pytest.raises(CheckpointError, match="got a row of p2 where p1 belongs"):
        results.num_done(chunks, 1)
    results.path.unlink()
    results.append([result_row("m", problem, "1") for problem in (*PROBLEMS, PROBLEMS[0])])
    with pytest.raises(CheckpointError, match="each result once"):
        results.num_done(chunks, 1)


def test_a_full_disk_is_an_error_that_says_what_is_kept():
    results = ResultsFile(Path("/dev"))
    results.path = Path("/dev/full")
    with pytest.raises(CheckpointError, match=r"No space left on device. Earlier results are kept.*--resume"):
        results.append([result_row("m", PROBLEMS[0], "1")])


texts = st.text(st.characters(categories=["L", "N", "P", "S", "Z", "C"]), max_size=20)


@examples(25)
@given(st.lists(texts, min_size=6, max_size=6), st.integers(1, 6), st.integers(0, 6), st.data())
def test_rows_come_back_and_a_kill_costs_at_most_the_chunk_it_hit(completions, size, num_written, data):
    rows = [result_row("m", p, "1", completion=text) for p, text in zip(PROBLEMS, completions, strict=True)]
    chunks = chunks_of("m", size)
    with tempfile.TemporaryDirectory() as folder:
        results = ResultsFile(Path(folder))
        results.append(rows[:num_written])
        written = results.path.read_bytes()
        results.path.write_bytes(written[: data.draw(st.integers(0, len(written)))])
        num_whole = len(list(results.rows()))
        done = results.num_done(chunks, 1)
        assert done == (num_whole // size if num_whole < len(rows) else len(chunks))
        results.append(rows[done * size :])
        assert list(results.rows()) == [row | {"completion": as_stored(row["completion"])} for row in rows]
        assert results.num_done(chunks, 1) == len(chunks)
        assert all(not set(TEXTS) & row.keys() for row in results.light_rows())


def as_stored(text: str) -> str:
    """A lone surrogate has no UTF-8 form and becomes ``?``."""
    return text.encode(errors="replace").decode()
