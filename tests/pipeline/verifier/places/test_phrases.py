"""Every language's phrase with every separator, and what a phrase leaves out."""

import pytest

from pipeline.verifier import extract
from pipeline.verifier.places.phrases import ANNOUNCED

WITH_VERB = {
    "English": "The answer is",
    "German": "Die Antwort lautet",
    "French": "La réponse finale est",
    "Spanish": "La respuesta final es",
    "Portuguese": "A resposta final é",
    "Italian": "La risposta finale è",
    "Russian": "Ответ равен",
    "Chinese": "所以最终答案是",
    "Japanese": "答えは",
    "Korean": "정답은",
}
NOUN = {
    "English": "Final answer",
    "German": "Ergebnis",
    "French": "Réponse",
    "Spanish": "Respuesta",
    "Portuguese": "Resposta",
    "Italian": "Risposta",
    "Russian": "Ответ",
    "Chinese": "答案",
    "Japanese": "答え",
    "Korean": "답",
}
SEPARATED = [
    " {}", ": {}", "：{}", "： {}", " — {}", " – {}", " - {}", "——{}", " = {}", " → {}", " **{}**", ": **{}**",
    "： `{}`", ":** {}", "：\n{}", ":\n\n**{}**", ": “{}”", "：「{}」", "：『{}』", ": «{}»", ': "{}"', ": ${}$",
    "：\n\n$$\n{}\n$$", ": \\[{}\\]",
]  # fmt: skip
AFTER_A_NOUN = [separator for separator in SEPARATED if separator not in (" {}", " **{}**")]


def test_every_language_of_the_table_is_tested():
    assert WITH_VERB.keys() == NOUN.keys() == ANNOUNCED.keys()


@pytest.mark.parametrize("separated", SEPARATED)
@pytest.mark.parametrize("language", WITH_VERB)
def test_any_separator_may_follow_a_phrase(language, separated):
    for number in ("12", "-5", "\\frac{1}{2}"):
        text = f"3 + 4 = 7.\n{WITH_VERB[language]}{separated.format(number)}"
        assert extract(text, fallback=False) == number, text


@pytest.mark.parametrize("separated", AFTER_A_NOUN)
@pytest.mark.parametrize("language", NOUN)
def test_a_noun_needs_a_mark_and_any_will_do(language, separated):
    text = f"3 + 4 = 7.\n{NOUN[language]}{separated.format('-12')}"
    assert extract(text, fallback=False) == "-12"
    assert extract(f"3 + 4 = 7.\n{NOUN[language]} 12 13", fallback=False) is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("答案是：12。", "12"),
        ("最终答案是：$12$。", "12"),
        ("**答案是：12**", "12"),
        ("**答案**：12。", "12"),
        ("**答案：**（B）", "（B）"),
        ("答案是 12，其中三个是红色的。", "12"),
        ("答案为1，2", "1，2"),
        ("故选：B", "B"),
        ("故选B。", "B"),
        ("所以選 (C)。", "C"),
        ("正确选项是：D。", "D"),
        ("答えは「12」です。", "12"),
        ("答えは 12 です。", "12"),
        ("正解は：３", "３"),
        ("정답은 12입니다.", "12"),
        ("The answer is：12", "12"),
        ("The answer is “12”, as claimed.", "12"),
        ('The answer is "A" or "B"', None),
        ("The answer is -12", "-12"),
        ("Ответ: —12", "—12"),
        ("Ответ — 12", "12"),
    ],
)
def test_phrases(text, answer):
    assert extract(text, fallback=False) == answer


@pytest.mark.parametrize(
    "text", ["所以选法共有12种", "Our answers differ", "la réponse", "response: 12", "the answering"]
)
def test_words_that_announce_nothing(text):
    assert extract(text, fallback=False) is None
