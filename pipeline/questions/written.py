"""Reads what a policy wrote: a statement, a worked solution and an answer, each in its own tags.

    <problem>
    Mia has 5 jars with 11 stones in each jar. How many stones does Mia have?
    </problem>
    <solution>
    5 * 11 = 55
    </solution>
    <answer>55</answer>

The text is hostile input. Every check takes linear time on a text of bounded length.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from pipeline.questions.stated import can_be_read, same_answer
from pipeline.verifier import extract
from pipeline.verifier.normalize.spelling import clean

TAGS = ("<problem>", "</problem>", "<solution>", "</solution>", "<answer>", "</answer>")
MAX_STATEMENT_CHARS = 4000
MAX_SOLUTION_CHARS = 8000
MAX_ANSWER_CHARS = 200
MAX_DIGITS = 30
"""Maximum digits of a number."""
MIN_WORDS = 3
"""Minimum words and numbers of a statement, not counting its answer."""

_FORM = re.compile(r"\s*<problem>(.*)</problem>\s*<solution>(.*)</solution>\s*<answer>(.*)</answer>\s*", re.DOTALL)
_LONG_NUMBER = re.compile(rf"[0-9]{{{MAX_DIGITS + 1}}}")
_TOKEN = re.compile(r"\w+")
_NUMBERS = r"-+*/×÷·0-9.,()\s"
_EQUATION = re.compile(rf"(?<![{_NUMBERS}])([{_NUMBERS}]++)=\s*+\$?(-?[0-9][0-9.,]*)")
"""The longest run of numbers and operators before an equals sign, and the number after it."""
_SUM = re.compile(r"[0-9(].*[-+*/×÷·].*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class WrittenProblem:
    """A problem that a policy wrote, its parts stripped of outer white space."""

    statement: str
    solution: str
    answer: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """A text that is not a written problem."""

    reason: str
    """A few words."""


@lru_cache(4096)
def read_written(text: str) -> WrittenProblem | Malformed:
    """The problem in a completion. Each tag must occur once, in order, with nothing around or between the parts."""
    if len(text) > 2 * (MAX_STATEMENT_CHARS + MAX_SOLUTION_CHARS):
        return Malformed("text too long")
    for tag in TAGS:
        if (num := text.count(tag)) != 1:
            return Malformed(f"{tag} {'missing' if num == 0 else 'repeated'}")
    match = _FORM.fullmatch(text)
    if match is None:
        has_end = text.rstrip().endswith("</answer>")
        return Malformed("text outside the tags" if has_end else "text behind the answer")
    statement, solution, answer = (part.strip() for part in match.groups())
    written = WrittenProblem(statement, solution, answer)
    reason = _fault_of_parts(written) or _fault_of_answer(answer) or _fault_of_statement(written)
    return Malformed(reason) if reason else written


def _fault_of_parts(written: WrittenProblem) -> str:
    limits = {"statement": MAX_STATEMENT_CHARS, "solution": MAX_SOLUTION_CHARS, "answer": MAX_ANSWER_CHARS}
    for name, limit in limits.items():
        part: str = getattr(written, name)
        if not any(map(str.isalnum, part)):
            return f"empty {name}"
        if any(char.isdecimal() and not char.isascii() for char in part):
            return f"digits of another script in the {name}"
        if any(unicodedata.category(char)[0] == "C" and char not in "\n\r\t" for char in part):
            return f"invisible characters in the {name}"
        if _LONG_NUMBER.search(part):
            return f"a number of more than {MAX_DIGITS} digits in the {name}"
        if len(part) > limit:
            return f"{name} too long"
    return ""


def _fault_of_answer(answer: str) -> str:
    if any(char.isdigit() and not char.isascii() for char in answer):  # ① and ² are digits, but not decimal ones
        return "digits of another script in the answer"
    if "\n" in answer:
        return "answer of several lines"
    return "" if can_be_read(answer) else "answer cannot be read"


def _fault_of_statement(written: WrittenProblem) -> str:
    rest = _occurrences(written.answer).sub(" ", written.statement)
    if rest != written.statement and len(_TOKEN.findall(rest)) < MIN_WORDS:
        return "statement empty but for its answer"
    return "statement states its answer" if _states(written.statement, written.answer) else ""


def _states(statement: str, answer: str) -> bool:
    """True if the answer is announced ("the answer is 12"), follows the last question, or ends a sum (3 + 9 = 12)."""
    announced = extract(statement, fallback=False)
    if announced is not None and same_answer(announced, answer):
        return True
    _, question_mark, behind = statement.rpartition("?")
    if question_mark and _occurrences(answer).search(behind.partition("[asy]")[0]):  # drawing code does not count
        return True
    return any(same_answer(result, answer) for result in _results(statement))


def _results(statement: str) -> Iterator[str]:
    """The results of sums: 12 for ``3 + 9 = 12``, but nothing for ``3x + 9 = 12``."""
    for match in _EQUATION.finditer(statement):
        before = statement[: match.start()][-1:]
        is_part_of_term = bool(before) and (before.isalnum() or before in "^_") and not match[1][0].isspace()
        if _SUM.fullmatch(match[1].strip()) and not is_part_of_term:
            yield match[2].rstrip(".,")


def _occurrences(answer: str) -> re.Pattern[str]:
    """A pattern that finds the answer, but not inside a longer word or number."""
    return re.compile(rf"(?<![\w.]){re.escape(clean(answer))}(?!\w|[.,][0-9])")
