r"""Forms with an opening and a closing sign: groups, sets, absolute values, matrices, segments.

Each function starts after the opening sign and takes the closing one.
"""

import re

from pipeline.verifier.reading.cursor import Cursor
from pipeline.verifier.reading.tokens import BARS, CLOSING, ROUNDING, ReadError
from pipeline.verifier.reading.tree import Node

_SEGMENT = re.compile(r"[A-Z]{2,3}")


def braced(cursor: Cursor) -> Node:
    """The content of braces; ``{1, 2}`` is a set."""
    node = _nested_list(cursor)
    cursor.expect("}")
    is_set = node.head == "list" and set(node.args[0]) == {","}
    return Node("group", ("{", "}", *node.args[1:])) if is_set else node


def _nested_list(cursor: Cursor, *, num_bars: int = 0) -> Node:
    outer_bars, cursor.num_bars = cursor.num_bars, num_bars
    cursor.descend()
    node = cursor.grammar.list(cursor)
    cursor.ascend()
    cursor.num_bars = outer_bars
    return node


def absolute(cursor: Cursor) -> Node:
    cursor.num_bars += 1
    node = cursor.grammar.sum(cursor)
    cursor.num_bars -= 1
    if not cursor.take(*BARS):
        raise ReadError("bar")
    return Node("call", ("abs", node))


def rounded(cursor: Cursor, command: str) -> Node:
    r"""``\lfloor x \rfloor`` and ``\lceil x \rceil``."""
    closing, function = ROUNDING[command]
    node = cursor.grammar.sum(cursor)
    cursor.expect(closing)
    return Node("call", (function, node))


def group(cursor: Cursor, opening: str) -> Node:
    r"""A tuple, an interval, a set, or one item. ``(x)`` is x, ``[5]`` stays a list."""
    if closing := CLOSING.get(cursor.peek() or ""):
        cursor.next()
        return Node("group", (opening, closing))
    cursor.num_brackets += 1
    node = _in_set(cursor) if opening == "{" else _nested_list(cursor)
    cursor.num_brackets -= 1
    closing = CLOSING.get(cursor.next().text)
    if closing is None or (opening in "([") != (closing in ")]"):
        raise ReadError("brackets")
    if node.head == "set_of":
        return node
    if node.head == "list" and set(node.args[0]) == {","}:
        return Node("group", (opening, closing, *node.args[1:]))
    if (opening, closing) == ("(", ")"):
        return node
    if (opening, closing) == ("[", "]") and node.head not in ("number", "symbol"):
        return node
    return Node("group", (opening, closing, node))


def _in_set(cursor: Cursor) -> Node:
    r"""The items of a set, or the condition in ``\{x \mid x > 3\}``."""
    node = _nested_list(cursor, num_bars=1)  # in {x | x > 3} the bar opens no absolute value
    if cursor.take("|", ":", "\\mid", "\\vert"):
        return Node("set_of", (_nested_list(cursor),))
    if node.head == "ratio":  # {x : x > 3} read as a ratio
        raise ReadError("set")
    return node


def matrix(cursor: Cursor, environment: str) -> Node:
    if "matrix" not in environment and environment != "array":
        raise ReadError(environment)
    cursor.num_brackets += 1
    rows = [_row(cursor)]
    while cursor.take("\\\\") and not (cursor.peek() or "").startswith("\\end"):
        rows.append(_row(cursor))
    cursor.num_brackets -= 1
    if not cursor.next().text.startswith("\\end"):
        raise ReadError("matrix")
    if len({len(row) for row in rows}) != 1:
        raise ReadError("ragged matrix")
    return Node("determinant" if environment in ("vmatrix", "Vmatrix") else "matrix", tuple(rows))


def _row(cursor: Cursor) -> tuple[Node, ...]:
    cells = [cursor.grammar.sum(cursor)]
    while cursor.take("&"):
        cells.append(cursor.grammar.sum(cursor))
    return tuple(cells)


def segment(cursor: Cursor) -> Node:
    r"""``\overline{AB}`` is the segment AB, and BA; any other content makes a name."""
    ends = cursor.take_raw()
    if not _SEGMENT.fullmatch(ends):
        return Node("symbol", (f"overline {ends}",))
    first, *rest = sorted(ends)
    node = Node("symbol", (first,))
    for letter in rest:
        node = Node("mul", (node, Node("symbol", (letter,))))
    return node
