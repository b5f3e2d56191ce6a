import re
import time
from collections import Counter
from random import Random

import pytest

from pipeline.config import DataConfig, EmbeddedSetsConfig
from pipeline.data import check_data, load_problems
from pipeline.data.stories import (
    MAX_NUMBERS,
    NAME,
    TOPICS,
    Story,
    read_story,
    story_rows,
    topic_of,
    vary,
    write_story,
    writer,
)
from pipeline.data.stories.grammar import PATTERNS
from pipeline.data.stories.reader import FORMS, RESERVED
from pipeline.data.stories.words import COINS, FRIENDS, NAMES, SETTINGS, is_plural_of, plural
from pipeline.types import WritingKind
from pipeline.verifier import grade

KINDS: tuple[WritingKind, ...] = ("parameters", "context", "practical")


@pytest.fixture(scope="module")
def train():
    return load_problems(DataConfig(name=NAME), "train")


@pytest.fixture(scope="module")
def held_out():
    return load_problems(DataConfig(name=NAME), "eval")


@pytest.fixture(scope="module")
def stories():
    random = Random(17)
    return [write_story(random, level) for level in MAX_NUMBERS for _ in range(50)]


def read(statement: str) -> Story:
    story = read_story(statement)
    assert story
    return story


# Reading -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "steps"),
    [
        ("Mia has 30 stones. Mia finds 12 more stones. How many stones does Mia have?", ["30 + 12 = 42"]),
        ("Mia starts with 30 stones. Later Mia loses 12 stones. How many stones does Mia have now?", ["30 - 12 = 18"]),
        ("Mia has 30 stones. Then Mia gives 12 stones to Leo. How many stones does Mia have now?", ["30 - 12 = 18"]),
        ("Mia has 30 stones. Mia gets 12 stones from Leo. How many stones does Mia have now?", ["30 + 12 = 42"]),
        ("Mia has 30 stones. Mia sells half of the stones. How many stones does Mia have now?", ["30 / 2 = 15"]),
        (
            "Mia has 30 stones. Mia now has 4 times as many stones. How many stones does Mia have?",
            ["30 * 4 = 120"],
        ),
        ("Mia has 5 jars with 11 stones in each jar. How many stones does Mia have?", ["5 * 11 = 55"]),
        ("Mia keeps 11 stones in each of 5 jars. How many stones does Mia have now?", ["5 * 11 = 55"]),
        (
            "Mia has 30 stones. Mia buys 3 boxes of 4 stones. How many stones does Mia have?",
            ["3 * 4 = 12", "30 + 12 = 42"],
        ),
        (
            "Mia has 30 stones. Mia sells 3 boxes of 4 stones. How many stones does Mia have?",
            ["3 * 4 = 12", "30 - 12 = 18"],
        ),
        ("Mia has 30 stones. Leo has 12 more stones than Mia. How many stones does Leo have?", ["30 + 12 = 42"]),
        ("Mia has 30 stones. Leo has 12 fewer stones than Mia. How many stones does Leo have?", ["30 - 12 = 18"]),
        ("Mia has 30 stones. Leo has 4 times as many stones as Mia. How many stones does Leo have?", ["30 * 4 = 120"]),
        ("Mia has 30 stones. Leo has half as many stones as Mia. How many stones does Leo have?", ["30 / 2 = 15"]),
        (
            "Mia has 30 nuts. If Mia shares the nuts equally among 6 children, how many nuts does each child get?",
            ["30 / 6 = 5"],
        ),
        (
            "Mia has 30 stones. If Mia puts 6 stones in each box, how many boxes does Mia need?",
            ["30 / 6 = 5"],
        ),
        (
            "Mia has 30 stones. How many rubles does Mia get for all the stones at 3 rubles each?",
            ["30 * 3 = 90"],
        ),
        ("Mia has 30 stones. Leo has 12 stones. How many stones do Mia and Leo have together?", ["30 + 12 = 42"]),
        ("Mia has 30 stones. Leo has 12 stones. How many more stones does Mia have than Leo?", ["30 - 12 = 18"]),
        (
            "The bakery has 30 rolls in stock. Then the bakery delivers 12 rolls to the hotel. "
            "What is the number of rolls at the bakery now?",
            ["30 - 12 = 18"],
        ),
        (
            "Mia has 30 stones. Leo has 12 stones. Mia gives 8 stones to Leo. "
            "How many more stones does Mia have than Leo?",
            ["30 - 8 = 22", "12 + 8 = 20", "22 - 20 = 2"],
        ),
    ],
)
def test_a_story_is_worked_out_sentence_by_sentence(statement, steps):
    story = read_story(statement)
    assert story and list(story.steps) == steps
    assert str(story.answer) == steps[-1].split()[-1]
    assert (story.num_operations, story.is_trivial) == (len(steps), False)
    assert story.statement == statement


def test_names_things_and_containers_may_be_any_words():
    story = read_story(
        "Zebulon fills 6 tubs with 7 geodes each.  Then\nZebulon loses 2 geodes. How many geodes does Zebulon have?"
    )
    assert story and (story.answer, story.thing, story.topic, story.largest) == (40, "geodes", None, 42)


@pytest.mark.parametrize(
    "statement",
    [
        "Mia has 5 stones. Mia sells 6 stones. How many stones does Mia have?",
        "Mia has 5 stones. Mia sells half of the stones. How many stones does Mia have?",
        "Mia has 5 stones. If Mia shares the stones equally among 2 friends, how many stones does each friend get?",
        "Mia has 5 stones. If Mia shares the stones equally among 0 friends, how many stones does each friend get?",
        "Mia has 5 stones. Leo has 6 stones. How many more stones does Mia have than Leo?",
        "Mia has 5 stones. Mia finds 3 more stones. How many stones does Leo have?",
        "Mia has 5 stones. Mia gives 3 stones to Leo. How many stones does Leo have?",
        "Mia has 5 stones. Mia has 6 stones. How many stones does Mia have?",
        "Mia has 5 stones. Mia gives 3 stones to Mia. How many stones does Mia have?",
        "Mia has 5 stones. Leo has 3 more stones than Leo. How many stones does Leo have?",
        "Mia finds 3 more stones. How many stones does Mia have?",
        "Mia has 5 stones. Mia finds 3 more shells. How many stones does Mia have?",
        "Mia has 5 stones. Leo has 7 stones. Mia finds 3 more stones. How many stones does Mia have?",
        "Mia has 5 stones. Leo has 2 more stones than Mia. How many stones does Mia have?",
        "Mia has 5 jars with 3 stones in each box. How many stones does Mia have?",
        "Mia has 5 more. Mia finds 3 more more. How many more does Mia have?",
        "Mia has 5 stones. Mia finds 3 more stones.",
        "How many stones does Mia have? Mia has 5 stones. Mia finds 3 more stones.",
        "Mia has 5 stones. How many stones does Mia have? How many stones does Mia have?",
        "Mia has 5 stones. Mia is happy. Mia finds 3 more stones. How many stones does Mia have?",
        "Mia has 5 stones. Mia finds 3 more stones. How many stones does Mia have? 8",
        "Mia has five stones. Mia finds 3 more stones. How many stones does Mia have?",
        "Mia has 05 stones. Mia finds 3 more stones. How many stones does Mia have?",
        "Mia has -5 stones. Mia finds 3 more stones. How many stones does Mia have?",
        "Mia has 1.5 stones. Mia finds 3 more stones. How many stones does Mia have?",
        "Mia has 1000000 stones. Mia finds 3 more stones. How many stones does Mia have?",
        "Mia has \u0665 stones. Mia finds 3 more stones. How many stones does Mia have?",
        "Mia has \uff15 stones. Mia finds 3 more stones. How many stones does Mia have?",
        "How many stones does Mia have?",
        "55",
        "",
    ],
)
def test_what_contradicts_itself_or_is_not_understood_is_no_story(statement):
    assert read_story(statement) is None


@pytest.mark.parametrize(
    ("statement", "num_operations"),
    [
        ("Mia has 5 stones. How many stones does Mia have?", 0),
        ("Mia has 5 stones. Mia finds 0 more stones. How many stones does Mia have?", 0),
        ("Mia has 1 stones. Mia finds 3 more stones. How many stones does Mia have?", 0),
        ("Mia has 5 jars with 1 stones in each jar. Mia sells 2 stones. How many stones does Mia have?", 1),
        ("Mia has 5 stones. Mia sells 5 stones. How many stones does Mia have?", 0),
        ("Mia has 5 stones. Mia buys 3 more stones. Mia sells 3 stones. How many stones does Mia have?", 1),
        (
            "Mia has 6 stones. Mia sells half of the stones. Mia now has 2 times as many stones. "
            "How many stones does Mia have?",
            1,
        ),
    ],
)
def test_operations_that_change_nothing_are_trivial_and_do_not_count(statement, num_operations):
    story = read_story(statement)
    assert story and (story.is_trivial, story.num_operations) == (True, num_operations)


@pytest.mark.parametrize(
    "statement",
    [
        "Mia has " + "5" * 10_000 + " stones. How many stones does Mia have?",
        "Mia has 5 stones. " * 10_000,
        "M" + "i" * 100_000,
        "If " * 50_000,
        ". " * 100_000,
        "Mia has 5 jars with " * 5_000,
        "The the the " * 80,
        "How many stones does Mia get if " * 30,
    ],
    ids=lambda text: text[:20],
)
def test_hostile_texts_are_refused_at_once(statement):
    started = time.perf_counter()
    assert read_story(statement) is None
    assert time.perf_counter() - started < 0.5


# Grammar -----------------------------------------------------------------------------------------

FILLED = {
    "A": "Zebulon", "B": "the quarry", "n": "6", "m": "7", "lead": "Later ", "things": "geodes", "container": "shelf",
    "containers": "shelves", "friend": "person", "friends": "people", "coins": "rubles",
}  # fmt: skip


@pytest.mark.parametrize("name", PATTERNS)
def test_every_wording_of_a_pattern_can_only_be_read_as_itself(name):
    for wording in (*PATTERNS[name].everyday, *PATTERNS[name].practical):
        for lead in ("Later ", ""):
            text = wording.format(**FILLED | {"lead": lead})
            text = text[0].upper() + text[1:]
            found = [form for form in FORMS if form.expression.fullmatch(text)]
            assert [(form.pattern, form.wording) for form in found] == [(name, wording)]


def test_the_words_of_the_set_are_none_of_the_grammar():
    nouns = [*FRIENDS, *(container for topic in TOPICS.values() for container in topic.containers)]
    things = [thing for topic in TOPICS.values() for thing in topic.things]
    places = [place.removeprefix("the ") for settings in SETTINGS.values() for place in settings]
    words = {*nouns, *map(plural, nouns), *things, *COINS, *places, *(name.lower() for name in NAMES)}
    assert not words & RESERVED
    assert len(things) == len(set(things)), "a thing belongs to one topic"
    assert len(TOPICS) >= 12 and all(topic_of(thing) for thing in things) and topic_of("geodes") is None


def test_singular_and_plural():
    assert [plural(noun) for noun in ("jar", "box", "bunch", "pouch", "child", "tray", "berry")] == [
        "jars", "boxes", "bunches", "pouches", "children", "trays", "berries",
    ]  # fmt: skip
    assert is_plural_of("shelves", "shelf") and is_plural_of("knives", "knife") and is_plural_of("people", "person")
    assert not is_plural_of("boxes", "jar") and not is_plural_of("jar", "jar")


# The set -----------------------------------------------------------------------------------------


def test_what_is_written_is_read_as_it_was_meant(stories):
    for story in stories:
        assert read_story(story.statement) == story


def test_every_step_is_true_and_the_last_one_is_the_answer(train):
    compute = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}
    for problem in train:
        lines = re.findall(r"^(\d+) (\S) (\d+) = (\d+)$", str(problem.solution), flags=re.MULTILINE)
        assert len(lines) == int(str(problem.level))
        for left, sign, right, result in lines:
            assert compute[sign](int(left), int(right)) == int(result)
            assert sign != "/" or int(left) % int(right) == 0
            assert {left, right} & {"0", "1"} == set()
        assert lines[-1][3] == problem.gold


def test_levels_bound_operations_and_numbers(train, held_out):
    for problem in [*train, *held_out]:
        story = read_story(problem.question)
        assert story and str(story.num_operations) == problem.level and not story.is_trivial
        assert story.largest <= MAX_NUMBERS[str(problem.level)]
        assert (str(story.answer), story.topic) == (problem.gold, problem.type)
        assert 2 <= len(story.sentences) <= 5


def test_every_pattern_and_topic_occurs(train):
    used = Counter(sentence.pattern for problem in train for sentence in read(problem.question).sentences)
    assert set(used) == set(PATTERNS) and min(used.values()) > 20
    assert {problem.type for problem in train} == set(TOPICS)


def test_splits_never_overlap_whatever_the_names_are(train, held_out):
    keys = [[read(problem.question).key for problem in problems] for problems in (train, held_out)]
    assert [len(each) for each in keys] == [1800, 600]
    assert len({*keys[0], *keys[1]}) == 2400
    assert len({problem.question for problem in [*train, *held_out]}) == 2400
    fewer = story_rows(EmbeddedSetsConfig(train_per_level=7), "eval")
    assert [row["question"] for row in fewer] == [problem.question for problem in held_out]


def test_names_things_and_wordings_do_not_make_another_problem():
    first = read("Mia has 30 stones. Leo has 12 stones. How many stones do Mia and Leo have together?")
    renamed = read("Ben owns 30 plums. Ivy owns 12 plums. How many plums do Ben and Ivy have in total?")
    other = read("Ben owns 30 plums. Ivy owns 13 plums. How many plums do Ben and Ivy have in total?")
    asked = read("Mia has 30 stones. Leo has 12 stones. How many more stones does Mia have than Leo?")
    assert first.key == renamed.key and len({first.key, other.key, asked.key}) == 3


def test_a_request_for_more_stories_than_there_are_ends(monkeypatch):
    monkeypatch.setattr(writer, "MAX_NUMBERS", {"1": 60})  # the level with the fewest
    rows = story_rows(EmbeddedSetsConfig(train_per_level=10**6, eval_per_level=1), "train")
    assert len(rows) == 2999


def test_the_set_needs_no_other_library_and_is_the_same_everywhere():
    rows = story_rows(EmbeddedSetsConfig(eval_per_level=1), "eval")
    assert [(row["question"], row["solution"], row["type"]) for row in rows] == [
        (
            "Ben has 3 stones. Ben now has 4 times as many stones. How many stones does Ben have now?",
            "3 * 4 = 12",
            "nature",
        ),
        (
            "Liam has 8 baskets with 10 pears in each basket. Liam loses 2 pears. How many pears does Liam have?",
            "8 * 10 = 80\n80 - 2 = 78",
            "fruit",
        ),
        (
            "Clara has 15 bolts. Later Clara buys 142 more bolts. Clara sells 120 bolts. "
            "If Clara sells all the bolts at 5 pounds each, how many pounds does Clara get?",
            "15 + 142 = 157\n157 - 120 = 37\n37 * 5 = 185",
            "tools",
        ),
    ]
    assert check_data(DataConfig(name=NAME)) == "embedded:stories: 1800 training and 600 held-out problems"


def test_worked_solutions_are_graded_correct(train):
    sample = train[::100]
    assert {grade(str(problem.solution), problem.gold).outcome for problem in sample} == {"correct"}


# Variations --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_variation_has_as_many_operations_and_can_be_read(stories, kind):
    random = Random(3)
    for story in stories:
        varied = vary(story.statement, kind, random)
        assert read_story(varied.statement) == varied
        assert [each.pattern for each in varied.sentences] == [each.pattern for each in story.sentences]
        assert varied.num_operations == story.num_operations and not varied.is_trivial
        assert varied.key != story.key
        assert 0.5 <= len(varied.statement.split()) / len(story.statement.split()) <= 2


def test_other_parameters_keep_every_word_and_no_number(stories):
    random = Random(3)
    for story in stories:
        varied = vary(story.statement, "parameters", random)
        assert re.sub(r"\d+", "0", varied.statement) == re.sub(r"\d+", "0", story.statement)
        numbers = (re.findall(r"\d+", each.statement) for each in (story, varied))
        assert all(old != new for old, new in zip(*numbers, strict=True))


@pytest.mark.parametrize("kind", ["context", "practical"])
def test_another_context_has_other_people_and_things(stories, kind):
    random = Random(3)
    for story in stories:
        varied = vary(story.statement, kind, random)
        assert varied.topic != story.topic
        holders = [{holder for each in told.sentences for holder in each.holders} for told in (story, varied)]
        assert not holders[0] & holders[1]
        assert all(holder.startswith("the ") for holder in holders[1]) == (kind == "practical")


@pytest.mark.parametrize(("kind", "low", "least"), [("context", 0.25, 0.9), ("practical", 0.05, 0.95)])
def test_another_context_is_as_similar_as_its_reward_asks(stories, kind, low, least):
    random = Random(3)
    cosines = [_cosine(story.statement, vary(story.statement, kind, random).statement) for story in stories]
    assert sum(low <= cosine <= 0.7 for cosine in cosines) / len(cosines) >= least


def _cosine(left: str, right: str) -> float:
    a, b = (Counter(re.findall(r"\w+", text.lower())) for text in (left, right))
    sizes = [sum(count**2 for count in each.values()) ** 0.5 for each in (a, b)]
    return sum(a[word] * b[word] for word in a) / (sizes[0] * sizes[1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_story_about_many_people_can_be_varied(kind):
    gifts = " ".join(f"Mia gives {number} stones to {name}." for number, name in enumerate(NAMES[1:6], 2))
    varied = vary(f"Mia has 90 stones. {gifts} How many stones does Mia have?", kind, Random(3))
    assert len({holder for sentence in varied.sentences for holder in sentence.holders}) == 6


def test_a_practical_story_can_be_varied_again(stories):
    random = Random(3)
    for story in stories[::10]:
        practical = vary(story.statement, "practical", random)
        for kind in KINDS:
            assert vary(practical.statement, kind, random).num_operations == story.num_operations


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("What is 3 + 4?", "context"),
        ("Mia has 5 stones. How many stones does Mia have?", "parameters"),
        ("Mia has 30 stones. Mia finds 12 more stones. How many stones does Mia have?", "new"),
    ],
)
def test_what_cannot_be_varied_is_an_error(statement, kind):
    with pytest.raises(ValueError, match="must"):
        vary(statement, kind, Random(1))
