"""A completion that is nothing but an answer: one line, all of which reads as an expression, a list or a choice."""

import re

from pipeline.verifier.normalize.languages import take_scale
from pipeline.verifier.normalize.quantity import read_quantity
from pipeline.verifier.normalize.spelling import TEXT_CLOSE, TEXT_OPEN, clean, without_delimiters
from pipeline.verifier.normalize.units import is_measure, read_unit
from pipeline.verifier.normalize.words import choice_letter
from pipeline.verifier.places.phrases import tidy
from pipeline.verifier.reading.texts import tree_of
from pipeline.verifier.reading.tree import Node, has_variable, nodes_of

_MAX_CHARS = 1000
_MAX_WORDS = 4
_PROSE = re.compile(r"^(?:or|and)\b|\b(?:not|maybe|perhaps|possibly|probably|either|neither)\b|\?$", re.IGNORECASE)
_SIGN_BEFORE = re.compile(r"(?:=|\\approx|negative (?=[a-z\\])|minus )\s*")
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mbox|operatorname)\s*\{[^{}]{1,60}\}")
_CONDITION = re.compile(r" (?:when|where|if|for|at) ")
_OPERATION = re.compile(r" (?:times|plus|minus|over|divided by|out of|of|to|remainder) ")


def one_line(text: str) -> str:
    """The text without the marks around it, if it is one line that is short enough for an answer; else empty."""
    text = text.strip()
    is_long = len(text) > _MAX_CHARS or "\n" in text.strip("$\\[] \n")
    return "" if is_long else tidy(text)


def bare_answer(line: str) -> str | None:
    """The line, if it is nothing but an answer, or what a sum comes to: ``7`` of ``3 + 4 = 7``.

    None for prose, even for a sentence with a number in it.
    """
    if not line or _PROSE.search(line):
        return None
    if _TEXT_COMMAND.fullmatch(line.strip("$ ")):
        return line
    text = clean(line)
    if not (_is_choice(text) or _is_expression(text) or _is_phrase(text)):
        return None
    if "=" in text and _is_worked_out(tree_of(text)):
        return tidy(without_delimiters(line).rpartition("=")[2])
    return line


def _is_worked_out(node: Node) -> bool:
    return node.head == "relation" and set(node.args[0]) == {"="} and not has_variable(node)


def _is_choice(text: str) -> bool:
    """``C``, ``(C)``, ``C. 12`` and ``C: a few words``."""
    choice = choice_letter(text)
    if choice is None or not choice[0].isupper():
        return False
    words = choice[1].split()
    return not words or _is_expression(choice[1]) or (len(words) <= _MAX_WORDS and all(map(str.isalpha, words)))


def _is_expression(text: str) -> bool:
    text = text[sign.end() :] if (sign := _SIGN_BEFORE.match(text)) else text
    quantity = read_quantity(text)
    if quantity is not None and is_measure(quantity.unit):
        return True
    return _is_mathematics(tree_of(text))


def _is_mathematics(tree: Node) -> bool:
    """True without words. A unit of measurement, or one word after a number as in ``3 eggs``, is not prose."""
    for node in nodes_of(tree):
        if node.head == "words" or (node.head == "unit" and not _is_unit(node.args[1], has_variable(node.args[0]))):
            return False
    return True


def _is_unit(text: str, after_variable: bool) -> bool:
    words = text.replace(TEXT_OPEN, " ").replace(TEXT_CLOSE, " ").split()
    if len(words) <= 1 and not after_variable:
        return True
    try:
        return is_measure(read_unit(take_scale(" ".join(words).lower())[1]))
    except ValueError:
        return False


def _is_phrase(text: str) -> bool:
    """``3 when x = 2`` and ``5 out of 6``: expressions with a word between them, which no reader knows as one."""
    parts = _CONDITION.split(text) if "=" in text else _OPERATION.split(text)
    return 1 < len(parts) <= _MAX_WORDS and all(map(_is_expression, parts))
