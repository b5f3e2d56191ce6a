import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing

from pipeline.config import DataConfig, FieldNames
from pipeline.data.arrow_files import write_batches
from pipeline.data.table import ProblemTable, load_table
from pipeline.data.tokens import TOKENS, encode_problems, new_tokens
from pipeline.models.tokenizer import batch_token_ids, end_of_turn_id, prompt_token_ids
from pipeline.types import Message, Problem
from tests.support.data import write_jsonl
from tests.support.models import tiny_tokenizer


@pytest.mark.parametrize("has_bos", [False, True])
def test_a_learner_sees_the_plain_text_and_the_solution(has_bos):
    tokenizer = tiny_tokenizer()
    if has_bos:
        with_tokens_around(tokenizer, "<|im_start|>")
    problem = Problem("p", ({"role": "user", "content": "1?"},), "1", "It is 1.", prompt_text="Q: 1?\nA: ")
    [tokens] = encode_problems(tokenizer, [problem]).to_pylist()
    assert tokenizer.decode(tokens["prompt"]) == "<|im_start|>" * has_bos + "Q: 1?\nA: "
    assert tokenizer.decode(tokens["completion"]) == "It is 1.<|im_end|>"
    assert prompt_token_ids(tokenizer, problem) == tuple(tokens["prompt"])
    chat = Problem("p", problem.prompt, "1")
    text = tokenizer.decode(prompt_token_ids(tokenizer, chat))
    assert text == "<|im_start|>user\n1?<|im_end|>\n<|im_start|>assistant\n"


def with_tokens_around(tokenizer, before: str = "", after: str = ""):
    """The tokenizer, so that it puts these tokens around every text."""
    around = [name for name in (before, after) if name]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=[part for part in (before, "$A", after) if part],
        special_tokens=[(name, tokenizer.convert_tokens_to_ids(name)) for name in around],
    )
    return tokenizer


@pytest.mark.parametrize("after", ["<|im_end|>", "<|endoftext|>"])
def test_what_the_tokenizer_puts_after_a_text_is_no_part_of_a_prompt(after):
    tokenizer = with_tokens_around(tiny_tokenizer(), "<|im_start|>", after)
    texts = [Problem(text, (), "1", "2", prompt_text=text) for text in ("Q: 1", "", "Q<|im_end|>")]
    decoded = [tokenizer.decode(tokens["prompt"]) for tokens in encode_problems(tokenizer, texts).to_pylist()]
    assert decoded == [f"<|im_start|>{problem.prompt_text}" for problem in texts]
    assert [tokenizer.decode(prompt_token_ids(tokenizer, problem)) for problem in texts] == decoded


TURNS = {
    "chatml": ("<|im_end|>", "<|im_start|>{role}\n{text}<|im_end|>\n", "<|im_end|>"),
    "chatml on a base model": ("<|endoftext|>", "<|im_start|>{role}\n{text}<|im_end|>\n", "<|im_end|>"),
    "gemma": ("<eos>", "<start_of_turn>{role}\n{text}<end_of_turn>\n", "<end_of_turn>"),
    "llama 3": ("<|end_of_text|>", "<|start_header_id|>{role}<|end_header_id|>\n\n{text}<|eot_id|>", "<|eot_id|>"),
    "phi, which also ends the chat": ("<|endoftext|>", "<|{role}|>\n{text}<|end|>\n<|endoftext|>", "<|end|>"),
    "mistral, with a space": ("</s>", "[INST] {text} </s>", "</s>"),
    "glm, which ends no turn": ("<|endoftext|>", "<|{role}|>\n{text}", "<|endoftext|>"),
    "words alone": ("</s>", "### {role}: {text}\n### Next", "</s>"),
}
SPECIAL = ["<|im_start|>", "<|im_end|>", "<end_of_turn>", "<|eot_id|>", "<|end|>", "[INST]"]


@pytest.mark.parametrize(("eos", "template", "end"), TURNS.values(), ids=TURNS)
def test_sft_learns_the_token_that_ends_a_turn_in_the_template(eos, template, end):
    tokenizer = tiny_tokenizer(eos, SPECIAL)
    body = template.replace("{role}", "{{ message['role'] }}").replace("{text}", "{{ message['content'] }}")
    tokenizer.chat_template = "{% for message in messages %}" + body + "{% endfor %}"
    chat: tuple[Message, ...] = ({"role": "user", "content": "1?"},)
    problems = [Problem("c", chat, "1", "It is 1.")]
    [tokens] = encode_problems(tokenizer, problems).to_pylist()
    assert tokenizer.decode(tokens["completion"]) == f"It is 1.{end}" and len(tokens["completion"]) == 9
    [tokens] = encode_problems(tokenizer, [Problem("t", chat, "1", "It is 1.", prompt_text="1?")]).to_pylist()
    assert tokenizer.decode(tokens["completion"]) == f"It is 1.{eos}"  # a plain text is no turn


def test_a_template_that_refuses_our_chat_leaves_the_end_to_eos():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    assert end_of_turn_id(tokenizer) == tokenizer.eos_token_id
    tokenizer.chat_template = None
    assert end_of_turn_id(tokenizer) == tokenizer.eos_token_id


def test_a_batch_of_prompts_is_encoded_like_each_alone():
    tokenizer = tiny_tokenizer()
    chats = [Problem(str(n), ({"role": "user", "content": "x" * n},), "1") for n in range(3)]
    texts = [Problem(str(n), chats[n].prompt, "1", prompt_text="y" * n) for n in range(3)]
    for problems in (chats, texts):
        assert [tuple(ids) for ids in batch_token_ids(tokenizer, problems)] == [
            prompt_token_ids(tokenizer, problem) for problem in problems
        ]


@pytest.fixture
def table(tmp_path) -> ProblemTable:
    rows = [{"question": f"{n}?", "answer": str(n), "steps": None if n % 2 else f"so {n}"} for n in range(4)]
    config = DataConfig(name=write_jsonl(tmp_path / "a.jsonl", *rows), fields=FieldNames(solution="steps"))
    return load_table(config, "train", tmp_path / "cache")


def test_tokens_are_written_once_and_read_by_row(table, tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path / "model")
    with new_tokens(table, tmp_path / "model", chat=True) as (tokens, path):
        assert path is not None
        write_batches(path, TOKENS, [encode_problems(tokenizer, list(table))])
    with new_tokens(table, tmp_path / "model", chat=True) as (second, path):
        assert path is None and second.path == tokens.path
    prompt, completion, learned = tokens[2]
    assert learned is None
    assert prompt == prompt_token_ids(tokenizer, table[2])
    assert tokenizer.decode(completion) == f"{table[2].solution}<|im_end|>"
    assert tokens[1][1] == ()  # no worked solution
    prompt_lengths, completion_lengths = tokens.lengths()
    assert prompt_lengths.dtype == completion_lengths.dtype == np.int32
    assert [(len(tokens[row][0]), len(tokens[row][1])) for row in range(4)] == list(
        zip(prompt_lengths, completion_lengths, strict=True)
    )


def test_another_tokenizer_or_prompt_style_makes_other_tokens(table, tmp_path):
    def path_of(chat: bool):
        with new_tokens(table, tmp_path / "model", chat=chat) as (tokens, _):
            (tokens.path.with_name(f".{tokens.path.name}.partial")).touch()  # the file to rename
            return tokens.path

    tiny_tokenizer().save_pretrained(tmp_path / "model")
    paths = [path_of(chat=True), path_of(chat=False)]
    (tmp_path / "model" / "model.safetensors").touch()
    assert path_of(chat=True) == paths[0]  # weights do not matter
    (tmp_path / "model" / "chat_template.jinja").write_text("{{ messages[0].content }}")
    paths.append(path_of(chat=True))
    assert len(set(paths)) == 3
