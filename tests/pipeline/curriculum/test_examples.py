import pyarrow as pa
import pytest

from pipeline.config import DataConfig, validate_config
from pipeline.curriculum.examples import StageExamples, stage_examples
from pipeline.curriculum.stages import stage_specs
from pipeline.data.arrow_files import write_batches
from pipeline.data.table import ProblemTable, load_table
from pipeline.data.tokens import TOKENS, TokenTable
from pipeline.errors import DataError
from pipeline.training.batching import TokenSequence
from tests.support.data import write_jsonl

LENGTHS = [(3, 4), (3, 9), (10, 2), (11, 5), (2, 0)]
"""Tokens of prompt and completion of problems a to e. The last has no worked solution."""


@pytest.fixture
def data(tmp_path) -> tuple[ProblemTable, TokenTable]:
    rows = [{"question": name, "answer": "1"} for name in "abcde"]
    write_jsonl(tmp_path / "train.jsonl", *rows)
    problems = load_table(DataConfig(name=str(tmp_path)), "train", tmp_path / "cache")
    columns = [[list(range(lengths[part])) for lengths in LENGTHS] for part in (0, 1)]
    arrays = [pa.array(column, type) for column, type in zip((*columns, [None] * 5), TOKENS.types, strict=True)]
    batch = pa.record_batch(arrays, schema=TOKENS)
    write_batches(tmp_path / "tokens.arrow", TOKENS, [batch])
    return problems, TokenTable(tmp_path / "tokens.arrow")


def examples_of(data: tuple[ProblemTable, TokenTable], kind: str = "sft", **settings) -> StageExamples:
    problems, tokens = data
    stage = {"name": "s", "kind": kind, "settings": settings}
    (spec,) = stage_specs(validate_config({"stages": [stage]}), [])
    return stage_examples(spec, problems, problems[:0], tokens, max_prompt_length=10, seed=0)


def questions(examples: StageExamples) -> list[str]:
    """Questions of the stage's own examples, in data set order."""
    new = examples.mixture.new
    return [new[index].problem.question for index in range(len(new))]


def test_examples_that_are_too_long_are_left_out_and_counted(data):
    examples = examples_of(data, max_length=11)
    assert questions(examples) == ["a"]
    assert examples.counts == {
        "max_length": 11,
        "num_problems": 5,
        "num_dropped": 4,
        "num_truncated": 0,
        "num_tokens": 7,
        "num_tokens_left_out": 12 + 12 + 16 + 2,
    }


def test_examples_that_are_too_long_are_cut_off_and_counted(data):
    examples = examples_of(data, max_length=11, too_long="truncate")
    assert questions(examples) == ["a", "b", "c"]  # d's prompt fills all 11
    assert examples.mixture.new[1].tokens == TokenSequence((0, 1, 2), tuple(range(8)))
    assert examples.mixture.new[2].tokens == TokenSequence(tuple(range(10)), (0,))
    assert examples.counts["num_truncated"] == 2
    assert examples.counts["num_tokens"] == 7 + 11 + 11
    assert examples.counts["num_tokens_left_out"] == 1 + 1 + 16 + 2


def test_grpo_takes_prompts_that_fit(data):
    examples = examples_of(data, "grpo", batch_size=4)
    assert questions(examples) == ["a", "b", "c", "e"]
    assert examples.mixture.new[0].tokens == TokenSequence((0, 1, 2), ())


def test_if_all_examples_are_too_long_the_error_says_what_to_do(data):
    with pytest.raises(DataError, match=r"stage s must have problems of at most 8 tokens, got none: raise sft\.max_le"):
        examples_of((data[0].take([1, 2, 3]), data[1]), max_length=8)


def test_a_conversation_is_cut_off_in_any_turn_and_left_out_if_no_turn_begins(tmp_path):
    """Prompts of 8 tokens, of which the fourth and the fifth are a turn, and completions of 3."""
    rows = [{"question": name, "answer": "1"} for name in "ab"]
    write_jsonl(tmp_path / "train.jsonl", *rows)
    problems = load_table(DataConfig(name=str(tmp_path)), "train", tmp_path / "cache")
    turns = [False, False, False, True, True, False, False, False]
    columns = ([list(range(8))] * 2, [[8, 9, 10]] * 2, [turns, None])
    batch = pa.record_batch([pa.array(c, t) for c, t in zip(columns, TOKENS.types, strict=True)], schema=TOKENS)
    write_batches(tmp_path / "tokens.arrow", TOKENS, [batch])
    data = problems, TokenTable(tmp_path / "tokens.arrow")
    whole = examples_of(data, max_length=11).mixture.new[0].tokens
    assert whole == TokenSequence((0, 1, 2), tuple(range(3, 11)), (*turns[3:], True, True, True))
    cut = examples_of(data, max_length=8, too_long="truncate")
    assert questions(cut) == ["a"] and cut.counts["num_truncated"] == 1
    assert cut.mixture.new[0].tokens == TokenSequence((0, 1, 2), (3, 4, 5, 6, 7), tuple(turns[3:]))
    assert examples_of(data, "grpo").mixture.new[0].tokens == TokenSequence(tuple(range(8)), ())
