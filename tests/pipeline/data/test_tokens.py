import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing

from pipeline.config import DataConfig, FieldNames
from pipeline.data.arrow_files import write_batches
from pipeline.data.table import ProblemTable, load_table
from pipeline.data.tokens import TOKENS, encode_problems, new_tokens
from pipeline.models.tokenizer import batch_token_ids, prompt_token_ids
from pipeline.types import Problem
from tests.support.data import write_jsonl
from tests.support.models import tiny_tokenizer


@pytest.mark.parametrize("has_bos", [False, True])
def test_a_learner_sees_the_plain_text_and_the_solution(has_bos):
    tokenizer = tiny_tokenizer()
    if has_bos:
        bos = tokenizer.convert_tokens_to_ids("<|im_start|>")
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<|im_start|> $A", special_tokens=[("<|im_start|>", bos)]
        )
    problem = Problem("p", ({"role": "user", "content": "1?"},), "1", "It is 1.", prompt_text="Q: 1?\nA: ")
    [tokens] = encode_problems(tokenizer, [problem]).to_pylist()
    assert tokenizer.decode(tokens["prompt"]) == "<|im_start|>" * has_bos + "Q: 1?\nA: "
    assert tokenizer.decode(tokens["completion"]) == "It is 1.<|im_end|>"
    assert prompt_token_ids(tokenizer, problem) == tuple(tokens["prompt"])
    chat = Problem("p", problem.prompt, "1")
    text = tokenizer.decode(prompt_token_ids(tokenizer, chat))
    assert text == "<|im_start|>user\n1?<|im_end|>\n<|im_start|>assistant\n"


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
    prompt, completion = tokens[2]
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
