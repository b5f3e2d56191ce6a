"""Words around a number that change it, in every language in which an answer can be announced."""

import pytest

from pipeline.verifier import extract
from tests.support.verifier import answered

MINUS_FIVE = [
    "答案是负5",
    "答案：負5",
    "La réponse est moins 5.",
    "La respuesta es menos 5.",
    "A resposta é menos 5.",
    "La risposta è meno 5.",
    "Ответ: минус 5.",
    "答えはマイナス5です。",
    "정답은 마이너스 5입니다.",
    "Die Antwort ist minus 5.",
    "The answer is negative 5.",
    "The answer is 5 below zero.",
    "The answer is 5 degrees below zero.",
    "So the result is minus 5.",
    "结果等于负5。",
    "The temperature is 5 degrees below zero.",
    "The answer is minus five.",
    answered("moins 5"),
    answered("x = minus 5"),
    "\\boxed{-5}",
]


@pytest.mark.parametrize("completion", MINUS_FIVE)
def test_a_sign_may_be_a_word(completion, grader):
    assert grader.grade(completion, "-5").outcome == "correct"
    assert grader.grade(completion, "5").outcome == "incorrect"


QUALIFIED = [
    *("nicht 72", "kein 72", "mehr als 72", "weniger als 72", "mindestens 72", "höchstens 72", "72 oder mehr"),
    *("pas 72", "n'est pas 72", "plus de 72", "moins de 72", "au moins 72", "au plus 72", "72 ou plus"),
    *("no es 72", "más de 72", "menos de 72", "al menos 72", "como máximo 72", "72 o más", "mayor que 72"),
    *("não é 72", "mais de 72", "pelo menos 72", "no máximo 72", "72 ou mais"),
    *("non è 72", "più di 72", "meno di 72", "almeno 72", "al massimo 72", "72 o più"),
    *("не 72", "больше 72", "не более 72", "менее 72", "как минимум 72", "72 или больше"),
    *("不是72", "大于72", "小于72", "超过72", "至少72", "至多72", "72以上", "72以下"),
    *("72ではない", "72未満", "少なくとも72", "最大72", "72より大きい"),
    *("72 이상", "72 이하", "72 미만", "72이 아니다", "적어도 72"),
    *("72 nicht richtig", "72 n'est pas correct", "72 no es correcto", "72 falsch", "72错"),
    *("at least 72", "at least 72 days", "at most 72", "more than 72", "72 at most", "72 days at most", "72 or more"),
    *("max 72", "72 max", "exceeds 72", "all but 72", "72 is not correct", "72 is wrong", "72 (wrong)"),
    *("multiples of 72", "half of 72", "die Hälfte von 72", "la moitié de 72", "la mitad de 72", "metade de 72"),
    *(
        "la metà di 72",
        "половина от 72",
        "72的一半",
        "72の半分",
        "72의 절반",
        "72的倍数",
        "72の倍数",
        "múltiplos de 72",
    ),
]


@pytest.mark.parametrize("answer", QUALIFIED)
@pytest.mark.parametrize("place", ["<answer>{}</answer>", "The answer is {}.", "\\boxed{{\\text{{{}}}}}", "{}"])
def test_words_that_deny_or_bound_a_number_are_not_dropped(place, answer, grader):
    assert grader.grade(place.format(answer), "72").outcome in ("incorrect", "unparsed")


@pytest.mark.parametrize(
    "completion",
    [
        "It takes more than 3 days and at least 2 men. The answer is 72.",
        "Not 71, but at least 3 each. So there are 72 clips.",
        "Es sind mehr als 3 Tage. Die Antwort ist 72.",
        "Il faut plus de 3 jours. La réponse est 72.",
        "答案不是71，至少是3。答案是72。",
        "The answer is 72 clips, which is more than 50.",
        "The answer is 72. It is not hard.",
        "最大の値は72です。答えは72です。",
        "The maximum is 72.",
        "The wrong answer is 5. The answer is 72.",
        "They can carry at most 72.",
        "A common multiple of $8 \\cdot 9 = 72$.",
        "She gave 100 - 28 = 72 incorrect answers.",
        answered("100 - 28 = 72 of the engines are not defective."),
        answered("72 non-hot peppers"),
        answered("72 is the maximum"),
    ],
)
def test_such_words_elsewhere_do_not_count(completion, grader):
    assert grader.grade(completion, "72").outcome == "correct"


@pytest.mark.parametrize(
    "completion",
    [
        "The wrong answer is 5",
        "The incorrect answer would be **5**.",
        "\\boxed{5\\text{ (wrong)}}",
        "So 5 is not correct.",
        "It takes more than 5.",
        "Es sind mehr als 5.",
        "Ce n'est pas 5.",
        "结果不是5。",
        "Es sind **nicht 5**.",
        "x 大于等于5",
    ],
)
def test_an_answer_called_wrong_is_no_answer(completion, grader):
    assert grader.grade(completion, "5").outcome in ("incorrect", "unparsed")


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        *(("5 тысяч", 5_000), ("5 тыс. рублей", 5_000), ("5 млн", 5_000_000), ("5 миллионов", 5_000_000)),
        *(("5 Tausend", 5_000), ("5 Millionen Euro", 5_000_000), ("5 Mrd.", 5_000_000_000), ("5 Dutzend", 60)),
        *(
            ("5万", 50_000),
            ("5万元", 50_000),
            ("5百", 500),
            ("5千", 5_000),
            ("5亿", 500_000_000),
            ("5億円", 500_000_000),
        ),
        *(("5만", 50_000), ("5천 원", 5_000), ("5억", 500_000_000)),
        *(("5 mil", 5_000), ("5 millones", 5_000_000), ("5 milhões", 5_000_000), ("5 bilhões", 5_000_000_000)),
        *(("5 millions", 5_000_000), ("5 mille", 5_000), ("5 milioni", 5_000_000), ("5 douzaines", 60)),
        *(("5 gross", 720), ("5 score", 100), ("5 dozen eggs", 60), ("5 thousand", 5_000)),
    ],
)
def test_words_for_large_numbers_scale(answer, value, grader):
    assert grader.grade(answered(answer), str(value)).outcome == "correct"
    assert grader.grade(answered(answer), "5").outcome == "incorrect"


@pytest.mark.parametrize("answer", ["5千米", "5 Äpfel", "5 miles", "5 scores", "$5 gross", "5 jours", "5个", "5 times"])
def test_other_words_after_a_number_are_still_units(answer, grader):
    assert grader.grade(answered(answer), "5").outcome == "correct"


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("25 Prozent", "25%"),
        ("25 por ciento", "25%"),
        ("25 por cento", "0.25"),
        ("25 pour cent", "0.25"),
        ("25 per cento", "25%"),
        ("25 процентов", "25%"),
        ("25パーセント", "25%"),
        ("25 퍼센트", "0.25"),
        ("无解", "no solution"),
        ("解なし", "\\emptyset"),
        ("No solution exists", "no solution"),
        ("Keine Lösung", "no solution"),
        ("1, 2 et 3", "1, 2, 3"),
        ("1, 2 y 3", "1,2,3"),
        ("1, 2 und 3", "\\{1,2,3\\}"),
        ("1, 2 и 3", "1, 2, 3"),
        ("]3, ∞[", "(3, \\infty)"),
        ("[3, 5[", "[3, 5)"),
        ("three quarters", "3/4"),
        ("two thirds", "\\frac23"),
        ("{3 \\over 4}", "3/4"),
        ("2 and 1/2", "5/2"),
        ("2 and 1/2 hours", "2.5"),
        ("72 clips (48 in April and 24 in May)", "72"),
    ],
)
def test_other_spellings_of_right_answers(answer, gold, grader):
    assert grader.grade(answered(answer), gold).outcome == "correct"


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("{1, 2}", "(1, 2)"),
        ("\\{1, 2\\}", "[1, 2]"),
        ("\\begin{vmatrix}1&2\\\\3&4\\end{vmatrix}", "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}"),
        ("]3, 5[", "[3, 5]"),
        ("72 (48 and 25)", "72"),
        ("72 (in thousands)", "72"),
        ("2 and 1/2", "2"),
        ("1, 2 et 3", "3"),
        ("5!", "5"),
    ],
)
def test_other_spellings_of_wrong_answers(answer, gold, grader):
    assert grader.grade(answered(answer), gold).outcome == "incorrect"


@pytest.mark.parametrize(
    ("completion", "gold", "outcome"),
    [
        ("The answer is 72!", "72", "correct"),
        ("The answer is **72**!", "72", "correct"),
        ("The answer is 72 clips!", "72", "correct"),
        ("The answer is 5!", "120", "correct"),
        ("The answer is 5!", "5!", "correct"),
        ("The answer is $5!$.", "5", "incorrect"),
        ("\\boxed{5!}", "5", "incorrect"),
        ("5!", "5", "incorrect"),
        ("The answer is 72, i.e. 6 dozen.", "72", "correct"),
    ],
)
def test_the_end_of_a_sentence(completion, gold, outcome, grader):
    assert grader.grade(completion, gold).outcome == outcome


@pytest.mark.parametrize(
    "completion",
    [
        *(
            "The correct option is B.",
            "The correct option is (B).",
            "The correct choice is **B**.",
            "Option B is correct.",
        ),
        *(
            "option (B) is correct",
            "Since 3 > 2, 选B",
            "所以选B。",
            "So I pick choice **B**",
            "So it must be choice B.",
        ),
    ],
)
def test_a_choice_may_be_called_an_option(completion, grader):
    assert extract(completion) in ("B", "(B)")
    assert grader.grade(completion, "B").outcome == "correct"
    assert grader.grade(completion, "A").outcome == "incorrect"


@pytest.mark.parametrize(
    "completion", ["Option B is not correct.", "Option B is incorrect.", "A wrong option is B.", "Options: A and B"]
)
def test_an_option_that_is_not_chosen(completion):
    assert extract(completion) not in ("B", "(B)")
