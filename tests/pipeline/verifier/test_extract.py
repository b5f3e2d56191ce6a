import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.verifier import extract, last_number
from tests.support.verifier import stored_rows

LAWS = settings(max_examples=100, deadline=None, derandomize=True)
PIECES = [
    "<answer>", "</answer>", "<think>", "</think>", "<reasoning>", "</reasoning>", "\\boxed{", "\\fbox{", "\\boxed",
    "{", "}", "$", "$$", "\\(", "\\)", "\\[", "\\]", "**", "`", "```", "####", "#", ".", ",", ";", "answer", "answer:",
    "is", "the", "final", "because", "not", "maybe", "or", "and", "42", "3/4", "-5", "1,234", "x", "=", "(B)", "\\frac",
]  # fmt: skip
NOISE = st.lists(st.sampled_from(PIECES), max_size=12).flatmap(
    lambda pieces: st.sampled_from([" ", "", "\n"]).map(lambda joint: joint.join(pieces))
)


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("<reasoning>24 + 48</reasoning>\n<answer>\n72\n</answer>", "72"),
        ("<answer>5</answer> wait <answer>6</answer>", "6"),
        ("<answer>5</answer> wait <answer>6", "5"),
        ("<answer>5</answer></answer>", "5"),
        ("<answer>5<answer>6</answer>", "6"),
        ("The answer is 7. #### 8 <answer></answer> \\boxed{9}", None),
        ("<answer>$\\boxed{72}$</answer>", "72"),
        ("so it is \\boxed{1}, no, $\\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}"),
        ("\\boxed{\\{1, 2\\}} and \\boxed{3", "\\{1, 2\\}"),
        ("\\boxed{\\boxed{5}}", "5"),
        ("<think>maybe \\boxed{3}</think> It is \\boxed{4}.", "4"),
        ("maybe \\boxed{3}</think> So the answer is 4.", "4"),
        ("<think>maybe \\boxed{3} and then", None),
        ("<reasoning>9 eggs \\boxed{9}</reasoning> She has 7 eggs.", "7"),
        ("<reasoning>9 eggs", None),
        ("Natalia sold 48+24 = <<48+24=72>>72 clips.\n#### 72", "72"),
        ("#### Step 4:\n##### 72", "72"),
        ("#### 1,080\nThat is all, 2 of them.", "1,080"),
        ("Thus the answer is: 42", "42"),
        ("Final answer: 3.5.", "3.5"),
        ("**Final Answer:** **12**", "12"),
        ("The final answer is $\\frac{3}{4}$. I hope it is correct.", "\\frac{3}{4}"),
        ("The answer is 72 because 48 + 24 = 72.", "72"),
        ("The answer is:\n\n$$x = 5$$", "x = 5"),
        ("She earned 12 + 30 = 42 dollars in 3 days", "3"),
        ("no idea", None),
        ("", None),
    ],
)
def test_extract(completion, answer):
    assert extract(completion) == answer


def test_fallback_to_the_last_number_can_be_switched_off():
    assert extract("It makes 42.") == "42"
    assert extract("It makes 42.", fallback=False) is None
    assert extract("The answer is 42.", fallback=False) == "42"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("total: $1,234.50.", "$1,234.50"),
        ("5 - 3 = 2 or 5-3", "3"),
        ("it fell to -7", "-7"),
        ("it fell to −7", "−7"),
        ("about 50% of 1/2", "1/2"),
        ("1,2,3", "3"),
        ("<answer>72</answer>", "72"),
        ("a .5 chance", ".5"),
        ("6.02e23", "6.02e23"),
        ("none", None),
    ],
)
def test_last_number(text, number):
    assert last_number(text) == number


def test_extracted_answers():
    """220 completions by the same labeller; white space, ``$`` and bold marks do not count."""

    def bare(text: str | None) -> str | None:
        return None if text is None else re.sub(r"[\s$*`]", "", text).removesuffix(".")

    wrong = [
        (row["completion"], answer)
        for row in stored_rows("extracted_answers.jsonl")
        if bare(answer := extract(row["completion"])) not in map(bare, [row["answer"], *row.get("also", [])])
    ]
    assert wrong == []


@given(NOISE)
@LAWS
def test_any_text_gives_no_answer_or_a_trimmed_one(text):
    for answer in (extract(text), extract(text, fallback=False)):
        assert answer is None or answer == answer.strip() != ""


@given(NOISE, st.integers(-(10**6), 10**6).map(str))
@LAWS
def test_a_complete_section_after_closed_reasoning_decides(noise, number):
    reasoning = noise.replace("<", "").replace(">", "")
    assert extract(f"<think>{reasoning}</think> <answer>{number}</answer>") == number
    assert extract(f"<think>{reasoning}</think> <answer>1</answer> <answer> {number}. </answer> or 7") == number


@given(st.integers(-(10**6), 10**6).map(str))
@LAWS
def test_a_number_is_extracted_wherever_it_stands(number):
    texts = [
        "#### {}",
        "The answer is {}.",
        "Final answer: **{}**",
        "so \\boxed{{{}}}.",
        "It makes $x = {}$.",
        "It makes {}.",
    ]
    assert {extract("We add 1 and 2.\n" + text.format(number)) for text in texts} == {number}
