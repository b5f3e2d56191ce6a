from pipeline.config import DataConfig, EmbeddedSetsConfig
from pipeline.data import arithmetic, load_problems


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


def test_levels_rise_and_solutions_are_right():
    problems = load_problems(DataConfig(), "train")
    by_level = {level: [p for p in problems if p.level == level] for level in "12345"}
    assert {level: len(items) for level, items in by_level.items()} == dict.fromkeys("12345", 600)
    worked = {level: sum(p.solution is not None for p in items) for level, items in by_level.items()}
    assert worked == {"1": 400, "2": 400, "3": 40, "4": 20, "5": 10}
    for problem in problems:
        terms = arithmetic.sum_key(problem.question.removeprefix("What is ").removesuffix("?"))
        assert sum(terms) == int(problem.gold)
        assert len(terms) == {"1": 3, "2": 4, "3": 5, "4": 6, "5": 3}[str(problem.level)]
        assert problem.solution is None or problem.solution.endswith(
            f"= {problem.gold}\n</reasoning>\n<answer>\n{problem.gold}\n</answer>"
        )


def test_splits_never_overlap_and_held_out_problems_stay():
    def keys(split, **sizes):
        rows = arithmetic.arithmetic_rows(EmbeddedSetsConfig(**sizes), split)
        return [arithmetic.sum_key(row["question"][8:-1]) for row in rows]

    held_out, train = keys("eval"), keys("train", train_per_level=1000)
    assert len(set(held_out + train)) == len(held_out) + len(train)
    assert len(train) == 965 + 4 * 1000  # level 1 has 1,165 problems in all
    assert held_out == keys("eval", train_per_level=7)
    assert len(held_out) == 5 * 200


def test_the_problems_are_the_same_in_every_process_and_on_every_machine():
    held_out = arithmetic.arithmetic_rows(EmbeddedSetsConfig(), "eval")
    assert [row["question"] for row in held_out[::200]] == [
        "What is 4 + 0 + 6?",
        "What is 0 - 7 + 0 + 1?",
        "What is 6 + 5 - 1 - 2 - 3?",
        "What is 7 - 0 - 6 - 5 - 3 - 0?",
        "What is 31 + 41 - 33?",
    ]
    train = arithmetic.arithmetic_rows(EmbeddedSetsConfig(train_per_level=1), "train")
    assert train[0]["question"] == "What is 2 + 2 + 9?" and train[4]["question"] == "What is 39 + 18 + 90?"
