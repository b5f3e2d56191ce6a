import pytest

from pipeline.questions.stated import answer_form, can_be_read, same_answer


@pytest.mark.parametrize(
    "answer", ["55", "-3", "1/2", "x = 3", "(2, 3)", "[0, 1)", "x^2 + 1", "50%", "12 stones", "yes"]
)
def test_answers_that_can_be_read(answer):
    assert can_be_read(answer)


@pytest.mark.parametrize(
    "answer", ["", "?", "-", "12 12", "12 or 13", "not 12", "(((", "I do not know", "12 <b>", "77 (", "1)"]
)
def test_answers_that_cannot(answer):
    assert not can_be_read(answer)


@pytest.mark.parametrize(
    ("answer", "key", "is_same"),
    [
        ("55", "55", True),
        ("55.0", "55", True),
        ("55 stones", "55", True),
        ("56", "55", False),
        ("5 * 11", "55", False),
        ("0", "55", False),
        ("0.5", "1/2", True),
        ("5" * 10_000, "55", False),
    ],
)
def test_answers_are_compared_as_the_verifier_does(answer, key, is_same):
    assert same_answer(answer, key) is is_same


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("55", "integer"),
        ("$-1,200$", "integer"),
        ("3/4", "fraction"),
        (r"\frac{3}{4}", "fraction"),
        ("2.5", "decimal"),
        ("(2, 3)", "list"),
        ("1, 2, 3", "list"),
        (r"3\sqrt{5}", "expression"),
        ("x^2 + 1", "expression"),
        ("Tuesday", "words"),
        (r"\text{even}", "words"),
    ],
)
def test_forms_of_answers(answer, form):
    assert answer_form(answer) == form
