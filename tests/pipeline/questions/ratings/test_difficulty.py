import pytest

from pipeline.questions.ratings.difficulty import SolveRate, difficulty_of, level_name, stated_difficulty


@pytest.mark.parametrize(
    ("difficulty", "level", "sources", "rated"),
    [
        ("", "Level 1", (), 1.0),
        ("", "Level 5", (), 4.0),
        ("", "3", (), 2.0),
        ("", "Level ?", (), None),
        ("7.5", "", ("imo",), 7.5),
        ("12", "", (), 10.0),
        ("0.5", "", (), 1.0),
        ("", "", ("AMC 2023", "https://x.org/2023_AMC_12A_Problems/Problem_1"), 2.0),
        ("", "", ("AMC 2023", "https://x.org/2023_AMC_12A_Problems/Problem_25"), 3.5),
        ("", "", ("AMC_10",), 2.0),
        ("", "", ("AIME 2024", "https://x.org/2024_AIME_I_Problems/Problem_15"), 6.0),
        ("", "", ("AIME 2025",), 4.5),
        ("", "", ("HMMT February 2025",), 4.5),
        ("", "", ("OlympiadBench-OE_TO_maths_en_COMP",), 5.0),
        ("", "", ("imo_shortlist",), 8.0),
        ("", "", ("usajmo",), 6.0),
        ("", "", ("openai/gsm8k",), 1.0),
        ("", "", ("my own problems",), None),
    ],
)
def test_what_the_source_says(difficulty, level, sources, rated):
    assert stated_difficulty(difficulty, level, sources) == rated


@pytest.mark.parametrize(
    ("difficulty", "name"),
    [(1.0, "elementary"), (1.99, "elementary"), (2.0, "intermediate"), (3.5, "advanced"), (5.0, "competition"),
     (7.0, "olympiad"), (10.0, "olympiad"), (None, "unrated")],
)  # fmt: skip
def test_levels(difficulty, name):
    assert level_name(difficulty) == name


def test_a_measured_rate_moves_what_the_source_says_by_the_number_of_attempts():
    """8 of 16 attempts are 10 - 9 / 2 = 5.5; 16 attempts weigh 16 / 24: 2.5 + 2 / 3 * 3 = 4.5."""
    assert difficulty_of(2.5, SolveRate(0.5, 16)) == 4.5
    assert difficulty_of(None, SolveRate(0.5, 1)) == 5.5
    assert difficulty_of(2.5, None) == 2.5
    assert difficulty_of(None, None) is None


def test_only_olympiads_by_name_are_olympiads():
    assert [stated_difficulty("", "", [name]) for name in ("demo", "memo", "APMO 2019", "egmo")] == [
        None,
        None,
        6.5,
        6.5,
    ]
