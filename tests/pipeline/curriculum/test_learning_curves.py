import numpy as np
import pytest

from pipeline.curriculum.chain_results import require_chains
from pipeline.curriculum.learning_curves import learning_curves, mean_curve
from pipeline.curriculum.search_report import write_search_report
from pipeline.files import write_jsonl
from tests.support.runs import write_metrics
from tests.support.search_files import SearchFiles, evaluated


def trained(search: SearchFiles, key: str, *points: tuple[int, int | None]) -> None:
    """A stage's metrics and answers: tokens sampled so far and, where it was evaluated, tenths that are tagged."""
    rows, stage = [], search.path / "stages" / key
    for step, (tokens, tenths) in enumerate(points, 1):
        rows.append({"step": step, "stage": "level_mixed", "sampled_tokens_total": tokens})
        if tenths is not None:
            rows[-1]["eval_answer_accuracy"] = 1.0
            path = stage / "samples" / f"eval_level_mixed_step_{step:06d}.jsonl"
            write_jsonl(path, evaluated([tenths], ["1"]))
    write_metrics(stage, rows)


@pytest.fixture
def search(tmp_path) -> SearchFiles:
    """All answers are right; of those before and after a stage, 1 and 6 in 10 are tagged."""
    search = SearchFiles(tmp_path, levels=("1",))
    for setting, seed, key in (("pools", 0, "a"), ("pools", 1, "b"), ("uniform", 0, "c"), ("sft", 0, "d")):
        search.add(setting, [[1, 6]], seed, keys=(key,))
    search.write()
    trained(search, "a", (100, 2), (200, None), (300, None))
    trained(search, "b", (200, 4), (400, 5))
    trained(search, "c", (100, None))
    return search


def test_a_curve_is_of_tagged_answers_and_begins_and_ends_with_the_evaluations_around_its_stage(search):
    curves = learning_curves(search.path, require_chains(search.path))
    assert [curve.tolist() for curve in curves["pools"]] == [
        [[0, 100, 300], [0.1, 0.2, 0.6]],
        [[0, 200, 400, 400], [0.1, 0.4, 0.5, 0.6]],
    ]
    assert [curve.tolist() for curve in curves["uniform"]] == [[[0, 100], [0.1, 0.6]]]
    assert "sft" not in curves  # it sampled nothing


def test_the_mean_is_over_the_tokens_that_all_seeds_have():
    mean = mean_curve([np.array([[100, 300], [0.1, 0.3]]), np.array([[200, 400], [0.4, 0.6]])])
    assert mean is not None
    (tokens, accuracy) = mean
    assert (tokens[0], tokens[-1]) == (200, 300)
    # the first has 0.2 and 0.3 there, the second 0.4 and 0.5
    assert np.allclose([accuracy[0], accuracy[-1]], [0.3, 0.4])


def test_seeds_without_common_tokens_have_no_mean():
    assert mean_curve([np.array([[0, 100], [0.1, 0.3]]), np.array([[200, 400], [0.4, 0.6]])]) is None


def test_the_report_of_a_search_shows_them(search):
    page = write_search_report(search.path).read_text()
    assert "Tagged accuracy against sampled tokens" in page
    assert (search.path / "plots" / "learning_curves.png").exists()
