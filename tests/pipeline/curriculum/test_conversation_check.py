import pytest

from pipeline.config import ModelConfig
from pipeline.curriculum.conversation_check import check_conversations, quantiles
from pipeline.errors import DataError
from tests.support.data import write_jsonl
from tests.support.models import tiny_tokenizer


@pytest.fixture
def model(tmp_path) -> ModelConfig:
    folder = tmp_path / "model"
    tiny_tokenizer().save_pretrained(folder)
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text("{}")
    return ModelConfig(name=str(folder))


def chat(*texts: str) -> dict[str, object]:
    roles = ["user", "assistant"] * len(texts)
    return {"conversations": [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]}


def test_examples_show_what_is_learned_and_lengths_are_counted(tmp_path, model):
    path = tmp_path / "a.jsonl"
    write_jsonl(path, chat("a", "b", "c", "de"), chat("a", "b"))
    checked = check_conversations(path, model, 1024, 1)
    header = "\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"
    start = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
    assert checked.examples == [[(start, False), ("b<|im_end|>", True), (header, False), ("de<|im_end|>", True)]]
    assert checked.num_learned == [2 + 3, 2] and not checked.faults
    assert checked.num_tokens == [
        len(start) - 2 * 11 - 9 + 2 + len(header) - 2 * 11 - 9 + 3,
        len(start) - 2 * 11 - 9 + 2,
    ]


def test_rows_that_would_not_train_are_named_and_counted(tmp_path, model):
    path = tmp_path / "a.jsonl"
    write_jsonl(path, chat("a"), chat("a", "b"), chat("a", " "), chat("x" * 100, "b"), chat("a", "b" * 100))
    checked = check_conversations(path, model, 64, 0)
    assert checked.faults == {"malformed": 2, "too long": 2}
    assert [message.split(":")[0] for message in checked.messages] == [
        "a.jsonl line 1", "a.jsonl line 3", "a.jsonl line 4", "a.jsonl line 5"
    ]  # fmt: skip
    assert "121 tokens are too long for 64" in checked.messages[-1]


def test_a_line_that_is_no_row_ends_the_check(tmp_path, model):
    path = tmp_path / "a.jsonl"
    path.write_text('{"conversations"\n')
    with pytest.raises(DataError, match=r"a\.jsonl line 1 must be a JSON object"):
        check_conversations(path, model, 64, 0)


def test_quantiles_are_numbers_that_occur():
    assert quantiles([5, 1, 2, 9]) == {"min": 1, "median": 2, "p95": 9, "max": 9}
    assert quantiles([7]) == {"min": 7, "median": 7, "p95": 7, "max": 7}
