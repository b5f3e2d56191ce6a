r"""What a worked solution says of its answer: the last step, ``3 \cdot 4 = \boxed{12}``, and where 12 stands."""

import re
from typing import NamedTuple

from pipeline.verifier.places.boxes import last_closed_boxes

_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])")
_MAX_STEP_CHARS = 200
_EQUALS = re.compile(r"=\s*(?:&|\\[ ,;!]|\\displaystyle|\{|\s)*$")
_BEFORE = re.compile(
    r"=|(?<!\\)\$|\\[\[(]|\\\\|&|\\(?:Rightarrow|implies|Longrightarrow|iff|to|approx|equiv|[lg]eq?|text|quad)|[<>:;]"
    r"|[.,]\s"
)
_ROUNDED = re.compile(r"nearest|round|approx|about|decimal|percent|%|estimate", re.IGNORECASE)
_NUMERIC_COMMANDS = re.compile(r"\\(?:[dt]?frac|sqrt|cdot|times|div|left|right|[dt]?binom|[bB]igg?|[$,;! ])(?![a-z])")
_NUMERIC = re.compile(r"[-+*/^!(){}\[\]0-9.,\s]*[0-9][-+*/^!(){}\[\]0-9.,\s]*")
_MIXED_NUMBER = re.compile(r"[0-9]\s*\\[dt]?frac")

_BOLD = re.compile(r"\\(?:mathbf|textbf|mathrm|text|bf)\s*\{([^{}]*)\}")
_SPACING = re.compile(r"(?<=[0-9])(?:,|\{,\}|\\!|,\\!)+(?=[0-9]{3}(?![0-9]))|\\(?:left|right|displaystyle)(?![a-z])|\\[!,; ]")
_TOKEN = re.compile(r"\\[a-zA-Z]+|[0-9]+(?:\.[0-9]+)?|[A-Za-z]+|[^\s${}]")


class LastStep(NamedTuple):
    left: str
    result: str

    @property
    def is_numeric(self) -> bool:
        """The left side is an exact sum of numbers, so that it must be the result."""
        if self.left.count("(") != self.left.count(")") or self.left.count("{") != self.left.count("}"):
            return False
        has_only_numbers = _NUMERIC.fullmatch(_NUMERIC_COMMANDS.sub(" ", self.left))
        return has_only_numbers is not None and not _MIXED_NUMBER.search(self.left + self.result)


def last_step(solution: str) -> LastStep | None:
    """What stands on both sides of the last equals sign before the last box; None without one, or if it is rounded."""
    box, result = _last_box(solution), last_closed_boxes(solution)
    if box is None or result is None:
        return None
    before = solution[max(0, box - _MAX_STEP_CHARS) : box]
    equals = _EQUALS.search(before)
    if equals is None or _ROUNDED.search(before) or _ROUNDED.search(solution[box : box + _MAX_STEP_CHARS]):
        return None
    left = before[: equals.start()]
    cuts = list(_BEFORE.finditer(left))
    left = (left[cuts[-1].end() :] if cuts else left).replace("\\$", "").strip()
    return LastStep(left, result.replace("\\$", "")) if left else None


def is_mentioned(answer: str, solution: str, *, last_chars: int | None = None) -> bool:
    """All parts of the answer stand in the solution, or in its end, outside of its last box."""
    text = solution[: _last_box(solution)]
    stands = f" {_flat(text[-last_chars:] if last_chars else text)} "
    return all(f" {_flat(part)} " in stands for part in re.split(r",(?![0-9]{3}(?![0-9]))", answer.strip("$")))


def _last_box(text: str) -> int | None:
    return max((match.start() for match in _BOX.finditer(text)), default=None)


def _flat(text: str) -> str:
    """Tokens with one blank between them, in one spelling."""
    text = _BOLD.sub(lambda bold: " " + re.sub(r"(?<=\d) (?=\d)", "", bold[1]) + " ", text)
    text = _SPACING.sub("", text).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    return " ".join(_TOKEN.findall(text)).replace(" ^ \\circ", "")
