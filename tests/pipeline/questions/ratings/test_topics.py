import pytest

from pipeline.questions.ratings.topics import topic_of


@pytest.mark.parametrize(
    ("subject", "statement", "topic"),
    [
        ("Counting & Probability", "", "combinatorics"),
        ("Intermediate Algebra", "", "algebra"),
        ("Precalculus", "", "precalculus"),
        ("Number Theory", "", "number theory"),
        ("Mathematics -> Geometry -> Plane Geometry -> Circles", "", "geometry"),
        ("Mathematics -> Applied Mathematics -> Statistics -> Probability -> Other", "", "combinatorics"),
        ("Mathematics -> Calculus -> Integral Calculus", "", "calculus"),
        ("", "What is the area of a triangle with sides 3, 4 and 5?", "geometry"),
        ("", "What is the remainder when $7^{10}$ is divided by 11?", "number theory"),
        ("", "How many ways are there to choose a committee of 3?", "combinatorics"),
        ("", "Solve the equation $x^2 = 4$.", "algebra"),
        ("", "Describe your day.", "other"),
    ],
)
def test_the_source_counts_first_then_the_words(subject, statement, topic):
    assert topic_of(subject, statement) == topic
