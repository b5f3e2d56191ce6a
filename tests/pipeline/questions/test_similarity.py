import pytest

from pipeline.questions.similarity import (
    KnownTexts,
    anonymous,
    names_and_things,
    ngrams,
    numbers,
    plain,
    skeleton,
    without_numbers,
    word_cosine,
)

JARS = "Mia has 5 jars with 11 stones in each jar. How many stones does Mia have?"
BOXES = "Leo has 30 boxes with 7 cherries in each box. How many cherries does Leo have?"
RENAMED = "Leo has 30 jars with 7 stones in each jar. How many stones does Leo have?"
SALE = "Ana had 40 apples. Ana sold half of the apples. Later Ana bought 12 apples. How many apples does Ana have now?"


def test_a_skeleton_masks_numbers_names_and_things():
    expected = "@name has # @thing with # @thing in each @thing how many @thing does @name have"
    assert skeleton(JARS) == skeleton(BOXES) == expected.split()
    assert " ".join(without_numbers(JARS)) == "mia has # jars with # stones in each jar how many stones does mia have"
    assert " ".join(anonymous(JARS)) == "@name has # jars with # stones in each jar how many stones does @name have"
    assert numbers(BOXES) == ["30", "7"]
    assert names_and_things(BOXES) == {"leo", "box", "cherry"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Find $x$ if $3x + 1 = 1,200$.", "find x if # x + # = #"),
        ("What is the area of triangle ABC?", "what is the area of triangle @name"),
        ("Ben buys twelve more books.", "@name buys # more @thing"),
        (
            "He has 3 times as many pens. A pen costs 2 dollars.",
            "he has # times as many @thing a @thing costs # @thing",
        ),
        ("Will has 5 pens. How many pens will Will have?", "@name has # @thing how many @thing will @name have"),
        ("Mia’s bag", "@name s bag"),
        ("Ｍｉａ has ５ jars", "@name has # @thing"),  # full width
        ("", ""),
    ],
)
def test_skeletons_of_other_texts(text, expected):
    assert skeleton(text) == expected.split()


def test_cosine_of_words():
    assert word_cosine(["a", "a", "b"], ["a", "b", "b"]) == pytest.approx(0.8)  # (2*1 + 1*2) / (5 ** 0.5) ** 2
    assert word_cosine(["a"], ["b"]) == word_cosine([], ["b"]) == 0
    assert ngrams(["a", "b", "c"]) == ["a", "b", "c", "a b", "b c", "a b c"]


def test_the_most_similar_known_text_counts():
    known = KnownTexts([JARS, SALE])
    assert known.similarities([]) == []
    copy, other_things, other = known.similarities([RENAMED, BOXES, "What is the area of a circle?"])
    assert copy == pytest.approx(1)
    assert other < other_things < 0.6
    raw = KnownTexts([JARS, SALE], plain).similarities([JARS, RENAMED])
    assert raw[0] == pytest.approx(1)
    assert raw[1] < 0.8


def test_tf_idf_by_hand():
    """One known text, "a": its idf is ln(2/2) + 1 = 1, that of an unseen word ln(2/1) + 1 = 1.693."""
    (similarity,) = KnownTexts(["a"], str.split).similarities(["a b"])
    # n-grams: a, b, "a b"
    assert similarity == pytest.approx(1 / (1 + 2 * 1.6931472**2) ** 0.5)


def test_history_is_compared_with_and_replaced():
    known = KnownTexts([])
    assert known.similarities([JARS]) == [0]
    known.set_history([JARS, SALE])
    assert known.similarities([RENAMED]) == [pytest.approx(1)]
    known.set_history([SALE])
    assert known.similarities([RENAMED])[0] < 0.9
    known.set_history([])
    assert known.similarities([RENAMED]) == [0]
