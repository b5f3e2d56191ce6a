import json
import os
import subprocess
import sys

import pytest

from pipeline.config import DataConfig, EmbeddedSetsConfig, FieldNames
from pipeline.data import arithmetic, check_data, load_problems, worked_solution
from pipeline.data.answers import last_boxed
from pipeline.errors import DataError
from tests.conftest import ROOT, SHARED

needs_shared_data = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not there")
MATH = FieldNames(question="problem", answer="solution", level="level", type="type")


def write_jsonl(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_worked_solution_has_the_form_the_format_reward_looks_for():
    expected = "<reasoning>\n1 + 1 = 2\n</reasoning>\n<answer>\n2\n</answer>"
    assert worked_solution("1 + 1 = 2\n", " 2") == expected


def test_a_plain_row_becomes_a_problem(tmp_path):
    row = {"q": " 1 + 1? ", "a": 2, "how": "add", "grade": 3, "kind": "sum", "key": "k7"}
    fields = FieldNames(question="q", answer="a", solution="how", level="grade", type="kind", id="key")
    name = write_jsonl(tmp_path / "set.jsonl", row)
    [problem] = load_problems(DataConfig(name=name, fields=fields, system_prompt="Be brief."), "train")
    assert problem.prompt == ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"})
    assert (problem.gold, problem.level, problem.type, problem.id) == ("2", "3", "sum", "k7")
    assert problem.solution == worked_solution("add", "2")


def test_hash_answers_lose_calculator_marks_and_keep_commas(tmp_path):
    row = {"question": "Pay?", "answer": "She earns 10*200 = $<<10*200=2000>>2000.\n#### 2,000 "}
    [problem] = load_problems(
        DataConfig(name=write_jsonl(tmp_path / "a.jsonl", row), answer_format="hash", system_prompt=""), "train"
    )
    assert problem.gold == "2,000"
    assert problem.solution == worked_solution("She earns 10*200 = $2000.", "2,000")
    assert problem.prompt == ({"role": "user", "content": "Pay?"},)


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        (r"so $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"first $\boxed{1}$, then \fbox{2}", "2"),
        (r"the answer is $\boxed 7$.", "7"),
        (r"\boxed{\left\{1, 2\right\}}", r"\left\{1, 2\right\}"),
        (r"\boxed{\left\{1, 2\right.}", r"\left\{1, 2\right."),
        (r"\boxed{3", None),
        (r"none here, \boxedsomething{3}", None),
    ],
)
def test_last_boxed(text, gold):
    assert last_boxed(text) == gold


def test_rows_without_question_or_gold_are_left_out_and_counted(tmp_path, caplog):
    rows: list[dict] = [{"question": "a?", "answer": "#### 1"}, {"question": "", "answer": "#### 1"}]
    rows += [{"question": "b?", "answer": "no mark"}, {"question": "c?", "answer": None}]
    config = DataConfig(name=write_jsonl(tmp_path / "a.jsonl", *rows), answer_format="hash")
    assert [problem.question for problem in load_problems(config, "train")] == ["a?"]
    assert "left out 3 of 4 rows" in caplog.text
    with pytest.raises(DataError, match="has none of train"):
        load_problems(config.model_copy(update={"train_split": "train[1:]"}), "train")


def test_ids_depend_on_the_question_alone_and_repeats_are_numbered(tmp_path):
    rows = [{"question": "x?", "answer": "1"}, {"question": "y?", "answer": "2"}, {"question": "x?", "answer": "1"}]
    config = DataConfig(name=write_jsonl(tmp_path / "a.jsonl", *rows))
    first, other, repeat = [problem.id for problem in load_problems(config, "train")]
    assert first == "train-074ab17800f4"  # printf 'x?' | sha256sum
    assert repeat == f"{first}-2"
    assert load_problems(config.model_copy(update={"train_split": "train[1:2]"}), "train")[0].id == other


def test_a_directory_holds_a_file_per_split(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", *({"question": f"{i}?", "answer": str(i)} for i in range(10)))
    write_jsonl(tmp_path / "test.jsonl", {"question": "t?", "answer": "0"})
    config = DataConfig(name=str(tmp_path), train_split="train[:20%]+train[9:]")
    assert [problem.gold for problem in load_problems(config, "train")] == ["0", "1", "9"]
    assert check_data(config) == f"{tmp_path}: 3 training and 1 held-out problems"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.jsonl", "train.jsonl"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "./nowhere"}, r"\./nowhere does not exist"),
        ({"name": "nowhere.jsonl"}, r"nowhere\.jsonl does not exist"),
        ({"name": "embedded:algebra"}, "must be embedded:arithmetic or embedded:operations"),
        ({"name": "embedded:arithmetic", "train_split": "train[:9]"}, "must be train and test"),
        ({"name": "a/b", "hub": "modelscope"}, "pip install modelscope"),
        ({"train_split": "dev"}, r"Unknown split \"dev\"\. Should be one of \['broken', 'train'\]"),
        ({"train_split": "train[:x]"}, r"Unrecognized instruction format: train\[:x\]"),
        ({"train_split": "broken"}, "cannot be read"),
        ({"fields": FieldNames(answer="gold", level="level")}, "has no field gold, level: it has question, answer"),
    ],
)
def test_unusable_data_is_a_one_line_error(tmp_path, changes, message):
    write_jsonl(tmp_path / "train.jsonl", {"question": "?", "answer": "1"})
    (tmp_path / "broken.jsonl").write_text('{"question": ')
    config = DataConfig(**{"name": str(tmp_path), **changes})
    with pytest.raises(DataError, match=message) as caught:
        load_problems(config, "train")
    assert "\n" not in str(caught.value)


def test_partial_sums():
    assert arithmetic.partial_sums("12 + 34 - 50") == "12 + 34 = 46\n46 - 50 = -4"


def test_every_second_worked_solution_is_terse():
    rows = arithmetic.arithmetic_rows(EmbeddedSetsConfig(worked_per_level=[4, 0, 0, 0, 0]), "train")
    assert [row["solution"].count("\n") for row in rows[:4]] == [1, 0, 1, 0]  # three terms are two partial sums
    assert rows[1]["solution"] == f"{rows[1]['question'][8:-1]} = {rows[1]['answer']}"
    for terse_frac, expected in [(0.0, 0), (0.25, 1), (1.0, 4)]:
        solutions = [arithmetic.sum_worked_out("1 + 2 + 3", "6", index, terse_frac) for index in range(4)]
        assert solutions.count("1 + 2 + 3 = 6") == expected


def test_the_order_of_terms_does_not_make_another_problem():
    assert arithmetic.sum_key("3 + 4") == arithmetic.sum_key("4 + 3")
    assert arithmetic.sum_key("30 - 12 + 5") == arithmetic.sum_key("5 + 30 - 12")
    assert arithmetic.sum_key("3 - 4") != arithmetic.sum_key("4 - 3")


def test_num_distinct():
    # Ones: 55 unordered pairs to add, 100 to subtract, and a - 0 is a + 0 for ten values of a.
    assert arithmetic.num_distinct(2, 1) == 55 + 100 - 10
    # Tens: 90 * 91 / 2 unordered pairs to add, 90 * 90 to subtract.
    assert arithmetic.num_distinct(2, 2) == 4095 + 8100


def test_arithmetic_levels_rise_and_solutions_are_right():
    problems = load_problems(DataConfig(), "train")
    by_level = {level: [p for p in problems if p.level == level] for level in "12345"}
    assert {level: len(items) for level, items in by_level.items()} == {
        "1": 600,
        "2": 600,
        "3": 600,
        "4": 600,
        "5": 600,
    }
    worked = {level: sum(p.solution is not None for p in items) for level, items in by_level.items()}
    assert worked == {"1": 400, "2": 400, "3": 40, "4": 20, "5": 10}
    for problem in problems:
        terms = arithmetic.sum_key(problem.question.removeprefix("What is ").removesuffix("?"))
        assert sum(terms) == int(problem.gold)
        assert len(terms) == {"1": 3, "2": 4, "3": 5, "4": 6, "5": 3}[str(problem.level)]
        assert problem.solution is None or problem.solution.endswith(
            f"= {problem.gold}\n</reasoning>\n<answer>\n{problem.gold}\n</answer>"
        )


def test_arithmetic_splits_never_overlap_and_held_out_problems_stay():
    def keys(split, **sizes):
        rows = arithmetic.arithmetic_rows(EmbeddedSetsConfig(**sizes), split)
        return [arithmetic.sum_key(row["question"][8:-1]) for row in rows]

    held_out, train = keys("eval"), keys("train", train_per_level=2000)
    assert len(set(held_out + train)) == len(held_out) + len(train)
    assert held_out == keys("eval", train_per_level=7)
    assert len(held_out) == 5 * 200


def test_arithmetic_is_the_same_in_every_process():
    code = (
        "from pipeline.data import *; from pipeline.config import *; print(load_problems(DataConfig(), 'eval')[::200])"
    )
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": path}
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str(load_problems(DataConfig(), "eval")[::200])


@needs_shared_data
def test_gsm8k():
    config = DataConfig(name=str(SHARED / "gsm8k"), answer_format="hash")
    train, held_out = load_problems(config, "train"), load_problems(config, "eval")
    assert (len(train), len(held_out)) == (7473, 1319)
    assert train[0].gold == "72"
    assert not any("<<" in str(problem.solution) or "####" in str(problem.solution) for problem in train)


@needs_shared_data
def test_math():
    config = DataConfig(name=str(SHARED / "math"), answer_format="boxed", fields=MATH)
    train = load_problems(config, "train")
    assert len(train) == 7498  # two of 7,500 end in an empty \boxed{}
    assert len(load_problems(config, "eval")) == 5000
    assert sum(problem.level == "Level 1" for problem in train) == 564
