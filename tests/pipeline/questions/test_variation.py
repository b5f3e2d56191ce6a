import pytest

from pipeline.config.questions import BandConfig, VariationConfig
from pipeline.questions.computed import Computation
from pipeline.questions.variation import band_value, variation_value
from pipeline.questions.written import WrittenProblem
from pipeline.types import WritingTask

ORIGINAL = "Mia has 5 jars with 11 stones in each jar. How many stones does Mia have?"
NUMBERS = "Mia has 7 jars with 9 stones in each jar. How many stones does Mia have?"
CONTEXT = "Leo fills 5 crates, and each crate holds 11 pears. How many pears does Leo have?"
OTHER = "Ana had 40 apples and sold half of them to a shop on the corner. How many remain?"


def value(kind, statement, answer="63", original_answer="55"):
    return variation_value(
        WritingTask(kind, ORIGINAL, original_answer), WrittenProblem(statement, "-", answer), VariationConfig()
    )


@pytest.mark.parametrize(
    ("similarity", "expected"), [(0.25, 1), (0.5, 1), (0.7, 1), (0.125, 0.5), (0.825, 0.5), (0, 0), (0.95, 0), (1, 0)]
)
def test_a_band_falls_on_both_sides(similarity, expected):
    assert band_value(similarity, BandConfig(low=0.25, high=0.7)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("kind", "statement", "expected"),
    [
        ("new", OTHER, 1),
        ("parameters", NUMBERS, 1),
        ("parameters", ORIGINAL, 0),  # no number differs
        ("parameters", ORIGINAL.replace("11", "12"), 0.5),
        ("parameters", ORIGINAL.replace("11", "x").replace("5", "11").replace("x", "5"), 0),
        ("parameters", OTHER, 0),
        ("context", CONTEXT, 1),
        ("context", ORIGINAL, 0),
        ("context", NUMBERS, 0),  # names and things stay
        ("practical", CONTEXT, 1),
        ("practical", ORIGINAL, 0),
    ],
)
def test_a_variation_changes_what_its_kind_says(kind, statement, expected, key):
    assert value(kind, statement) == expected


def test_a_practical_story_is_not_about_people():
    original = "Mia has 20 pears. Mia gets 30 pears. How many pears does Mia have now?"
    people = "Theo has 24 roses. Theo gets 37 roses. How many roses does Theo have now?"
    places = people.replace("Theo has", "The hotel has").replace("Theo", "the hotel")
    task, config = WritingTask("practical", original), VariationConfig(bands={"practical": BandConfig()})
    values = [variation_value(task, WrittenProblem(text, "-", "61"), config) for text in (people, places)]
    assert values == [0, 1]


def test_another_form_of_answer_is_no_variation():
    assert value("parameters", NUMBERS, answer="63") == 1
    assert value("parameters", NUMBERS, answer="1/2") == 0
    assert value("parameters", NUMBERS, answer="1/2", original_answer=None) == 1


def test_another_context_keeps_the_operations(key):
    key[ORIGINAL] = Computation("stories", "55", 1, 55, False, ("5 * 11 = 55",))
    key[CONTEXT] = Computation("stories", "55", 1, 55, False, ("5 * 11 = 55",))
    assert value("context", CONTEXT) == 1
    key[OTHER] = Computation("stories", "20", 1, 40, False, ("40 / 2 = 20",))
    assert value("context", OTHER) == 0


def test_a_variation_is_at_most_twice_as_long():
    """16 words. 48 are three times as many: halfway between the largest ratio and twice that."""
    config = VariationConfig(bands={"parameters": BandConfig(low=0, high=1)})
    task = WritingTask("parameters", "2" + " jars" * 15)
    assert [
        variation_value(task, WrittenProblem("3" + " jars" * (length - 1), "-", "1"), config)
        for length in (16, 32, 48, 64, 8, 5)
    ] == [pytest.approx(each) for each in (1, 1, 0.5, 0, 1, 0.4)]
