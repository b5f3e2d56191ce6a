from typing import Any

import pytest

from pipeline.data.omcq.records import KnowledgeEntry
from pipeline.data.rows import Place, Row
from pipeline.errors import DataError
from pipeline.models.memory.entries import as_entry
from pipeline.training.memory.examples import Counterfactuals, Target, in_groups, read_targets
from pipeline.types import Problem
from tests.support.models import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
ENTRY = KnowledgeEntry(0, "The capital of Peru is Lima.", "Peru", "P36", "Lima", "The capital of [X] is [Y].")
TARGET = Target((0,), (1.0,), ("Oslo", "Lima", "Rome"), 1)
PROBLEM = Problem("peru", ({"role": "user", "content": "?"},), "Lima", solution="It is Lima.")
COMPLETION = (1, 2, 3)


def encoded(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER(text, add_special_tokens=False)["input_ids"])


def rewriting(frac: float, length: int = 100, seed: int = 0) -> Counterfactuals:
    return Counterfactuals([ENTRY], TOKENIZER, frac, length, seed)


# Counterfactual examples -------------------------------------------------------------------------


def test_another_option_is_written_into_the_entry_and_becomes_the_answer():
    options = set()
    for step in range(20):
        example = rewriting(1.0).make(PROBLEM, TARGET, COMPLETION, step)
        (option,) = [name for name in ("Oslo", "Rome") if example.completion == (*encoded(f"It is {name}."), 256)]
        assert example.entry_tokens == encoded(as_entry(f"The capital of Peru is {option}."))
        assert (example.entry, example.is_counterfactual) == (0, True)
        options.add(option)
    assert options == {"Oslo", "Rome"}
    assert TOKENIZER.convert_ids_to_tokens([256]) == ["<|im_end|>"]


def test_an_example_that_is_not_rewritten_has_its_own_entry_and_answer():
    example = rewriting(0.0).make(PROBLEM, TARGET, COMPLETION, 0)
    assert (example.completion, example.is_counterfactual) == (COMPLETION, False)
    assert example.entry_tokens == encoded(as_entry(ENTRY.text))


def test_an_entry_is_cut_to_its_length():
    assert rewriting(0.0, length=5).make(PROBLEM, TARGET, COMPLETION, 0).entry_tokens == encoded(" The ")


def test_a_rewriting_follows_from_seed_step_and_example_alone():
    examples = [rewriting(0.5).make(PROBLEM, TARGET, COMPLETION, step) for step in range(50)]
    backwards = [rewriting(0.5).make(PROBLEM, TARGET, COMPLETION, step) for step in reversed(range(50))]
    assert examples == backwards[::-1]
    other_seed = [rewriting(0.5, seed=1).make(PROBLEM, TARGET, COMPLETION, step) for step in range(50)]
    other = Problem("other", PROBLEM.prompt, "Lima", solution=PROBLEM.solution)
    other_example = [rewriting(0.5).make(other, TARGET, COMPLETION, step) for step in range(50)]
    assert examples != other_seed and examples != other_example


def test_the_share_of_rewritten_examples():
    made = [rewriting(2 / 3).make(PROBLEM, TARGET, COMPLETION, step) for step in range(1500)]
    assert sum(example.is_counterfactual for example in made) / 1500 == pytest.approx(2 / 3, abs=0.04)


@pytest.mark.parametrize(
    ("target", "solution"),
    [
        (Target((0,), (1.0,)), "It is Lima."),  # no options
        (Target((0,), (1.0,), ("Lima",), 0), "It is Lima."),  # no other option
        (TARGET, "B"),  # its answer would stay as it is while its entry says something else
    ],
)
def test_what_cannot_be_rewritten_is_left_alone(target, solution):
    problem = Problem("peru", PROBLEM.prompt, "Lima", solution=solution)
    made = [rewriting(1.0).make(problem, target, COMPLETION, step) for step in range(5)]
    assert {example.is_counterfactual for example in made} == {False}


# Targets -----------------------------------------------------------------------------------------


def targets_of(**values: Any) -> Target:
    row = Row({"id": "a", **values}, Place("train.jsonl", "line", 1))
    return read_targets([row], "id", num_entries=10)["a"]


def test_a_row_names_one_entry_or_several_with_scores():
    assert targets_of(entry_id=3) == Target((3,), (1.0,))
    assert targets_of(entry_ids=[3, 0], entry_scores=[2, 0.5]) == Target((3, 0), (2.0, 0.5))
    assert targets_of(entry_ids=[3, 0]) == Target((3, 0), (1.0, 1.0))
    assert targets_of(entry_id=9, options=["x", "y"], answer_index=1) == Target((9,), (1.0,), ("x", "y"), 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, r"entry_id must be the line of an entry of memory.knowledge, from 0 on, got \[None\]"),
        ({"entry_id": 10}, r"entry_id must be the line of an entry .* got \[10\]"),
        ({"entry_id": -1}, r"entry_id must be the line of an entry .* got \[-1\]"),
        ({"entry_id": "one"}, "entry_id must be a whole number, got 'one'"),
        ({"entry_ids": [1, "2"]}, r"entry_id must be the line of an entry .* got \[1, '2'\]"),
        ({"entry_ids": [True]}, r"entry_id must be the line of an entry .* got \[True\]"),
        ({"entry_ids": [1, 2], "entry_scores": [1.0]}, r"entry_scores must be a positive number for each .* \[1.0\]"),
        ({"entry_ids": [1], "entry_scores": [0]}, r"entry_scores must be a positive number for each .* \[0\]"),
        ({"entry_ids": [1], "entry_scores": [float("nan")]}, "entry_scores must be a positive number for each"),
        ({"entry_ids": [1], "entry_scores": [float("inf")]}, "entry_scores must be a positive number for each"),
        ({"entry_ids": [1], "entry_scores": ["1"]}, "entry_scores must be a positive number for each"),
        ({"entry_id": 1, "options": ["a", "b"]}, "answer_index must be a whole number, got ''"),
        (
            {"entry_id": 1, "options": ["a", "b"], "answer_index": 2},
            "answer_index must be the index of one of 2 options, got 2",
        ),
        (
            {"entry_id": 1, "options": ["a", "b"], "answer_index": -1},
            "answer_index must be the index of one of 2 options, got -1",
        ),
    ],
)
def test_a_row_that_names_no_entry_is_refused(values, message):
    with pytest.raises(DataError, match=f"example a: {message}"):
        targets_of(**values)


# Groups ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([3, 9, 4, 8], [[1], [3], [2, 0]]),  # 9 x 2 and 8 + 4 padded are more than 10
        ([5, 5, 5], [[0, 1], [2]]),
        ([20, 1], [[0], [1]]),
        ([], []),
    ],
)
def test_groups_hold_at_most_so_many_tokens_with_their_padding(lengths, expected):
    assert list(in_groups(lengths, 10)) == expected
