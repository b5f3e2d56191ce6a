"""Whole evaluations of tiny runs, from the command line to the files."""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs import evaluate_memory
from pipeline.runs.records import read_jsonl
from tests.support.memory_files import write_memory_run
from tests.support.models import save_tiny_model


def evaluate(folder: Path, *arguments: str) -> dict[str, Any]:
    output = folder / "evaluated"
    questions = [
        "--questions",
        str(folder / "data" / "test.jsonl"),
        "--train-questions",
        str(folder / "data/test.jsonl"),
    ]
    evaluate_memory.main([*arguments, *questions, "--output", str(output), "--max-new-tokens", "4", "--force"])
    summary: dict[str, Any] = json.loads((output / "eval_results.json").read_text())
    return summary


def rows(folder: Path) -> list[dict[str, Any]]:
    return read_jsonl(folder / "evaluated" / "answers.jsonl")


def test_a_run_with_a_memory_is_asked_under_all_its_conditions(tmp_path):
    run = write_memory_run(tmp_path)
    summary = evaluate(tmp_path, "--run", str(run.path))
    assert list(summary["conditions"]) == [
        *("memory", "without", "shuffled", "swapped", "given", "given_among", "unseen", "unseen_without")
    ]
    assert len(rows(tmp_path)) == 4 * 8 and summary["num_entries"] == 4
    assert summary["metrics"].keys() >= {"omcq/memory_exact", "omcq/without_ranked", "bank/coverage"}
    assert summary["metrics"]["bank/coverage"] == summary["bank"]["memory"]["bank/coverage"]


def test_the_file_alone_gives_the_same_answers(tmp_path):
    run = write_memory_run(tmp_path)
    evaluate(tmp_path, "--run", str(run.path))
    expected = rows(tmp_path)
    file = (tmp_path / "copy.safetensors").resolve()
    file.write_bytes((run.final_memory / "memory_step_3.safetensors").read_bytes())
    evaluate(tmp_path, "--memory", str(file), "--model", str(tmp_path / "model"), "--dtype", "float32")
    assert rows(tmp_path) == expected


def test_the_token_form_is_asked_too(tmp_path):
    run = write_memory_run(tmp_path, "explicitlm")
    summary = evaluate(tmp_path, "--run", str(run.path), "--conditions", "memory", "without", "shuffled")
    assert list(summary["conditions"]) == ["memory", "without", "shuffled"]
    assert "layers" in rows(tmp_path)[0]


def test_a_model_without_memory_is_asked_the_same_questions(tmp_path):
    run = write_memory_run(tmp_path)
    evaluate(tmp_path, "--run", str(run.path), "--conditions", "without")
    backbone = [row["answer"] for row in rows(tmp_path)]
    summary = evaluate(tmp_path, "--model", str(tmp_path / "model"), "--conditions", "model", "--dtype", "float32")
    assert list(summary["conditions"]) == ["model"] and summary["bank"] == {}
    assert [row["answer"] for row in rows(tmp_path)] == backbone


def test_another_backbone_is_refused(tmp_path, capsys):
    run = write_memory_run(tmp_path)
    save_tiny_model(tmp_path / "other", seed=1)
    with pytest.raises(SystemExit):
        evaluate(tmp_path, "--run", str(run.path), "--model", str(tmp_path / "other"))
    assert "must be loaded onto the backbone it was trained with" in capsys.readouterr().err


def test_questions_about_other_knowledge_are_refused(tmp_path, capsys):
    run = write_memory_run(tmp_path)
    lines = (tmp_path / "data" / "knowledge.jsonl").read_text().splitlines()
    other = [json.loads(line) for line in (lines[1], lines[0], *lines[2:])]
    path = tmp_path / "other.jsonl"
    path.write_text("".join(json.dumps(row | {"id": index}) + "\n" for index, row in enumerate(other)))
    with pytest.raises(SystemExit):
        evaluate(tmp_path, "--run", str(run.path), "--knowledge", str(path))
    assert "question q0 must be about entry 0 of the knowledge, 'Abu is in Oslo'" in capsys.readouterr().err


def test_nothing_to_evaluate_and_a_run_without_its_memory_are_user_errors(tmp_path, capsys):
    run = write_memory_run(tmp_path)
    with pytest.raises(SystemExit):
        evaluate(tmp_path)
    assert "--run, --memory or --model must be given" in capsys.readouterr().err
    (run.final_memory / "memory_step_3.safetensors").unlink()
    with pytest.raises(SystemExit):
        evaluate(tmp_path, "--run", str(run.path))
    assert "must have a final memory: it is unfinished" in capsys.readouterr().err


def test_fewer_questions_are_drawn_by_the_seed(tmp_path):
    run = write_memory_run(tmp_path)
    arguments = ["--run", str(run.path), "--conditions", "memory", "--max-questions", "2"]
    drawn = []
    for seed in ("0", "0", "5"):
        evaluate(tmp_path, *arguments, "--seed", seed)
        drawn.append([row["question_id"] for row in rows(tmp_path)])
    assert drawn[0] == drawn[1] and all(len(ids) == 2 for ids in drawn)


def test_texts_are_measured_with_and_without_the_memory_and_long_ones_are_left_out(tmp_path):
    run = write_memory_run(tmp_path)
    texts = [{"question": f"{n} + 1?", "answer": f"It is {n + 1}." + "." * 900 * (n == 2)} for n in range(3)]
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "test.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    arguments = ["--run", str(run.path), "--conditions", "memory", "--texts", str(folder), "--max-text-tokens", "800"]
    found = evaluate(tmp_path, *arguments)["forgetting"][str(folder)]
    assert (found["num_texts"], found["num_too_long"]) == (2, 1)
    assert found["with"]["perplexity"] != found["without"]["perplexity"]


def test_bare_sentences_can_be_asked_about_but_not_swapped_or_given(tmp_path, capsys):
    run = write_memory_run(tmp_path)
    file = tmp_path / "data" / "knowledge.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in rows))
    summary = evaluate(tmp_path, "--run", str(run.path))
    assert list(summary["conditions"]) == ["memory", "without", "shuffled", "unseen", "unseen_without"]
    with pytest.raises(SystemExit):
        evaluate(tmp_path, "--run", str(run.path), "--conditions", "swapped")
    assert "whose knowledge is sentences without objects, got swapped" in capsys.readouterr().err
