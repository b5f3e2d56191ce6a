import pytest

from pipeline.errors import RewardError
from pipeline.questions.rewards import Novel, consistent_rate, novelty_value, solve_rate_value, training_statements
from pipeline.rewards.registry import make_reward, resolve
from pipeline.types import Completion, Problem, WritingTask
from pipeline.verifier import grade
from tests.support.questions import NO_VERDICTS, completion_text, ordinary, reward_context, reward_values, writing_group

JARS = "Mia has 5 jars with 11 stones in each jar. How many stones does Mia have?"
RENAMED = "Leo has 7 jars with 9 stones in each jar. How many stones does Leo have?"
BOXES = "Leo has 30 boxes with 7 cherries in each box. How many cherries does Leo have?"
SALE = "Ana had 40 apples. Ana sold half of the apples. Later Ana bought 12 apples. How many apples does Ana have now?"
AREA = "A rectangle is 6 cm wide and its perimeter is 22 cm. Find its area in square centimetres."
MALFORMED = "I do not know."


def written(statement, answer="55"):
    solution = "5 * 11 = 55" if statement == JARS else f"It is {answer}."
    return completion_text(statement, solution, answer)


NAMES = ("well_formed", "checked", "difficulty", "novel", "diverse", "variation", "solvable")


def test_every_reward_is_registered_and_gives_nothing_for_a_malformed_text():
    context = reward_context(solver={}, solve=lambda group, statements: pytest.fail("nothing to solve"))
    for name in NAMES:
        assert callable(resolve(name))
        assert reward_values(name, writing_group(MALFORMED, ""), context) == [0, 0], name


def test_well_formed_and_checked_are_one_or_zero():
    group = writing_group(written(AREA, "30"), MALFORMED)
    assert reward_values("well_formed", group, reward_context()) == [1, 0]
    assert reward_values("checked", group, reward_context()) == [1, 0]
    assert reward_values("checked", group, reward_context(must_compute=True)) == [0, 0]


@pytest.mark.parametrize(
    ("similarity", "value"), [(0, 1), (0.6, 1), (0.785, 0.5), (0.96, 0.01 / 0.37), (0.97, 0), (1, 0)]
)
def test_novelty_falls_between_free_and_copy(similarity, value):
    assert novelty_value(similarity, reward_context().config.questions.novelty) == pytest.approx(value)


def test_a_renamed_copy_of_a_training_problem_is_not_novel():
    context = reward_context([ordinary(JARS)])
    copy, renamed, other = reward_values("novel", writing_group(*map(written, (JARS, RENAMED, AREA))), context)
    assert (copy, renamed, other) == (0, 0, 1)


def test_a_story_in_other_words_with_the_same_numbers_is_not_novel():
    reworded = "Leo keeps 11 shells in each of 5 bags. How many shells does Leo have now?"
    original = "Mia has 5 jars with 11 stones in each jar. How many stones does Mia have now?"
    context = reward_context([ordinary(original)])
    values = reward_values("novel", writing_group(written(reworded), written(reworded.replace("11", "12"))), context)
    assert values[0] == 0 < values[1]


def test_other_parameters_are_compared_in_full():
    """The words of the original were to stay: only an exact copy is one."""
    context = reward_context([ordinary(JARS), ordinary(SALE)])
    copy, varied = reward_values(
        "novel", writing_group(written(JARS), written(RENAMED), kind="parameters", original=JARS), context
    )
    assert copy == 0
    assert varied > 0


def test_training_statements_are_those_of_examples_and_originals():
    task = Problem(
        "t", ({"role": "user", "content": "Write."},), "1", written(BOXES), writing=WritingTask("context", JARS)
    )
    without_example = Problem("u", ({"role": "user", "content": "Write."},), "1", writing=WritingTask("context", JARS))
    assert training_statements([ordinary(SALE), task, without_example, ordinary(SALE)]) == [SALE, BOXES, JARS]


def test_history_counts_from_the_state_alone():
    novel = Novel(reward_context())
    group = writing_group(written(JARS))
    assert novel(group, NO_VERDICTS) == [1]
    after = novel.next_state([group])
    assert after == [JARS]
    assert novel(group, NO_VERDICTS) == [1]  # next_state leaves the state as it is
    novel.state = after
    assert novel(group, NO_VERDICTS) == [0]
    assert novel(writing_group(written(AREA)), NO_VERDICTS) == [1]
    novel.state = []
    assert novel(group, NO_VERDICTS) == [1]


def test_history_holds_the_last_problems_with_a_key_in_the_order_of_the_batch():
    novel = Novel(reward_context(novelty={"history": 3}))
    novel.state = ["first", "second"]
    wrong = completion_text("What is 3 + 4?", "3 + 4 = 8", "8")
    groups = [writing_group(written(JARS), MALFORMED), writing_group(wrong, written(SALE))]
    assert novel.next_state(groups) == ["second", JARS, SALE]
    assert Novel(reward_context(novelty={"history": 0})).next_state(groups) == []


def test_one_problem_for_the_whole_group_is_not_diverse():
    context = reward_context()
    assert reward_values("diverse", writing_group(*[written(JARS)] * 4), context) == [pytest.approx(0)] * 4
    assert reward_values("diverse", writing_group(written(JARS), written(BOXES)), context) == [pytest.approx(0)] * 2
    *copies, other, malformed = reward_values(
        "diverse", writing_group(written(JARS), written(JARS), written(BOXES), written(AREA), MALFORMED), context
    )
    assert max(copies) < 0.4 < 0.7 < other
    assert malformed == 0
    assert reward_values("diverse", writing_group(written(JARS), MALFORMED), context) == [1, 0]


def test_variations_of_one_problem_are_told_apart_by_their_words():
    group = writing_group(written(JARS), written(BOXES), kind="context", original=JARS)
    assert min(reward_values("diverse", group, reward_context())) > 0.3


def test_variation_needs_an_original():
    new = writing_group(written(JARS), MALFORMED)
    assert reward_values("variation", new, reward_context()) == [1, 0]
    other_numbers = RENAMED.replace("Leo", "Mia")
    varied = writing_group(
        written(other_numbers, "63"), written(JARS), kind="parameters", original=JARS, original_answer="55"
    )
    assert reward_values("variation", varied, reward_context()) == [1, 0]


@pytest.mark.parametrize(
    ("rate", "target", "value"), [(0, 0.5, 0), (0.25, 0.5, 0.5), (0.5, 0.5, 1), (1, 0.5, 0), (0.5, 0.25, 2 / 3)]
)
def test_too_easy_and_impossible_both_lose(rate, target, value):
    assert solve_rate_value(rate, target) == pytest.approx(value)


def test_solved_problems_are_rewarded_by_the_share_of_agreeing_answers():
    asked = []

    def solve(group, statements):
        asked.extend(statements)
        answers = {JARS: ("55", "55.0", "12", "I do not know"), SALE: ("55",) * 4, AREA: ("0",) * 4}
        return [tuple(Completion.of((1,), (-0.5,), text, "stop") for text in answers[each]) for each in statements]

    context = reward_context(solver={"target_rate": 0.5}, solve=solve)
    group = writing_group(written(JARS), MALFORMED, written(SALE), written(AREA))
    assert reward_values("solvable", group, context) == [1, 0, 0, 0]
    assert asked == [JARS, SALE, AREA]


@pytest.mark.parametrize(
    ("answers", "rate"),
    [
        (("55", "12", "13", "14"), 0.25),
        (("55", "12", "12", "13"), 0),  # more of them say 12
        (("55", "12", "12.0", "$12$"), 0),
        (("55", "12", "12", "55"), 0.5),
        (("I do not know",) * 3 + ("55",), 0.25),
        ((), 0),
    ],
)
def test_the_stated_answer_is_the_most_common_one(answers, rate):
    assert consistent_rate([grade(answer, "55") for answer in answers]) == rate


def test_levels_may_have_solve_rates_of_their_own():
    half_right = tuple(Completion.of((1,), (-0.5,), text, "stop") for text in ("55", "12"))
    context = reward_context(
        solver={"target_rate": 0.5, "target_rates": {"1": 0.25}}, solve=lambda _, statements: [half_right]
    )
    assert reward_values("solvable", writing_group(written(JARS), level="1"), context) == [pytest.approx(2 / 3)]
    assert reward_values("solvable", writing_group(written(JARS), level="2"), context) == [1]


def test_solvable_needs_a_solver():
    with pytest.raises(RewardError, match=r"questions\.solver must be set"):
        make_reward("solvable", reward_context())
