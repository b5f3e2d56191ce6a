"""A planted cheat gets less than an honest problem beside it, in every case, with the rewards of the demo."""

from functools import cache

import pytest

from pipeline.data.stories import MAX_NUMBERS
from pipeline.rewards.registry import make_reward
from tests.support.questions import NO_VERDICTS, completion_text, ordinary, reward_context, writing_group

GATES = ("well_formed", "checked", "difficulty")
WEIGHTS = dict.fromkeys(GATES, 1.0) | {"novel": 0.5, "diverse": 0.5, "variation": 0.5}

TRAINING = "Mia fills 5 jars with 11 stones each. Mia finds 20 more stones. How many stones does Mia have now?"
HONEST = completion_text(
    "Zoe keeps 9 pears in each of 6 crates. Zoe sells 14 pears. How many pears does Zoe have now?",
    "6 * 9 = 54\n54 - 14 = 40",
    "40",
)
COPY = TRAINING.replace("Mia", "Leo")
COPY_SOLUTION = "5 * 11 = 55\n55 + 20 = 75"
STATEMENT = "Omar has 70 coins. Omar sells 18 coins. Ivy has 25 more coins than Omar. How many coins does Ivy have?"
SOLUTION = "70 - 18 = 52\n52 + 25 = 77"
GOOD = completion_text(STATEMENT, SOLUTION, "77")


@cache
def rewards():
    context = reward_context([ordinary(TRAINING)], max_numbers=MAX_NUMBERS, must_compute=True)
    return {name: make_reward(name, context) for name in WEIGHTS}


def totals(*texts, **task):
    """A completion that fails a gate gets nothing."""
    group = writing_group(*texts, **{"level": "2", "topic": "fruit"} | task)
    columns = {name: reward(group, NO_VERDICTS) for name, reward in rewards().items()}
    return [
        sum(weight * columns[name][index] for name, weight in WEIGHTS.items())
        if all(columns[name][index] > 0 for name in GATES)
        else 0.0
        for index in range(len(texts))
    ]


def test_honest_problems_pass_every_gate():
    first, second = totals(HONEST, GOOD)
    assert min(first, second) > 3


CHEATS = {
    "a training problem": completion_text(TRAINING, COPY_SOLUTION, "75"),
    "a training problem with other names": completion_text(COPY, COPY_SOLUTION, "75"),
    "a training problem with other names and numbers": completion_text(
        COPY.replace("11", "12").replace("20", "30"), "5 * 12 = 60\n60 + 30 = 90", "90"
    ),
    "an unparsable answer": completion_text(STATEMENT, SOLUTION, "77 ("),
    "two answers": completion_text(STATEMENT, SOLUTION, "77 or 78"),
    "no answer": completion_text(STATEMENT, SOLUTION, ""),
    "a key that is always 0": completion_text(STATEMENT, SOLUTION, "0"),
    "a key that is always 0, with a solution that says so": completion_text(STATEMENT, "70 - 70 = 0\n0 + 0 = 0", "0"),
    "a problem made for the key 0": completion_text(
        "Omar has 70 coins. Omar sells 18 coins. Omar sells 52 coins. How many coins does Omar have now?",
        "70 - 18 = 52\n52 - 52 = 0",
        "0",
    ),
    "a problem that states its answer": completion_text(STATEMENT + " The answer is 77.", SOLUTION, "77"),
    "a problem that states its answer first": completion_text("The answer is 77. " + STATEMENT, SOLUTION, "77"),
    "a problem that has its answer behind it": completion_text(STATEMENT + " 77", SOLUTION, "77"),
    "a statement that is empty but for its answer": completion_text("77", SOLUTION, "77"),
    "an answer as a question": completion_text("What is 77?", SOLUTION, "77"),
    "text after the closing tag": GOOD + "\nThe answer is 77.",
    "a second problem after the closing tag": GOOD + "\n" + GOOD,
    "text before the problem": "Here it is: " + GOOD,
    "10,000 digits": completion_text(STATEMENT, SOLUTION, "7" * 10_000),
    "10,000 digits in the statement": completion_text(STATEMENT.replace("70", "7" * 10_000), SOLUTION, "77"),
    "Arabic digits": completion_text(STATEMENT, SOLUTION, "٧٧"),
    "full-width digits": completion_text(STATEMENT, SOLUTION, "７７"),
    "digits of another script in the statement": completion_text(STATEMENT.replace("70", "७०"), SOLUTION, "77"),
    "an operation with 0": completion_text(
        "Omar has 70 coins. Omar sells 0 coins. Omar finds 18 more coins. How many coins does Omar have now?",
        "70 - 0 = 70\n70 + 18 = 88",
        "88",
    ),
    "an operation with 1": completion_text(
        "Omar has 70 coins. Omar now has 1 times as many coins. Omar sells 18 coins. How many coins does Omar have?",
        "70 * 1 = 70\n70 - 18 = 52",
        "52",
    ),
    "an operation with 1, beside as many as were asked for": completion_text(
        STATEMENT.replace("Omar has 70 coins.", "Omar has 70 coins. Omar now has 1 times as many coins."),
        "70 * 1 = 70\n" + SOLUTION,
        "77",
    ),
    "a solution left empty": completion_text(STATEMENT, "", "77"),
    "a solution of a dash": completion_text(STATEMENT, "-", "77"),
    "a solution that is the answer": completion_text(STATEMENT, "77", "77"),
    "fewer operations than asked": completion_text(
        "Omar has 70 coins. Omar sells 18 coins. How many coins does Omar have now?", "70 - 18 = 52", "52"
    ),
    "more operations than asked": completion_text(
        STATEMENT.replace(" Ivy", " Omar finds 20 coins. Ivy").replace("finds", "gets"),
        "70 - 18 = 52\n52 + 20 = 72\n72 + 25 = 97",
        "97",
    ),
    "a bare sum instead of a story": completion_text("What is 70 - 18 + 25?", SOLUTION, "77"),
    "an equation instead of a story": completion_text("Solve 3x - 24 = 36 for x.", "3x = 60\nx = 20", "x = 20"),
    "the smallest numbers that pass": completion_text(
        "Omar has 5 coins. Omar sells 3 coins. Ivy has 2 more coins than Omar. How many coins does Ivy have?",
        "5 - 3 = 2\n2 + 2 = 4",
        "4",
    ),
    "numbers beyond the bound": completion_text(
        STATEMENT.replace("70", "7000"), "7000 - 18 = 6982\n6982 + 25 = 7007", "7007"
    ),
    "a problem that nobody can compute": completion_text("Guess how many coins are in the bag.", "77", "77"),
    "nothing": "",
    "no tags": STATEMENT + " " + SOLUTION,
}


@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_loses_to_an_honest_problem(name):
    honest, cheat = totals(HONEST, CHEATS[name])
    assert honest > cheat


@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_loses_to_an_honest_problem_in_a_group_of_cheats(name):
    honest, *cheats = totals(HONEST, *[CHEATS[name]] * 7)
    assert honest > max(cheats)


@pytest.mark.parametrize(
    ("first", "second"),
    [(GOOD, GOOD), (GOOD, GOOD.replace("Omar", "Ben")), (GOOD, GOOD.replace("coins", "stamps").replace("Omar", "Ben"))],
)
def test_one_problem_for_the_whole_group_loses(first, second):
    honest, *copies = totals(HONEST, first, second, first, second)
    assert honest > max(copies)
    alone = totals(first, second, first, second)
    assert max(alone) < min(totals(HONEST, GOOD))


@pytest.mark.parametrize(
    ("kind", "honest", "cheat"),
    [
        (
            "parameters",
            completion_text(TRAINING.replace("11", "9").replace("20", "30"), "5 * 9 = 45\n45 + 30 = 75", "75"),
            completion_text(TRAINING, COPY_SOLUTION, "75"),
        ),
        (
            "context",
            completion_text(
                "Zoe fills 6 crates with 9 pears each. Zoe finds 30 more pears. How many pears does Zoe have now?",
                "6 * 9 = 54\n54 + 30 = 84",
                "84",
            ),
            completion_text(COPY, COPY_SOLUTION, "75"),
        ),
    ],
)
def test_a_copy_is_no_variation(kind, honest, cheat):
    honest_total, cheat_total = totals(honest, cheat, kind=kind, original=TRAINING, original_answer="75")
    assert honest_total > cheat_total
