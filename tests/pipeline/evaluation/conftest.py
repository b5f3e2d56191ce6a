from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.data.problems import problem_rows
from pipeline.evaluation import datasets
from tests.support.data import write_jsonl


@pytest.fixture
def sums(tmp_path) -> Path:
    """A directory with eight test problems of two levels, one without an answer, and four worked training problems."""
    rows = [{"question": f"{n} + 1?", "answer": str(n + 1), "level": str(n % 2)} for n in range(8)]
    rows[7]["answer"] = ""
    write_jsonl(tmp_path / "sums" / "test.jsonl", *rows)
    worked = [{"question": f"{n} + 2?", "answer": f"so {n + 2}\n#### {n + 2}", "level": "0"} for n in range(4)]
    write_jsonl(tmp_path / "sums" / "train.jsonl", *worked)
    return tmp_path / "sums"


@pytest.fixture(scope="package")
def read_once() -> Iterator[None]:
    """Reads the rows of a data set once: six of the registered sets are parts of one file."""
    rows: dict = {}

    def cached(data, split, columns):
        key = data.model_dump_json(), split
        if key not in rows:
            rows[key] = list(problem_rows(data, split, columns))
        return iter(rows[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "problem_rows", cached)
        yield
