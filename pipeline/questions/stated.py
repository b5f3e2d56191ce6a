"""The answer that a written problem states: whether it can be read, its form, and whether it equals another.

Everything is decided in this process, in time linear in the length of the answer.
"""

from typing import Literal

from pipeline.verifier import Verdict, extract
from pipeline.verifier.judge import begin, read_gold
from pipeline.verifier.normalize.quantity import read_quantity
from pipeline.verifier.normalize.spelling import clean
from pipeline.verifier.reading.texts import tree_of

AnswerForm = Literal["integer", "fraction", "decimal", "list", "expression", "words"]

MAX_WORDS = 3
"""An answer in words ("Tuesday", "no solution") has at most this many."""


def can_be_read(answer: str) -> bool:
    """True for a number, an expression or a few words. False for hedges ("12 or 13") and broken notation."""
    gold = read_gold(answer)
    if sum(map(answer.count, "([{")) != sum(map(answer.count, ")]}")):  # [0, 1) is fine
        return False
    if extract(_as_completion(answer)) is None or not gold.is_usable or not gold.clean:
        return False
    if gold.is_words:
        return len(answer.split()) <= MAX_WORDS
    return gold.quantity is not None or tree_of(gold.clean).head != "words"


def same_answer(answer: str, key: str) -> bool:
    """True if the two are equal as texts, plain numbers or words. A sum does not match its value."""
    verdict = begin(_as_completion(answer), key)
    return isinstance(verdict, Verdict) and verdict.outcome == "correct"


def answer_form(answer: str) -> AnswerForm:
    """The form of an answer, which is the same for all variations of one problem."""
    tidy = clean(answer)
    if quantity := read_quantity(tidy):
        if quantity.value.denominator == 1 and not quantity.num_decimals:
            return "integer"
        return "decimal" if quantity.num_decimals else "fraction"
    if read_gold(answer).is_words:
        return "words"
    return "list" if tree_of(tidy).head in ("list", "group") or "," in tidy else "expression"


def _as_completion(answer: str) -> str:
    return f"<answer>{answer}</answer>"
