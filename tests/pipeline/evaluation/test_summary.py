"""Summaries of results, worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.problems import EvalProblem
from pipeline.evaluation.summary import answer_key, summarize
from pipeline.reports import statistics
from tests.support.evaluations import PROBLEMS, result_row
from tests.support.properties import examples


def test_a_summary_by_hand():
    answers = ["0", "1", "2", "0", "0", "0"]  # p0, p1, p2 right
    rows = [result_row("m", p, a, seconds=0.5) for p, a in zip(PROBLEMS, answers, strict=True)]
    rows[5] |= {"outcome": "truncated", "in_training_data": "exact"}
    (result,) = summarize(rows)["results"]
    assert (result["num_problems"], result["answer_accuracy"], result["seconds"]) == (6, 0.5, 3.0)
    assert result["answer_accuracy_interval"] == pytest.approx((0.1876, 0.8124), abs=1e-4)  # Wilson, 3 of 6
    assert result["outcomes"] == {
        **{"correct": 3, "incorrect": 2, "unparsed": 0, "truncated": 1, "timeout": 0, "bad_gold": 0}
    }
    assert {level: part["answer_accuracy"] for level, part in result["by"]["level"].items()} == {"0": 2 / 3, "1": 1 / 3}
    assert result["num_in_training_data"] == 1 and result["not_in_training_data"]["answer_accuracy"] == 0.6
    assert result["pass_at_k"]["1"]["value"] == result["maj_at_k"]["1"]["value"] == 0.5


def test_pass_and_majority_of_several_samples():
    answers = {"p0": ["0", "7", "7", "0"], "p1": ["1", "1.0", "3", "3"], "p2": ["5", "5", "6", "2"]}
    rows = [
        result_row(
            "m", problem, answer, sample, outcome="correct" if float(answer) == float(problem.gold) else "incorrect"
        )
        for problem in PROBLEMS[:3]
        for sample, answer in enumerate(answers[problem.id])
    ]
    (result,) = summarize(rows)["results"]
    assert result["num_samples"] == 4
    assert result["answer_accuracy"] == pytest.approx((2 / 4 + 2 / 4 + 1 / 4) / 3)
    assert result["pass_at_k"]["2"]["value"] == pytest.approx((5 / 6 + 5 / 6 + 1 / 2) / 3)
    assert result["pass_at_k"]["4"]["value"] == 1.0
    # p0 ties and was first, p1 ties and was first, p2 has more of 5
    assert result["maj_at_k"]["4"]["value"] == pytest.approx(2 / 3)


def test_equal_answers_have_equal_keys():
    assert answer_key("7") == answer_key("7.0") == answer_key("$7$")
    assert len({answer_key(text) for text in ("7", "7 cm", "7 m", "7%", "A", "a")}) == 6
    assert answer_key(r"\frac{x}{2}") != answer_key("x")
    assert answer_key(None) is None and answer_key("9" * 5000) == "9" * 5000


def rows_of(correct: list[list[bool]]) -> list[dict]:
    """Rows of a model; every problem has the same number of samples."""
    return [
        result_row("m", EvalProblem(f"p{n}", "?", "1"), "1" if is_correct else str(sample + 2), sample)
        for n, samples in enumerate(correct)
        for sample, is_correct in enumerate(samples)
    ]


graded = st.integers(1, 5).flatmap(
    lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1, max_size=8)
)
"""[num_problems][num_samples]"""


@examples(25)
@given(graded)
def test_pass_at_k_starts_at_the_accuracy_and_grows_and_intervals_contain_their_estimates(correct):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "NUM_DRAWS", 500)
        (result,) = summarize(rows_of(correct))["results"]
    values = [estimate["value"] for estimate in result["pass_at_k"].values()]
    assert values[0] == pytest.approx(result["answer_accuracy"]) and values == sorted(values)
    assert result["maj_at_k"]["1"]["value"] == pytest.approx(sum(samples[0] for samples in correct) / len(correct))
    assert sum(result["outcomes"].values()) == sum(map(len, correct))
    low, high = result["answer_accuracy_interval"]
    assert 0 <= low <= high <= 1
    lengths = result["by"]["completion_length"].values()
    assert sum(part["num_completions"] for part in lengths) == sum(map(len, correct))


@examples(25)
@given(st.lists(st.booleans(), min_size=1, max_size=8), st.lists(st.booleans(), min_size=1, max_size=8))
def test_models_are_compared_on_the_problems_that_both_answered(a, b):
    rows = rows_of([[right] for right in a]) + [row | {"model": "n"} for row in rows_of([[right] for right in b])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "NUM_DRAWS", 500)
        (comparison,) = summarize(rows)["comparisons"]
    pairs = list(zip(a, b, strict=False))
    assert (comparison["num_problems"], comparison["num_only_a"], comparison["num_only_b"]) == (
        len(pairs),
        pairs.count((True, False)),
        pairs.count((False, True)),
    )
