r"""The answer in a worked solution: the last step, ``3 \cdot 4 = \boxed{12}``, and the places where 12 appears."""

import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import permutations
from typing import NamedTuple

from pipeline.verifier.places.boxes import last_closed_boxes

_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])")
_MAX_STEP_CHARS = 200
_NUM_LAST_NUMBERS = 4

_EQUALS = re.compile(r"(?:\\\\\s*&?\s*|&\s*)?=\s*(?:&|\\[ ,;!]|\\displaystyle|\{|\s)*$")
_BEFORE = re.compile(
    r"=|(?<!\\)\$|\\[\[(]|\\\\|&|\\(?:Rightarrow|implies|Longrightarrow|iff|to|approx|equiv|[lg]eq?|text|quad)|[<>:;]"
    r"|[.,]\s"
)
_ROUNDED = re.compile(r"nearest|round|approx|about|decimal|cent|%|estimate", re.IGNORECASE)
_NUMERIC_COMMANDS = re.compile(r"\\(?:[dt]?frac|sqrt|cdot|times|div|left|right|[dt]?binom|[bB]igg?|[$,;! ])(?![a-z])")
_NUMERIC = re.compile(r"[-+*/^!(){}\[\]0-9.\s]*[0-9][-+*/^!(){}\[\]0-9.\s]*")
_AMBIGUOUS = re.compile(r"[0-9]\s*\\[dt]?frac|\^[0-9]{2}|:")
"""Mixed numbers, powers without braces, ratios."""

_BOLD = re.compile(r"\\(?:mathbf|textbf|mathrm|text|bf)\s*\{([^{}]*)\}")
_THOUSANDS = re.compile(r"(?<=[0-9])(?:,\\!|\{,\}|\\!|,)(?=[0-9]{3}(?![0-9]))")
_SPACING = re.compile(r"\\(?:left|right|displaystyle)(?![a-z])|\\[!,; ]")
_TOKEN = re.compile(r"\\[a-zA-Z]+|[0-9]+(?:\.[0-9]+)?|[A-Za-z]+|[^\s{}]")
_NUMBER = re.compile(r"\\[dt]?frac\{([0-9]{1,6})\}\{([0-9]{1,6})\}|([0-9]{1,9}(?:\.[0-9]{1,6})?)")


class LastStep(NamedTuple):
    left: str
    result: str

    @property
    def is_numeric(self) -> bool:
        """True if the left side is an exact expression of numbers alone, so it must equal the result."""
        if any(self.left.count(opening) != self.left.count(closing) for opening, closing in ("()", "{}")):
            return False
        numbers = _NUMERIC.fullmatch(_NUMERIC_COMMANDS.sub(" ", self.left))
        return numbers is not None and not _AMBIGUOUS.search(f"{self.left} {self.result}")


def has_box(solution: str) -> bool:
    return _BOX.search(solution) is not None


def last_step(solution: str) -> LastStep | None:
    """Both sides of the equals sign before the last box; None if there is none, or if the result is rounded."""
    result = last_closed_boxes(solution)
    before = _before_box(solution)[-_MAX_STEP_CHARS:]
    equals = _EQUALS.search(before)
    if result is None or equals is None or _ROUNDED.search(f"{before} {solution[-_MAX_STEP_CHARS:]}"):
        return None
    left = before[: equals.start()]
    cuts = list(_BEFORE.finditer(left))
    left = _THOUSANDS.sub("", left[cuts[-1].end() :] if cuts else left).replace("\\$", "").strip()
    return LastStep(left, result.replace("\\$", "")) if left else None


def is_result(answer: str, solution: str) -> bool:
    """True if the answer also appears before its box, after an equals sign or alone in a formula."""
    value, text = _flat(answer.strip("$")), _flat(_before_box(solution))
    return any(f" {place} " in f" {text} " for place in (f"= {value} $", f"$ {value} $", f"= {value} ."))


def is_mentioned(answer: str, solution: str, *, last_chars: int | None = None) -> bool:
    """True if all parts of the answer appear in the solution before its box, or in the last characters of that."""
    text = _before_box(solution)
    stands = f" {_flat(text[-last_chars:] if last_chars else text)} ".replace(" $", "")
    parts = re.split(r",(?![0-9]{3}(?![0-9]))", answer)
    return all(f" {_flat(part)} ".replace(" $", "") in stands for part in parts)


def follows(answer: str, solution: str) -> bool:
    """True if every number of the answer is at most one operation away from the last numbers before its box."""
    wanted = set(_numbers(answer))
    last = list(dict.fromkeys(_numbers(_before_box(solution)[-_MAX_STEP_CHARS:])))[-_NUM_LAST_NUMBERS:]
    reached = {
        value for number in last for value in (number, 2 * number, number / 2, number**2, number + 1, number - 1)
    }
    for left, right in permutations(last, 2):
        reached |= {left + right, abs(left - right), left * right}
        reached |= {left / right} if right else set()
    return bool(wanted) and wanted <= reached


def _numbers(text: str) -> Iterator[Fraction]:
    """The numbers of a text, without signs; a fraction of digits is one number."""
    for match in _NUMBER.finditer(_THOUSANDS.sub("", text)):
        if match[3]:
            yield Fraction(match[3])
        elif int(match[2]):
            yield Fraction(int(match[1]), int(match[2]))


def _before_box(solution: str) -> str:
    """The solution up to its last box, or all of it if there is none."""
    return solution[: max((box.start() for box in _BOX.finditer(solution)), default=None)]


def _flat(text: str) -> str:
    """The tokens of a text in a uniform spelling, separated by single spaces."""
    text = _BOLD.sub(lambda bold: f" {re.sub(r'(?<=[0-9]) (?=[0-9])', '', bold[1])} ", text)
    text = _SPACING.sub("", _THOUSANDS.sub("", text)).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    return " ".join(_TOKEN.findall(text)).replace(" ^ \\circ", "")
