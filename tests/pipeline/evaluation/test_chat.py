"""Chatting with a run, whose directory may be another person's."""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs import chat
from pipeline.errors import CheckpointError, ModelError
from pipeline.evaluation.chat import ChatModel
from pipeline.files import write_jsonl
from pipeline.runs.directory import RunDirectory
from tests.support.evaluations import run_config
from tests.support.memory_files import write_memory_run
from tests.support.memory_questions import KNOWLEDGE
from tests.support.models import save_tiny_model, tiny_tokenizer

CODE = """
from pathlib import Path
from transformers import PreTrainedTokenizerFast
Path({marker!r}).touch()
class Tokenizer(PreTrainedTokenizerFast):
    pass
"""


def finished_run(tmp_path: Path, **settings: Any) -> RunDirectory:
    config = run_config(tmp_path / "run" / "final_model", tmp_path / "runs")
    model = config.model.model_copy(update=settings)
    run = RunDirectory.create_at(tmp_path / "run", config.model_copy(update={"model": model}))
    save_tiny_model(run.final_model)
    return run


def test_code_in_a_run_runs_only_if_the_user_allows_it(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    run, marker = finished_run(tmp_path, trust_remote_code=True), tmp_path / "code_was_run"
    (run.final_model / "code.py").write_text(CODE.format(marker=str(marker)))
    path = run.final_model / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": [None, "code.Tokenizer"]}}
    path.write_text(json.dumps(settings))
    assert isinstance(ChatModel(run.path).answer("1 + 1?", max_new_tokens=2), str)
    assert not marker.exists()
    ChatModel(run.path, trust_remote_code=True)
    assert marker.exists()


def test_attention_code_from_a_hub_needs_permission_too(tmp_path):
    run = finished_run(tmp_path, attn_implementation="somebody/kernels")
    with pytest.raises(ModelError, match=r"attn_implementation .*trust_remote_code, got somebody/kernels"):
        ChatModel(run.path)


def test_an_answer_ends_where_the_template_ends_a_turn(tmp_path, monkeypatch):
    run, seen = finished_run(tmp_path), list[int]()
    tokenizer = tiny_tokenizer(eos="<eos>", special=["<|im_end|>"])
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    tokenizer.save_pretrained(run.final_model)
    model = ChatModel(run.path)
    generate: Any = model._model.generate

    def seeing(**settings: Any) -> Any:
        seen.extend(settings["eos_token_id"])
        return generate(**settings)

    monkeypatch.setattr(model._model, "generate", seeing)
    model.answer("1 + 1?", max_new_tokens=2)
    assert set(tokenizer.convert_tokens_to_ids(["<|im_end|>", "<eos>"])) <= set(seen)


def test_an_unfinished_run_cannot_be_asked(tmp_path):
    run = RunDirectory.create_at(tmp_path / "run", run_config(tmp_path, tmp_path))
    with pytest.raises(CheckpointError, match="must have a final model to chat with"):
        ChatModel(run.path)


@pytest.mark.parametrize("preset", ["routed", "explicitlm"])
def test_a_run_with_a_memory_answers_and_shows_what_it_reads(tmp_path, capsys, preset):
    run = write_memory_run(tmp_path, preset)
    reply = ChatModel(run.path).reply("Where is Bo?", max_new_tokens=3)
    assert reply.entries and {*reply.entries} <= {entry.text for entry in KNOWLEDGE}
    chat.main([str(run.path), "Where is Bo?", "--max-new-tokens", "3", "--show-entries"])
    shown = capsys.readouterr().out
    assert shown.startswith(reply.text)
    assert [line for line in shown.splitlines() if line.startswith("  read: ")] == [
        f"  read: {e}" for e in reply.entries
    ]


def test_a_memory_can_be_sampled_from(tmp_path):
    run = write_memory_run(tmp_path)
    model = ChatModel(run.path)
    assert len({model.answer("Where is Bo?", max_new_tokens=3, temperature=5.0) for _ in range(4)}) > 1


def test_bare_sentences_are_enough(tmp_path):
    run = write_memory_run(tmp_path)
    write_jsonl(tmp_path / "data" / "knowledge.jsonl", [{"text": entry.text} for entry in KNOWLEDGE])
    assert ChatModel(run.path).reply("Where is Bo?", max_new_tokens=2).entries


@pytest.mark.parametrize("count", ["0", "-3", "x"])
def test_an_answer_has_tokens(capsys, count):
    with pytest.raises(SystemExit):
        chat.main(["run", "?", f"--max-new-tokens={count}"])
    assert f"must be a whole number above 0, got {count}" in capsys.readouterr().err
