"""Compares two answers. Runs in a child process, because sympy can take forever or run out of memory.

Answers are read into trees and compared by shape here. ``containers.py`` compares lists, tuples, sets and matrices;
``real_sets.py`` intervals and inequalities; ``scalars.py`` the leaves. docs/verifier.md says what counts as equal.
"""

from functools import partial

import sympy

from pipeline.verifier.compare import scalars
from pipeline.verifier.compare.containers import (
    has_matrix,
    same_determinant,
    same_in_order,
    same_items,
    same_matrix,
)
from pipeline.verifier.compare.real_sets import is_real_set, same_real_set
from pipeline.verifier.normalize.quantity import european_decimal, without_lead
from pipeline.verifier.normalize.words import looks_like_words, same_words
from pipeline.verifier.reading.texts import tree_of
from pipeline.verifier.reading.tree import (
    EMPTY_SET,
    INFINITY,
    MINUS_INFINITY,
    REALS,
    Node,
    Same,
    as_residue,
    expand_signs,
    has_variable,
    is_equation,
    items_of,
    name_and_value,
    name_of,
    number,
    reversed_relation,
    same_name,
)

_ALL_REALS = ("all real numbers", "any real number")
_ALL_REALS_AS_INTERVAL = Node("group", ("(", ")", MINUS_INFINITY, INFINITY))


def compare(answer: str, gold: str, all_methods: bool = False) -> tuple[bool | None, bool | None] | None:
    """Compares an answer with the gold, symbolically and numerically. None if the gold cannot be read.

    Args:
        answer, gold: as ``clean`` leaves them.
        all_methods: compare numerically even when the answers are equal symbolically.
    """
    gold_node = tree_of(gold)
    if gold_node.head == "words" and not looks_like_words(gold):
        return None
    exact = _same_text(answer, gold, gold_node, scalars.exact)
    if exact and not all_methods:
        return True, None
    return exact, _same_text(answer, gold, gold_node, scalars.close)


def _same_text(answer: str, gold: str, gold_node: Node, leaf: Same) -> bool:
    """Compares the readings of two texts; ``1,234`` has two, and so have ``3,14`` and "about 5"."""
    if gold_node.head == "words" and same_words(answer, gold):
        return True
    answer_node = tree_of(answer)
    if _same(answer_node, gold_node, leaf):
        return True
    is_list = "list" in (answer_node.head, gold_node.head)
    if ("," in answer and "," in gold) or (is_list and "," in answer + gold):
        return _same(tree_of(answer, thousands=False), tree_of(gold, thousands=False), leaf)
    if decimal := european_decimal(answer):
        return gold_node.head in ("number", "unit") and _same(tree_of(decimal), gold_node, leaf)
    short = without_lead(answer)
    return short != answer and gold_node.head != "words" and _same(tree_of(short), gold_node, leaf)


# Shapes ------------------------------------------------------------------------------------------------


def _same(answer: Node, gold: Node, leaf: Same) -> bool:
    """True if two trees are the same answer; ``leaf`` compares scalars."""
    if answer == gold:
        return True
    if "words" in (answer.head, gold.head):
        return _same_as_words(answer, gold)
    if "time" in (answer.head, gold.head):
        return _same_time(answer, gold, leaf)
    answer, gold = expand_signs(answer), expand_signs(gold)
    if is_equation(answer) and is_equation(gold) and _same_equation(answer, gold):
        return True
    answer_name, answer = name_and_value(answer)
    gold_name, gold = name_and_value(gold)
    if answer_name and gold_name and not same_name(answer_name, gold_name):
        return False
    return _same_value(answer, gold, leaf)


def _same_value(answer: Node, gold: Node, leaf: Same) -> bool:
    """The same for answers without names and plus-minus signs."""
    heads = {answer.head, gold.head}
    same = partial(_same, leaf=leaf)
    if "determinant" in heads:
        return same_determinant(answer, gold, same)
    if has_matrix(answer) or has_matrix(gold):
        return same_matrix(answer, gold, same)
    if is_real_set(answer) or is_real_set(gold):
        is_same = same_real_set(answer, gold, leaf)
        return _same_operands(answer, gold, same) if is_same is None else is_same
    if heads & {"list", "group"}:
        return same_items(answer, gold, same, is_repeat=partial(_same, leaf=scalars.exact))
    if "relation" in heads:
        return answer.head == gold.head and _same_relation(answer, gold, leaf)
    if "residue" in heads or as_residue(answer).head == as_residue(gold).head == "residue":
        return _same_residue(as_residue(answer), as_residue(gold), leaf)
    if "ratio" in heads:
        return _same_ratio(answer, gold, leaf)
    return leaf(answer, gold)


def _same_operands(answer: Node, gold: Node, same: Same) -> bool:
    """Sets whose pieces cannot be worked out are the same when all their parts are."""
    if answer.head != gold.head:
        return False
    if answer.head in ("union", "intersection", "setminus"):
        return same_in_order(answer.args, gold.args, same)
    if answer.head != "group" or answer.args[:2] != gold.args[:2] or len(answer.args) != len(gold.args):
        return False
    return same_in_order(items_of(answer), items_of(gold), same)


def _same_as_words(answer: Node, gold: Node) -> bool:
    if answer.head == gold.head:
        return same_words(answer.args[0], gold.args[0])
    words, other = (answer, gold) if answer.head == "words" else (gold, answer)
    if any(same_words(words.args[0], name) for name in ("no solution", "empty set")):
        return other == EMPTY_SET
    return any(same_words(words.args[0], name) for name in _ALL_REALS) and _is_all_reals(other)


def _is_all_reals(node: Node) -> bool:
    if node.head == "relation" and node.args[0] == ("in",):
        node = node.args[2]
    return node in (REALS, _ALL_REALS_AS_INTERVAL)


# Times and ratios --------------------------------------------------------------------------------------


def _same_time(answer: Node, gold: Node, leaf: Same) -> bool:
    """3:30 is a time of day or a ratio. Two answers that look like times are compared as times."""
    if answer.head == gold.head:
        *answer_clock, answer_half = answer.args
        *gold_clock, gold_half = gold.args
        if bool(answer_half) != bool(gold_half) and answer_clock == gold_clock:
            return True
        return _seconds(answer) == _seconds(gold)
    time, other = (answer, gold) if answer.head == "time" else (gold, answer)
    hour, minute, second, half = time.args
    if half or other.head != "ratio":
        return False
    parts = (hour, minute, second) if second else (hour, minute)
    return _same_ratio(Node("ratio", tuple(map(number, parts))), other, leaf)


def _seconds(time: Node) -> int:
    """Since midnight. A time without a.m. or p.m. is on a 24-hour clock."""
    hour, minute, second, half = time.args
    if half:
        hour = hour % 12 + (12 if half == "p" else 0)
    return int(hour) * 3600 + int(minute) * 60 + int(second)


def _same_ratio(answer: Node, gold: Node, leaf: Same) -> bool:
    """``3:4``, ``6:8``, ``3/4`` and "3 to 4"."""
    left, right = answer.args, gold.args
    if not {answer.head, gold.head} <= {"ratio", "div"} or len(left) != len(right):
        return False
    products = [  # a : b = c : d when b c = d a
        (Node("mul", (left[index], right[0])), Node("mul", (right[index], left[0]))) for index in range(1, len(left))
    ]
    return all(leaf(*pair) for pair in products)


def _same_residue(answer: Node, gold: Node, leaf: Same) -> bool:
    """``10 mod 7`` and ``3 mod 7`` are one class. A number is a class when it is the residue, as written or reduced."""
    if answer.head == gold.head:
        return leaf(answer.args[1], gold.args[1]) and leaf(_reduced(answer), _reduced(gold))
    if answer.head == "residue":
        return any(leaf(value, gold) for value in (answer.args[0], _reduced(answer)))
    return any(leaf(answer, value) for value in (gold.args[0], _reduced(gold)))


def _reduced(residue: Node) -> Node:
    return Node("call", ("mod", *residue.args))


# Relations ---------------------------------------------------------------------------------------------


def _same_equation(answer: Node, gold: Node) -> bool:
    """One is a constant multiple of the other; ``x = 2`` and ``X = 2`` are left to the names and values."""
    gives_value = name_of(answer.args[1]) and not has_variable(answer.args[2])
    gold_gives_value = name_of(gold.args[1]) and not has_variable(gold.args[2])
    if gives_value and gold_gives_value:
        return False
    return scalars.relation_ratio(answer, gold) is not None


def _same_relation(answer: Node, gold: Node, leaf: Same) -> bool:
    if len(answer.args) != len(gold.args):
        return False
    if answer.args[0] != gold.args[0]:
        answer = reversed_relation(answer)
    operators = gold.args[0]
    if answer.args[0] != operators:
        return False
    if same_in_order(answer.args[1:], gold.args[1:], partial(_same, leaf=leaf)):
        return True
    if len(operators) > 1 or operators[0] not in ("<", "<=", ">", ">=", "!="):
        return False
    ratio = scalars.relation_ratio(answer, gold)
    return ratio is not None and (operators == ("!=",) or bool(sympy.re(ratio) > 0))
