"""The quality of a problem: the product of several checks, each of which gives its reason. docs/data.md#quality.

A check gives a share in [0, 1] and, below 1, a reason. A single fault lowers the product clearly, whatever else is
right. No check needs a model or evaluates a text as code: the verifier compares the answers.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from pipeline.evaluation.overlap import normalised
from pipeline.questions.ratings.latex import latex_faults, without_drawings
from pipeline.questions.ratings.steps import LastStep, follows, has_box, is_mentioned, is_result, last_step
from pipeline.verifier import Verdict, grade_batch
from pipeline.verifier.judge import read_gold
from pipeline.verifier.places.boxes import last_closed_boxes
from pipeline.verifier.reading.parser import ReadError, read
from pipeline.verifier.reading.tree import Node

MAX_STATEMENT_CHARS = 4000
MAX_SOLUTION_CHARS = 20_000
MAX_ANSWER_CHARS = 300
_MIN_STATEMENT_CHARS = 12
_MIN_SOLUTION_CHARS = 8
"""Minimum length of a solution beyond that of its answer."""
_MAX_CHARS_AFTER_BOX = 1000
_END_CHARS = 300
_MAX_ANSWER_WORDS = 6
_MAX_WORDS_CHARS = 30

_CHOICES = r"\([A-E]\)[^()\n]{1,40}$"
_ENDS = re.compile(
    rf"(?:[.?!$)\]}}|:>]|\[/\w+\]|\\[\])])[\"'”’)*\s]*$|{_CHOICES}"
    r"|:\s*[-0-9][-0-9.,\s]*$"  # Round to the nearest tenth: 36.89753
)
_IS_PUNCTUATED = re.compile(rf"[.?!:>\d]\W*$|\[/\w+\]\W*$|\\end\{{\w+\**\}}\W*$|{_CHOICES}")
_ASKS = re.compile(
    r"\?|(?i:\b(?:find|compute|determine|calculate|evaluate|simplify|solve|express|what|how|which|expand|write|rewrite"
    r"|give|enter|convert|rationalize|estimate|prove|show|explain|reduce|decompose|construct|describe)\b)"
    r"|\b(?:Sum|Multiply|Divide|Add|Subtract|Factor|List|Name|State|Round|Graph|Count|Choose|Complete(?:ly)?|Order)\b"
    r"|(?:\b(?:is|are|equals?|by)|=)[\s$:\\]*(?:[.\]]|\\?\(|$)|\([CD]\)"
)
_ASKS_FOR_PROOF = re.compile(r"\s*(?:prove|show|demonstrate)\b", re.IGNORECASE)
_ASKS_FOR_ALL = re.compile(
    r"\b(?:all|every|each|both|their|values|solutions|roots|pairs?|triples?|tuples?|list|ordered|separated|commas?"
    r"|points?|numbers|integers|primes|sets?|zeros|functions|respectively|order|solve|and [a-z$\\])\b|\([^()]{1,60},",
    re.IGNORECASE,
)
_FIGURE = (
    r"(?:figure|diagram|picture|drawing|illustration|graph|chart|grid|map|triangle|square|rectangle|circle|polygon"
    r"|hexagon|trapezoid|cube|board|shape)s?"
)
_SHOWS_FIGURE = re.compile(
    r"\b(?:in|from|on|using|consider|complete) (?:the|this) (?:following |given |adjacent |accompanying )?"
    r"(?:figure|diagram|picture|drawing|illustration)\b(?! (?:with|whose|is a|has))"
    rf"|\b{_FIGURE} (?:is |are )?(?:shown|pictured|depicted|(?:below|above)(?! the)|(?:to|on|at) (?:the )?right(?! of))"
    r"|\b(?:shown|pictured|depicted|illustrated) (?:to|at|on|in) the (?:right|left|figure|diagram)"
    r"|\bas (?:shown|pictured)\b",
    re.IGNORECASE,
)
_HAS_FIGURE = re.compile(
    r"\[asy\]|\\begin\{|\\includegraphics|<img|\[img|!\[|\\draw|\|\s*-{2,}|\\hline|\$\$|\\\[|\n.*\n"
)
"""A drawing, a table, a displayed formula, or several lines."""


class Finding(NamedTuple):
    """The result of a check."""

    share: float = 1.0
    reason: str = ""


FINE = Finding()


@dataclass(frozen=True, slots=True)
class Stated:
    """A problem as its data set states it. An empty text is a missing one."""

    statement: str
    solution: str
    answer: str


@dataclass(frozen=True, slots=True)
class Quality:
    """The quality of one problem. ``score`` is the product of the shares of all checks."""

    score: float
    findings: dict[str, Finding]
    """Check -> finding, for the checks that lower the score."""

    @property
    def reasons(self) -> str:
        return "; ".join(finding.reason for finding in self.findings.values())


def rate_quality(problems: Sequence[Stated]) -> list[Quality]:
    """The quality of each problem, in order. A problem that repeats an earlier one has quality 0."""
    across = zip(problems, _repeats(problems), _reached(problems), strict=True)
    return [_quality(problem, {"unique": unique, "reached": reached}) for problem, unique, reached in across]


def _quality(problem: Stated, findings: dict[str, Finding]) -> Quality:
    findings = {name: check(problem) for name, check in CHECKS.items()} | findings
    score = prod(finding.share for finding in findings.values())
    return Quality(round(score, 4), {name: finding for name, finding in findings.items() if finding.share < 1})


# Checks of a statement and an answer -------------------------------------------------------------------


def length(problem: Stated) -> Finding:
    """Neither the statement nor the solution is too short or too long."""
    num = len(problem.statement)
    if num < _MIN_STATEMENT_CHARS:
        return Finding(0.2, f"the statement has only {num} characters")
    if num > MAX_STATEMENT_CHARS or len(problem.solution) > MAX_SOLUTION_CHARS:
        return Finding(0.5, "the statement or the solution is too long")
    if problem.solution and len(problem.solution) < _MIN_SOLUTION_CHARS + len(problem.answer):
        return Finding(0.7, "the solution has no steps")
    return FINE


def complete(problem: Stated) -> Finding:
    """The statement asks for something, once, and ends where a sentence or a formula ends."""
    text = problem.statement.rstrip()
    if not _ENDS.search(text[-60:]):
        return Finding(0.3, "the statement does not end as a sentence")
    if not _ASKS.search(text):
        return Finding(0.4, "the statement asks for nothing")
    if _says_it_twice(text):
        return Finding(0.3, "the statement says the same twice")
    return FINE if _IS_PUNCTUATED.search(text[-60:]) else Finding(0.95, "the statement ends without a full stop")


def figure(problem: Stated) -> Finding:
    """A figure that the statement refers to is in it, as code or as a picture."""
    if _SHOWS_FIGURE.search(problem.statement) and not _HAS_FIGURE.search(problem.statement):
        return Finding(0.3, "a figure is missing")
    return FINE


def latex(problem: Stated) -> Finding:
    """The LaTeX of all texts parses: n faults give 1 / (n + 1)."""
    texts = {"statement": problem.statement, "solution": problem.solution, "answer": problem.answer}
    faults = [f"LaTeX of the {name}: {fault}" for name, text in texts.items() for fault in latex_faults(text)]
    return Finding(1 / (1 + len(faults)), faults[0]) if faults else FINE


def checkable(problem: Stated) -> Finding:
    """The answer is one thing that the verifier can compare."""
    if not problem.answer:
        return Finding(0.0, "there is no answer")
    if len(problem.answer) > MAX_ANSWER_CHARS or not read_gold(problem.answer).is_usable:
        return Finding(0.1, "the verifier cannot read the answer")
    if _ASKS_FOR_PROOF.match(problem.answer) or _ASKS_FOR_PROOF.match(problem.statement):
        return Finding(0.3, "a proof cannot be checked")
    if not _is_readable(problem.answer):
        return Finding(0.4, "the answer is not a formula or a few words")
    tree = _tree(problem.answer)
    if tree is not None and tree.head == "list" and not _ASKS_FOR_ALL.search(problem.statement):
        return Finding(0.7, "the answer may be several")
    return FINE


CHECKS: dict[str, Callable[[Stated], Finding]] = {
    check.__name__: check for check in (length, complete, figure, latex, checkable)
}


def _says_it_twice(text: str) -> bool:
    flat = normalised(text)
    half = len(flat) // 2
    return half > _MIN_STATEMENT_CHARS and flat[:half] == flat[-half:]


def _is_readable(answer: str) -> bool:
    gold = read_gold(answer)
    if gold.quantity is not None or gold.choice is not None:
        return True
    num_words = len(re.findall(r"[A-Za-z]{3,}", re.sub(r"\\[A-Za-z]+", " ", gold.clean)))
    is_known = gold.is_words or len(gold.clean) <= _MAX_WORDS_CHARS or _tree(answer) is not None
    return is_known and num_words <= _MAX_ANSWER_WORDS


def _tree(answer: str) -> Node | None:
    """The answer as the verifier reads it; None if the verifier cannot."""
    try:
        return read(read_gold(answer).clean)
    except ReadError:
        return None


# Checks across problems, and of solutions by the verifier ----------------------------------------------


def _repeats(problems: Sequence[Stated]) -> list[Finding]:
    seen: set[str] = set()
    findings = []
    for problem in problems:
        key = normalised(problem.statement)
        findings.append(Finding(0.0, "it repeats an earlier problem") if key in seen else FINE)
        seen.add(key)
    return findings


def _reached(problems: Sequence[Stated]) -> list[Finding]:
    steps = [last_step(problem.solution) for problem in problems]
    ends = grade_batch([(problem.solution, problem.answer) for problem in problems])
    pairs = [(rf"\boxed{{{step.left}}}", step.result) for step in steps if step is not None]
    verdicts = iter(grade_batch(pairs))
    step_verdicts = [None if step is None else next(verdicts) for step in steps]
    return [reached(*each) for each in zip(problems, ends, steps, step_verdicts, strict=True)]


def reached(problem: Stated, end: Verdict, step: LastStep | None, step_verdict: Verdict | None) -> Finding:
    """The worked solution ends in the answer, its last step holds, and the answer comes from somewhere.

    Args:
        end: verdict on the solution's final answer, compared with the stated answer.
        step: the last step of the solution.
        step_verdict: verdict on the step's left side, compared with its result.
    """
    solution, answer = problem.solution, problem.answer
    if not solution or not answer:
        return Finding(0.6, "there is no worked solution")
    box = last_closed_boxes(solution)
    if box is None:
        return _reached_in_words(problem, end)
    if end.outcome != "correct":
        return Finding(0.1, f"the solution ends in {_short(box)}, not in the answer")
    if step and step.is_numeric and step_verdict and step_verdict.outcome == "incorrect":
        return Finding(0.2, f"the last step is wrong: {_short(step.left)} is not {_short(step.result)}")
    if len(without_drawings(solution).rpartition(box)[2]) > _MAX_CHARS_AFTER_BOX:
        return Finding(0.7, "the solution goes on after its answer")
    if not _ENDS.search(solution[-60:]):
        return Finding(0.9, "the solution does not end as a sentence")
    return FINE if step_verdict and step_verdict.outcome == "correct" else _origin(answer, solution)


def _origin(answer: str, solution: str) -> Finding:
    """Where the boxed answer comes from, judged by the text before it, if the last step cannot be computed."""
    if is_result(answer, solution):
        return FINE
    if is_mentioned(answer, solution):
        return Finding(0.98, "the answer stands before its box, but not as a result")
    if follows(answer, solution):
        return Finding(0.97, "the answer follows from the last numbers, but is not written as their result")
    return Finding(0.95, "the answer is only in its box")


def _reached_in_words(problem: Stated, end: Verdict) -> Finding:
    """Without a box, the answer is in the last lines of the solution, which end like a sentence."""
    if has_box(problem.solution):
        return Finding(0.2, "the box of the answer is empty or not closed")
    is_whole = _ENDS.search(problem.solution[-60:]) is not None
    if is_whole and end.outcome == "correct":
        return Finding(0.97, "no box marks the answer")
    if is_whole and is_mentioned(problem.answer, problem.solution, last_chars=_END_CHARS):
        return Finding(0.95, "no box marks the answer, and it is not the last thing said")
    if is_mentioned(problem.answer, problem.solution):
        return Finding(0.8, "the solution does not end in the answer")
    return Finding(0.4, "the solution does not reach the answer")


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}..."
