"""Writes stories: the rows of the embedded set, and variations of a story."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random
from string import ascii_uppercase
from typing import Any, Literal, NamedTuple

from pipeline.config import EmbeddedSetsConfig
from pipeline.data.embedded import level_part
from pipeline.data.stories.grammar import PATTERNS, Sentence, gaps_of
from pipeline.data.stories.reader import Story, read_story, work_out
from pipeline.data.stories.words import COINS, FRIENDS, LEADS, NAMES, SETTINGS, TOPICS, plural
from pipeline.types import SplitName, WritingKind

NAME = "embedded:stories"
MAX_NUMBERS = {"1": 60, "2": 120, "3": 240}
"""Level (the number of operations) -> the largest number allowed in a story of the set and in its steps."""
_NUM_DISTINCT = 3000
"""Maximum stories per level. More exist, but the stream repeats itself ever more often."""
_SEED = 20_261_127

Style = Literal["everyday", "practical"]
Line = tuple[str, str]
"""A pattern and the letters of its holders: ``("more_than", "AB")``."""

_CHANGES = {"more": 1, "fewer": 1, "half": 1, "times": 1, "gives": 1, "more_containers": 2, "fewer_containers": 2}
"""Pattern -> number of its operations."""
_COMPARISONS = ("more_than", "fewer_than", "times_as_many", "half_as_many")
_ASKED = (
    ("now", "A"), ("now", "A"), ("now", "B"), ("shared", "A"), ("packed", "A"), ("price", "A"), ("together", "AB"),
    ("difference", "AB"), ("difference", "BA"),
)  # fmt: skip
_KEPT_WORDINGS = 0.9
"""Share of sentences that keep their wording in a new context."""
_FEW_DRAWS, _MANY_DRAWS = 20, 2000


def story_rows(config: EmbeddedSetsConfig, split: SplitName) -> list[dict[str, Any]]:
    """Rows of question, answer, solution, level and type, easiest level first. ``level_part`` decides how many."""
    return [
        _row(story, level)
        for level in MAX_NUMBERS
        for story in level_part(_stories(level), lambda story: story.key, _NUM_DISTINCT, config, split)
    ]


def _row(story: Story, level: str) -> dict[str, Any]:
    question, answer, solution = story.statement, str(story.answer), story.solution
    return {"question": question, "answer": answer, "solution": solution, "level": level, "type": story.topic}


def _stories(level: str) -> Iterator[Story]:
    random = Random(_SEED + int(level))
    while True:
        yield write_story(random, level)


def write_story(random: Random, level: str, topic: str | None = None) -> Story:
    """A story of a level, with numbers up to ``MAX_NUMBERS[level]``. None: about any topic."""
    words = _words_about(random, "everyday", topic or random.choice(list(TOPICS)), random.sample(NAMES, 3))
    story = None
    while story is None:
        sentences = [_sentence(random, line, words) for line in _plot(random, int(level))]
        story = _with_numbers(random, sentences, int(level), MAX_NUMBERS[level], _FEW_DRAWS)
    return story


def vary(statement: str, kind: WritingKind, random: Random) -> Story:
    """A variation of a story with the same number of operations, in which every number is different.

    ``parameters`` keeps every word. ``context`` and ``practical`` keep the meaning of the sentences: ``context`` has
    other people and things and a few other wordings, ``practical`` is about places such as a bakery and a hotel.

    Raises:
        ValueError: the statement is not a story with something to compute, or the kind is ``new``.
    """
    original = read_story(statement)
    if original is None or not original.worked_out or kind == "new":
        raise ValueError(f"a variation must vary a story in one of three ways, got {kind} of {statement}")
    sentences = list(original.sentences)
    if kind != "parameters":
        words = _words(random, "practical" if kind == "practical" else "everyday", original)
        sentences = [_sentence(random, line, words, sentence) for sentence, line in _lines(original)]
    num_operations = len(original.worked_out)
    maximum = max(original.largest, MAX_NUMBERS.get(str(num_operations), 0))
    story = _with_numbers(random, sentences, num_operations, maximum, _MANY_DRAWS, original)
    if story is None:
        raise ValueError(f"an original must leave room for other numbers, got {statement}")
    return story


# Plots -------------------------------------------------------------------------------------------------


def _plot(random: Random, num_operations: int) -> list[Line]:
    """The lines of a random story, in which every sentence matters to the question."""
    question, asked = random.choice(_ASKED)
    left = num_operations - (question != "now")
    second: list[Line] = []
    if "B" in asked:
        is_compared = question == "now" or (left > 0 and random.random() < 0.6)
        second = [(random.choice(_COMPARISONS) if is_compared else "has", "AB" if is_compared else "B")]
        left -= is_compared
    is_counted = left > 0 and random.random() < 0.5
    first = ("containers" if is_counted else "has", "A")
    before, after = _changes(random, left - is_counted, bool(second))
    changed = random.choice(asked)
    return [
        first,
        *_changed(random, before, "A"),
        *second,
        *_changed(random, after, changed),
        (question, asked),
    ]


def _changes(random: Random, num_operations: int, has_second: bool) -> tuple[list[str], list[str]]:
    """Patterns with this number of operations in all, before and after the second holder comes in."""
    parts: tuple[list[str], list[str]] = ([], [])
    while num_operations:
        name = random.choice([name for name, cost in _CHANGES.items() if cost <= num_operations])
        parts[has_second and random.random() < 0.5].append(name)
        num_operations -= _CHANGES[name]
    return parts


def _changed(random: Random, names: Sequence[str], holder: str) -> list[Line]:
    """Lines that change a holder's amount. Gifts go to, or come from, somebody who is not asked about."""
    gift = f"{holder}C" if random.random() < 0.6 else f"C{holder}"
    return [(name, gift if name == "gives" else holder) for name in names]


def _lines(story: Story) -> Iterator[tuple[Sentence, Line]]:
    letters: dict[str, str] = {}
    for sentence in story.sentences:
        holders = (letters.setdefault(holder, ascii_uppercase[len(letters)]) for holder in sentence.holders)
        yield sentence, (sentence.pattern, "".join(holders))


# Words -------------------------------------------------------------------------------------------------


class _Words(NamedTuple):
    style: Style
    holders: Sequence[str]
    """The holders in the order of their letters: the first one is A."""
    thing: str
    containers: tuple[str, ...]


def _words_about(random: Random, style: Style, topic: str, holders: Sequence[str]) -> _Words:
    things, containers = TOPICS[topic]
    return _Words(style, holders, random.choice(things), containers)


def _words(random: Random, style: Style, original: Story) -> _Words:
    """Words of another topic than the original's, without any of its people and places."""
    known = {holder for sentence in original.sentences for holder in sentence.holders}
    if style == "everyday":
        topic = random.choice([topic for topic in TOPICS if topic != original.topic])
        names = [name for name in NAMES if name not in known]
        return _words_about(random, style, topic, random.sample(names, len(known)))
    topic, places = random.choice([each for each in SETTINGS.items() if each[0] != original.topic])
    elsewhere = [place for others in SETTINGS.values() for place in others if place not in places]
    holders = [*random.sample(places, len(places)), *random.sample(elsewhere, len(elsewhere))]
    return _words_about(random, style, topic, [place for place in holders if place not in known])


def _sentence(random: Random, line: Line, words: _Words, old: Sentence | None = None) -> Sentence:
    """A sentence without numbers, mostly in the wording of the old one if there is one."""
    name, letters = line
    wordings = getattr(PATTERNS[name], words.style)
    is_kept = old is not None and old.wording in wordings and random.random() < _KEPT_WORDINGS
    wording = old.wording if old and is_kept else random.choice(wordings)
    container, friend = random.choice(words.containers), random.choice(FRIENDS)
    gaps = dict(zip("AB", (words.holders[ascii_uppercase.index(letter)] for letter in letters), strict=False)) | {
        "lead": old.gaps["lead"] if old and "lead" in old.gaps else random.choice(LEADS) * random.randint(0, 1),
        "things": words.thing,
        "container": container,
        "containers": plural(container),
        "friend": friend,
        "friends": plural(friend),
        "coins": random.choice(COINS),
    }
    return Sentence(name, wording, {gap: gaps[gap] for gap in gaps_of(wording) if gap not in "nm"})


# Numbers -----------------------------------------------------------------------------------------------


def _with_numbers(
    random: Random,
    sentences: Sequence[Sentence],
    num_operations: int,
    maximum: int,
    num_draws: int,
    other_than: Story | None = None,
) -> Story | None:
    """A story of these sentences with random numbers and the given number of operations; None if no draw succeeds."""
    for _ in range(num_draws):
        story = work_out([_numbered(random, sentence, maximum) for sentence in sentences])
        if story is None or story.is_trivial or story.num_operations != num_operations or story.largest > maximum:
            continue
        if other_than is None or _all_numbers_differ(story, other_than):
            return story
    return None


def _all_numbers_differ(first: Story, second: Story) -> bool:
    pairs = zip(first.sentences, second.sentences, strict=True)
    return all(one.gaps[gap] != other.gaps.get(gap) for one, other in pairs for gap in "nm" if gap in one.gaps)


def _numbered(random: Random, sentence: Sentence, maximum: int) -> Sentence:
    ranges = PATTERNS[sentence.pattern].ranges
    numbers = (str(random.randrange(each.start, min(each.stop, maximum))) for each in ranges)
    return replace(sentence, gaps=sentence.gaps | dict(zip("nm", numbers, strict=False)))
