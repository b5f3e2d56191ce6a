"""Gold answers and solutions as the columns of data sets hold them, and as completions repeat them."""

import pytest

from pipeline.config import DataConfig
from pipeline.data.answers import last_boxed, read_answer, worked_solution
from pipeline.verifier import extract, grade


def test_worked_solution_has_the_form_the_format_reward_looks_for():
    expected = "<reasoning>\n1 + 1 = 2\n</reasoning>\n<answer>\n2\n</answer>"
    assert worked_solution("1 + 1 = 2\n", " 2") == expected


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        (r"so $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"first $\boxed{1}$, then \fbox{2}", "2"),
        (r"the answer is $\boxed 7$.", "7"),
        (r"\boxed{\left\{1, 2\right\}}", r"\left\{1, 2\right\}"),
        (r"\boxed{\left\{1, 2\right.}", r"\left\{1, 2\right."),
        (r"\boxed{3", None),
        (r"none here, \boxedsomething{3}", None),
    ],
)
def test_last_boxed(text, gold):
    assert last_boxed(text) == gold


@pytest.mark.parametrize(
    ("answer_format", "text", "reasoning", "gold"),
    [
        ("plain", "#### 7", "", "#### 7"),
        ("hash", "48/2 = <<48/2=24>>24.\n#### 2,000 ", "48/2 = 24.", "2,000"),
        ("hash", "a #### 5\nNote: blah", "a", "5"),
        ("hash", "a ####\r\n5 \r\nNote", "a", "5"),
        ("hash", "a #### ", "a", ""),
        ("hash", "It is 5.", "", ""),
        ("boxed", r"so \boxed{1}", r"so \boxed{1}", "1"),
        ("boxed", r"so \boxed{}", r"so \boxed{}", ""),
        ("phrase", "So it is 24 + 8 = 32.\n#### 32\nThe answer is: 32", "So it is 24 + 8 = 32.", "32"),
        ("phrase", r"It is $\boxed{\text{D}}$.The answer is: \text{D}", r"It is $\boxed{\text{D}}$.", r"\text{D}"),
        ("phrase", "The answer is: 1. No.\nThe answer is: \\sqrt{5} ", "The answer is: 1. No.", r"\sqrt{5}"),
        ("phrase", "It is 5.\n#### 5", "", ""),
        ("phrase", "The answer is: ", "", ""),
    ],
)
def test_an_answer_is_read_in_the_format_of_the_data(answer_format, text, reasoning, gold):
    assert read_answer(text, DataConfig(answer_format=answer_format)) == (reasoning, gold)


@pytest.mark.parametrize(
    ("task", "answer_format", "expected"),
    [(None, None, "plain"), ("gsm8k", None, "hash"), ("metamathqa", None, "phrase"), ("math", "plain", "plain")],
)
def test_the_task_has_a_format_that_a_setting_overrides(task, answer_format, expected):
    assert DataConfig(task_name=task, answer_format=answer_format).gold_format == expected


@pytest.mark.parametrize(
    ("completion", "answer", "gold", "outcome"),
    [
        ("48 + 24 = <<48+24=72>>72 clips.\n#### 72", "72", "72", "correct"),
        ("So 7 x 300 = 2100.\n#### 2,100", "2,100", "2100", "correct"),
        ("#### 5\nThat is 5 of 20.", "5", "5", "correct"),
        ("#### 71\n", "71", "72", "incorrect"),
        ("So it is 32.\n#### 32\nThe answer is: 32", "32", "32", "correct"),
        ("So it is 32.\nThe answer is: 32", "32", "32", "correct"),
        ("It is 1/2 of 3.\nThe answer is: 1.5.", "1.5", "1.5", "correct"),
        ("The answer is: 3. The answer is: 4", "4", "3", "incorrect"),
        ("Thus $x$ is so.The answer is: \\sqrt{5}", "\\sqrt{5}", "\\sqrt{5}", "correct"),
        ("The answer is: \\frac{1}{2}", "\\frac{1}{2}", "\\frac{2}{4}", "correct"),
        ("The answer is: $18", "$18", "18", "correct"),
        ("She pays 18 dollars.\nThe answer is: ", None, "18", "correct"),  # by the last number
    ],
)
def test_completions_in_the_forms_of_the_data_are_graded(completion, answer, gold, outcome):
    assert extract(completion, fallback=False) == answer
    assert grade(completion, gold).outcome == outcome
