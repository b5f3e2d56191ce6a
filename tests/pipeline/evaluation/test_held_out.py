"""Greedy accuracy on held-out problems: one row per problem, summarized by level."""

from typing import Any

import pytest

from pipeline.evaluation.held_out import accuracy_by_level, held_out_row
from pipeline.types import Completion, Problem


def problem(**values: Any) -> Problem:
    known: dict[str, Any] = {"id": "p", "prompt": ({"role": "user", "content": "3 + 4?"},), "gold": "7"}
    return Problem(**known | values)


def completion(text: str, num_tokens: int = 3, stop_reason: Any = "stop") -> Completion:
    return Completion.of((1,) * num_tokens, (0.0,) * num_tokens, text, stop_reason)


def test_a_row_holds_the_problem_the_completion_and_its_grades():
    text = "<reasoning>3 + 4</reasoning><answer>7</answer>"
    assert held_out_row(problem(level="2"), completion(text, 5, "length")) == {
        "problem_id": "p",
        "level": "2",
        "question": "3 + 4?",
        "gold": "7",
        "completion": text,
        "outcome": "correct",
        "tagged": True,
        "last_number": True,
        "num_tokens": 5,
        "truncated": True,
    }


@pytest.mark.parametrize(
    ("text", "prompt_text", "outcome", "tagged", "last_number"),
    [
        ("<answer>7</answer>", None, "correct", True, True),
        ("<answer>seven</answer>, not 8", None, "correct", True, False),
        ("<answer>8</answer> or 7", None, "incorrect", False, True),
        ("It is 7", None, "correct", False, True),
        ("#### 7", None, "correct", False, True),
        ("#### 7", "Q: 3 + 4?\nA: ", "correct", True, True),
        (r"\boxed{7}", "Q: 3 + 4?\nA: ", "correct", True, True),
        ("The answer is: 7", "Q: 3 + 4?\nA: ", "correct", True, True),
        ("The answer is: 8", "Q: 3 + 4?\nA: ", "incorrect", False, False),
        ("It is 7", "Q: 3 + 4?\nA: ", "correct", False, True),
        ("I do not know", None, "unparsed", False, False),
    ],
)
def test_three_ways_to_be_right(text, prompt_text, outcome, tagged, last_number):
    row = held_out_row(problem(prompt_text=prompt_text), completion(text))
    assert (row["outcome"], row["tagged"], row["last_number"]) == (outcome, tagged, last_number)


def test_a_problem_without_a_level_is_of_level_all():
    assert held_out_row(problem(), completion("7"))["level"] == "all"


def test_accuracy_by_level_and_overall():
    rows = [
        held_out_row(problem(level="b"), completion("<answer>7</answer>", 2)),
        held_out_row(problem(level="a"), completion("<answer>8</answer>", 4, "length")),
        held_out_row(problem(level="b"), completion("It is 7", 6)),
    ]
    summary = accuracy_by_level(rows)
    assert list(summary["levels"]) == ["a", "b"]
    assert summary["levels"]["b"] == {
        "num_problems": 2,
        "accuracy_tagged": 0.5,
        "answer_accuracy": 1.0,
        "accuracy_last_number": 1.0,
        "completion_length_mean": 4.0,
        "truncated_frac": 0.0,
    }
    assert (summary["overall"]["num_problems"], summary["overall"]["truncated_frac"]) == (3, pytest.approx(1 / 3))


def result(level: str, tagged: bool, last: bool, tokens: int, truncated: bool = False, *, right: bool = False) -> dict:
    outcome = "correct" if tagged or right else "incorrect"
    return {"level": level, "tagged": tagged, "last_number": last, "num_tokens": tokens} | {
        "truncated": truncated,
        "outcome": outcome,
    }


def test_overall_accuracy_is_over_problems_not_over_levels():
    rows = [
        result("2", True, True, 10),
        result("1", True, True, 20),
        result("1", False, True, 40, truncated=True, right=True),
        result("1", False, False, 30),
        result("1", False, True, 50),
    ]
    summary = accuracy_by_level(rows)
    assert list(summary["levels"]) == ["1", "2"]
    assert summary["levels"]["1"] == {
        "num_problems": 4,
        "accuracy_tagged": 0.25,
        "answer_accuracy": 0.5,
        "accuracy_last_number": 0.75,
        "completion_length_mean": 35.0,
        "truncated_frac": 0.25,
    }
    assert summary["levels"]["2"]["accuracy_tagged"] == 1.0
    assert summary["overall"] == pytest.approx(
        {
            "num_problems": 5,
            "accuracy_tagged": 0.4,
            "answer_accuracy": 0.6,
            "accuracy_last_number": 0.8,
            "completion_length_mean": 30.0,
            "truncated_frac": 0.2,
        }
    )
