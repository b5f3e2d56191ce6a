"""The tree of an answer as it was written, and questions about it that need no mathematics."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple


class Node(NamedTuple):
    """A node of the tree, with its head and arguments.

    Heads: number (value, decimals), based (digits, base, value), symbol, add, mul, div, pow, neg, pm, mp,
    call (name, *args), group (open, close, *items), list (separators, *items), relation (operators, *operands), union,
    intersection, setminus, set_of (relation), ratio, residue (value, modulus), unit (expression, text),
    matrix (*rows), determinant (*rows), words, time (hour, minute, second, "a" or "p" or "").
    """

    head: str
    args: tuple[Any, ...]


Same = Callable[[Node, Node], bool]
"""(answer, gold) -> True if they are the same."""

INFINITY = Node("symbol", ("infty",))
MINUS_INFINITY = Node("neg", (INFINITY,))
REALS = Node("symbol", ("mathbb R",))
EMPTY_SET = Node("group", ("{", "}"))
_CONSTANTS = ("pi", "infty", "e", "i")
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}


def number(value: int | Fraction) -> Node:
    return Node("number", (Fraction(value), 0))


def items_of(node: Node) -> tuple[Node, ...]:
    if node.head == "list":
        return node.args[1:]
    return node.args[2:] if node.head == "group" else (node,)


def nodes_of(tree: Node) -> Iterator[Node]:
    """Every node of a tree. A loop, because a product of many factors is deeper than the stack."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [arg for arg in node.args if isinstance(arg, Node)]


def is_equation(node: Node) -> bool:
    return node.head == "relation" and node.args[0] == ("=",)


def reversed_relation(node: Node) -> Node:
    """``3 < x`` for ``x > 3``."""
    operators, *operands = node.args
    flipped = tuple(_FLIPPED.get(operator, operator) for operator in reversed(operators))
    return Node("relation", (flipped, *reversed(operands)))


# Names -------------------------------------------------------------------------------------------------


def has_variable(node: Node) -> bool:
    return any(each.head == "symbol" and each.args[0] not in _CONSTANTS for each in nodes_of(node))


def name_of(node: Node) -> str:
    r"""``x``, ``f(x)`` or ``\angle ABC``; empty if it is not a name."""
    if node.head == "symbol" and node.args[0] not in _CONSTANTS:
        return str(node.args[0])
    if node.head == "mul":
        function, argument = node.args
        if function.head == argument.head == "symbol":
            return f"{function.args[0]}{argument.args[0]}"
    if node.head == "group":
        names = [name_of(item) for item in items_of(node)]
        return ",".join(names) if all(names) else ""
    return ""


def name_and_value(node: Node) -> tuple[str, Node]:
    r"""The name and the value in ``x = 3``, ``3 = x``, ``f(x) = x^2`` and ``x \in A``. The name may be empty.

    In ``x = 1 + 2 = 3`` the last value counts.
    """
    if node.head != "relation":
        return "", node
    operators, first, *rest = node.args
    if operators == ("in",) or (operators == ("mod",) and name_of(first)):
        return name_of(first), rest[0]
    if set(operators) != {"="}:
        return "", node
    if name := name_of(first):
        return name, rest[-1]
    if len(rest) == 1 and (name := name_of(rest[0])):
        return name, first
    is_sum_worked_out = len(rest) > 1 or not (has_variable(first) or has_variable(rest[0]))
    return "", rest[-1] if is_sum_worked_out else node


def same_name(answer: str, gold: str) -> bool:
    """True if two names can mean the same: ``f`` is not ``g``, but ``f(x)`` may be called ``area``."""
    return answer.lower() == gold.lower() or (len(answer) != len(gold) and min(len(answer), len(gold)) > 1)


# Residue classes ---------------------------------------------------------------------------------------


def as_residue(node: Node) -> Node:
    """``3 mod 7``, read as an operation, as the class of 3 modulo 7; any other node as it is."""
    if node.head == "call" and node.args[0] == "mod":
        return Node("residue", node.args[1:])
    return node


def with_shared_modulus(items: list[Node]) -> list[Node]:
    r"""``x \equiv 1, 4 \pmod 5``: the modulus after the last item holds for the items before it."""
    last = as_residue(items[-1])
    if last.head != "residue" or items[0].head != "relation" or items[0].args[0] != ("mod",):
        return items
    modulus = last.args[1]
    (_, name, value), *between = items[0].args, *items[1:-1]
    first = Node("relation", (("mod",), name, Node("residue", (value, modulus))))
    return [first, *(Node("residue", (item, modulus)) for item in between), last]


# Plus-minus --------------------------------------------------------------------------------------------


def expand_signs(node: Node) -> Node:
    r"""``2 \pm \sqrt 3`` and ``x = \pm 2`` as the lists that they stand for."""
    if not _has_signs(node):
        return node
    if node.head == "list" or (node.head == "group" and node.args[0] == "{"):
        items = [each for item in items_of(node) for each in _both_signs(item)]
        return Node("list", (("or",) * (len(items) - 1), *items))
    return Node("list", (("or",), _choose(node, "pm"), _choose(node, "mp")))


def _both_signs(item: Node) -> tuple[Node, ...]:
    return items_of(expand_signs(item)) if _has_signs(item) else (item,)


def _has_signs(node: Any) -> bool:
    if not isinstance(node, tuple):
        return False
    if isinstance(node, Node):
        return node.head in ("pm", "mp") or any(map(_has_signs, node.args))
    return any(map(_has_signs, node))


def _choose(node: Any, plus: str) -> Any:
    """The tree with a choice for every sign: ``plus`` ("pm" or "mp") becomes +, the other -."""
    if not isinstance(node, tuple):
        return node
    if not isinstance(node, Node):
        return tuple(_choose(each, plus) for each in node)
    args = tuple(_choose(arg, plus) for arg in node.args)
    if node.head in ("pm", "mp"):
        left, right = args
        return Node("add", (left, right if node.head == plus else Node("neg", (right,))))
    return Node(node.head, args)
