r"""Reads an answer into a tree: a Pratt parser for the notation that answers are written in, good LaTeX or bad.

It builds plain tuples and evaluates nothing, so it is safe on any text. Its time is linear in the length of the text,
apart from nesting, which is bounded. Text that it cannot read raises ReadError; the caller then treats it as words.

One function for each level of binding, from lists (here) down to atoms (``atoms.py``) and groups (``forms.py``).
"""

import re

from pipeline.verifier.normalize.spelling import TEXT_CLOSE, TEXT_OPEN
from pipeline.verifier.reading.atoms import atom, exponent, with_marks
from pipeline.verifier.reading.cursor import Cursor, Grammar
from pipeline.verifier.reading.tokens import (
    CLOSING,
    CURRENCY_SIGNS,
    FRACTION,
    FUNCTIONS,
    MODULO,
    NEGATED,
    OPENING,
    POWERS,
    PRODUCTS,
    RELATIONS,
    SET_OPERATORS,
    SUMS,
    UNIT_SIGNS,
    ReadError,
    is_unit_word,
    starts_factor,
)
from pipeline.verifier.reading.tree import Node, as_residue, number, with_shared_modulus

__all__ = ["ReadError", "read"]

_CONDITION = re.compile(r"\b(?:when|if|where|for|with|given|at|as|since|because|but|unless|except)\b", re.IGNORECASE)


def read(text: str, *, thousands: bool = True) -> Node:
    """The tree of an answer, as ``clean`` leaves it.

    Args:
        thousands: read ``1,234`` outside brackets as one number; False reads two.

    Raises:
        ReadError: it is not an expression, or too deep or too long.
    """
    cursor = Cursor(text, Grammar(_list, _sum, _bare_argument), thousands=thousands)
    try:
        node = _list(cursor)
    except RecursionError:
        raise ReadError("too deep") from None
    if cursor.peek() is not None:
        raise ReadError(f"stopped at {cursor.position}")
    return node


# Lists, relations, sets --------------------------------------------------------------------------------


def _list(cursor: Cursor) -> Node:
    """``a, b and c``; one item stays what it is."""
    items, separators = [_relation(cursor)], []
    while separator := _separators(cursor):
        if cursor.peek() is None or cursor.peek() in CLOSING:
            break
        separators.append(separator)
        items.append(_relation(cursor))
    return items[0] if len(items) == 1 else Node("list", (tuple(separators), *with_shared_modulus(items)))


def _separators(cursor: Cursor) -> str | None:
    """Takes all separators in a row, such as ", and". The last one counts."""
    last = None
    while separator := cursor.separator():
        cursor.next()
        last = separator
    return last


def _relation(cursor: Cursor) -> Node:
    first = _operand(cursor)
    operators, operands = [], [first]
    while operator := _relation_sign(cursor):
        operators.append(operator)
        operands.append(as_residue(_operand(cursor)) if operator.endswith("mod") else _operand(cursor))
    if any(each.head == "unit" and _CONDITION.search(each.args[1]) for each in operands[:-1]):
        raise ReadError("a condition")  # y = 3 when x = 2
    return Node("relation", (tuple(operators), *operands)) if operators else first


def _relation_sign(cursor: Cursor) -> str | None:
    is_negated = cursor.take("\\not")
    sign = RELATIONS.get(cursor.peek() or "")
    if is_negated:
        sign = NEGATED.get(sign or "")
        if sign is None:
            raise ReadError("not")
    if sign is None:
        return None
    cursor.next()
    return f"{sign}=" if sign in ("<", ">") and cursor.take("=") else sign


def _operand(cursor: Cursor) -> Node:
    """One side of a relation: a set, a ratio, a residue class, or a sum with its unit."""
    left = _with_unit(cursor)
    if _take_modulo(cursor):
        return Node("residue", (left, _modulus(cursor)))
    while operator := SET_OPERATORS.get(cursor.peek() or ""):
        cursor.next()
        left = Node(operator, (left, _with_unit(cursor)))
    if left.head in ("group", "union") and cursor.take("U", "u"):  # (1,2) U (3,4)
        return Node("union", (left, _operand(cursor)))
    if cursor.take("\\"):
        return Node("setminus", (left, _with_unit(cursor)))
    if cursor.peek() != ":":
        return left
    parts = [left]
    while cursor.take(":"):
        parts.append(_sum(cursor))
    return Node("ratio", tuple(parts))


def _take_modulo(cursor: Cursor) -> bool:
    r"""Takes ``\pmod``, or ``mod`` after an opening bracket, up to the modulus."""
    if cursor.peek() == "(" and _is_modulo(cursor.peek(1)):
        cursor.next()
        return True
    return cursor.peek() == "\\pmod"


def _is_modulo(token: str | None) -> bool:
    return (token or "").strip(f"{TEXT_OPEN}{TEXT_CLOSE} ") in MODULO


def _modulus(cursor: Cursor) -> Node:
    """The modulus after its sign, with the closing bracket of ``(mod 7)``."""
    if cursor.next().text == "\\pmod":
        return _power(cursor)
    modulus = _sum(cursor)
    cursor.expect(")")
    return modulus


# Units -------------------------------------------------------------------------------------------------


def _with_unit(cursor: Cursor) -> Node:
    """A sum, with the currency sign before it or the words after it."""
    currency = _currency(cursor)
    node = _sum(cursor)
    first = cursor.position
    while _continues_unit(cursor, is_first=cursor.position == first):
        cursor.next()
    if cursor.position > first:
        return Node("unit", (node, cursor.text_from(first)))
    return Node("unit", (node, currency)) if currency else node


def _currency(cursor: Cursor) -> str:
    """The sign before a sum; ``-$5`` is read as ``$-5``."""
    if cursor.peek() == "-" and cursor.peek(1) in CURRENCY_SIGNS:
        cursor.swap_next_two()
    return cursor.next().text if cursor.peek() in CURRENCY_SIGNS else ""


def _continues_unit(cursor: Cursor, *, is_first: bool) -> bool:
    token = cursor.token()
    if token is None or cursor.separator():
        return False
    if token.kind == "text" or token.text in UNIT_SIGNS or cursor.at_degree():
        return True
    if token.kind == "letters":
        return not is_first or is_unit_word(token.text)
    return not is_first and (token.kind == "number" or token.text in ("^", "/", "{", "}", ".", "'", "-"))


# Arithmetic --------------------------------------------------------------------------------------------


def _sum(cursor: Cursor) -> Node:
    cursor.descend()
    left = _signed(cursor)
    while operator := SUMS.get(cursor.peek() or ""):
        cursor.next()
        right = _signed(cursor)
        left = Node("add", (left, Node("neg", (right,)))) if operator == "sub" else Node(operator, (left, right))
    cursor.ascend()
    return left


def _signed(cursor: Cursor) -> Node:
    operator = SUMS.get(cursor.peek() or "")
    if operator is None:
        return _product(cursor)
    cursor.next()
    cursor.descend()
    inner = _signed(cursor)
    cursor.ascend()
    if operator == "add":
        return inner
    return Node("neg", (inner,)) if operator == "sub" else Node(operator, (number(0), inner))


def _product(cursor: Cursor) -> Node:
    left = _power(cursor)
    while True:
        if operator := PRODUCTS.get(cursor.peek() or ""):
            cursor.next()
            left = Node(operator, (left, _signed(cursor) if cursor.peek() in SUMS else _power(cursor)))
        elif _at_factor(cursor):
            left = _times_next(cursor, left)
        elif cursor.take(*MODULO):
            left = Node("call", ("mod", left, _power(cursor)))
        else:
            return left


def _at_factor(cursor: Cursor) -> bool:
    """True if the next token multiplies without a sign: ``x`` in ``2x``."""
    token = cursor.token()
    if token is None or cursor.separator():
        return False
    if (token.text in ("U", "u") and cursor.peek(1) in OPENING) or (token.text == "(" and _is_modulo(cursor.peek(1))):
        return False
    return starts_factor(token) or (token.text == "|" and cursor.num_bars == 0)


def _times_next(cursor: Cursor, left: Node) -> Node:
    r"""A product without a sign, or a mixed number: ``2x``, ``2 1/2``, ``2\frac12``."""
    is_whole = left.head == "number" and left.args[1] == 0 and left.args[0].denominator == 1
    token = cursor.token()
    if is_whole and token and token.kind == "number":
        return Node("add", (left, _fraction_of_mixed_number(cursor)))
    is_fraction = cursor.peek() == FRACTION
    right = _power(cursor)
    if is_whole and is_fraction and right.head == "div" and all(part.head == "number" for part in right.args):
        return Node("add", (left, right))
    return Node("mul", (left, right))


def _fraction_of_mixed_number(cursor: Cursor) -> Node:
    """``1/2`` in ``2 1/2``."""
    above = _power(cursor)
    if not cursor.take("/") or (token := cursor.token()) is None or token.kind != "number":
        raise ReadError("two numbers side by side")
    return Node("div", (above, _power(cursor)))


def _power(cursor: Cursor) -> Node:
    base = with_marks(cursor, atom(cursor))
    if not _take_power_sign(cursor):
        return base
    power = exponent(cursor)
    if _take_power_sign(cursor):
        power = Node("pow", (power, _power(cursor)))
    return with_marks(cursor, Node("pow", (base, power)))


def _take_power_sign(cursor: Cursor) -> bool:
    return not cursor.at_degree() and cursor.take(*POWERS)


def _bare_argument(cursor: Cursor) -> Node:
    r"""The argument of a function without brackets: ``2x`` in ``\sin 2x + 1``."""
    if cursor.take("-"):
        return Node("neg", (_bare_argument(cursor),))
    node = _power(cursor)
    while _at_factor(cursor) and not _ends_bare_argument(cursor.peek() or ""):
        node = _times_next(cursor, node)
    return _with_degree(cursor, node)


def _ends_bare_argument(token: str) -> bool:
    return token in ("(", "[") or token.strip("\\") in FUNCTIONS


def _with_degree(cursor: Cursor, node: Node) -> Node:
    """The argument of a function with its degree sign, if it has one."""
    if not cursor.at_degree():
        return node
    cursor.take("^")
    if cursor.take("{"):
        cursor.expect("\\circ")
        cursor.expect("}")
    else:
        cursor.expect("\\circ")
    return Node("unit", (node, "^\\circ"))
