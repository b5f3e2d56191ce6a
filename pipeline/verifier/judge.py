"""Judges a completion. Text, plain numbers and words are decided here; a child process compares the rest.

Nothing here evaluates text as code, and numbers are bounded before they are expanded.
"""

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pipeline.verifier.extract import extract, find, is_hedge, marked_answer
from pipeline.verifier.normalize.quantity import (
    Quantity,
    close_quantity,
    read_quantity,
    respelled_quantity,
    same_quantity,
)
from pipeline.verifier.normalize.spelling import TEXT_CLOSE, TEXT_OPEN, clean, compact
from pipeline.verifier.normalize.words import choice_letter, looks_like_words, same_words
from pipeline.verifier.reading.tokens import is_word
from pipeline.verifier.verdict import Comparison, Job, Method, Outcome, Verdict

MAX_MATH_CHARS = 4000
"""A longer answer is wrong unless it is literally the gold one. A longer gold is bad."""
_MAX_MARKS = 60
"""Signs around and between the words of a line that says no more than the gold answer."""
_EXCLAMATION = re.compile(r"[^\W\d_]\s+\**[-$€£]*[0-9][0-9,.]*\**!\s*(?:$|<)")
_SENTENCE = re.compile(r"\s*[A-Z][^=]*?\s(?:is|are|equals)\s+(\$[^$]+\$|\\\((?:(?!\\\)).)+\\\))\s*\.?\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Gold:
    """A gold answer, read once."""

    text: str
    compact: str
    clean: str
    quantity: Quantity | None
    choice: tuple[str, str] | None
    """The letter and the text of a multiple-choice answer."""
    is_usable: bool
    is_list: bool
    is_words: bool


@lru_cache(20_000)
def read_gold(text: str) -> Gold:
    """The parsed gold answer. Repeated golds are read once."""
    text = _stated_value(text)
    tidy = clean(text) if len(text) <= MAX_MATH_CHARS else ""
    choice = choice_letter(tidy)
    return Gold(
        text=text,
        compact=compact(text),
        clean=tidy,
        quantity=read_quantity(tidy),
        choice=choice if choice and choice[0].isupper() else None,
        is_usable=bool(set(compact(text)) - set(string.punctuation)) or "∅" in text,
        is_list="," in tidy or " or " in tidy or "\\pm" in tidy,
        is_words=_is_prose(tidy),
    )


def _stated_value(gold: str) -> str:
    r"""The answer in a longer gold text: a worked solution with ``#### 18`` or a box, or a whole sentence.

    ``The least value is \(248\).`` gives 248; some data sets are written this way.
    """
    if "####" in gold or "\\boxed" in gold or "\\fbox" in gold:
        return marked_answer(gold) or gold
    match = _SENTENCE.fullmatch(gold)
    return match[1] if match else gold.replace("\\approx", " ", gold.lstrip("$ ").startswith("\\approx"))


def _is_prose(text: str) -> bool:
    """True if the text consists of words, at least one of which cannot be a product of variables."""
    words = text.replace(TEXT_OPEN, " ").replace(TEXT_CLOSE, " ").split()
    return all(map(str.isalpha, words)) and any(map(is_word, words))


@dataclass(frozen=True, slots=True)
class Pending:
    """A judgement that waits for a comparison in a child process."""

    answer: str
    strict: bool
    job: Job


def begin(completion: str, gold_text: str, *, all_methods: bool = False) -> Verdict | Pending:
    """The verdict if text, plain numbers and words decide it; otherwise what a child has to compare."""
    gold = read_gold(gold_text)
    if not gold.is_usable:
        return Verdict("bad_gold", answer=extract(completion))
    answer, line = find(completion)
    if line and _says(line, gold):
        answer = line
    if answer is None or (is_hedge(answer) and not gold.is_list and not same_words(answer, gold.clean)):
        return Verdict("unparsed")
    if answer.endswith("!") and _is_exclaimed(answer, completion, gold):
        answer = answer[:-1]
    strict = compact(answer) == gold.compact
    if strict and not all_methods:
        return Verdict("correct", "exact", answer)
    decided: Comparison | Job
    if len(answer) > MAX_MATH_CHARS or not gold.clean:
        decided = Comparison(strict, strict, None if gold.clean else "bad_gold")
    else:
        decided = _decide_choice(clean(answer), gold, all_methods)
    if isinstance(decided, Job):
        return Pending(answer, strict, decided)
    return conclude(answer, strict, decided, all_methods=all_methods)


def _is_exclaimed(answer: str, completion: str, gold: Gold) -> bool:
    """True if an answer such as ``72!`` ends a sentence and, without the mark, is the gold number."""
    quantity = read_quantity(clean(answer[:-1])) if gold.quantity and _EXCLAMATION.search(completion[-200:]) else None
    return bool(quantity and gold.quantity and same_quantity(quantity, gold.quantity))


def _says(line: str, gold: Gold) -> bool:
    """True if a whole line is literally the gold answer, or the words of one: nothing has to announce "Tuesday"."""
    if len(line) > 2 * len(gold.text) + _MAX_MARKS:
        return False
    return compact(line) == gold.compact or (gold.is_words and same_words(line, gold.clean))


def _decide_choice(answer: str, gold: Gold, all_methods: bool) -> Comparison | Job:
    """Compares the letters of a multiple-choice answer, then what both sides say: their texts, or text and gold."""
    choice = choice_letter(answer)
    if choice is None or gold.choice is None:
        if gold.choice and gold.choice[1]:
            gold = read_gold(gold.choice[1])
        elif choice and choice[1] and choice[0].isupper() and choice[0] not in gold.clean:
            answer = choice[1]
        return _decide(answer, gold) or Job(answer, gold.clean, all_methods)
    is_same = choice[0].upper() == gold.choice[0]
    if not is_same or not (choice[1] and gold.choice[1]) or same_words(choice[1], gold.choice[1]):
        return Comparison(is_same, is_same)
    answer, gold = choice[1], read_gold(gold.choice[1])
    return _decide(answer, gold) or Job(answer, gold.clean, all_methods)


def _decide(answer: str, gold: Gold) -> Comparison | None:
    """Compares plain numbers and words, which need no mathematics. None: ask a child."""
    if gold.quantity is not None:
        quantity = read_quantity(answer, prose=True)
        if quantity is None:
            quantity = respelled_quantity(answer)
        if quantity is None:
            return None
        same = same_quantity(quantity, gold.quantity)
        return Comparison(same, same or close_quantity(quantity, gold.quantity))
    if gold.clean.isalpha() and len(gold.clean) > 2 and looks_like_words(answer) and same_words(answer, gold.clean):
        return Comparison(True, True)
    return None


def conclude(answer: str, strict: bool, comparison: Comparison, *, all_methods: bool = False) -> Verdict:
    """The verdict that follows from a comparison."""
    method: Method | None = None
    if strict:
        method = "exact"
    elif comparison.is_equal:
        method = "symbolic" if comparison.symbolic else "numeric"
    outcome: Outcome = "correct" if method else comparison.failure or "incorrect"
    if not all_methods:
        return Verdict(outcome, method, answer)
    return Verdict(outcome, method, answer, strict, comparison.symbolic, comparison.numeric)


def judge(
    pairs: Sequence[tuple[str, str]],
    compare: Callable[[list[Job]], list[Comparison]],
    *,
    all_methods: bool = False,
) -> list[Verdict]:
    """Verdicts on (completion, gold) pairs, in order. ``compare`` gets all undecided pairs in one batch."""
    begun = [begin(completion, gold, all_methods=all_methods) for completion, gold in pairs]
    pending = [each for each in begun if isinstance(each, Pending)]
    results = iter(compare([each.job for each in pending]) if pending else ())
    verdicts: list[Verdict] = []
    for each in begun:
        if isinstance(each, Pending):
            each = conclude(each.answer, each.strict, next(results), all_methods=all_methods)
        verdicts.append(each)
    return verdicts
