"""Whether two answers are the same mathematics. Runs in a child process: sympy can be slow, or blow up.

Answers are read into trees (``reader``), compared by shape (lists, intervals, matrices, equations ...), and at the
leaves as sympy expressions: exactly, or with the tolerance of ``close_numbers``. Expressions with variables are equal
when they agree to 30 digits at random points, which is quicker and surer than to simplify their difference.
docs/verifier.md has the policy on what counts as equal.
"""

import itertools
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import sympy
import sympy.assumptions.wrapper
import sympy.sets.setexpr  # both are loaded late otherwise, when a worker may compile nothing any more
from sympy import Expr, Integer, Rational, Symbol

from pipeline.verifier.quantity import MIN_DIGITS, RELATIVE_TOLERANCE, european_decimal, without_lead
from pipeline.verifier.reader import Node, ReadError, read
from pipeline.verifier.text import TEXT_CLOSE, TEXT_OPEN
from pipeline.verifier.units import NO_UNIT, PERCENT, Unit, compatible, read_unit, take_scale
from pipeline.verifier.words import looks_like_words, same_words

Leaf = Callable[[Node, Node], bool]
"""Compares two scalars: (answer, gold)."""

MAX_BITS = 200_000
"""Integers above stay powers and factorials that nobody multiplies out."""
_DIGITS = 60
_AGREE = 40
"""Numbers are worked out to ``_DIGITS`` digits, and equal when ``_AGREE`` of them agree."""
_MAX_DIGITS = 3000
_POINT_DIGITS = 50
_MAX_ITEMS = 1000
_TIME = re.compile(r"(\d{1,2})(?::(\d{2}))?(?::(\d{2}))?\s*(?:([ap])\.?\s?m\.?)?", re.IGNORECASE)
_BASED = re.compile(
    r"(-?)\(?([0-9A-Fa-f ]+(?:\.[0-9A-Fa-f]+)?)\)?\s*(?:_\s*[{(]*\s*|[(,]*\s*(?:in )?base[\s-]*)(\d{1,2}|[a-z]+)\s*[)}]*", re.IGNORECASE
)
_BASE_WORDS = {word: base for base, word in enumerate(
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen".split(), start=2)}  # fmt: skip
_TO = re.compile(r"(\S+) to (\S+)(?: to (\S+))?")
_DEGREE = read_unit("degree")
_REALS = ("mathbb R",)
_MOST_VARIABLES = 12


def compare(answer: str, gold: str, all_methods: bool = False) -> tuple[bool | None, bool | None] | None:
    """Whether the answer equals the gold answer, symbolically and numerically; None for a gold that nobody can read.

    Args:
        answer, gold: as ``clean`` leaves them.
        all_methods: work out the second when the first holds already.
    """
    gold_node = _read(gold)
    if gold_node.head == "words" and not looks_like_words(gold):
        return None
    exact = _same_text_or(answer, gold, gold_node, _exact)
    if exact and not all_methods:
        return True, None
    return exact, _same_text_or(answer, gold, gold_node, _close)


def _same_text_or(answer: str, gold: str, gold_node: Node, leaf: Leaf) -> bool:
    """Compares the readings of two texts; ``1,234`` has two, and so have ``3,14`` and "about 5"."""
    if gold_node.head == "words" and same_words(answer, gold):
        return True
    if same(_read(answer), gold_node, leaf):
        return True
    if "," in answer and "," in gold:
        return same(_read(answer, thousands=False), _read(gold, thousands=False), leaf)
    if decimal := european_decimal(answer):
        return gold_node.head in ("number", "unit") and same(_read(decimal), gold_node, leaf)
    short = without_lead(answer)
    return short != answer and gold_node.head != "words" and same(_read(short), gold_node, leaf)


def _read(text: str, *, thousands: bool = True) -> Node:
    """The tree of a text; words when it is no mathematics."""
    unmarked = text.replace(TEXT_OPEN, "").replace(TEXT_CLOSE, "")
    if (match := _TIME.fullmatch(unmarked.replace(" :", ":").replace(": ", ":"))) and (match[2] or match[4]):
        return Node("time", (int(match[1]), int(match[2] or 0), int(match[3] or 0), (match[4] or "").lower()))
    if match := _BASED.fullmatch(unmarked):
        if (node := _in_base(match[2].replace(" ", ""), match[3].lower(), bool(match[1]))) is not None:
            return node
    if match := _TO.fullmatch(unmarked):
        text = ":".join(part for part in match.groups() if part)
    try:
        return read(text, thousands=thousands)
    except (ReadError, RecursionError):
        return _read_parts(text) or Node("words", (text,))


def _in_base(digits: str, name: str, negative: bool) -> Node | None:
    base = int(name) if name.isdigit() else _BASE_WORDS.get(name, 0)
    whole, _, part = digits.partition(".")
    try:
        value = Fraction(int(whole + part, base), base ** len(part)) if base >= 2 else None
    except ValueError:
        return None
    if value is None:
        return None
    return Node("based", (("-" if negative else "") + digits.upper(), base, -value if negative else value))


def _read_parts(text: str) -> Node | None:
    """``red, 3 and \\text{blue}``: a list of which some parts are words."""
    marked = re.sub(rf"{TEXT_OPEN}\s*,?\s*(and|or|,)\s*{TEXT_CLOSE}", r" \1 ", text)
    parts = [part.strip() for part in re.split(r"\s*[,;]\s*(?:and\s|or\s)?|\s+and\s+|\s+or\s+", marked)]
    if len(parts) < 2 or not all(parts) or len(parts) > 50 or re.search(r"[(\[{]", marked):
        return None
    items = []
    for part in parts:
        try:
            items.append(read(part))
        except (ReadError, RecursionError):
            items.append(Node("words", (part,)))
    separator = "or" if re.search(r"\sor\s", marked) else ","
    return Node("list", ((separator,) * (len(items) - 1), *items))


# Shapes ------------------------------------------------------------------------------------------------


def same(answer: Node, gold: Node, leaf: Leaf) -> bool:
    """Whether two trees are the same answer."""
    if answer == gold:
        return True
    if "words" in (answer.head, gold.head):
        return _same_as_words(answer, gold)
    if "time" in (answer.head, gold.head):
        return _same_time(answer, gold, leaf)
    answer, gold = _expand_signs(answer), _expand_signs(gold)
    if _is_equation(answer) and _is_equation(gold) and _same_equation(answer, gold):
        return True
    answer_name, answer = _name_and_value(answer)
    gold_name, gold = _name_and_value(gold)
    if answer_name and gold_name and not _same_name(answer_name, gold_name):
        return False
    if _has_matrix(answer) or _has_matrix(gold):
        return _same_matrix(answer, gold, leaf)
    if _is_real_set(answer) or _is_real_set(gold):
        return _same_real_set(answer, gold, leaf)
    if answer.head in ("list", "group") or gold.head in ("list", "group"):
        return _same_items(answer, gold, leaf)
    if "relation" in (answer.head, gold.head):
        return answer.head == gold.head and _same_relation(answer, gold, leaf)
    if "ratio" in (answer.head, gold.head):
        return _same_ratio(answer, gold, leaf)
    return leaf(answer, gold)


def _same_as_words(answer: Node, gold: Node) -> bool:
    if answer.head == gold.head:
        return same_words(answer.args[0], gold.args[0])
    words, other = (answer, gold) if answer.head == "words" else (gold, answer)
    if _means_nothing(words.args[0]):
        return other == Node("group", ("{", "}"))
    return _means_reals(words.args[0]) and _is_reals(other)


def _means_nothing(words: str) -> bool:
    return same_words(words, "no solution") or same_words(words, "empty set")


def _means_reals(words: str) -> bool:
    return any(same_words(words, each) for each in ("all real numbers", "all reals", "any real number", "real numbers"))


def _is_reals(node: Node) -> bool:
    if node.head == "relation" and node.args[0] == ("in",):
        node = node.args[2]
    infinite = Node("symbol", ("infty",))
    return node in (Node("symbol", _REALS), Node("group", ("(", ")", Node("neg", (infinite,)), infinite)))


def _same_time(answer: Node, gold: Node, leaf: Leaf) -> bool:
    """3:30 is a time of day or a ratio: two that look like times are compared as times."""
    if answer.head == gold.head:
        if bool(answer.args[3]) != bool(gold.args[3]) and answer.args[:3] == gold.args[:3]:
            return True
        return _seconds(answer) == _seconds(gold)
    time, other = (answer, gold) if answer.head == "time" else (gold, answer)
    ratio = Node("ratio", tuple(Node("number", (Fraction(part), 0)) for part in time.args[: 3 if time.args[2] else 2]))
    if time.args[3] or other.head != "ratio":
        return False
    return _same_ratio(ratio, other, leaf)


def _seconds(time: Node) -> int:
    """Since midnight; without a.m. or p.m. on a clock of 24 hours."""
    hour, minute, second, half = time.args
    return ((hour % 12 + 12 * (half == "p")) if half else hour) * 3600 + minute * 60 + second


def _expand_signs(node: Node) -> Node:
    r"""``2 \pm \sqrt 3`` and ``x = \pm 2`` as the lists that they stand for."""
    if not _has_signs(node):
        return node
    if node.head == "list" or node.head == "group" and node.args[0] == "{":
        items = [each for item in _items(node) for each in (_items(_expand_signs(item)) if _has_signs(item) else (item,))]
        return Node("list", (("or",) * (len(items) - 1), *items))
    return Node("list", (("or",), _choose(node, "pm"), _choose(node, "mp")))


def _has_signs(node: Any) -> bool:
    if not isinstance(node, tuple):
        return False
    if isinstance(node, Node):
        return node.head in ("pm", "mp") or any(map(_has_signs, node.args))
    return any(map(_has_signs, node))


def _choose(node: Any, plus: str) -> Any:
    """The tree with every sign chosen: ``plus`` ("pm" or "mp") becomes +, the other -."""
    if not isinstance(node, tuple):
        return node
    if not isinstance(node, Node):
        return tuple(_choose(each, plus) for each in node)
    args = tuple(_choose(arg, plus) for arg in node.args)
    if node.head in ("pm", "mp"):
        left, right = args
        return Node("add", (left, right if node.head == plus else Node("neg", (right,))))
    return Node(node.head, args)


def _items(node: Node) -> tuple[Node, ...]:
    if node.head == "list":
        return node.args[1:]
    return node.args[2:] if node.head == "group" else (node,)


# Names and equations -----------------------------------------------------------------------------------


def _is_equation(node: Node) -> bool:
    return node.head == "relation" and node.args[0] == ("=",)


def _name_and_value(node: Node) -> tuple[str, Node]:
    r"""``x = 3``, ``f(x) = x^2``, ``x \in A`` and ``3 = x``: what is named, and what it is. Of ``x = 1 + 2 = 3`` the last."""
    if node.head == "unit" and node.args[0].head == "relation":
        return "", node
    if node.head != "relation":
        return "", node
    operators, first, *rest = node.args
    if operators == ("in",):
        return _name(first), rest[0]
    if set(operators) != {"="}:
        return "", node
    if name := _name(first):
        return name, rest[-1]
    if len(rest) == 1 and (name := _name(rest[0])):
        return name, first
    return ("", rest[-1]) if len(rest) > 1 or not (_free(first) or _free(rest[0])) else ("", node)


def _name(node: Node) -> str:
    """``x``, ``f(x)`` or ``\\angle ABC``; empty when it is not a name."""
    if node.head == "symbol" and node.args[0] not in ("pi", "infty", "e", "i"):
        return node.args[0]
    if node.head == "mul":
        function, argument = node.args
        if function.head == argument.head == "symbol":
            return f"{function.args[0]}{argument.args[0]}"
    if node.head == "group":
        names = [_name(item) for item in _items(node)]
        return ",".join(names) if all(names) and names else ""
    return ""


def _same_name(answer: str, gold: str) -> bool:
    return answer.lower() == gold.lower() or len(answer) != len(gold) and min(len(answer), len(gold)) > 1


def _same_equation(answer: Node, gold: Node) -> bool:
    """One is a constant multiple of the other."""
    if _name(answer.args[1]) and _name(gold.args[1]) and not (_free(answer.args[2]) or _free(gold.args[2])):
        return False
    try:
        left, right = (to_sympy(node.args[1]) - to_sympy(node.args[2]) for node in (answer, gold))
    except (_Unknown, TypeError):
        return False
    left = _with_names_of(left, right)
    if left.free_symbols != right.free_symbols or not right.free_symbols:
        return False
    ratios = []
    for point in _points(right.free_symbols):
        above, below = _at(left, point), _at(right, point)
        if above is None or below is None or below == 0:
            continue
        ratios.append(above / below)
    return len(ratios) >= 2 and ratios[0] != 0 and all(_agree(ratio, ratios[0], _AGREE - 20) for ratio in ratios)


def _free(node: Node) -> bool:
    if node.head == "symbol":
        return node.args[0] not in ("pi", "infty", "e", "i")
    return any(_free(arg) for arg in node.args if isinstance(arg, Node))


def _same_relation(answer: Node, gold: Node, leaf: Leaf) -> bool:
    if len(answer.args) != len(gold.args):
        return False
    if answer.args[0] != gold.args[0]:
        answer = _reversed(answer)
    if answer.args[0] != gold.args[0]:
        return False
    if all(same(*pair, leaf) for pair in zip(answer.args[1:], gold.args[1:], strict=True)):
        return True
    if len(gold.args[0]) > 1 or gold.args[0][0] not in ("<", "<=", ">", ">=", "!="):
        return False
    return _same_inequality(answer, gold)


def _same_inequality(answer: Node, gold: Node) -> bool:
    """One is a positive constant multiple of the other, or any multiple of a ``!=``."""
    try:
        left, right = (to_sympy(node.args[1]) - to_sympy(node.args[2]) for node in (answer, gold))
    except (_Unknown, TypeError):
        return False
    if left.free_symbols != right.free_symbols or not right.free_symbols:
        return False
    values = [(_at(left, point), _at(right, point)) for point in _points(right.free_symbols)]
    ratios = [above / below for above, below in values if above is not None and below]
    if len(ratios) < 2 or not all(_agree(ratio, ratios[0], _AGREE - 20) for ratio in ratios):
        return False
    return ratios[0] != 0 if gold.args[0] == ("!=",) else bool(sympy.re(ratios[0]) > 0)


_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}


def _reversed(node: Node) -> Node:
    operators, *operands = node.args
    flipped = tuple(_FLIPPED.get(operator, operator) for operator in reversed(operators))
    return Node("relation", (flipped, *reversed(operands)))


def _same_ratio(answer: Node, gold: Node, leaf: Leaf) -> bool:
    """``3:4``, ``6:8``, ``3/4`` and "3 to 4"."""

    left, right = answer.args, gold.args
    if not {answer.head, gold.head} <= {"ratio", "div"} or len(left) != len(right):
        return False
    products = [  # a : b = c : d when a d = b c
        (Node("mul", (left[index], right[0])), Node("mul", (right[index], left[0]))) for index in range(1, len(left))
    ]
    return all(leaf(*pair) for pair in products)


# Collections -------------------------------------------------------------------------------------------


def _same_items(answer: Node, gold: Node, leaf: Leaf) -> bool:
    """Tuples are ordered, sets and bare lists are not; see docs/verifier.md for brackets that one side lacks."""
    left, right = list(_items(answer)), list(_items(gold))
    if max(len(left), len(right)) > _MAX_ITEMS:
        return left == right
    left_kind, right_kind = _kind(answer), _kind(gold)
    if left_kind == "set":
        left = _distinct(left)
    if right_kind == "set":
        right = _distinct(right)
    if len(left) != len(right) or not left:
        return len(left) == len(right) and "set" in (left_kind, right_kind)
    if len(left) == 1:
        return same(left[0], right[0], leaf)
    if right_kind in ("()", "[]", "<>") and left_kind in ("()", "[]", "<>"):
        if len(left) == 2 and {left_kind, right_kind} == {"()", "[]"}:
            return False  # an open interval is not a closed one
        return _same_in_order(left, right, leaf)
    if right_kind in ("()", "<>") and left_kind == "set":
        return False
    if _names_differ(left) and not any(map(_is_named, right)) and right_kind != "set":
        return _same_in_order(_by_name(left), right, leaf)
    if _names_differ(right) and not any(map(_is_named, left)):
        return _same_in_order(left, _by_name(right), leaf)
    if right_kind in ("()", "<>") or left_kind in ("()", "<>"):
        return _same_in_order(left, right, leaf)
    return _same_in_some_order(left, right, leaf)


def _kind(node: Node) -> str:
    if node.head != "group":
        return "bare"
    return "set" if node.args[0] == "{" else node.args[0] + node.args[1]


def _names_differ(items: Sequence[Node]) -> bool:
    """``x = 1, y = 2``: each value has a name of its own."""
    names = [_name_and_value(item)[0] for item in items]
    return all(names) and len(set(names)) == len(names)


def _by_name(items: Sequence[Node]) -> list[Node]:
    return sorted(items, key=lambda item: _name_and_value(item)[0])


def _is_named(node: Node) -> bool:
    return bool(_name_and_value(node)[0])


def _same_in_order(left: Sequence[Node], right: Sequence[Node], leaf: Leaf) -> bool:
    return all(same(*pair, leaf) for pair in zip(left, right, strict=True))


def _same_in_some_order(left: Sequence[Node], right: Sequence[Node], leaf: Leaf) -> bool:
    rest = list(right)
    for item in left:
        found = next((index for index, other in enumerate(rest) if item == other), None)
        if found is None:
            found = next((index for index, other in enumerate(rest) if same(item, other, leaf)), None)
        if found is None:
            return False
        del rest[found]
    return True


def _distinct(items: Sequence[Node]) -> list[Node]:
    kept: list[Node] = []
    for item in items:
        if item not in kept and not (len(items) <= 50 and any(same(item, other, _exact) for other in kept)):
            kept.append(item)
    return kept


def _same_matrix(answer: Node, gold: Node, leaf: Leaf) -> bool:
    left, right = _rows(answer), _rows(gold)
    if left is None or right is None or len(left) != len(right):
        return False
    return all(len(a) == len(b) and _same_in_order(a, b, leaf) for a, b in zip(left, right, strict=True))


def _has_matrix(node: Node) -> bool:
    return node.head == "matrix" or (node.head in ("mul", "neg", "div") and any(map(_has_matrix, node.args)))


def _rows(node: Node) -> list[tuple[Node, ...]] | None:
    """Rows of a matrix, of a list of lists, or of a tuple as a column."""
    if node.head == "matrix":
        return list(node.args)
    if node.head == "neg":
        node = Node("mul", (Node("number", (Fraction(-1), 0)), node.args[0]))
    if node.head == "mul" and (rows := _rows(node.args[1])) and node.args[1].head == "matrix":
        return [tuple(Node("mul", (node.args[0], cell)) for cell in row) for row in rows]
    if node.head != "group" or not _items(node):
        return None
    items = _items(node)
    if all(item.head == "group" for item in items):
        return [_items(item) for item in items]
    return None if node.args[0] == "{" else [(item,) for item in items]


# Sets of real numbers ----------------------------------------------------------------------------------

_Piece = tuple[Node, bool, Node, bool]
"""Lower end, whether it belongs to the piece, upper end, whether it belongs."""
_INFINITY = Node("symbol", ("infty",))
_MINUS_INFINITY = Node("neg", (_INFINITY,))


def _is_real_set(node: Node) -> bool:
    """Whether it can only be a set: a union, a half-open or unbounded interval, an inequality for one variable."""
    if node.head in ("union", "intersection", "setminus", "set_of"):
        return True
    if node.head == "group" and len(node.args) == 4:
        opening, closing, *ends = node.args
        return opening + closing in ("[)", "(]") or (opening in "([" and any(_is_infinite(end) for end in ends))
    if node.head == "symbol":
        return node.args == _REALS
    if node.head == "relation":
        return _inequality(node) is not None
    if node.head == "list":
        return all(item.head == "relation" and _inequality(item) is not None for item in _items(node))
    return False


def _is_infinite(node: Node) -> bool:
    return node in (_INFINITY, _MINUS_INFINITY)


class _Unknown(Exception):
    """Not something that can be turned into a set of reals, or into a sympy expression."""


def _same_real_set(answer: Node, gold: Node, leaf: Leaf) -> bool:
    try:
        left, right = _pieces(answer), _pieces(gold)
    except _Unknown:
        if answer.head == gold.head and answer.head in ("union", "intersection", "setminus"):
            return _same_in_order(answer.args, gold.args, leaf)
        return answer.head == gold.head == "group" and answer.args[:2] == gold.args[:2] and (
            _same_in_order(_items(answer), _items(gold), leaf)
        )
    if len(left) != len(right):
        return False
    return all(a[1] == b[1] and a[3] == b[3] and _same_end(a[0], b[0], leaf) and _same_end(a[2], b[2], leaf)
               for a, b in zip(left, right, strict=True))  # fmt: skip


def _same_end(answer: Node, gold: Node, leaf: Leaf) -> bool:
    return answer == gold or (not _is_infinite(answer) and not _is_infinite(gold) and leaf(answer, gold))


def _pieces(node: Node) -> list[_Piece]:
    """Disjoint pieces from left to right."""
    _, node = _name_and_value(node)
    if node.head == "set_of":
        return _pieces(node.args[0])
    if node.head == "union":
        return _merged([*_pieces(node.args[0]), *_pieces(node.args[1])])
    if node.head == "setminus":
        return _without(_pieces(node.args[0]), _pieces(node.args[1]))
    if node.head == "intersection":
        return _intersection(_pieces(node.args[0]), _pieces(node.args[1]))
    if node.head == "symbol" and node.args == _REALS:
        return [(_MINUS_INFINITY, False, _INFINITY, False)]
    if node.head == "group" and node.args[0] == "{":
        return _merged([(item, True, item, True) for item in _items(node)])
    if node.head == "group" and len(node.args) == 4:
        opening, closing, low, high = node.args
        _order(low, high)
        return [(low, opening == "[", high, closing == "]")]
    if node.head == "relation" and (piece := _inequality(node)):
        return piece
    if node.head == "list":
        separators, *items = node.args
        parts = [_pieces(item) for item in items]
        if "or" not in separators and (both := _intersection_of(parts)):
            return both
        return _merged([piece for part in parts for piece in part])
    raise _Unknown


def _inequality(node: Node) -> list[_Piece] | None:
    """``x < 3``, ``3 > x``, ``1 \\le x < 5`` and ``x \\ne 2`` as pieces; None for other relations."""
    operators, *operands = node.args
    if any(operator not in ("<", "<=", ">", ">=", "!=") for operator in operators):
        return None
    if operators[0] in (">", ">=") or (operators == ("!=",) and not _name(operands[0])):
        node = _reversed(node)
        operators, *operands = node.args
    if bounds := _absolute_bounds(operators, operands):
        return bounds
    names = [bool(_name(operand)) for operand in operands]
    if sum(names) != 1 or any(_free(operand) for operand, named in zip(operands, names, strict=True) if not named):
        return None
    if operators == ("!=",):
        point = operands[1]
        return [(_MINUS_INFINITY, False, point, False), (point, False, _INFINITY, False)]
    if len(operands) == 2 and operators[0] in ("<", "<="):
        closed = operators[0] == "<="
        if names[0]:
            return [(_MINUS_INFINITY, False, operands[1], closed)]
        return [(operands[0], closed, _INFINITY, False)]
    if len(operands) == 3 and names[1] and all(operator in ("<", "<=") for operator in operators):
        return [(operands[0], operators[0] == "<=" and not _is_infinite(operands[0]), operands[2],
                 operators[1] == "<=" and not _is_infinite(operands[2]))]  # fmt: skip
    return None


def _absolute_bounds(operators: Sequence[str], operands: Sequence[Node]) -> list[_Piece] | None:
    """``|x| < 3``, ``|x| > 3`` and ``2 < |x| < 3`` as pieces; operators are ``<`` and ``<=``."""
    places = [index for index, each in enumerate(operands) if each.head == "call" and each.args[0] == "abs"]
    if len(places) != 1 or not _name(operands[places[0]].args[1]) or not set(operators) <= {"<", "<="}:
        return None
    at = places[0]
    low = (operands[at - 1], operators[at - 1] == "<=") if at else None
    high = (operands[at + 1], operators[at] == "<=") if at + 1 < len(operands) else (_INFINITY, False)
    if low is None:
        return [(Node("neg", (high[0],)), high[1], *high)]
    return [(Node("neg", (high[0],)), high[1], Node("neg", (low[0],)), low[1]), (low[0], low[1], *high)]


def _place(end: Node) -> Any:
    if end == _INFINITY:
        return sympy.oo
    if end == _MINUS_INFINITY:
        return -sympy.oo
    expression = to_sympy(end)
    if isinstance(expression, Rational):
        return expression
    value = expression.evalf(_DIGITS) if not expression.free_symbols else None
    if value is None or not value.is_Float:
        raise _Unknown
    return value


def _order(low: Node, high: Node) -> None:
    if _place(low) > _place(high):
        raise _Unknown


def _merged(pieces: list[_Piece]) -> list[_Piece]:
    """Sorted, and joined where they touch or overlap."""
    merged: list[_Piece] = []
    for piece in sorted(pieces, key=lambda each: (_place(each[0]), not each[1])):
        if merged:
            low, low_in, high, high_in = merged[-1]
            gap = _place(piece[0]) - _place(high) if not _is_infinite(high) else -1
            if gap < 0 or (gap == 0 and (high_in or piece[1])):
                if _place(piece[2]) > _place(high):
                    high, high_in = piece[2], piece[3]
                elif _place(piece[2]) == _place(high):
                    high_in = high_in or piece[3]
                merged[-1] = (low, low_in, high, high_in)
                continue
        merged.append(piece)
    return merged


def _intersection(left: list[_Piece], right: list[_Piece]) -> list[_Piece]:
    found = []
    for a, b in itertools.product(left, right):
        low, low_in = max(((a[0], a[1]), (b[0], b[1])), key=lambda end: (_place(end[0]), not end[1]))
        high, high_in = min(((a[2], a[3]), (b[2], b[3])), key=lambda end: (_place(end[0]), end[1]))
        width = _place(high) - _place(low) if not (_is_infinite(low) or _is_infinite(high)) else 1
        if width > 0 or (width == 0 and low_in and high_in):
            found.append((low, low_in, high, high_in))
    return _merged(found)


def _intersection_of(parts: list[list[_Piece]]) -> list[_Piece]:
    result = parts[0]
    for part in parts[1:]:
        result = _intersection(result, part)
    return result


def _without(left: list[_Piece], right: list[_Piece]) -> list[_Piece]:
    rest = left
    for low, low_in, high, high_in in right:
        outside: list[_Piece] = []
        if low != _MINUS_INFINITY:
            outside.append((_MINUS_INFINITY, False, low, not low_in))
        if high != _INFINITY:
            outside.append((high, not high_in, _INFINITY, False))
        rest = _intersection(rest, outside)
    return rest


# Scalars -----------------------------------------------------------------------------------------------


def _exact(answer: Node, gold: Node) -> bool:
    return any(_equal(*pair) for pair in _scalar_pairs(answer, gold))


def _close(answer: Node, gold: Node) -> bool:
    """Equal, or within 1e-5 when a decimal of 4 places or more meets a value that is no integer."""
    pairs = _scalar_pairs(answer, gold)
    if any(_equal(*pair) for pair in pairs):
        return True
    if max(_decimals(answer), _decimals(gold)) < MIN_DIGITS:
        return False
    return any(_near(*pair) for pair in pairs)


def _decimals(node: Node) -> int:
    """Digits after the point, when the scalar is one decimal number."""
    while node.head in ("unit", "neg"):
        node = node.args[0]
    return node.args[1] if node.head == "number" else 0


def _near(answer: Expr, gold: Expr) -> bool:
    if answer.free_symbols or gold.free_symbols or answer.is_Integer or gold.is_Integer:
        return False
    left, right = answer.evalf(_DIGITS), gold.evalf(_DIGITS)
    if not (left.is_Float and right.is_Float):
        return False
    return bool(abs(left - right) <= Rational(RELATIVE_TOLERANCE.numerator, RELATIVE_TOLERANCE.denominator) * abs(right))


def _scalar_pairs(answer: Node, gold: Node) -> list[tuple[Expr, Expr]]:
    """Pairs of which one must be equal: none when units differ, two for a percentage. As ``values_to_compare``."""
    if answer.head == "based" and gold.head != "based":
        answer = Node("number", (answer.args[2], 0))
    if gold.head == "based" and answer.head == "number" and str(answer.args[0]) == gold.args[0]:
        return [(sympy.S.One, sympy.S.One)]  # 1011 for 1011_2: the question named the base
    try:
        (left_node, left_unit), (right_node, right_unit) = _split_unit(answer), _split_unit(gold)
        left, right = to_sympy(left_node), to_sympy(right_node)
    except (_Unknown, TypeError):
        return []
    if PERCENT in (left_unit, right_unit) and left_unit != right_unit:
        if NO_UNIT not in (left_unit, right_unit):
            return []
        return [(left, right), (left / 100, right) if left_unit == PERCENT else (left, right / 100)]
    if not left_unit.dimensions or not right_unit.dimensions:
        pairs = [(left, right)]
        if left.has(sympy.pi) and right_unit == _DEGREE:
            pairs.append((left, right * sympy.pi / 180))
        if right.has(sympy.pi) and left_unit == _DEGREE:
            pairs.append((left * sympy.pi / 180, right))
        return pairs
    if not compatible(left_unit, right_unit):
        return []
    return [(left * _rational(left_unit.factor), right * _rational(right_unit.factor))]


def _split_unit(node: Node) -> tuple[Node, Unit]:
    if node.head != "unit":
        return node, NO_UNIT
    inner, text = node.args
    scale, rest = take_scale(text.strip(f" {TEXT_OPEN}{TEXT_CLOSE}").lower())
    if scale > 1:
        inner = Node("mul", (inner, Node("number", (Fraction(scale), 0))))
    try:
        unit = read_unit(rest if scale > 1 else text)
    except ValueError:
        raise _Unknown from None
    return inner, unit


def _rational(value: Fraction) -> Rational:
    return Rational(value.numerator, value.denominator)


def _equal(left: Expr, right: Expr) -> bool:
    """Whether two expressions are equal. Exact for rationals; else by digits, or at random points."""
    if left == right:
        return True
    if isinstance(left, Rational) and isinstance(right, Rational):
        return False
    left = _with_names_of(left, right)
    if left == right:
        return True
    symbols = left.free_symbols | right.free_symbols
    if len(symbols) > _MOST_VARIABLES:
        return False
    if symbols:
        return _equal_at_points(left, right, symbols)
    if left.is_infinite or right.is_infinite:
        return False
    difference = sympy.expand(left - right) if _is_small(left) and _is_small(right) else left - right
    if difference.is_Rational:
        return difference == 0
    if not _agree(left.evalf(_DIGITS), right.evalf(_DIGITS), _AGREE):
        return False
    digits = _digits_to_tell(left, right)
    return digits == _DIGITS or _agree(left.evalf(digits), right.evalf(digits), digits - 20)


def _digits_to_tell(left: Expr, right: Expr) -> int:
    """More digits for larger integers: the square root of 10^100 + 1 is 10^50 to a hundred digits."""
    sizes = [max(n.p.bit_length(), n.q.bit_length()) for n in left.atoms(Rational) | right.atoms(Rational)]
    return min(_MAX_DIGITS, _DIGITS + 2 * (max(sizes, default=0) * 3 // 10) // 10 * 10)


def _is_small(expression: Expr) -> bool:
    return not any(
        power.exp.is_Integer and abs(power.exp) > 50 for power in expression.atoms(sympy.Pow)
    ) and sympy.count_ops(expression) < 200


def _agree(left: Expr, right: Expr, num_digits: int) -> bool:
    if not (_is_number(left) and _is_number(right)):
        return False
    size = max(abs(left), abs(right))
    return bool(abs(left - right) <= size * Rational(1, 10**num_digits))


def _is_number(value: Expr) -> bool:
    return bool(value.is_number and value.is_finite is not False and not value.has(sympy.nan, sympy.zoo, sympy.oo))


def _equal_at_points(left: Expr, right: Expr, symbols: set[Symbol]) -> bool:
    agreed = 0
    for point in _points(symbols):
        values = _at(left, point), _at(right, point)
        if values[0] is None or values[1] is None:
            continue
        if not _agree(*values, _AGREE - 10):
            return False
        agreed += 1
    return agreed >= 2


def _at(expression: Expr, point: dict[Symbol, Expr]) -> Expr | None:
    value = expression.xreplace(point).evalf(_POINT_DIGITS)
    return value if _is_number(value) else None


def _points(symbols: set[Symbol]) -> list[dict[Symbol, Expr]]:
    """Fixed places that no answer was made for: small primes over primes, of both signs."""
    names = sorted(symbols, key=str)
    primes = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47]
    points = []
    for shift, sign in enumerate((1, 1, -1, 1)):
        values = [
            sign * Rational(primes[(3 * index + 2 * shift) % 15] + 2 * index, primes[(5 * index + shift + 4) % 15] * 2 + 1)
            for index in range(len(names))
        ]
        points.append(dict(zip(names, values, strict=True)))
    integer = {name: Integer(index + 3) for index, name in enumerate(names)}  # for factorials and (-1)^n
    return [*points, integer]


def _with_names_of(answer: Expr, gold: Expr) -> Expr:
    """Capital and small letters are the same when nothing else tells variables apart."""
    if not isinstance(answer, Expr) or answer.free_symbols == gold.free_symbols:
        return answer
    by_name = {symbol.name.lower(): symbol for symbol in gold.free_symbols}
    if len(by_name) < len(gold.free_symbols):
        return answer
    return answer.xreplace({s: by_name[s.name.lower()] for s in answer.free_symbols if s.name.lower() in by_name})


# Trees to sympy ----------------------------------------------------------------------------------------

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sin": sympy.sin, "cos": sympy.cos, "tan": sympy.tan, "cot": sympy.cot, "sec": sympy.sec, "csc": sympy.csc,
    "arcsin": sympy.asin, "arccos": sympy.acos, "arctan": sympy.atan, "arccot": sympy.acot, "arcsec": sympy.asec,
    "arccsc": sympy.acsc, "asin": sympy.asin, "acos": sympy.acos, "atan": sympy.atan, "sinh": sympy.sinh,
    "cosh": sympy.cosh, "tanh": sympy.tanh, "arcsinh": sympy.asinh, "arccosh": sympy.acosh, "arctanh": sympy.atanh,
    "ln": sympy.log, "exp": sympy.exp, "abs": sympy.Abs, "max": sympy.Max, "min": sympy.Min, "floor": sympy.floor,
    "ceil": sympy.ceiling, "sgn": sympy.sign, "re": sympy.re, "im": sympy.im, "arg": sympy.arg,
    "cbrt": lambda x: sympy.real_root(x, 3),
}  # fmt: skip
_SYMBOLS = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "infty": sympy.oo}


def to_sympy(node: Node) -> Expr:
    """The sympy expression of a scalar.

    Raises:
        _Unknown: it is no scalar.
    """
    match node.head:
        case "number":
            return _rational(node.args[0])
        case "based":
            return _rational(node.args[2])
        case "symbol":
            return _SYMBOLS.get(node.args[0]) or Symbol(node.args[0])
        case "neg":
            return -to_sympy(node.args[0])
        case "add":
            return sympy.Add(*(to_sympy(arg) for arg in _flat(node, "add")))
        case "mul":
            return sympy.Mul(*(to_sympy(arg) for arg in _flat(node, "mul")))
        case "div":
            above, below = map(to_sympy, node.args)
            if below == 0:
                raise _Unknown
            return above / below
        case "pow":
            return _power(*map(to_sympy, node.args))
        case "call":
            return _call(node.args[0], [to_sympy(arg) for arg in node.args[1:]])
        case "unit" if node.args[1] == "%":
            return to_sympy(node.args[0]) / 100
        case "unit" if "circ" in node.args[1] or node.args[1].startswith("degree"):
            return to_sympy(node.args[0]) * sympy.pi / 180
        case _:
            raise _Unknown


def _refuse() -> Expr:
    raise _Unknown


def _flat(node: Node, head: str) -> list[Node]:
    """Terms of a sum, or factors of a product, that was read from the left."""
    parts = []
    while node.head == head:
        node, right = node.args
        parts.append(right)
    return [node, *reversed(parts)]


def _power(base: Expr, exponent: Expr) -> Expr:
    """A power that is worked out only when the result is of bounded size."""
    if isinstance(exponent, Integer) and isinstance(base, Rational):
        bits = max(base.p.bit_length(), base.q.bit_length())
        if base == 0 and exponent < 0:
            raise _Unknown
        if abs(base) not in (0, 1) and bits * abs(int(exponent)) > MAX_BITS:
            return sympy.Pow(base, exponent, evaluate=False)
    elif base.is_number and not base.is_Rational and exponent.is_Integer and abs(exponent) > 10_000:
        return sympy.Pow(base, exponent, evaluate=False)
    elif base.is_Rational and isinstance(exponent, Rational) and abs(exponent) > 10_000:
        return sympy.Pow(base, exponent, evaluate=False)
    elif base.is_number and exponent.is_Pow and exponent.is_number:
        return sympy.Pow(base, exponent, evaluate=False)
    return sympy.Pow(base, exponent)


def _call(name: str, arguments: list[Expr]) -> Expr:
    first = arguments[0] if arguments else sympy.S.Zero
    match name, len(arguments):
        case ("sqrt", 1):
            return sympy.sqrt(first)
        case ("root", 2):
            index = arguments[1]
            if first.is_negative and index.is_Integer and index % 2 == 1:
                return -sympy.Pow(-first, 1 / index)  # the real root
            return sympy.Pow(first, 1 / index) if index != 0 else _refuse()
        case ("factorial", 1):
            if first.is_Integer and first < 0:
                raise _Unknown
            return sympy.factorial(first) if not first.is_Integer or first <= 5000 else sympy.factorial(first, evaluate=False)
        case ("binomial", 2):
            above, below = arguments
            large = above.is_Integer and below.is_Integer and min(abs(below), abs(above - below)) > 5000
            return sympy.binomial(above, below, evaluate=not large)
        case ("log", 1) | ("lg", 1):
            return sympy.log(first, 10) if name == "lg" else sympy.log(first)
        case ("log", 2) if arguments[1] not in (0, 1):
            return sympy.log(first) / sympy.log(arguments[1])
        case ("mod", 2) if arguments[1] != 0:
            return sympy.Mod(*arguments)
        case ("gcd", n) if n > 1 and all(argument.is_Integer for argument in arguments):
            return sympy.igcd(*arguments) * sympy.S.One
        case ("lcm", n) if n > 1 and all(argument.is_Integer for argument in arguments):
            return sympy.ilcm(*arguments) * sympy.S.One
        case ("max", n) | ("min", n) if n > 1:
            return _FUNCTIONS[name](*arguments)
        case (function, 1) if function in _FUNCTIONS and function not in ("max", "min"):
            return _FUNCTIONS[function](first)
    raise _Unknown
