"""A planted cheat gets less than an honest problem beside it, in every case, with the rewards of the demo."""

from functools import cache

import pytest

from pipeline.config import EmbeddedSetsConfig, load_config
from pipeline.data.stories import story_rows
from pipeline.questions.judge import verdict_of
from pipeline.rewards.registry import RewardContext
from pipeline.rewards.scoring import Scorer
from tests.conftest import ROOT
from tests.support.questions import completion_text, ordinary, writing_group

CONFIG = load_config(ROOT / "configs" / "questions_gen_smollm2.yaml")

TRAINING = "Mia fills 5 jars with 11 lemons each. Mia finds 20 more lemons. How many lemons does Mia have now?"
HONEST = completion_text(
    "Zoe keeps 9 pears in each of 6 crates. Zoe sells 14 pears. How many pears does Zoe have now?",
    "6 * 9 = 54\n54 - 14 = 40",
    "40",
)
COPY = TRAINING.replace("Mia", "Leo")
OTHER_NUMBERS, OTHER_SOLUTION = COPY.replace("11", "12").replace("20", "30"), "5 * 12 = 60\n60 + 30 = 90"
COPY_SOLUTION = "5 * 11 = 55\n55 + 20 = 75"
STATEMENT = "Omar has 70 plums. Omar sells 18 plums. Ivy has 25 more plums than Omar. How many plums does Ivy have?"
SOLUTION = "70 - 18 = 52\n52 + 25 = 77"
GOOD = completion_text(STATEMENT, SOLUTION, "77")


@cache
def scorer() -> Scorer:
    rows = story_rows(EmbeddedSetsConfig(train_per_level=100), "train")
    training = [ordinary(statement) for statement in (TRAINING, *(row["question"] for row in rows))]
    return Scorer(CONFIG.reward, RewardContext(CONFIG, lambda: training))


def totals(*texts, **task):
    group = writing_group(*texts, **{"level": "2", "topic": "fruit"} | task)
    verdicts = [verdict_of(group.problem, text, CONFIG.questions) for text in texts]
    return [reward.total for reward in scorer().score(group, verdicts)]


def test_honest_problems_pass_every_gate():
    assert min(totals(HONEST, GOOD)) > 2


CHEATS = {
    "a training problem": completion_text(TRAINING, COPY_SOLUTION, "75"),
    "a training problem with other names": completion_text(COPY, COPY_SOLUTION, "75"),
    "a training problem with other names and numbers": completion_text(OTHER_NUMBERS, OTHER_SOLUTION, "90"),
    "a training problem with other names and things": completion_text(
        COPY.replace("lemons", "oranges"), COPY_SOLUTION, "75"
    ),
    "a training problem about a made-up holder, with other numbers": completion_text(
        OTHER_NUMBERS.replace("Leo", "the zork").replace("the zork fills", "The zork fills").replace(". the", ". The"),
        OTHER_SOLUTION,
        "90",
    ),
    "a training problem with made-up containers and other numbers": completion_text(
        OTHER_NUMBERS.replace("jars", "grobbels"), OTHER_SOLUTION, "90"
    ),
    "a training problem with a made-up thing": completion_text(
        TRAINING.replace("lemons", "qzxes"), COPY_SOLUTION, "75"
    ),
    "a problem about another topic": completion_text(STATEMENT.replace("plums", "screws"), SOLUTION, "77"),
    "an unparsable answer": completion_text(STATEMENT, SOLUTION, "77 ("),
    "two answers": completion_text(STATEMENT, SOLUTION, "77 or 78"),
    "no answer": completion_text(STATEMENT, SOLUTION, ""),
    "a key that is always 0": completion_text(STATEMENT, SOLUTION, "0"),
    "a key that is always 0, with a solution that says so": completion_text(STATEMENT, "70 - 70 = 0\n0 + 0 = 0", "0"),
    "a problem made for the key 0": completion_text(
        "Omar has 70 plums. Omar sells 18 plums. Omar sells 52 plums. How many plums does Omar have now?",
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
        "Omar has 70 plums. Omar sells 0 plums. Omar finds 18 more plums. How many plums does Omar have now?",
        "70 - 0 = 70\n70 + 18 = 88",
        "88",
    ),
    "an operation with 1": completion_text(
        "Omar has 70 plums. Omar now has 1 times as many plums. Omar sells 18 plums. How many plums does Omar have?",
        "70 * 1 = 70\n70 - 18 = 52",
        "52",
    ),
    "an operation with 1, beside as many as were asked for": completion_text(
        STATEMENT.replace("Omar has 70 plums.", "Omar has 70 plums. Omar now has 1 times as many plums."),
        "70 * 1 = 70\n" + SOLUTION,
        "77",
    ),
    "a solution left empty": completion_text(STATEMENT, "", "77"),
    "a solution of a dash": completion_text(STATEMENT, "-", "77"),
    "a solution that is the answer": completion_text(STATEMENT, "77", "77"),
    "fewer operations than asked": completion_text(
        "Omar has 70 plums. Omar sells 18 plums. How many plums does Omar have now?", "70 - 18 = 52", "52"
    ),
    "more operations than asked": completion_text(
        STATEMENT.replace(" Ivy", " Omar finds 20 plums. Ivy").replace("finds", "gets"),
        "70 - 18 = 52\n52 + 20 = 72\n72 + 25 = 97",
        "97",
    ),
    "a bare sum instead of a story": completion_text("What is 70 - 18 + 25?", SOLUTION, "77"),
    "an equation instead of a story": completion_text("Solve 3x - 24 = 36 for x.", "3x = 60\nx = 20", "x = 20"),
    "the smallest numbers that pass": completion_text(
        "Omar has 5 plums. Omar sells 3 plums. Ivy has 2 more plums than Omar. How many plums does Ivy have?",
        "5 - 3 = 2\n2 + 2 = 4",
        "4",
    ),
    "numbers beyond the bound": completion_text(
        STATEMENT.replace("70", "7000"), "7000 - 18 = 6982\n6982 + 25 = 7007", "7007"
    ),
    "a problem that nobody can compute": completion_text("Guess how many plums are in the bag.", "77", "77"),
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
    [(GOOD, GOOD), (GOOD, GOOD.replace("Omar", "Ben")), (GOOD, GOOD.replace("plums", "melons").replace("Omar", "Ben"))],
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
