"""Judges a completion. Text, plain numbers and words are decided here; a child process compares the rest.

Nothing here evaluates text as code, and numbers are bounded before they are expanded.
"""

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pipeline.verifier.extract import extract, find_answer, is_hedge, marked_answer
from pipeline.verifier.normalize.quantity import (
    Quantity,
    close_quantity,
    european_decimal,
    read_quantity,
    same_quantity,
)
from pipeline.verifier.normalize.spelling import clean, compact
from pipeline.verifier.normalize.words import choice_letter, looks_like_words, same_choice, same_words
from pipeline.verifier.verdict import Comparison, Job, Method, Outcome, Verdict

MAX_MATH_CHARS = 4000
"""A longer answer is wrong unless it is literally the gold one. A longer gold is bad."""
_SENTENCE = re.compile(r"\s*[A-Z][^=]*?\s(?:is|are|equals)\s+(\$[^$]+\$|\\\((?:(?!\\\)).)+\\\))\s*\.?\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Gold:
    """A gold answer, read once."""

    text: str
    compact: str
    clean: str
    quantity: Quantity | None
    is_choice: bool
    is_usable: bool
    is_list: bool


@lru_cache(20_000)
def read_gold(text: str) -> Gold:
    """The parsed gold answer. Repeated golds are read once."""
    text = _stated_value(text)
    tidy = clean(text) if len(text) <= MAX_MATH_CHARS else ""
    letter = choice_letter(tidy)
    return Gold(
        text=text,
        compact=compact(text),
        clean=tidy,
        quantity=read_quantity(tidy),
        is_choice=letter is not None and tidy.strip("( ")[:1].isupper(),
        is_usable=bool(set(compact(text)) - set(string.punctuation)) or "∅" in text,
        is_list="," in tidy or " or " in tidy or "\\pm" in tidy,
    )


def _stated_value(gold: str) -> str:
    r"""The answer in a longer gold text: a worked solution with ``#### 18`` or a box, or a whole sentence.

    ``The least value is \(248\).`` gives 248; some data sets are written this way.
    """
    if "####" in gold or "\\boxed" in gold or "\\fbox" in gold:
        return marked_answer(gold) or gold
    match = _SENTENCE.fullmatch(gold)
    return match[1] if match else gold.replace("\\approx", " ", gold.lstrip("$ ").startswith("\\approx"))


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
    answer = find_answer(completion)
    if answer is None or (is_hedge(answer) and not gold.is_list and not same_words(answer, gold.clean)):
        return Verdict("unparsed")
    strict = compact(answer) == gold.compact
    if strict and not all_methods:
        return Verdict("correct", "exact", answer)
    if len(answer) > MAX_MATH_CHARS or not gold.clean:
        decided: Comparison | None = Comparison(strict, strict, None if gold.clean else "bad_gold")
    else:
        decided = _decide(clean(answer), gold)
    if decided is None:
        return Pending(answer, strict, Job(clean(answer), gold.clean, all_methods))
    return conclude(answer, strict, decided, all_methods=all_methods)


def _decide(answer: str, gold: Gold) -> Comparison | None:
    """Compares choices, plain numbers and words, which need no mathematics. None: ask a child."""
    if gold.is_choice and (same := same_choice(answer, gold.clean)) is not None:
        return Comparison(same, same)
    if gold.quantity is not None:
        quantity = read_quantity(answer, prose=True)
        if quantity is None and (decimal := european_decimal(answer)):
            quantity = read_quantity(decimal)
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
