import json
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.prepare_data import main
from tests.conftest import ROOT
from tests.support.data import math_row, write_jsonl
from tests.support.hub import REPOS, UNREACHABLE, running_hub, use_hub
from tests.support.models import save_tiny_model
from tests.support.omcq import write_facts


@pytest.fixture(autouse=True)
def no_signal_handlers(monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)


@pytest.fixture
def data(tmp_path: Path) -> str:
    rows = [math_row(f"p{number}", f"Level {1 + number % 2}", type="ab"[number % 2]) for number in range(40)]
    rows += [math_row("no level", "Level ?", type="a"), math_row("alone", "Level 3", type="a")]
    return write_jsonl(tmp_path / "set.jsonl", *rows)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("│┃ \n").replace("┃", "│").split("│")]


def test_split_prints_counts_and_what_was_left_out(tmp_path, data, capsys):
    main(["split", "--data", data, "--output", str(tmp_path / "out"), "--test-fraction", "0.25"])
    lines = capsys.readouterr().out.splitlines()
    rows = [cells(line) for line in lines if line.startswith(("│", "┃"))]
    assert rows == [
        ["level", "train", "test", "both", "test share"],
        ["Level 1", "15", "5", "20", "25.00%"],
        ["Level 2", "15", "5", "20", "25.00%"],
        ["Level 3", "1", "0", "1", "0.00%"],
        ["total", "31", "10", "41", "24.39%"],
    ]
    assert lines[-4:] == [
        "rows left out: 1",
        "  1 without a usable level (set.jsonl row 41)",
        "note: level Level 3 cannot be split: its 1 row is in train",
        str(tmp_path / "out"),
    ]


def test_stratifying_by_type_shows_types_too(tmp_path, data, capsys):
    main(["split", "--data", data, "--output", str(tmp_path / "out"), "--stratify-by", "level,type"])
    rows = [cells(line) for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert ["a", "17", "4", "21", "19.05%"] in rows and ["b", "16", "4", "20", "20.00%"] in rows


USER_ERRORS = {
    "missing file": (["--data", "nowhere.parquet"], "nowhere.parquet does not exist"),
    "missing column": (["--question-field", "q"], "has no field q: it has problem, level, type, solution"),
    "fraction": (["--test-fraction", "1.2"], "--test-fraction must be above 0 and below 1, got 1.2"),
    "output in use": (["--output", "full"], "output full is not empty"),
    "output is a file": (["--output", "set.jsonl"], "set.jsonl must be a directory, and is a file"),
    "output below a file": (["--output", "set.jsonl/out"], "output set.jsonl/out cannot be written"),
    "not data": (["--data", "broken.jsonl"], "broken.jsonl line 1 must be a JSON object"),
    "directory without data": (["--data", "./empty"], "empty must hold .parquet or .jsonl files"),
}


@pytest.mark.parametrize(("arguments", "named"), USER_ERRORS.values(), ids=USER_ERRORS)
def test_a_user_error_is_named_in_one_message(tmp_path, data, monkeypatch, capsys, arguments, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.jsonl").write_text('{"problem": ')
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as left:
        main(["split", "--data", data, "--output", "out", *arguments])
    error = capsys.readouterr().err
    assert left.value.code == 2
    assert error.startswith("error: ") and named in error and len(error.splitlines()) == 1 and len(error) < 400
    assert sorted(tmp_path.rglob("*")) == before


def test_a_hub_data_set_is_split_like_its_copy_on_disk(tmp_path, data, monkeypatch, capsys):
    monkeypatch.setitem(REPOS, "datasets/qwedsacf/competition_math", {"train.jsonl": Path(data).read_text()})
    with running_hub() as url:
        use_hub(monkeypatch, url, tmp_path / "cache")
        main(["split", "--data", "qwedsacf/competition_math", "--output", str(tmp_path / "hub")])
    assert "qwedsacf/competition_math row 41" in capsys.readouterr().out
    main(["split", "--data", data, "--output", str(tmp_path / "local")])
    hub, local = (pq.read_table(tmp_path / name / "test.parquet").to_pylist() for name in ("hub", "local"))
    assert [row["id"] for row in hub] == [row["id"] for row in local]
    assert {row["source"] for row in hub} == {"qwedsacf/competition_math"}


def test_an_unreachable_hub_is_named(tmp_path, monkeypatch, capsys):
    use_hub(monkeypatch, UNREACHABLE, tmp_path / "cache")
    with pytest.raises(SystemExit) as left:
        main(["split", "--data", "qwedsacf/competition_math", "--output", str(tmp_path / "out")])
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and len(error.splitlines()) == 1
    assert "qwedsacf/competition_math cannot be downloaded" in error
    assert not (tmp_path / "out").exists()


def test_student_prints_the_counts_of_both_sides(tmp_path, capsys):
    rows = {
        name: [
            {"problem": f"{a} {sign} {a}?", "solution": "so", "answer": "1", "level": "1", "type": ""} for a in "234"
        ]
        for name, sign in (("real/train", "+"), ("real/test", "-"), ("written", "*"))
    }
    written, data = tmp_path / "written.jsonl", tmp_path / "real"
    for name, lines in rows.items():
        write_jsonl(tmp_path / f"{name}.jsonl", *lines)
    model, out = save_tiny_model(tmp_path / "model"), tmp_path / "out"
    arguments = ["--data", str(data), "--output", str(out), "--model", str(model)]
    main(["student", "--written", str(written), "--max-problems", "2", *arguments])
    # tokens are bytes: 6 of the question and 48 of the solution
    assert capsys.readouterr().out.splitlines() == [
        "written: 2 problems, 108 tokens (by level: 1: 2)",
        "real: 2 problems, 108 tokens (by level: 1: 2)",
        "held out: 3 problems",
        str(out),
    ]


def test_student_without_written_problems_writes_nothing(tmp_path, data, capsys):
    with pytest.raises(SystemExit) as left:
        main(["student", "--written", str(tmp_path / "no.jsonl"), "--data", data, "--output", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert left.value.code == 2 and error.startswith("error: ") and len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_help_imports_nothing_heavy():
    code = "import sys, jobs.prepare_data; print([m for m in ('datasets', 'pyarrow', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def choice_rows(path: Path, *more: dict[str, object]) -> str:
    target = {"question": "Where?", "options": "A:x,B:y", "correct_answer": "B"}
    return write_jsonl(path, *({"target": [target]} for _ in range(3)), *more)


def test_omcq_converts_rows_and_prints_why_others_are_rejected(tmp_path, capsys):
    source, output = choice_rows(tmp_path / "in.jsonl", {"target": []}, {}), tmp_path / "out.jsonl"
    main(["omcq", source, "--output", str(output), "--request", "Choose.", "--answer", "option"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "converted 3 rows, rejected 2" and lines[-1] == str(output)
    assert ["target is empty", "1"] in [cells(line) for line in lines]
    content = {"role": "user", "content": "Where?\nA: x\nB: y\nChoose."}, {"role": "assistant", "content": "B: y"}
    assert json.loads(output.read_text().splitlines()[0]) == {"conversations": list(content)}


def test_omcq_files_are_checked_by_the_code_that_trains(tmp_path, capsys):
    source, output = choice_rows(tmp_path / "in.jsonl"), tmp_path / "out.jsonl"
    main(["omcq", source, "--output", str(output)])
    model = str(save_tiny_model(tmp_path / "model"))
    for limit, code in (("128", 0), ("16", 1)):
        with pytest.raises(SystemExit) as left:
            main(["check", str(output), "--model", model, "--examples", "1", "--max-length", limit])
        assert left.value.code == code
    shown = capsys.readouterr()
    assert "<|im_start|>assistant\n【y<|im_end|>】" in shown.out and "3 conversations, 6 learned tokens" in shown.out
    assert "out.jsonl line 3: " in shown.err and "3 rows would not train: too long" in shown.err


def test_omcq_from_facts_prints_relations_and_priors(tmp_path, capsys):
    facts = write_facts(tmp_path / "facts.jsonl")
    main(["omcq-from-facts", "--facts", str(facts), "--output", str(tmp_path / "out"), "--num-test", "4"])
    out = capsys.readouterr().out
    assert "P36 capital" in out and "17 entries of knowledge" in out and "chance: 33.3% of the test questions" in out
    names = ["facts.json", "knowledge.jsonl", "test.jsonl", "train.jsonl"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names


@pytest.mark.parametrize("command", ["omcq", "omcq-from-facts"])
def test_an_output_that_exists_is_kept(tmp_path, capsys, command):
    write_facts(tmp_path / "facts.jsonl")
    source = choice_rows(tmp_path / "in.jsonl")
    arguments = [source] if command == "omcq" else ["--facts", str(tmp_path / "facts.jsonl")]
    output = tmp_path / "in.jsonl" if command == "omcq-from-facts" else tmp_path / "facts.jsonl"
    before = output.read_bytes()
    with pytest.raises(SystemExit) as left:
        main([command, *arguments, "--output", str(output)])
    assert left.value.code == 2 and output.read_bytes() == before
    assert "Choose another --output" in capsys.readouterr().err


def test_sentences_become_knowledge(tmp_path, capsys):
    (tmp_path / "a.txt").write_bytes("Bo is in Rome.\n\n  Bo is in Rome. \nZoë is in Oslo\n\xff\n".encode("latin-1"))
    (tmp_path / "b.txt").write_text("Zoë is in Oslo\n")
    write_jsonl(tmp_path / "c.jsonl", {"text": "Abu is in a long sentence."}, {"text": " "}, {"t": 1})
    model, output = save_tiny_model(tmp_path / "model"), tmp_path / "out.jsonl"
    sources = [str(tmp_path / name) for name in ("a.txt", "b.txt", "c.jsonl")]
    main(["knowledge", *sources, "--output", str(output), "--model", str(model), "--knowledge-length", "20"])
    assert [json.loads(line) for line in output.read_text().splitlines()] == [
        {"id": 0, "text": "Bo is in Rome."},
        {"id": 1, "text": "Zoë is in Oslo"},
        {"id": 2, "text": "Abu is in a long sentence."},
    ]
    shown = capsys.readouterr().out
    assert "3 entries of knowledge, rejected 6 rows" in shown and "1 are longer than 20 tokens" in shown
    with pytest.raises(SystemExit):
        main(["knowledge", *sources, "--output", str(output)])
    assert "exists" in capsys.readouterr().err
