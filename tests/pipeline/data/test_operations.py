import re
from itertools import product
from operator import add, mod, mul, sub

import pytest

from pipeline.config import DataConfig, EmbeddedSetsConfig, load_config
from pipeline.data import check_data, load_problems, operations
from pipeline.data.splits import SplitSettings, prepare_split
from pipeline.verifier import grade
from tests.conftest import CONFIGS

CONFIG = DataConfig(name=operations.NAME)
REPLAY_DEMO = CONFIGS / "search_replay_demo.yaml"
OPERATORS = {"+": add, "-": sub, "*": mul, "modulo": mod}
ASKED = {"1": "What is the largest of", "2": "+", "3": "-", "4": "*", "5": "modulo"}


def numbers_in(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


@pytest.fixture(scope="module")
def train():
    return load_problems(CONFIG, "train")


@pytest.fixture(scope="module")
def held_out():
    return load_problems(CONFIG, "eval")


@pytest.mark.parametrize(
    ("level", "numbers", "steps", "answer"),
    [
        ("1", (37, 25, 81), ["max(37, 25) = 37", "max(37, 81) = 81"], 81),
        ("2", (37, 25), ["37 + 20 = 57", "57 + 5 = 62"], 62),
        ("2", (37, 40), ["37 + 40 = 77"], 77),
        ("3", (52, 37), ["52 - 30 = 22", "22 - 7 = 15"], 15),
        ("3", (52, 40), ["52 - 40 = 12"], 12),
        ("4", (37, 4), ["30 * 4 = 120", "7 * 4 = 28", "120 + 28 = 148"], 148),
        ("4", (40, 9), ["40 * 9 = 360"], 360),
        ("5", (37, 5), ["5 * 7 = 35", "37 - 35 = 2"], 2),
        ("5", (35, 5), ["5 * 7 = 35", "35 - 35 = 0"], 0),
    ],
)
def test_each_operation_is_worked_out_in_steps(level, numbers, steps, answer):
    operation = operations.LEVELS[level]
    assert operation.worked_out(*numbers).split("\n") == steps
    assert operation.answer(*numbers) == answer


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_every_level_asks_for_its_operation_and_every_line_is_true(split, request):
    problems = request.getfixturevalue(split)
    assert len({problem.question for problem in problems}) == len(problems)
    for problem in problems:
        numbers, gold = numbers_in(problem.question), int(problem.gold)
        asked = ASKED[str(problem.level)]
        assert f"{asked} " in problem.question
        assert gold == (OPERATORS[asked](*numbers) if asked in OPERATORS else max(numbers))
        assert gold >= 0 and len(set(numbers)) == len(numbers)
        lines = re.findall(r".+ = \d+", str(problem.solution))
        assert numbers_in(lines[-1])[-1] == gold
        for line in lines:
            *terms, result = numbers_in(line)
            assert result == (max(terms) if "max" in line else OPERATORS[line.split()[1]](*terms)), line


def test_worked_solutions_are_graded_correct(train):
    for level in "12345":
        sample = [problem for problem in train if problem.level == level][:50]
        assert {grade(str(problem.solution), problem.gold).outcome for problem in sample} == {"correct"}


def test_the_distinct_problems_of_a_level():
    for level, operation in list(operations.LEVELS.items())[1:]:
        sets = {frozenset(numbers) for numbers in product(*operation.ranges)}
        assert operation.num_distinct == sum(len(each) == 2 for each in sets), level
    assert operations.LEVELS["1"].num_distinct == 90 * 89 * 88 / 6


def test_splits_never_overlap_and_held_out_problems_stay(train, held_out):
    def key(level, question):
        return level, operations.problem_key(numbers_in(question))

    held_out_keys, train_keys = ([key(p.level, p.question) for p in problems] for problems in (held_out, train))
    assert len(set(held_out_keys + train_keys)) == len(held_out_keys) + len(train_keys)
    rows = operations.operations_rows(EmbeddedSetsConfig(train_per_level=7), "eval")
    assert held_out_keys == [key(row["level"], row["question"]) for row in rows]
    levels = [level for level, _ in held_out_keys]
    assert [levels.count(level) for level in "12345"] == [200, 200, 200, 180, 112]  # a quarter of 720 and of 450
    levels = [level for level, _ in train_keys]
    assert [levels.count(level) for level in "12345"] == [600, 600, 600, 540, 338]  # and the rest of them


def test_the_order_of_numbers_does_not_make_another_problem():
    assert operations.problem_key([37, 25]) == operations.problem_key([25, 37])
    assert operations.problem_key([37, 25]) != operations.problem_key([37, 26])


def test_the_problems_are_the_same_everywhere():
    rows = operations.operations_rows(EmbeddedSetsConfig(eval_per_level=1), "eval")
    assert [row["question"] for row in rows] == [
        "What is the largest of 18, 77 and 84?",
        "What is 76 + 50?",
        "What is 99 - 25?",
        "What is 36 * 2?",
        "What is 36 modulo 5?",
    ]


def test_the_replay_demo_has_enough_problems(train, held_out):
    config = load_config(REPLAY_DEMO)
    assert config.data.arithmetic == CONFIG.arithmetic
    assert check_data(config.data) == "embedded:operations: 2678 training and 892 held-out problems"
    assert config.curriculum and config.curriculum.max_train_samples_per_level
    for level in "12345":
        worked = [problem for problem in train if problem.level == level and problem.solution]
        assert len(worked) >= config.curriculum.max_train_samples_per_level
        assert sum(problem.level == level for problem in held_out) >= config.eval.problems_per_level


def test_prepare_data_splits_the_operations(tmp_path):
    split = prepare_split(SplitSettings(operations.NAME, tmp_path / "out"))
    counts = split.counts(lambda record: record.level)
    assert [sum(sides.values()) for sides in counts.values()] == [800, 800, 800, 720, 450]
    assert all(abs(sides["test"] - 0.2 * sum(sides.values())) <= 1 for sides in counts.values())
    assert split.left_out.lines() == []
