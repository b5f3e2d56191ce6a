"""The parts of an evaluation that need no engine."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config, load_config
from pipeline.config.evaluation import EvaluationConfig, PromptConfig
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.evaluation.comparison import compare_evaluations
from pipeline.evaluation.datasets import DATA_SETS, EvalProblem, is_lean, load_data_set
from pipeline.evaluation.evaluation_report import write_evaluation_report
from pipeline.evaluation.overlap import TrainingQuestions
from pipeline.evaluation.prompts import make_prompter
from pipeline.evaluation.record import EvaluationRecord
from pipeline.evaluation.results import COLUMNS, Chunk, ResultsFile
from pipeline.evaluation.scoring import score
from pipeline.evaluation.summary import answer_key, summarize
from pipeline.report import write_report
from pipeline.templates import TEMPLATES
from pipeline.types import Completion
from pipeline.verifier import Grader
from tests.conftest import ROOT, SHARED
from tests.support.models import tiny_tokenizer

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data, which a user's clone has not")


def config(dataset: Any = "gsm8k", **settings: Any) -> EvaluationConfig:
    return EvaluationConfig.model_validate({"model": "some/model", "dataset": dataset, **settings})


@pytest.fixture
def sums(tmp_path) -> Path:
    """A directory with eight test problems of two levels, one without an answer, and four worked training problems."""
    rows = [{"question": f"{n} + 1?", "answer": str(n + 1), "level": str(n % 2)} for n in range(8)]
    rows[7]["answer"] = ""
    _write(tmp_path / "sums" / "test.jsonl", rows)
    worked = [{"question": f"{n} + 2?", "answer": f"so {n + 2}\n#### {n + 2}", "level": "0"} for n in range(4)]
    _write(tmp_path / "sums" / "train.jsonl", worked)
    return tmp_path / "sums"


def _write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


# Settings


def test_one_model_or_many_with_or_without_labels():
    assert config(model="a").model == {"a": "a"}
    assert config(model=["a", "b"]).model == {"a": "a", "b": "b"}
    assert config(model={"base": "a"}).model == {"base": "a"}
    assert config("math").dataset == ["math"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rollout": {"num_samples": 4}}, "rollout.temperature must be above 0"),
        ({"prompt": {"template": "Q: {problem}"}}, "must hold {question}"),
        ({"prompt": {"template": "Q: {question} {hint} A: "}}, "and no other field"),
        ({"prompt": {"template": "{question}", "style": "chat"}}, "prompt.template must be null"),
        ({"dataset": ["math", "math"]}, "dataset must name each data set once"),
        ({"model": []}, "at least 1"),
        ({"rollout": {"num_gpus": 1.0, "tensor_parallel_size": 2}}, "rollout.num_gpus must equal"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        config(**settings)


def test_the_recipe_is_valid_and_an_unknown_setting_has_a_neighbour():
    recipe = ROOT / "configs" / "evaluate.yaml"
    assert (
        load_config(recipe, ["rollout.num_samples=4", "rollout.temperature=1.0"], EvaluationConfig).rollout.num_samples
        == 4
    )
    with pytest.raises(ConfigError, match=r"unknown setting rollout.num_sample. Did you mean rollout.num_samples\?"):
        load_config(recipe, ["rollout.num_sample=4"], EvaluationConfig)


def test_what_a_resumed_evaluation_may_change_is_what_results_do_not_depend_on():
    assert config(rollout={"num_workers": 3}).results_key() == config().results_key()
    assert config(rollout={"num_threads": 1}).results_key() != config().results_key()
    assert config(seed=1).results_key() != config().results_key()


# Data sets


@needs_shared
@pytest.mark.parametrize("name", [name for name, entry in DATA_SETS.items() if entry.local])
def test_registered_sets_have_the_size_that_is_stated(name):
    loaded = load_data_set(name, config(name, data_root=str(SHARED)))
    assert len(loaded.problems) == DATA_SETS[name].size
    assert len({problem.id for problem in loaded.problems}) == len(loaded.problems)
    assert all(problem.question and problem.gold for problem in loaded.problems)


@pytest.mark.parametrize("name", ["embedded:arithmetic", "embedded:operations"])
def test_embedded_sets_have_the_size_that_is_stated(name):
    loaded = load_data_set(name, config(name))
    assert len(loaded.problems) == DATA_SETS[name].size
    assert {problem.level for problem in loaded.problems} == set("12345")


def test_every_registered_set_can_be_had_and_is_in_the_document():
    document = (ROOT / "docs" / "evaluation.md").read_text()
    for name, entry in DATA_SETS.items():
        assert entry.hub or entry.local or name.startswith("embedded:")
        assert f"| `{name}` | {entry.size:,} | {entry.answer_form} | {entry.licence} |" in document


@needs_shared
def test_combibench_is_scored_where_it_can_be_and_the_rest_is_counted():
    loaded = load_data_set("combibench", config("combibench", data_root=str(SHARED)))
    assert (loaded.num_rows, loaded.num_without_answer, len(loaded.unscorable)) == (100, 55, 17)
    assert "imo_2014_p2" in loaded.unscorable and "hackmath_6" not in loaded.unscorable


@pytest.mark.parametrize(
    ("gold", "expected"),
    [
        ("fun n => 2 * n ^ 2 - 2 * n + 1", True),
        ("{x | \u2203 m > 0, 2 ^ m - 1 = x}", True),
        ("PowerSeries.X * PowerSeries.inv (1 - PowerSeries.X) ^ 4", True),
        ("1716", False),
        ("1 / 2", False),
        ("[3 / 4, 3 / 4, 1 / 2]", False),
        ("false", False),
    ],
)
def test_lean_terms(gold, expected):
    assert is_lean(gold) is expected


@needs_shared
def test_olympiad_problems_are_told_apart_by_source_and_difficulty():
    problems = load_data_set("olympiad", config("olympiad", data_root=str(SHARED))).problems
    assert len({problem.source for problem in problems}) == 6
    assert "8.0" in {problem.difficulty for problem in problems}
    assert "Mathematics -> Algebra" in {problem.type for problem in problems}


@needs_shared
def test_a_subset_by_row_numbers_or_ids(tmp_path):
    whole = load_data_set("gsm8k", config(data_root=str(SHARED))).problems
    index = tmp_path / "index.json"
    index.write_text(json.dumps([3, 1000, whole[7].id]))
    chosen = load_data_set("gsm8k", config(data_root=str(SHARED), problems={"index_file": str(index)})).problems
    assert [problem.id for problem in chosen] == [whole[3].id, whole[7].id, whole[1000].id]
    index.write_text("[1319]")
    with pytest.raises(DataError, match="must hold rows of the 1319 there are, got 1319"):
        load_data_set("gsm8k", config(data_root=str(SHARED), problems={"index_file": str(index)}))


def test_a_local_set_with_filters(sums):
    data = {"fields": {"level": "level"}}
    loaded = load_data_set(str(sums), config(str(sums), data=data))
    assert (len(loaded.problems), loaded.num_rows, loaded.num_without_answer, loaded.licence) == (7, 8, 1, None)
    odd = load_data_set(str(sums), config(str(sums), data=data, problems={"levels": ["1"]}))
    assert [problem.gold for problem in odd.problems] == ["2", "4", "6"] and odd.num_filtered == 4
    drawn = load_data_set(str(sums), config(str(sums), data=data, problems={"max_problems": 3}))
    again = load_data_set(str(sums), config(str(sums), data=data, problems={"max_problems": 3}, seed=1))
    assert len(drawn.problems) == 3 and drawn.problems != again.problems
    assert [p.id for p in loaded.problems if p in drawn.problems] == [p.id for p in drawn.problems]


@pytest.mark.parametrize(
    ("dataset", "settings", "message"),
    [
        ("gsm9k", {}, "dataset must be registered .*gsm8k.*, got gsm9k"),
        ("combibench", {}, "dataset combibench is on no hub that is registered. Set data_root"),
        ("math500", {"data_root": "/tmp"}, "dataset math500 has no local form.*index_file"),
        ("/nowhere/x.jsonl", {}, "/nowhere/x.jsonl does not exist"),
        (
            "SUMS",
            {"problems": {"levels": ["9"]}, "data": {"fields": {"level": "level"}}},
            "got 0 of 7 after .*There are levels 0, 1",
        ),
        (
            "SUMS",
            {"data": {"answer_format": "boxed"}},
            "must have rows with a question and a gold answer, and has none in 8 rows",
        ),
        ("SUMS", {"data": {"fields": {"answer": "gold"}}}, "has no field gold: it has question, answer, level"),
        ("SUMS", {"prompt": {"num_shots": 9}}, "prompt.num_shots must be at most .*got 9 of 4"),
    ],
)
def test_data_that_cannot_be_asked(sums, dataset, settings, message):
    name = str(sums) if dataset == "SUMS" else dataset
    with pytest.raises(DataError, match=message):
        load_data_set(name, config(name, **settings))


# Prompts


def _loaded(sums: Path, **settings: Any) -> tuple[Any, EvaluationConfig]:
    chosen = config(str(sums), **settings)
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
    settings = config(str(sums), prompt={"num_shots": 2, "template": "Q: {question}\nA: "}, data=data)
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
    settings = config(str(sums), prompt={"num_shots": 1, "template": "Q: {question}\nA: "}, data=data)
    loaded = load_data_set(str(sums), settings)
    text = make_prompter(loaded, settings, None).text(tiny_tokenizer(), loaded.problems[0])
    assert text == "Q: 0 + 1?\nA: \\boxed{1}\n\nQ: 1 + 1?\nA: "


def test_a_run_is_asked_as_it_asked(sums):
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


# Scores

CASES = [
    # completion, stop reason, gold -> answer, outcome, strict, symbolic, numeric
    ("#### 72", "stop", "72", "72", "correct", True, True, True),
    (r"so \boxed{\frac{1}{2}}", "stop", "0.5", r"\frac{1}{2}", "correct", False, True, True),
    (r"\boxed{3.1416}", "stop", r"\pi", "3.1416", "correct", False, False, True),
    ("#### 71", "stop", "72", "71", "incorrect", False, False, False),
    ("I do not know.", "stop", "72", None, "unparsed", None, None, None),
    ("First 3 apples, then 4 and", "length", "72", "4", "truncated", False, False, False),
    ("thinking and thinking", "length", "72", None, "truncated", None, None, None),
    ("#### 72\nThe next question is", "length", "72", "72", "correct", True, True, True),
    ("#### 71\nThe next question is", "length", "72", "71", "incorrect", False, False, False),
    ("#### 5", "stop", "?!", "5", "bad_gold", None, None, None),
]


def test_three_scores_and_an_outcome():
    with Grader() as grader:
        completions = [Completion((), (), text, reason) for text, reason, *_ in CASES]  # type: ignore[arg-type]
        found = score(completions, [case[2] for case in CASES], grader)
    keys = ("answer", "outcome", "strict", "symbolic", "numeric")
    assert [tuple(row[key] for key in keys) for row in found] == [tuple(case[3:]) for case in CASES]


# Training data


def test_questions_of_the_training_data_are_found_exactly_and_normalised():
    trained = TrainingQuestions(["What is 3 + 4?", "Name  a prime."])
    assert trained.find("What is 3 + 4? ") == "exact"
    assert trained.find("name a PRIME") == trained.find("what is $3+4$") == "normalised"
    for other in ("What is 3 - 4?", "What is 3 + 4!?", "What is 3.4?", "What is 3 + -4?"):
        assert trained.find(other) is None
    assert trained.find("What is 3 + 5?") is None


@needs_shared
def test_math_shares_three_problems_with_its_training_data():
    settings = config("math", data_root=str(SHARED), guard={"train_data": ["math"]})
    from pipeline.evaluation.datasets import training_questions

    trained = TrainingQuestions(training_questions("math", settings))
    found = [trained.find(problem.question) for problem in load_data_set("math", settings).problems]
    assert (found.count("exact"), found.count("normalised")) == (1, 2)


# Results

PROBLEMS = tuple(EvalProblem(f"p{n}", f"{n}?", str(n), level=str(n % 2)) for n in range(6))


def row(model: str, problem: EvalProblem, answer: str, sample: int = 0, **values: Any) -> dict[str, Any]:
    right = answer == problem.gold
    known = {
        **{"model": model, "dataset": "sums", "problem_id": problem.id, "sample": sample, "level": problem.level},
        **{"question": problem.question, "prompt": problem.question, "completion": answer, "answer": answer},
        **{"gold": problem.gold, "outcome": "correct" if right else "incorrect", "num_tokens": len(answer)},
        **{"num_prompt_tokens": 2, "seconds": 0.1, "strict": right, "symbolic": right, "numeric": right},
    }
    return dict.fromkeys(COLUMNS) | known | values


def chunks_of(model: str, size: int) -> list[Chunk]:
    return [Chunk(model, "sums", PROBLEMS[start : start + size]) for start in range(0, len(PROBLEMS), size)]


def test_only_whole_chunks_count_and_the_rest_is_cut_off(tmp_path):
    results, chunks = ResultsFile(tmp_path), chunks_of("m", 2)
    assert results.num_done(chunks, 1) == 0
    results.append([row("m", problem, "1") for problem in PROBLEMS[:3]])
    with results.path.open("a") as file:
        file.write('{"model": "m", "dataset"')  # a kill in the middle of a line
    assert results.num_done(chunks, 1) == 1
    assert [found["problem_id"] for found in results.rows()] == ["p0", "p1"]
    results.append([row("m", problem, "1") for problem in PROBLEMS[2:]])
    assert results.num_done(chunks, 1) == 3
    assert [found["problem_id"] for found in results.rows()] == [problem.id for problem in PROBLEMS]


def test_rows_that_the_evaluation_would_not_write_are_an_error(tmp_path):
    results, chunks = ResultsFile(tmp_path), chunks_of("m", 3)
    results.append([row("m", problem, "1") for problem in (PROBLEMS[0], PROBLEMS[2])])
    with pytest.raises(CheckpointError, match="got a row of p2 where p1 belongs"):
        results.num_done(chunks, 1)
    results.path.unlink()
    results.append([row("m", problem, "1") for problem in (*PROBLEMS, PROBLEMS[0])])
    with pytest.raises(CheckpointError, match="each result once"):
        results.num_done(chunks, 1)


def test_a_full_disk_is_a_message_that_says_what_is_kept():
    results = ResultsFile(Path("/dev"))
    results.path = Path("/dev/full")
    with pytest.raises(CheckpointError, match=r"No space left on device. What was answered before is kept.*--resume"):
        results.append([row("m", PROBLEMS[0], "1")])


# Summary, report, comparison


def test_a_summary_by_hand():
    answers = ["0", "1", "2", "0", "0", "0"]  # p0, p1, p2 right
    rows = [row("m", p, a, seconds=0.5) for p, a in zip(PROBLEMS, answers, strict=True)]
    rows[5] |= {"outcome": "truncated", "in_training_data": "exact"}
    (result,) = summarize(rows)["results"]
    assert (result["num_problems"], result["answer_accuracy"], result["seconds"]) == (6, 0.5, 3.0)
    assert result["answer_accuracy_interval"] == pytest.approx((0.1876, 0.8124), abs=1e-4)  # Wilson, 3 of 6
    assert result["outcomes"] == {
        **{"correct": 3, "incorrect": 2, "unparsed": 0, "truncated": 1, "timeout": 0, "bad_gold": 0}
    }
    assert {level: part["answer_accuracy"] for level, part in result["by"]["level"].items()} == {"0": 2 / 3, "1": 1 / 3}
    assert result["num_in_training_data"] == 1 and result["not_in_training_data"]["answer_accuracy"] == 0.6
    assert result["pass_at_k"]["1"]["value"] == result["maj_at_k"]["1"]["value"] == 0.5


def test_pass_and_majority_of_several_samples():
    answers = {"p0": ["0", "7", "7", "0"], "p1": ["1", "1.0", "3", "3"], "p2": ["5", "5", "6", "2"]}
    rows = [
        row("m", problem, answer, sample, outcome="correct" if float(answer) == float(problem.gold) else "incorrect")
        for problem in PROBLEMS[:3]
        for sample, answer in enumerate(answers[problem.id])
    ]
    (result,) = summarize(rows)["results"]
    assert result["num_samples"] == 4
    assert result["answer_accuracy"] == pytest.approx((2 / 4 + 2 / 4 + 1 / 4) / 3)
    assert result["pass_at_k"]["2"]["value"] == pytest.approx((5 / 6 + 5 / 6 + 1 / 2) / 3)
    assert result["pass_at_k"]["4"]["value"] == 1.0
    # p0 ties and was first, p1 ties and was first, p2 has more of 5
    assert result["maj_at_k"]["4"]["value"] == pytest.approx(2 / 3)


def test_equal_answers_have_equal_keys():
    assert answer_key("7") == answer_key("7.0") == answer_key("$7$")
    assert len({answer_key(text) for text in ("7", "7 cm", "7 m", "7%", "A", "a")}) == 6
    assert answer_key(r"\frac{x}{2}") != answer_key("x")
    assert answer_key(None) is None and answer_key("9" * 5000) == "9" * 5000


def _evaluation(
    directory: Path, model: str, answers: list[str], template: str = "{question}", temperature: float = 0.0
) -> Path:
    directory.mkdir(parents=True)
    record = EvaluationRecord(
        [{"label": model, "training_data": "not known"}],
        [
            {"name": "sums", "num_problems": 6, "num_rows": 6, "num_without_answer": 0, "num_unscorable": 0}
            | {"num_filtered": 0, "num_seen_left_out": 0, "num_shots": 0, "licence": None}
        ],
        [
            {
                "model": model,
                "dataset": "sums",
                "style": "plain",
                "template": template,
                "system_prompt": None,
                "stop": [],
            }
        ],
        {"rollout": {"temperature": temperature}},
    )
    record.write(directory)
    ResultsFile(directory).append([row(model, p, a) for p, a in zip(PROBLEMS, answers, strict=True)])
    return directory


def test_a_report_with_every_completion(tmp_path):
    import pyarrow.parquet as pq

    directory = _evaluation(tmp_path / "a", "<b>m</b>", ["0", "1", "2", "9", "9", "</script>"])
    html = write_evaluation_report(directory).read_text()
    assert "<b>m</b>" not in html and "&lt;b&gt;m&lt;/b&gt;" in html and "50.0%" in html
    table = pq.read_table(directory / "eval_results.parquet")
    assert table.column_names == list(COLUMNS) and table.num_rows == 6
    assert table.to_pylist() == list(ResultsFile(directory).rows())
    assert json.loads((directory / "summary.json").read_text())["results"][0]["answer_accuracy"] == 0.5
    assert (directory / "plots" / "evaluation.png").exists()
    assert write_report(directory, tmp_path / "out").read_text() == html  # what jobs/report.py calls
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("report.html", "summary.json", "eval_results.parquet", "plots")
    }


def test_two_evaluations_side_by_side(tmp_path):
    a = _evaluation(tmp_path / "a", "base", ["9"] * 6)
    b = _evaluation(tmp_path / "b", "tuned", ["0", "1", "2", "3", "4", "5"], template="Q: {question}", temperature=1.0)
    found = compare_evaluations([a, b])
    (comparison,) = found["comparisons"]
    assert (comparison["a"], comparison["b"], comparison["num_only_b"]) == ("base", "tuned", 6)
    assert comparison["sentence"].startswith("tuned is better than base: +100.0 points") and comparison["p"] == 2 / 64
    assert found["notes"] == [
        "tuned and base were asked differently on sums: their prompts differ.",
        "tuned and base differ on sums in rollout: temperature: 0.0 was, 1.0 is.",
    ]
    with pytest.raises(CheckpointError, match="must have problems in common, answered by two models, got base on sums"):
        compare_evaluations([a])
    other = _evaluation(tmp_path / "c", "other", ["9"] * 6)
    rows = [{**r, "gold": "100"} for r in ResultsFile(other).rows()]
    ResultsFile(other).path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(CheckpointError, match="must agree on gold answers"):
        compare_evaluations([a, other])


def test_models_of_one_name_are_told_apart_by_their_evaluation(tmp_path):
    a, b = _evaluation(tmp_path / "a", "m", ["9"] * 6), _evaluation(tmp_path / "b", "m", ["9"] * 6)
    (comparison,) = compare_evaluations([a, b])["comparisons"]
    assert (comparison["a"], comparison["b"], comparison["verdict"]) == ("a: m", "b: m", "cannot tell")
    one, other = (_evaluation(tmp_path / name / "exp_1", "m", ["9"] * 6) for name in ("x", "y"))
    (comparison,) = compare_evaluations([one, other])["comparisons"]
    assert (comparison["a"], comparison["b"]) == (f"{one}: m", f"{other}: m")
    with pytest.raises(CheckpointError, match="must be different directories"):
        compare_evaluations([a, a])


def test_a_registered_template_is_recorded_as_its_text(sums):
    """A run that names it and a data set that has it ask the same."""
    loaded, settings = _loaded(sums, prompt={"template": TEMPLATES["gsm8k"]})
    run = Config.model_validate({"stages": [{"name": "a", "kind": "sft"}], "data": {"prompt_template": "gsm8k"}})
    auto = settings.model_copy(update={"prompt": PromptConfig()})
    prompters = {("a", "x"): make_prompter(loaded, settings, None), ("b", "x"): make_prompter(loaded, auto, run)}
    first, second = EvaluationRecord.of(settings, [], [], prompters, {}).prompts
    assert first | {"model": ""} == second | {"model": ""} and first["template"].startswith("Solve the problem")


def test_an_evaluation_is_resumed_as_it_was_started(tmp_path):
    before = EvaluationRecord([{"label": "m", "fingerprint": "a"}], [], [], {"seed": 0})
    before.write(tmp_path)
    before.check(tmp_path)
    with pytest.raises(CheckpointError, match="its models differ: fingerprint: 'a' was, 'b' is"):
        EvaluationRecord([{"label": "m", "fingerprint": "b"}], [], [], {"seed": 0}).check(tmp_path)
    with pytest.raises(CheckpointError, match="its settings differ: seed: 0 was, 1 is"):
        EvaluationRecord([{"label": "m", "fingerprint": "a"}], [], [], {"seed": 1}).check(tmp_path)
