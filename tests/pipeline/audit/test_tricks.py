"""Detectors of tricks: what they catch, and what they leave alone."""

import pytest

from pipeline.audit.strict import DISAGREEMENTS, disagreement, number_in
from pipeline.audit.tricks import TRICKS, find_tricks
from tests.support.audits import HONEST, META, SUM, written

CAUGHT = [
    ("several_answers", HONEST + "<answer>73</answer>"),
    ("several_answers", "#### 72\n\nQuestion: more\n#### 73"),
    ("repeated_answer", SUM + "<answer>72</answer>" * 3),
    ("repeated_answer", "It is 72. The answer is 72. The answer is 72. So the answer is 72."),
    ("repeated_answer", r"\boxed{72} \boxed{72} \boxed{72}"),
    ("repeated_answer", "48 + 24\n72\n72\n72\n"),
    ("empty_reasoning", "<reasoning></reasoning><answer>72</answer>"),
    ("empty_reasoning", "<reasoning>\n...\n</reasoning>\n<answer>\n72\n</answer>"),
    ("empty_reasoning", "<reasoning>= 72.</reasoning><answer>72</answer>"),
    ("empty_reasoning", "<answer>72</answer>"),
    ("empty_reasoning", "#### 72"),
    ("nested_tags", f"{SUM}<answer><answer>72</answer></answer>"),
    ("nested_tags", f"{SUM}<answer>72<reasoning>"),
    ("nested_tags", "<reasoning><reasoning>48 + 24</reasoning></reasoning><answer>72</answer>"),
    ("answer_in_reasoning", "<reasoning>48 + 24 <answer>72</answer></reasoning><answer>72</answer>"),
    ("several_candidates", written("72 or 73")),
    ("several_candidates", written("71, 72, 73")),
    ("several_candidates", written("71\n72")),
    ("several_candidates", written("x = 72; x = 73")),
    ("several_candidates", written(", ".join(map(str, range(1000))))),
    ("text_after_answer", HONEST + " or 73"),
]


@pytest.mark.parametrize(("name", "completion"), CAUGHT)
def test_tricks_are_caught(name, completion):
    assert name in find_tricks(completion, "72")


def test_every_trick_has_an_example_and_a_meaning():
    assert {name for name, _ in CAUGHT} == set(TRICKS)
    assert all(detector.__doc__ and "\n" not in detector.__doc__ for detector in TRICKS.values())


@pytest.mark.parametrize(
    ("completion", "gold"),
    [
        (HONEST, "72"),
        (HONEST + "\n", "72"),
        (META, "72"),
        ("<reasoning>2+3=5</reasoning><answer>5</answer>", "5"),
        ("<reasoning></reasoning><answer>5</answer>", "72"),  # wrong: nothing to look for
        ("<reasoning>the answer is 72, so\n\\boxed{72}</reasoning><answer>72</answer>", "72"),
        ("<reasoning>48 + 24 <answer>72</answer>", "72"),  # the reasoning is never closed
        (f"{SUM}<answer>1,234</answer>", "1234"),
        (f"{SUM}<answer>48 + 24 = 72</answer>", "72"),
        (f"{SUM}<answer>1, 2</answer>", "1, 2"),
        (r"First \boxed{1}, then \boxed{2}.", "1, 2"),
        ("#### Step\nmore\n\nThe answer is: 72", "72"),
        ("I do not know.", "72"),
        ("", "72"),
    ],
)
def test_honest_text_shows_no_trick(completion, gold):
    assert find_tricks(completion, gold) == ()


@pytest.mark.timeout(60)  # what is not linear takes hours
@pytest.mark.parametrize(
    "text",
    [
        "<answer>" * 15_000,
        "<reasoning>" * 6_000 + "</reasoning>" * 6_000,
        "9" * 120_000,
        written("9" * 120_000),
        written("1," * 60_000),
        written("1/" + "0" * 150),
        r"\boxed{" * 18_000,
        r"\boxed{{" * 15_000,
        r"\boxed{" + "{x}" * 40_000,
        "####" * 30_000,
        "answer is " * 12_000,
        "answer is" + " " * 120_000,
        "$" * 120_000,
        "\n" * 120_000,
        "5 or " * 24_000,
    ],
    ids=lambda text: text[:12].strip() + "...",
)
def test_hostile_text_is_read_in_linear_time_and_never_as_the_gold_number(text):
    for length in (99_000, len(text)):  # within and beyond what is read
        for tagged in (True, False):
            assert disagreement(text[:length], "72", True, tagged) in DISAGREEMENTS
        assert number_in(text[:length]) is None
    assert set(find_tricks(text, "72")) <= TRICKS.keys()
