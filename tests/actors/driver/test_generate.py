"""Whole generations by jobs/generate_problems.py. Engines are functions that write stories; one test has real ones."""

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from random import Random
from typing import Any

import pytest

from actors.driver import engine_solver, generate
from jobs import generate_problems
from pipeline.config import Config, QuestionsConfig, validate_config
from pipeline.config.generation import GenerationConfig
from pipeline.config.questions import SolverConfig
from pipeline.data.stories import write_story
from pipeline.data.writing import written_text
from pipeline.evaluation.registry import DATA_SETS
from pipeline.runs.directory import RunDirectory
from pipeline.runs.records import read_jsonl
from pipeline.types import Completion
from tests.support.cluster import free_cpus, joining, wait_until_free
from tests.support.data import write_jsonl
from tests.support.jobs import only_run, start, wait_until
from tests.support.models import save_tiny_model, tiny_tokenizer

TEST_SETS = ("embedded:arithmetic", "math500", "combibench")
ARGUMENTS = (
    *("num_problems=12", "topics=[baking]", "rollout.num_samples=2", "rollout.prompts_per_chunk=3"),
    *("rollout.max_prompt_length=600", "rollout.max_completion_length=300", "loading.dtype=float32"),
    "allow_missing=[math500]",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run that was trained to write stories, with a tiny model of random weights."""
    directory = tmp_path_factory.mktemp("runs") / "exp_1"
    settings: dict[str, Any] = {
        "model": {"dtype": "float32", "device": "cpu"},
        "data": {
            **{"name": "embedded:stories", "arithmetic": {"train_per_level": 100, "eval_per_level": 5}},
            "write": {"system_prompt": "", "levels": {level: f"in {level} steps" for level in "123"}},
        },
        "questions": {"must_compute": True},
        "reward": {"functions": [{"name": name, "gate": name != "diverse"} for name in ("checked", "diverse")]},
        "stages": [{"name": "sft", "kind": "sft"}],
    }
    created = RunDirectory.create_at(directory, Config.model_validate(settings))
    save_tiny_model(created.final_model)
    return directory


@pytest.fixture(autouse=True)
def few_test_sets(monkeypatch):
    monkeypatch.setattr("pipeline.questions.contamination.DATA_SETS", {name: DATA_SETS[name] for name in TEST_SETS})


def story(prompt: str, seed: int) -> str:
    """A problem as it was asked for, but one of three without its answer."""
    level = re.findall(r"in (\d) steps", prompt)[-1]
    found = write_story(Random(seed), level, "baking")
    text = written_text(found.statement, found.solution, str(found.answer))
    return text.partition("<answer>")[0] if seed % 3 == 0 else text


class Engines:
    """Stands for ``started_engines``.

    Args:
        write: from the prompt and the seed to the text of a completion.
        num_chunks: after which the engines fail.
    """

    def __init__(self, write: Callable[[str, int], str], num_chunks: int = 999) -> None:
        self._write, self._left = write, num_chunks
        self.num_answered = 0

    @contextmanager
    def started(self, *_: Any) -> Iterator[Any]:
        yield self._answers

    def _answers(self, chunks: Any, decodings: Any) -> Iterator[Any]:
        tokenizer = tiny_tokenizer()
        for requests, _ in zip(chunks, decodings, strict=True):
            if self._left == 0:
                raise KeyboardInterrupt
            self._left, self.num_answered = self._left - 1, self.num_answered + 1
            prompts = [tokenizer.decode(request.prompt_token_ids) for request in requests]
            yield (
                [
                    tuple(Completion.of((1,), (-0.5,), self._write(prompt, seed), "stop") for seed in request.seeds)
                    for prompt, request in zip(prompts, requests, strict=True)
                ],
                0.1,
            )


@pytest.fixture
def generated(run, monkeypatch, tmp_path) -> Callable[..., Path]:
    """Runs a generation, by default under the test's directory. Returns its directory."""
    monkeypatch.setattr(generate, "connected_ray", nullcontext)
    monkeypatch.setattr(generate, "wait_for_room", lambda actors, limit_s: None)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def main(engines: Engines, *arguments: str, root: Path = tmp_path / "out") -> Path:
        monkeypatch.setattr(generate, "started_engines", engines.started)
        generate_problems.main([f"run={run}", *ARGUMENTS, f"output.root={root}", *arguments])
        return only_run(root)

    return main


def read(directory: Path, name: str) -> list[dict[str, Any]]:
    return read_jsonl(directory / name)


def test_problems_are_written_until_every_level_has_enough(generated, capsys):
    directory = generated(Engines(story))
    problems, written = read(directory, "problems.jsonl"), read(directory, "written.jsonl")
    assert Counter((row["type"], row["level"]) for row in problems) == {("baking", level): 4 for level in "123"}
    assert len({row["problem"] for row in problems}) == 12 and len({row["id"] for row in written}) == len(written)
    reasons = Counter(row["reason"] for row in written)
    assert reasons["not well formed"] and all(row["answer"] for row in problems)
    report = json.loads((directory / "report.json").read_text())
    assert report["is_complete"] and report["num_kept"] == 12 and report["num_written"] == len(written)
    compared = {each["name"]: each["num_problems"] for each in report["test_sets"]}
    assert compared == {"embedded:arithmetic": 1000, "held-out data": 15}
    assert [each["name"] for each in report["other_data"]] == ["training data"]
    assert set(report["not_compared"]) == {"math500", "combibench"}
    assert "12 of 12 problems" in capsys.readouterr().out


def test_a_generation_that_was_killed_asks_for_the_rest_and_ends_the_same(generated, run, tmp_path):
    whole = generated(Engines(story), root=tmp_path / "whole")
    with pytest.raises(SystemExit):
        generated(Engines(story, num_chunks=2))
    directory = only_run(tmp_path / "out")
    assert len(read(directory, "scored.jsonl")) == 2 * 3 * 2
    assert not {"written.jsonl", "problems.parquet", "report.json", "page.html"} & set(os.listdir(directory))
    with (directory / "scored.jsonl").open("a") as file:  # a kill in the middle of a chunk
        file.write(json.dumps(read(whole, "scored.jsonl")[12]) + '\n{"id": "wri')
    engines = Engines(story)
    generated(engines, "--resume", str(directory))
    total = len(read(whole, "scored.jsonl"))
    assert engines.num_answered < total / 6
    for name in ("scored.jsonl", "written.jsonl", "problems.jsonl"):
        assert (directory / name).read_bytes() == (whole / name).read_bytes()
    engines = Engines(story, num_chunks=0)  # nothing is left to ask for
    generated(engines, "--resume", str(directory))


def test_a_generation_cannot_be_resumed_as_another_one(generated, capsys):
    directory = generated(Engines(story))
    with pytest.raises(SystemExit):
        generated(Engines(story), "--resume", str(directory), "num_problems=13")
    assert "must be resumed as it was started, but its cells differ" in capsys.readouterr().err


def test_a_writer_that_copies_ends_with_fewer_problems_and_says_so(generated, capsys):
    directory = generated(Engines(lambda prompt, seed: story(prompt, 1)), "max_attempts=2")
    report = json.loads((directory / "report.json").read_text())
    assert (report["num_kept"], report["num_written"], report["is_complete"]) == (3, 24, False)
    assert report["reasons"] == {"exact duplicate": 21}
    assert "incomplete" in capsys.readouterr().out


def test_variations_have_originals_of_their_topic_and_level(generated):
    directory = generated(Engines(story), "kinds=[parameters]", "num_problems=3", "keep.near_similarity=1.0")
    for row in read(directory, "written.jsonl"):
        assert row["kind"] == "parameters" and row["original"] in row["prompt"][-1]["content"]
        assert row["topic"] == "baking" and f"in {row['level']} steps" in row["prompt"][-1]["content"]


# Runs with data in files --------------------------------------------------------------------------


def example(seed: int, level: str = "1") -> dict[str, str]:
    found = write_story(Random(seed), level, "baking")
    answer = {"solution": found.solution, "answer": str(found.answer), "level": level, "type": "baking"}
    return {"question": found.statement, **answer}


def run_on_files(tmp_path: Path, model: Path, **questions: Any) -> Path:
    """A run whose data is two stories to train on and one that is held out."""
    write_jsonl(tmp_path / "data" / "train.jsonl", example(1), example(2))
    write_jsonl(tmp_path / "data" / "test.jsonl", example(3))
    fields = {name: name for name in ("question", "answer", "solution", "level", "type")}
    settings: dict[str, Any] = {
        "model": {"name": str(model), "dtype": "float32", "device": "cpu"},
        "data": {
            **{"name": str(tmp_path / "data"), "fields": fields, "answer_format": "plain"},
            "write": {"system_prompt": "", "levels": {"1": "in 1 steps"}},
        },
        "questions": {"must_compute": True} | questions,
        "reward": {"functions": [{"name": "checked", "gate": True}]},
        "stages": [{"name": "sft", "kind": "sft"}],
    }
    created = RunDirectory.create_at(tmp_path / "exp_files", Config.model_validate(settings))
    save_tiny_model(created.final_model)
    return created.path


def from_examples(prompt: str, seed: int) -> str:
    """The problems of ``run_on_files`` word by word, and others."""
    found = write_story(Random(1 + seed % 4), "1", "baking")
    return written_text(found.statement, found.solution, str(found.answer))


def test_problems_of_the_runs_own_data_are_no_new_ones(generated, tiny_model, tmp_path):
    run = run_on_files(tmp_path, tiny_model)
    directory = generated(Engines(from_examples), f"run={run}", "num_problems=2", "max_attempts=20")
    reasons = {row["statement"]: row["reason"] for row in read(directory, "written.jsonl") if not row["is_kept"]}
    expected = {1: "copy: training data (exact)", 2: "copy: training data (exact)"}
    expected |= {3: "test problem: held-out data (exact)"}
    for seed, reason in expected.items():
        assert reasons[example(seed)["question"]] == reason
    report = json.loads((directory / "report.json").read_text())
    (training,) = report["other_data"]
    assert (training["name"], training["num_problems"], training["num_exact_kept"]) == ("training data", 2 + 6, 0)
    assert "held-out data" in (directory / "page.html").read_text()


def test_the_runs_own_data_is_compared_only_if_the_rules_say_so(generated, tiny_model, tmp_path):
    run = run_on_files(tmp_path, tiny_model, keep={"compare_with_data": False})
    directory = generated(Engines(from_examples), f"run={run}", "num_problems=4", "max_attempts=4")
    kept = {row["problem"] for row in read(directory, "problems.jsonl")}
    assert {example(seed)["question"] for seed in (1, 2, 3)} <= kept
    report = json.loads((directory / "report.json").read_text())
    assert report["other_data"] == [] and [each["name"] for each in report["test_sets"]] == ["embedded:arithmetic"]


@pytest.mark.parametrize("edited", ["old.jsonl", "data/train.jsonl", "data/test.jsonl"])
def test_data_that_was_edited_to_as_many_lines_is_not_resumed_with(generated, tiny_model, tmp_path, capsys, edited):
    run = run_on_files(tmp_path, tiny_model)
    write_jsonl(tmp_path / "old.jsonl", example(5))
    old = (f"against={tmp_path / 'old.jsonl'}", "data.fields.question=question", "data.answer_format=plain")
    settings = (f"run={run}", "num_problems=2", *old)
    directory = generated(Engines(story), *settings)
    num_lines = len(read(tmp_path, edited))
    write_jsonl(tmp_path / edited, *(example(seed) for seed in range(50, 50 + num_lines)))
    with pytest.raises(SystemExit):
        generated(Engines(story), *settings, "--resume", str(directory))
    assert "must be resumed as it was started, but its digests differ" in capsys.readouterr().err


def test_an_original_that_is_too_long_is_left_out_and_told(generated, tiny_model, tmp_path, capsys):
    run = run_on_files(tmp_path, tiny_model)
    long = example(4) | {"question": example(4)["question"] + " Take your time." * 40}
    write_jsonl(tmp_path / "data" / "train.jsonl", example(1), long, example(2))
    tokens = [len(tiny_tokenizer()(each["question"])["input_ids"]) for each in (example(1), long)]
    assert tokens[0] < 300 and tokens[1] > 600  # rollout.max_prompt_length is 600
    directory = generated(Engines(story), f"run={run}", "kinds=[parameters]", "num_problems=6", "max_attempts=4")
    rows = read(directory, "written.jsonl")
    assert {row["original"] for row in rows} == {example(seed)["question"] for seed in (1, 2)}
    printed = capsys.readouterr().out
    assert "1 tasks are left out" in printed and "1 tasks were too long" in printed
    assert json.loads((directory / "report.json").read_text())["record"]["num_too_long"] == 1


def test_a_solver_of_its_own_is_found_before_anything_starts(generated, tiny_model, tmp_path, capsys):
    run = run_on_files(tmp_path, tiny_model, solver={"model": "/nowhere"})
    with pytest.raises(SystemExit):
        generated(Engines(story), f"run={run}")
    assert "/nowhere does not exist" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_solver_of_its_own_is_planned_and_recorded(generated, tiny_model, tmp_path, capsys, monkeypatch):
    run = run_on_files(tmp_path, tiny_model, solver={"model": str(tiny_model)})
    asked: list[list[str]] = []
    engines = Engines(story)
    monkeypatch.setattr(engine_solver, "started_engines", engines.started)
    generate_problems.main([f"run={run}", *ARGUMENTS, "--dry-run"])
    printed = capsys.readouterr().out
    assert f"solver   local directory {tiny_model}" in printed and re.search(r"│ solver +│ 1 ", printed)
    monkeypatch.setattr(generate, "wait_for_room", lambda actors, limit_s: asked.append([a.name for a in actors]))
    directory = generated(engines, f"run={run}", "num_problems=2")
    assert asked == [["rollout", "solver"]]
    assert "model.safetensors" in json.loads((directory / "generation.json").read_text())["solver"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run=/nowhere"], "model directory /nowhere does not exist"),
        (["kinds=[parameters]", "topics=[cooking]"], "must have training problems to vary"),
        (["rollout.max_prompt_length=8"], "must be at least that of a task"),
        (["rollout.max_prompt_length=2000"], "must fit"),
        (["against=/nowhere/old.jsonl"], "/nowhere/old.jsonl does not exist"),
        (["kinds=[]"], "at least 1 item"),
        (["topics=[]"], "must name at least one"),
        (["num_problem=3"], "Did you mean num_problems"),
        (["--resume", "/nowhere"], "must be a generation's directory"),
    ],
)
def test_a_user_error_is_named_in_one_message(generated, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit):
        generated(Engines(story), *arguments)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_that_was_not_trained_to_write(generated, tiny_model, capsys):
    with pytest.raises(SystemExit):
        generated(Engines(story), f"run={tiny_model}")
    assert "run must have been trained to write problems" in capsys.readouterr().err


def test_a_dry_run_starts_nothing(generated, tmp_path, run, capsys, monkeypatch):
    generate_problems.main([f"run={run}", *ARGUMENTS, f"output.root={tmp_path / 'out'}", "--dry-run"])
    printed = capsys.readouterr().out
    assert "new baking 1: 4 problems" in printed and "missing  math500" in printed and "nothing was started" in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_driver_with_real_engines_is_killed_and_what_they_wrote_is_kept(
    generated, run, ray_address, tmp_path, monkeypatch
):
    """Random weights write no problem: what they wrote is rejected. The rest is written by an engine of this test."""
    monkeypatch.setattr("pipeline.questions.contamination.DATA_SETS", DATA_SETS)  # the other process has all of them
    free = free_cpus()
    engine = ("rollout.num_threads=1", "rollout.kv_cache_gib=0.3", "rollout.memory_gib=0.3", "rollout.num_cpus=0.1")
    elsewhere = ", ".join(name for name in DATA_SETS if not name.startswith("embedded:"))  # the hub may be out of reach
    settings = ("rollout.max_completion_length=24", "max_attempts=9", f"allow_missing=[{elsewhere}]", *engine)
    arguments = (f"run={run}", *ARGUMENTS, *settings, f"output.root={tmp_path / 'out'}")
    with start(*arguments, script="jobs/generate_problems.py", env=joining(ray_address)) as process:
        try:
            wait_until(lambda: any(path.stat().st_size for path in tmp_path.glob("out/exp_*/scored.jsonl")), process)
        finally:
            process.kill()
    wait_until_free(free)
    directory = only_run(tmp_path / "out")
    before = read(directory, "scored.jsonl")
    generated(Engines(story), *settings, "--resume", "latest")
    rows, report = read(directory, "written.jsonl"), json.loads((directory / "report.json").read_text())
    assert len({row["id"] for row in rows}) == len(rows) and report["is_complete"]
    assert [row["completion"] for row in rows[: len(before)]] == [row["completion"] for row in before]
    assert {row["reason"] for row in rows[: len(before)]} == {"not well formed"}


def test_sampling_is_that_of_the_run_unless_it_is_given():
    run = validate_config({"stages": [{"name": "write", "kind": "grpo"}], "rollout": {"temperature": 0.7}})
    config = GenerationConfig.model_validate({"run": "RUN", "rollout": {"top_k": 5}})
    rollout = generate._with_sampling(config, run).rollout
    assert (rollout.temperature, rollout.top_p, rollout.top_k) == (0.7, 1.0, 5)


def test_the_writers_engines_have_room_for_a_solution_if_they_solve():
    stages = [{"name": "write", "kind": "grpo"}]
    run = validate_config({"stages": stages, "rollout": {"max_prompt_length": 300}})
    config = GenerationConfig.model_validate({"run": "RUN", "rollout": {"max_prompt_length": 100}})
    assert generate.writer_length(config, run) == 100 + 512
    for model, length in ((None, 300 + 900), ("some/solver", 100 + 512)):
        solver = SolverConfig(model=model, max_completion_length=900)
        solved = run.model_copy(update={"questions": QuestionsConfig(solver=solver)})
        assert generate.writer_length(config, solved) == length
