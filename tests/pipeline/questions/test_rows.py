"""Rows of written problems, and the training problems that are made of them."""

import pytest

from pipeline.config import RewardTerm
from pipeline.data.writing import written_text
from pipeline.questions.rows import written_problem, written_row, written_rows
from pipeline.types import Completion, Problem, RewardBreakdown, RolloutGroup, WeightId, WritingTask

STATEMENT = "Mia has 5 jars with 11 stones in each jar. How many stones does Mia have?"
TEXT = written_text(STATEMENT, "5 * 11 = 55", "55")
TERMS = [RewardTerm(name="checked", weight=1, gate=True), RewardTerm(name="novel", weight=3)]
TASK = Problem(
    id="p1-context",
    prompt=({"role": "user", "content": "Vary: One stone?"},),
    gold="1",
    level="1",
    type="stones",
    source="context",
    writing=WritingTask("context", "One stone?", "1"),
)


def completion(text: str, stop_reason="stop") -> Completion:
    return Completion.of((1, 2), (-0.5, -0.5), text, stop_reason)


def test_a_row_says_what_was_asked_for_and_what_was_written():
    reward = RewardBreakdown(2.5, {"checked": 1.0, "novel": 0.5}, "correct")
    row = written_row(TASK, completion(TEXT), reward, TERMS)
    assert (row["statement"], row["solution"], row["answer"]) == (STATEMENT, "5 * 11 = 55", "55")
    assert (row["kind"], row["topic"], row["level"], row["original"]) == ("context", "stones", "1", "One stone?")
    assert row["quality"] == pytest.approx((1 + 3 * 0.5) / 4)
    assert (row["outcome"], row["num_tokens"], row["truncated"], row["detail"]) == ("correct", 2, False, "")


def test_a_malformed_row_has_no_parts_of_a_problem_and_says_why():
    reward = RewardBreakdown(0.0, {"checked": 0.0, "novel": 0.5}, "unparsed")
    row = written_row(TASK, completion("<problem>", "length"), reward, TERMS)
    assert (row["statement"], row["answer"], row["quality"], row["truncated"]) == ("", "", 0.0, True)
    assert "missing" in row["detail"]


def test_rows_of_a_group_have_their_seeds():
    rewards = (RewardBreakdown(0.0, {"checked": 1.0, "novel": 0.0}, "correct"),) * 2
    group = RolloutGroup(TASK, (1,), (completion(TEXT), completion(TEXT)), WeightId(0, 3), rewards)
    assert [(row["model"], row["seed"]) for row in written_rows(group, TERMS, "m", (7, 8))] == [("m", 7), ("m", 8)]


def test_a_kept_row_is_an_example_of_its_task():
    reward = RewardBreakdown(2.5, {"checked": 1.0, "novel": 0.5}, "correct")
    problem = written_problem(written_row(TASK, completion(f"  {TEXT}\n"), reward, TERMS))
    assert (problem.solution, problem.gold, problem.prompt) == (TEXT, "55", TASK.prompt)
    assert (problem.level, problem.type, problem.source, problem.writing) == ("1", "stones", "written", TASK.writing)
