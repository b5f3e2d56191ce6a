"""Lists, tuples, sets and matrices. Their items are compared by the function that the caller hands in."""

from collections.abc import Sequence

from pipeline.verifier.reading.tree import Node, Same, items_of, name_and_value, number

_MAX_ITEMS = 1000
_MAX_DISTINCT = 50
_TUPLES = ("()", "[]", "<>")
_SURE_TUPLES = ("()", "<>")
"""Programmers write lists in square brackets."""


def same_items(answer: Node, gold: Node, same: Same, *, is_repeat: Same) -> bool:
    """Tuples are ordered, sets and bare lists are not. docs/verifier.md says what brackets on one side only mean.

    Args:
        same: compares two items.
        is_repeat: compares two items of one set, to drop duplicates.
    """
    left, right = list(items_of(answer)), list(items_of(gold))
    if max(len(left), len(right)) > _MAX_ITEMS:
        return left == right
    kinds = _kind(answer), _kind(gold)
    if kinds[0] == "set":
        left = _distinct(left, is_repeat)
    if kinds[1] == "set":
        right = _distinct(right, is_repeat)
    if len(left) != len(right):
        return False
    if not left:
        return "set" in kinds
    if len(left) == 1:
        return same(left[0], right[0])
    if len(left) == 2 and (set(kinds) == {"()", "[]"} or kinds == ("set", "[]")):
        return False  # neither an open interval nor a set is a closed interval
    return _same_several(left, right, kinds, same)


def _same_several(left: list[Node], right: list[Node], kinds: tuple[str, str], same: Same) -> bool:
    """Compares two lists of equal length, of two or more items."""
    left_kind, right_kind = kinds
    if left_kind in _TUPLES and right_kind in _TUPLES:
        return same_in_order(left, right, same)
    if left_kind == "set" and right_kind in _SURE_TUPLES:
        return False
    if _names_differ(left) and not any(map(_is_named, right)) and right_kind != "set":
        return same_in_order(_by_name(left), right, same)
    if _names_differ(right) and not any(map(_is_named, left)):
        return same_in_order(left, _by_name(right), same)
    if left_kind in _SURE_TUPLES or right_kind in _SURE_TUPLES:
        return same_in_order(left, right, same)
    return _same_in_some_order(left, right, same)


def _kind(node: Node) -> str:
    if node.head != "group":
        return "bare"
    return "set" if node.args[0] == "{" else f"{node.args[0]}{node.args[1]}"


def _names_differ(items: Sequence[Node]) -> bool:
    """``x = 1, y = 2``: each value has a name of its own."""
    names = [name_and_value(item)[0] for item in items]
    return all(names) and len(set(names)) == len(names)


def _by_name(items: Sequence[Node]) -> list[Node]:
    return sorted(items, key=lambda item: name_and_value(item)[0])


def _is_named(node: Node) -> bool:
    return bool(name_and_value(node)[0])


def same_in_order(left: Sequence[Node], right: Sequence[Node], same: Same) -> bool:
    """Compares two sequences of equal length, item by item."""
    return all(same(*pair) for pair in zip(left, right, strict=True))


def _same_in_some_order(left: Sequence[Node], right: Sequence[Node], same: Same) -> bool:
    unmatched = list(right)
    for item in left:
        index = next((index for index, other in enumerate(unmatched) if item == other), None)
        if index is None:
            index = next((index for index, other in enumerate(unmatched) if same(item, other)), None)
        if index is None:
            return False
        del unmatched[index]
    return True


def _distinct(items: Sequence[Node], is_repeat: Same) -> list[Node]:
    kept: list[Node] = []
    for item in items:
        is_known = item in kept
        if not is_known and len(items) <= _MAX_DISTINCT:
            is_known = any(is_repeat(item, other) for other in kept)
        if not is_known:
            kept.append(item)
    return kept


# Matrices ----------------------------------------------------------------------------------------------


def has_matrix(node: Node) -> bool:
    """True for a matrix, also with a factor or a sign."""
    return node.head == "matrix" or (node.head in ("mul", "neg", "div") and any(map(has_matrix, node.args)))


def same_determinant(answer: Node, gold: Node, same: Same) -> bool:
    """Bars around a matrix make another thing of it."""
    return answer.head == gold.head and same_matrix(Node("matrix", answer.args), Node("matrix", gold.args), same)


def same_matrix(answer: Node, gold: Node, same: Same) -> bool:
    left, right = _rows(answer), _rows(gold)
    if left is None or right is None or len(left) != len(right):
        return False
    return all(len(a) == len(b) and same_in_order(a, b, same) for a, b in zip(left, right, strict=True))


def _rows(node: Node) -> list[tuple[Node, ...]] | None:
    """The rows of a matrix or of a list of lists; a tuple is a column."""
    if node.head == "matrix":
        return list(node.args)
    if node.head == "neg":
        node = Node("mul", (number(-1), node.args[0]))
    if node.head == "mul" and node.args[1].head == "matrix":
        factor, matrix = node.args
        return [tuple(Node("mul", (factor, cell)) for cell in row) for row in matrix.args]
    items = items_of(node) if node.head == "group" else ()
    if not items:
        return None
    if all(item.head == "group" for item in items):
        return [items_of(item) for item in items]
    return None if node.args[0] == "{" else [(item,) for item in items]
