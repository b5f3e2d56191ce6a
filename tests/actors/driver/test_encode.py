"""Tokens of training problems: those that the learner used to make, made once."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from actors.driver import encode as tokenize
from actors.driver.encode import make_tokens
from actors.driver.launch import connected_ray
from pipeline.config import DataConfig, ModelConfig
from pipeline.curriculum.examples import ExampleTable
from pipeline.data.table import ProblemTable, load_table
from pipeline.data.tokens import TokenTable
from pipeline.models.embedded import NAME
from pipeline.models.hub import resolve_model
from pipeline.models.tokenizer import load_tokenizer, prompt_token_ids
from pipeline.types import Problem
from tests.conftest import ROOT
from tests.support.models import tiny_tokenizer
from tests.support.tables import metamath_like

MODEL = ModelConfig(name=NAME)


@pytest.fixture
def model(tmp_path) -> ModelConfig:
    """A tokenizer alone, in a directory that passes for a model."""
    folder = tmp_path / "model"
    tiny_tokenizer().save_pretrained(folder)
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text("{}")
    return ModelConfig(name=str(folder))


def encoded_alone(tokenizer, problem: Problem) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Prompt and worked solution, one problem at a time."""
    if problem.solution is None:
        return prompt_token_ids(tokenizer, problem), ()
    completion = tokenizer.encode(problem.solution, add_special_tokens=False)
    return prompt_token_ids(tokenizer, problem), (*completion, tokenizer.eos_token_id)


def check_tokens(problems: ProblemTable, tokens: TokenTable, tokenizer) -> None:
    expected = [encoded_alone(tokenizer, problem) for problem in problems]
    assert [tokens[row] for row in range(len(problems))] == expected
    prompts, completions = tokens.lengths()
    assert prompts.tolist() == [len(prompt) for prompt, _ in expected]
    assert completions.tolist() == [len(completion) for _, completion in expected]
    assert prompts.dtype == completions.dtype == np.int32


@pytest.mark.slow
@pytest.mark.parametrize("template", [None, "Q: {question}\nA: "])
def test_tokens_are_those_of_each_problem_alone(template, tmp_path):
    problems = load_table(DataConfig(prompt_template=template), "train", tmp_path)[:1500]
    tokens = make_tokens(problems, MODEL, chat=template is None)
    check_tokens(problems.whole(), tokens, load_tokenizer(resolve_model(MODEL), MODEL))
    assert {problem.solution is None for problem in problems.whole()} == {True, False}


def test_examples_are_read_by_row(tmp_path, model):
    problems = load_table(metamath_like(tmp_path / "a.jsonl", 30), "train", tmp_path).take([7, 3])
    tokens = make_tokens(problems, model, chat=False)
    solved, asked = (ExampleTable(problems, tokens, max_length)[1] for max_length in (1024, None))
    assert solved.problem == asked.problem == problems.whole()[3]
    assert (solved.tokens.prompt, solved.tokens.completion) == encoded_alone(tiny_tokenizer(), solved.problem)
    assert (asked.tokens.prompt, asked.tokens.completion) == (solved.tokens.prompt, ())


def test_tokens_are_made_once_for_a_tokenizer_and_a_way_to_ask(tmp_path, model, monkeypatch):
    problems = load_table(metamath_like(tmp_path / "a.jsonl", 30), "train", tmp_path)
    first = make_tokens(problems, model, chat=False)
    before = first.path.stat()
    with monkeypatch.context() as patch:
        patch.setattr(tokenize, "encode_problems", None)
        again = make_tokens(problems[:3], model, chat=False)
    assert (again.path.stat().st_ino, again.path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    made = {first.path, make_tokens(problems, model, chat=True).path}
    for name in ("chat_template.jinja", "tokenizer.json"):
        file = Path(model.name) / name
        file.write_text(file.read_text() + " ")
        made.add(make_tokens(problems, model, chat=False).path)
    assert len(made) == 4 and {path.parent for path in made} == {problems.path.parent}
    other = load_table(metamath_like(tmp_path / "b.jsonl", 31), "train", tmp_path)
    assert make_tokens(other, model, chat=False).path.parent != first.path.parent


def test_half_made_tokens_are_made_again(tmp_path, model):
    problems = load_table(metamath_like(tmp_path / "a.jsonl", 30), "train", tmp_path)
    path = make_tokens(problems, model, chat=False).path
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    path.with_name(f".{path.name}.partial").write_bytes(whole[:100])
    check_tokens(problems, make_tokens(problems, model, chat=False), tiny_tokenizer())
    assert path.read_bytes() == whole and not list(path.parent.glob("*.partial"))


@pytest.mark.slow
def test_ray_makes_the_same_file(tmp_path, model, monkeypatch):
    problems = load_table(metamath_like(tmp_path / "a.jsonl", 10_500), "train", tmp_path)
    with connected_ray():
        path = make_tokens(problems, model, chat=False).path
    tokens = TokenTable(path)
    for row in (0, 3999, 4000, 10_499):
        assert tokens[row] == encoded_alone(tiny_tokenizer(), problems[row])
    by_ray = path.read_bytes()
    path.unlink()
    monkeypatch.setattr(tokenize, "MIN_ROWS", 10**9)
    make_tokens(problems, model, chat=False)
    assert path.read_bytes() == by_ray


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_memory_does_not_grow_with_the_rows(tmp_path):
    peaks = [_peak_mib(num_rows) for num_rows in (20_000, 60_000)]
    assert peaks[1] - peaks[0] < 150, peaks  # 40,000 more rows are 400 MB as Python objects


def _peak_mib(num_rows: int) -> float:
    """Of all processes of the benchmark."""
    command = [sys.executable, "-m", "tests.benchmarks.tokenize", "--num-rows", str(num_rows), "--num-examples", "100"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return float(said.rpartition("processes: ")[2].split()[0])
