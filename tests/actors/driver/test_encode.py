"""Tokens of training problems are those of each problem alone, whoever makes them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import ray
from ray.util.placement_group import placement_group, remove_placement_group

from actors.driver import encode
from actors.driver.encode import make_tokens
from pipeline.config import DataConfig, ModelConfig
from pipeline.curriculum.examples import ExampleTable
from pipeline.data.table import ProblemTable, load_table
from pipeline.data.tokens import ProblemTokens, TokenTable
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
    """A tokenizer alone, in a directory that looks like a model."""
    folder = tmp_path / "model"
    tiny_tokenizer().save_pretrained(folder)
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text("{}")
    return ModelConfig(name=str(folder))


def encoded_alone(tokenizer, problem: Problem) -> ProblemTokens:
    """Prompt and worked solution, one problem at a time."""
    if problem.solution is None:
        return ProblemTokens(prompt_token_ids(tokenizer, problem), ())
    completion = tokenizer.encode(problem.solution, add_special_tokens=False)
    return ProblemTokens(prompt_token_ids(tokenizer, problem), (*completion, tokenizer.eos_token_id))


def check_tokens(problems: ProblemTable, tokens: TokenTable, tokenizer) -> None:
    expected = [encoded_alone(tokenizer, problem) for problem in problems]
    assert [tokens[row] for row in range(len(problems))] == expected
    prompts, completions = tokens.lengths()
    assert prompts.tolist() == [len(each.prompt) for each in expected]
    assert completions.tolist() == [len(each.completion) for each in expected]
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
    expected = encoded_alone(tiny_tokenizer(), solved.problem)
    assert (solved.tokens.prompt, solved.tokens.completion) == expected[:2]
    assert (asked.tokens.prompt, asked.tokens.completion) == (solved.tokens.prompt, ())


def test_tokens_are_made_once_for_a_tokenizer_and_a_template(tmp_path, model, monkeypatch):
    problems = load_table(metamath_like(tmp_path / "a.jsonl", 30), "train", tmp_path)
    first = make_tokens(problems, model, chat=False)
    before = first.path.stat()
    with monkeypatch.context() as patch:
        patch.setattr(encode, "encode_problems", None)
        second = make_tokens(problems[:3], model, chat=False)
    assert (second.path.stat().st_ino, second.path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    made = {first.path, make_tokens(problems, model, chat=True).path}
    for name in ("chat_template.jinja", "tokenizer.json"):
        file = Path(model.name) / name
        file.write_text(file.read_text() + " ")
        made.add(make_tokens(problems, model, chat=False).path)
    assert len(made) == 4 and {path.parent for path in made} == {problems.path.parent}
    other = load_table(metamath_like(tmp_path / "b.jsonl", 31), "train", tmp_path)
    assert make_tokens(other, model, chat=False).path.parent != first.path.parent


def test_partly_written_tokens_are_recreated(tmp_path, model):
    problems = load_table(metamath_like(tmp_path / "a.jsonl", 30), "train", tmp_path)
    path = make_tokens(problems, model, chat=False).path
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    path.with_name(f".{path.name}.partial").write_bytes(whole[:100])
    check_tokens(problems, make_tokens(problems, model, chat=False), tiny_tokenizer())
    assert path.read_bytes() == whole and not list(path.parent.glob("*.partial"))


@pytest.mark.slow
def test_ray_makes_the_same_file(ray_address, tmp_path, model, monkeypatch):
    problems = load_table(metamath_like(tmp_path / "a.jsonl", 5500), "train", tmp_path)
    path = make_tokens(problems, model, chat=False).path
    tokens = TokenTable(path)
    for row in (0, encode.ROWS_PER_TASK - 1, encode.ROWS_PER_TASK, 5499):  # of two tasks
        assert tokens[row] == encoded_alone(tiny_tokenizer(), problems[row])
    by_ray = path.read_bytes()
    path.unlink()
    monkeypatch.setattr(encode, "MIN_ROWS", 10**9)
    make_tokens(problems, model, chat=False)
    assert path.read_bytes() == by_ray


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_job_whose_actors_hold_the_cpus_encodes_in_its_driver(ray_address, tmp_path, model):
    """Ray Data's tasks would wait for a whole CPU until the job ends."""
    problems = load_table(metamath_like(tmp_path / "a.jsonl", 5500), "train", tmp_path)
    held = placement_group([{"CPU": ray.available_resources()["CPU"] - 0.75}])
    try:
        assert held.wait(20)
        tokens = make_tokens(problems, model, chat=False)
    finally:
        remove_placement_group(held)
    assert tokens[5499] == encoded_alone(tiny_tokenizer(), problems[5499])


PEAKS = """
import random, sys
from pathlib import Path
import ray
from actors.driver.encode import make_tokens
from pipeline.config import ModelConfig
from pipeline.curriculum.examples import ExampleTable
from pipeline.data.table import load_table
from tests.support.tables import PeakMemory, metamath_like

folder, model = Path(sys.argv[1]), ModelConfig(name=sys.argv[2])
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
for num_rows in map(int, sys.argv[3:]):
    config = metamath_like(folder / f"{num_rows}.jsonl", num_rows)
    with PeakMemory() as memory:
        problems = load_table(config, "train", folder)
        examples = ExampleTable(problems, make_tokens(problems, model, chat=False), 1024)
        for row in random.Random(0).sample(range(num_rows), 100):
            examples[row]
    print(memory.peak_mib)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path):
    """Peaks of a process and of all that it starts, on a Ray of its own."""
    command = [sys.executable, "-c", PEAKS, str(tmp_path), NAME, "6001", "6000", "20000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    _, small, large = map(float, done.stdout.split())  # the first one warms Ray up
    assert large - small < 70, (small, large)  # 14,000 more rows are 140 MB as Python objects
