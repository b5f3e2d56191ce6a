"""Conversations of several turns: how rows are read, and which of their tokens are learned."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import DataConfig, validate_config
from pipeline.config.data import FieldNames
from pipeline.curriculum.examples import sft_sequence
from pipeline.data import load_problems
from pipeline.data.arrow_files import write_batches
from pipeline.data.table import load_table
from pipeline.data.tokens import TOKENS, TokenTable, as_tokens, encode_problems
from pipeline.errors import ConfigError, DataError, ModelError
from pipeline.models.tokenizer import prompt_token_ids
from pipeline.training.batching import TokenSequence
from pipeline.types import Problem
from tests.support.data import write_jsonl, write_parquet
from tests.support.models import tiny_tokenizer

SYSTEM = {"role": "system", "content": "S"}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def config(path: str, **settings: Any) -> DataConfig:
    return DataConfig(name=path, layout="conversations", **settings)


def read(folder: Path, *conversations: Any, **settings: Any) -> list[Problem]:
    path = write_jsonl(folder / "chats.jsonl", *({"conversations": chat} for chat in conversations))
    return load_problems(config(path, **settings), "train")


def shown(tokenizer: Any, sequence: TokenSequence) -> str:
    """The text, with [what is learned] in brackets."""
    text = tokenizer.decode(sequence.prompt)
    was_learned = False
    for token, learned in zip(sequence.completion, sequence.learned_mask.tolist(), strict=True):
        text += "[" * (learned and not was_learned) + "]" * (was_learned and not learned) + tokenizer.decode([token])
        was_learned = learned
    return text + "]" * was_learned


def sequence_of(problem: Problem, tokenizer: Any = None) -> TokenSequence:
    [tokens] = encode_problems(tokenizer or tiny_tokenizer(), [problem]).to_pylist()
    return sft_sequence(as_tokens(tokens))


def test_every_turn_of_the_assistant_is_learned_with_its_end_and_nothing_else(tmp_path):
    [problem] = read(tmp_path, [SYSTEM, user("a"), said("bc"), user("d"), said("assistant"), user("e"), said(" f ")])
    assert shown(tiny_tokenizer(), sequence_of(problem)) == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
        "[bc<|im_end|>]\n<|im_start|>user\nd<|im_end|>\n<|im_start|>assistant\n"
        "[assistant<|im_end|>]\n<|im_start|>user\ne<|im_end|>\n<|im_start|>assistant\n"
        "[ f <|im_end|>]"
    )


def test_the_mask_is_right_token_by_token(tmp_path):
    tokenizer = tiny_tokenizer()
    sequence = sequence_of(read(tmp_path, [user("a"), said("bc"), user("d"), said("e")])[0], tokenizer)
    header = len("\n") + 1 + len("user\nd") + 1 + len("\n") + 1 + len("assistant\n")  # with three special tokens
    assert sequence.learned == (*[True] * 3, *[False] * header, *[True] * 2)
    assert sequence.num_learned == 5 and len(sequence.learned) == len(sequence.completion)
    assert [tokenizer.decode([token]) for token in sequence.completion[:3]] == ["b", "c", "<|im_end|>"]


def test_the_tokens_are_those_of_the_template_over_the_whole_conversation(tmp_path):
    chat = [SYSTEM, user("a"), said("bc"), user("d"), said("e f")]
    tokenizer = tiny_tokenizer()
    sequence = sequence_of(read(tmp_path, chat)[0], tokenizer)
    whole = tokenizer.apply_chat_template(chat, return_dict=False)
    assert [*sequence.prompt, *sequence.completion] == whole[:-1]  # the last is the new line after the last turn


def test_one_turn_has_the_tokens_of_any_other_solution(tmp_path):
    [problem] = read(tmp_path, [user("a"), said("b")])
    assert sequence_of(problem) == sequence_of(Problem("p", (user("a"),), "b", "b"))  # type: ignore[arg-type]
    assert sequence_of(problem).learned is None


def test_only_conversations_learn_earlier_turns(tmp_path):
    """A question of several messages with a solution learns the solution alone, as before."""
    row = {"question": [user("a"), said("b"), user("c")], "answer": "1", "steps": "d"}
    name = write_jsonl(tmp_path / "a.jsonl", row)
    [problem] = load_problems(DataConfig(name=name, fields=FieldNames(solution="steps")), "train")
    assert sequence_of(problem).learned is None and not problem.learns_all_turns


def test_the_last_turn_is_the_gold_answer_to_what_was_said_before(tmp_path):
    first, second = read(tmp_path, [user("a"), said("b"), user("c"), said(" d\n")], [user("a"), said("b")])
    assert [message["content"] for message in first.prompt] == ["a", "b", "c"]
    assert (first.gold, first.solution, first.question, second.gold) == ("d", " d\n", "c", "b")
    tokens = as_tokens(encode_problems(tiny_tokenizer(), [first]).to_pylist()[0])
    assert tokens.prompt == prompt_token_ids(tiny_tokenizer(), first)  # GRPO's prompt
    [hash] = read(tmp_path, [user("a"), said("2 + 3 = 5\n#### 5")], answer_format="hash")
    assert hash.gold == "5" and hash.solution == "2 + 3 = 5\n#### 5"


def test_sharegpt_keys_and_parquet_are_read_alike(tmp_path):
    chat = [("system", "S"), ("human", "a"), ("gpt", "b"), ("human", "c"), ("gpt", "d")]
    messages = [{"from": who, "value": text} for who, text in chat]
    [sharegpt] = read(tmp_path, messages)
    [plain] = read(tmp_path, [SYSTEM, user("a"), said("b"), user("c"), said("d")])
    name = write_parquet(tmp_path / "a.parquet", {"conversations": [messages]})
    [parquet] = load_problems(config(name), "train")
    assert sharegpt.prompt == plain.prompt == parquet.prompt
    assert sharegpt.solution == plain.solution == parquet.solution == "d"


def test_another_field_may_hold_the_conversation_and_columns_are_kept(tmp_path):
    name = write_jsonl(tmp_path / "a.jsonl", {"messages": [user("a"), said("b")], "kind": "x", "key": "7"})
    fields = FieldNames(question="messages", answer="messages", type="kind", id="key")
    [problem] = load_problems(config(name, fields=fields), "train")
    assert (problem.type, problem.id) == ("x", "7")


MALFORMED = {
    "no list": ("a", "must be a list of messages, got str"),
    "null": (None, "must be a list of messages, got none"),
    "empty": ([], "must be a list of messages, got an empty list"),
    "text in the list": (["a"], "each message of conversations must have a role"),
    "no assistant": ([user("a")], "must have a turn of the assistant to learn, got user"),
    "system alone": ([SYSTEM], "must have a turn of the assistant to learn, got system"),
    "user last": ([user("a"), said("b"), user("c")], "user and assistant in turn, the assistant last"),
    "assistant first": ([said("a"), user("b"), said("c")], "user and assistant in turn"),
    "user twice": ([user("a"), user("b"), said("c")], "got user, user, assistant"),
    "system later": ([user("a"), SYSTEM, said("b")], "at most one system message, got user, system, assistant"),
    "two systems": ([SYSTEM, SYSTEM, user("a"), said("b")], "got system, system, user, assistant"),
    "unknown role": ([{"role": "tool", "content": "a"}, said("b")], "role (system, user, assistant)"),
    "unknown speaker": ([{"from": "bing", "value": "a"}, said("b")], "role (system, user, assistant)"),
    "no value": ([{"from": "human"}, said("b")], "each message of conversations must have a role"),
    "role of another type": ([{"role": 1, "content": "a"}, said("b")], "each message of conversations must"),
    "content of parts": ([{"role": "user", "content": [{"text": "a"}]}, said("b")], "a text as content"),
    "further key": ([{**user("a"), "name": "x"}, said("b")], "and nothing else"),
    "both kinds of keys": ([{**user("a"), "from": "gpt", "value": "x"}, said("b")], "and nothing else"),
    "empty answer": ([user("a"), said(" \n")], "message 2 of conversations must have a text, got an empty one"),
    "empty question": ([user(""), said("b")], "message 1 of conversations must have a text"),
    "surrogate": ([user("a\ud800"), said("b")], "must be UTF-8, got the half character U+D800"),
}


@pytest.mark.parametrize(("chat", "message"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_conversation_is_named_by_file_and_row(tmp_path, chat, message):
    with pytest.raises(DataError) as error:
        read(tmp_path, [user("a"), said("b")], chat)
    assert str(error.value).startswith("chats.jsonl line 2: ") and message in str(error.value)


def test_without_the_layout_such_rows_say_which_setting_reads_them(tmp_path):
    name = write_jsonl(tmp_path / "a.jsonl", {"question": [user("a"), said("b")], "answer": "b"})
    with pytest.raises(DataError, match=r"must be the user's, got assistant: .* set data\.layout=conversations"):
        load_problems(DataConfig(name=name), "train")


@pytest.mark.parametrize("setting", [{"prompt_template": "gsm8k"}, {"write": {}}, {"fields": {"solution": "x"}}])
def test_settings_that_conversations_do_not_have_are_errors(setting):
    with pytest.raises(ConfigError, match="must be null with layout=conversations"):
        validate_config({"data": {"layout": "conversations", **setting}, "stages": [{"name": "s", "kind": "sft"}]})


TEMPLATES = {
    "trims": ("{{ m['content'] | trim }}", " b ", "b"),
    "adds a thought": ("{{ '<think></think>' if m.role == 'assistant' else '' }}{{ m['content'] }}", "b", "b"),
}


@pytest.mark.parametrize(("content", "turn", "learned"), TEMPLATES.values(), ids=TEMPLATES)
def test_what_the_template_changes_or_adds_is_not_learned(content, turn, learned):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n" + content + "<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    problem = Problem("p", (user("a"), said(turn), user("c")), "d", "d", learns_all_turns=True)  # type: ignore[arg-type]
    text = shown(tokenizer, sequence_of(problem, tokenizer))
    assert f"[{learned}<|im_end|>]" in text and text.count("[") == 2


def test_a_template_that_drops_earlier_turns_is_an_error():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ messages[-1]['content'] }}{% if add_generation_prompt %}:{% endif %}"
    problem = Problem("p", (user("a"), said("b"), user("c")), "d", "d", learns_all_turns=True)  # type: ignore[arg-type]
    with pytest.raises(
        ModelError, match=r"keeps earlier turns of the assistant as they were, got one that changes 'b'"
    ):
        encode_problems(tokenizer, [problem])


def test_tables_keep_the_turns_and_know_where_learning_begins(tmp_path):
    chats = [[user("a"), said("b"), user("c"), said("d")], [user("e"), said("f")]]
    name = write_jsonl(tmp_path / "a.jsonl", *({"conversations": chat} for chat in chats))
    table = load_table(config(name), "train", tmp_path / "cache")
    assert [problem.learns_all_turns for problem in table] == [True, False]
    encoded = encode_problems(tiny_tokenizer(), list(table))
    write_batches(tmp_path / "tokens.arrow", TOKENS, [encoded])
    tokens = TokenTable(tmp_path / "tokens.arrow")
    assert [tokens[row] for row in range(2)] == [as_tokens(row) for row in encoded.to_pylist()]
    first, second = (sft_sequence(tokens[row]) for row in range(2))
    assert tokens.context_lengths().tolist() == [len(first.prompt), len(second.prompt)]
    assert tokens.lengths()[0].tolist() == [len(tokens[row].prompt) for row in range(2)]


def test_other_layouts_keep_their_digests(tmp_path):
    """Stage keys of old searches hold them."""
    row = {"prompt": "1?", "reward_model": {"ground_truth": "1"}}
    name = write_jsonl(tmp_path / "a.jsonl", row)
    names = {"question": "prompt", "answer": "reward_model.ground_truth"}
    tables = [DataConfig(name=name, layout="verl"), DataConfig(name=name, fields=FieldNames(**names))]
    assert len({load_table(each, "train", tmp_path / "cache").table_digest for each in tables}) == 1
    assert json.loads(Path(name).read_text()) == row
