"""Prompts of evaluations."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config
from pipeline.config.evaluation import EvaluationConfig, PromptConfig
from pipeline.errors import ConfigError
from pipeline.evaluation.datasets import load_data_set
from pipeline.evaluation.problems import EvalProblem
from pipeline.evaluation.prompts import make_prompter
from tests.support.data import write_jsonl
from tests.support.evaluations import evaluation_config
from tests.support.models import tiny_tokenizer


def _loaded(sums: Path, **settings: Any) -> tuple[Any, EvaluationConfig]:
    chosen = evaluation_config(str(sums), **settings)
    return load_data_set(str(sums), chosen), chosen


def test_a_plain_prompt_is_the_registered_text(sums):
    loaded, settings = _loaded(sums)
    prompter = make_prompter(loaded, settings, None)
    text = prompter.text(tiny_tokenizer(), loaded.problems[0])
    assert text.startswith("Solve the problem step by step, then put the final answer in \\boxed{}.")
    assert text.endswith("### Question:\n0 + 1?\n\n### Answer:\n")
    assert prompter.stop == ("\n### Question:",)


def test_a_chat_has_the_system_prompt_and_no_stop_text(sums):
    loaded, settings = _loaded(sums, prompt={"style": "chat", "system_prompt": "Be short."})
    prompter = make_prompter(loaded, settings, None)
    text = prompter.text(tiny_tokenizer(), loaded.problems[0])
    assert (
        text == "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\n0 + 1?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert prompter.stop == ()


def test_solved_examples_stand_before_the_question(sums):
    data = {"eval_split": "train", "answer_format": "hash"}
    settings = evaluation_config(str(sums), prompt={"num_shots": 2, "template": "Q: {question}\nA: "}, data=data)
    loaded = load_data_set(str(sums), settings)
    assert [problem.question for problem in loaded.problems] == ["2 + 2?", "3 + 2?"]  # what is shown is not asked
    text = make_prompter(loaded, settings, None).text(tiny_tokenizer(), EvalProblem("x", "5 + 5?", "10"))
    assert text == "Q: 0 + 2?\nA: so 2\n#### 2\n\nQ: 1 + 2?\nA: so 3\n#### 3\n\nQ: 5 + 5?\nA: "
    chat = settings.model_copy(update={"prompt": PromptConfig(style="chat", num_shots=2, system_prompt="")})
    text = make_prompter(loaded, chat, None).text(tiny_tokenizer(), loaded.problems[0])
    shot = "<reasoning>\nso 2\n</reasoning>\n<answer>\n2\n</answer>"
    assert text.startswith(f"<|im_start|>user\n0 + 2?<|im_end|>\n<|im_start|>assistant\n{shot}<|im_end|>")
    assert text.count("<|im_start|>") == 6


def test_a_bare_answer_is_shown_in_a_box(sums):
    data = {"eval_split": "test", "train_split": "test"}
    settings = evaluation_config(str(sums), prompt={"num_shots": 1, "template": "Q: {question}\nA: "}, data=data)
    loaded = load_data_set(str(sums), settings)
    text = make_prompter(loaded, settings, None).text(tiny_tokenizer(), loaded.problems[0])
    assert text == "Q: 0 + 1?\nA: \\boxed{1}\n\nQ: 1 + 1?\nA: "


def test_a_run_is_evaluated_with_the_prompts_of_its_training(sums):
    loaded, settings = _loaded(sums)
    stage = {"name": "a", "kind": "sft"}
    run = Config.model_validate(
        {
            "stages": [stage],
            "data": {
                "name": "some/data",
                "prompt_template": "Say {query}: {response}",
                "fields": {"question": "query"},
            },
        }
    )
    prompter = make_prompter(loaded, settings, run)
    assert prompter.text(tiny_tokenizer(), loaded.problems[0]) == "Say 0 + 1?: "
    chat = Config.model_validate({"stages": [stage], "data": {"system_prompt": "Tags!"}})
    assert "Tags!" in make_prompter(loaded, settings, chat).text(tiny_tokenizer(), loaded.problems[0])
    plain = settings.model_copy(update={"prompt": settings.prompt.model_copy(update={"style": "plain"})})
    assert "### Question:" in make_prompter(loaded, plain, chat).text(tiny_tokenizer(), loaded.problems[0])
    two = run.model_copy(update={"data": run.data.model_copy(update={"prompt_template": "{query} {hint} {response}"})})
    with pytest.raises(ConfigError, match=r"prompt.style must be plain or chat for this run.*hint"):
        make_prompter(loaded, settings, two)


TURNS = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "1 + 1?"},
    {"role": "assistant", "content": "2"},
    {"role": "user", "content": "And 2 + 2?"},
]


def _conversations(tmp_path: Path, *rows: list[dict[str, str]], **settings: Any) -> tuple[Any, EvaluationConfig]:
    name = write_jsonl(tmp_path / f"chats_{len(rows[-1])}.jsonl", *({"prompt": turns, "answer": "4"} for turns in rows))
    chosen = evaluation_config(
        name,
        data={"fields": {"question": "prompt"}, "train_split": "train[:1]", "eval_split": "train[-1:]"},
        **settings,
    )
    return load_data_set(name, chosen), chosen


def test_a_question_of_several_messages_is_asked_as_it_is(tmp_path):
    loaded, settings = _conversations(tmp_path, TURNS, prompt={"style": "chat"})
    text = make_prompter(loaded, settings, None).text(tiny_tokenizer(), loaded.problems[0])
    parts = [f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in TURNS]
    assert text == "".join(parts) + "<|im_start|>assistant\n"


def test_solved_conversations_stand_between_the_system_message_and_the_question(tmp_path):
    shot = [TURNS[0], {"role": "user", "content": "2 * 2?"}]
    loaded, settings = _conversations(tmp_path, shot, TURNS, prompt={"style": "chat", "num_shots": 1})
    prompter = make_prompter(loaded, settings, None)
    text = prompter.text(tiny_tokenizer(), loaded.problems[0])
    roles = [part.partition("\n")[0] for part in text.split("<|im_start|>")[1:]]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user", "assistant"]
    assert "2 * 2?" in text.split("<|im_start|>")[2]


def test_a_plain_prompt_holds_a_single_message(tmp_path):
    loaded, settings = _conversations(tmp_path, TURNS[1:2])
    text = make_prompter(loaded, settings, None).text(tiny_tokenizer(), loaded.problems[0])
    assert text.endswith("### Question:\n1 + 1?\n\n### Answer:\n")
    loaded, settings = _conversations(tmp_path, TURNS)
    with pytest.raises(ConfigError, match=r"of 4 messages must be asked as a chat.*prompt\.style=chat"):
        make_prompter(loaded, settings, None)
