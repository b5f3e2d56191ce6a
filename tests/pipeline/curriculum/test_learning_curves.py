import numpy as np
import pytest

from pipeline.curriculum.chain_results import require_chains
from pipeline.curriculum.learning_curves import learning_curves, mean_curve
from pipeline.curriculum.search_report import write_search_report
from tests.support.runs import write_metrics
from tests.support.search_files import MIXED, SearchFiles


def trained(search: SearchFiles, key: str, *points: tuple[int, float | None]) -> None:
    """A stage's metrics: tokens sampled so far and, where it was evaluated, accuracy."""
    rows = [
        {"step": step, "stage": "grpo", "sampled_tokens_total": tokens}
        | ({} if accuracy is None else {"eval_answer_accuracy": accuracy})
        for step, (tokens, accuracy) in enumerate(points, 1)
    ]
    write_metrics(search.path / "stages" / key, rows)


@pytest.fixture
def search(tmp_path) -> SearchFiles:
    search = SearchFiles(tmp_path)
    search.add("pools", MIXED, 0, keys=("a",)).add("pools", MIXED, 1, keys=("b",)).add("uniform", MIXED, 0, keys=("c",))
    search.write()
    trained(search, "a", (100, 0.1), (200, None), (300, 0.3))
    trained(search, "b", (200, 0.4), (400, 0.6))
    trained(search, "c", (100, 0.1), (200, None))
    return search


def test_a_curve_has_the_evaluated_steps_of_a_seed(search):
    curves = learning_curves(search.path, require_chains(search.path))
    assert [curve.tolist() for curve in curves["pools"]] == [[[100, 300], [0.1, 0.3]], [[200, 400], [0.4, 0.6]]]
    assert "uniform" not in curves  # evaluated once


def test_the_mean_is_over_the_tokens_that_all_seeds_have(search):
    tokens, accuracy = mean_curve(learning_curves(search.path, require_chains(search.path))["pools"])
    assert (tokens[0], tokens[-1]) == (200, 300)
    # seed 0 has 0.2 and 0.3 there, seed 1 has 0.4 and 0.5
    assert np.allclose([accuracy[0], accuracy[-1]], [0.3, 0.4])


def test_the_report_of_a_search_shows_them(search):
    page = write_search_report(search.path).read_text()
    assert "Accuracy against sampled tokens" in page
    assert (search.path / "plots" / "learning_curves.png").exists()
