"""Whether two answers are the same mathematics. Runs in a child process: sympy can be slow, or blow up.

Answers are read into trees (``reader.py``) and compared by shape, here; sets of reals as pieces of the line
(``real_sets.py``), and at the leaves scalars (``scalars.py``). docs/verifier.md has the policy on what counts as equal.
"""

import re
from collections.abc import Sequence
from fractions import Fraction

import sympy

from pipeline.verifier.compare import scalars
from pipeline.verifier.compare.real_sets import is_real_set, same_real_set
from pipeline.verifier.normalize.quantity import european_decimal, without_lead
from pipeline.verifier.normalize.spelling import TEXT_CLOSE, TEXT_OPEN
from pipeline.verifier.normalize.words import looks_like_words, same_words
from pipeline.verifier.reading.parser import ReadError, read
from pipeline.verifier.reading.tree import (
    EMPTY_SET,
    INFINITY,
    MINUS_INFINITY,
    REALS,
    Leaf,
    Node,
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

_MAX_ITEMS = 1000
_MAX_DISTINCT = 50
_MAX_PARTS = 50
_TIME = re.compile(r"(\d{1,2})(?::(\d{2}))?(?::(\d{2}))?\s*(?:([ap])\.?\s?m\.?)?", re.IGNORECASE)
_BASED = re.compile(
    r"(?P<sign>-?)\(?(?P<digits>[0-9A-F ]+(?:\.[0-9A-F]+)?)\)?\s*"
    r"(?:_\s*[{(]*\s*|[(,]*\s*(?:in )?base[\s-]*)"
    r"(?P<base>\d{1,2}|[a-z]+)\s*[)}]*",
    re.IGNORECASE,
)
_BASE_WORDS = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
}  # fmt: skip
_TO = re.compile(r"(\S+) to (\S+)(?: to (\S+))?")
_MARKED_SEPARATOR = re.compile(rf"{TEXT_OPEN}\s*,?\s*(and|or|,)\s*{TEXT_CLOSE}")
_PART_SEPARATOR = re.compile(r"\s*[,;]\s*(?:and\s|or\s)?|\s+and\s+|\s+or\s+")
_TUPLES = ("()", "[]", "<>")
_SURE_TUPLES = ("()", "<>")
"""Programmers write lists in square brackets."""
_ALL_REALS = ("all real numbers", "any real number")
_ALL_REALS_AS_INTERVAL = Node("group", ("(", ")", MINUS_INFINITY, INFINITY))


def compare(answer: str, gold: str, all_methods: bool = False) -> tuple[bool | None, bool | None] | None:
    """Whether the answer equals the gold answer, symbolically and numerically; None for a gold that nobody can read.

    Args:
        answer, gold: as ``clean`` leaves them.
        all_methods: work out the second when the first holds already.
    """
    gold_node = _read(gold)
    if gold_node.head == "words" and not looks_like_words(gold):
        return None
    exact = _same_text(answer, gold, gold_node, scalars.exact)
    if exact and not all_methods:
        return True, None
    return exact, _same_text(answer, gold, gold_node, scalars.close)


# Texts -------------------------------------------------------------------------------------------------


def _same_text(answer: str, gold: str, gold_node: Node, leaf: Leaf) -> bool:
    """Compares the readings of two texts; ``1,234`` has two, and so have ``3,14`` and "about 5"."""
    if gold_node.head == "words" and same_words(answer, gold):
        return True
    if _same(_read(answer), gold_node, leaf):
        return True
    if "," in answer and "," in gold:
        return _same(_read(answer, thousands=False), _read(gold, thousands=False), leaf)
    if decimal := european_decimal(answer):
        return gold_node.head in ("number", "unit") and _same(_read(decimal), gold_node, leaf)
    short = without_lead(answer)
    return short != answer and gold_node.head != "words" and _same(_read(short), gold_node, leaf)


def _read(text: str, *, thousands: bool = True) -> Node:
    """The tree of a text; words when it is no mathematics."""
    unmarked = text.replace(TEXT_OPEN, "").replace(TEXT_CLOSE, "")
    if node := _read_time(unmarked) or _read_based(unmarked):
        return node
    if match := _TO.fullmatch(unmarked):
        text = ":".join(part for part in match.groups() if part)
    try:
        return read(text, thousands=thousands)
    except (ReadError, RecursionError):
        return _read_parts(text) or Node("words", (text,))


def _read_time(text: str) -> Node | None:
    match = _TIME.fullmatch(text.replace(" :", ":").replace(": ", ":"))
    if match is None or not (match[2] or match[4]):
        return None
    return Node("time", (int(match[1]), int(match[2] or 0), int(match[3] or 0), (match[4] or "").lower()))


def _read_based(text: str) -> Node | None:
    """``1011_2``, ``(1011)_{2}``, ``1011 base two`` and ``-1A.8_16``."""
    match = _BASED.fullmatch(text)
    if match is None:
        return None
    digits, name = match["digits"].replace(" ", ""), match["base"].lower()
    base = int(name) if name.isdigit() else _BASE_WORDS.get(name, 0)
    whole, _, part = digits.partition(".")
    if base < 2:
        return None
    try:
        value = Fraction(int(whole + part, base), base ** len(part))
    except ValueError:
        return None
    return Node("based", (match["sign"] + digits.upper(), base, -value if match["sign"] else value))


def _read_parts(text: str) -> Node | None:
    r"""``red, 3 and \text{blue}``: a list of which some parts are words."""
    marked = _MARKED_SEPARATOR.sub(r" \1 ", text)
    parts = [part.strip() for part in _PART_SEPARATOR.split(marked)]
    if not 2 <= len(parts) <= _MAX_PARTS or not all(parts) or re.search(r"[(\[{]", marked):
        return None
    separator = "or" if re.search(r"\sor\s", marked) else ","
    return Node("list", ((separator,) * (len(parts) - 1), *map(_read_part, parts)))


def _read_part(text: str) -> Node:
    try:
        return read(text)
    except (ReadError, RecursionError):
        return Node("words", (text,))


# Shapes ------------------------------------------------------------------------------------------------


def _same(answer: Node, gold: Node, leaf: Leaf) -> bool:
    """Whether two trees are the same answer."""
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


def _same_value(answer: Node, gold: Node, leaf: Leaf) -> bool:
    """The same without names and plus-minus signs."""
    heads = {answer.head, gold.head}
    if _has_matrix(answer) or _has_matrix(gold):
        return _same_matrix(answer, gold, leaf)
    if is_real_set(answer) or is_real_set(gold):
        is_same = same_real_set(answer, gold, leaf)
        return _same_operands(answer, gold, leaf) if is_same is None else is_same
    if heads & {"list", "group"}:
        return _same_items(answer, gold, leaf)
    if "relation" in heads:
        return answer.head == gold.head and _same_relation(answer, gold, leaf)
    if "ratio" in heads:
        return _same_ratio(answer, gold, leaf)
    return leaf(answer, gold)


def _same_operands(answer: Node, gold: Node, leaf: Leaf) -> bool:
    """Sets whose pieces cannot be worked out are the same when all their parts are."""
    if answer.head != gold.head:
        return False
    if answer.head in ("union", "intersection", "setminus"):
        return _same_in_order(answer.args, gold.args, leaf)
    if answer.head != "group" or answer.args[:2] != gold.args[:2] or len(answer.args) != len(gold.args):
        return False
    return _same_in_order(items_of(answer), items_of(gold), leaf)


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


def _same_time(answer: Node, gold: Node, leaf: Leaf) -> bool:
    """3:30 is a time of day or a ratio: two that look like times are compared as times."""
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
    """Since midnight; without a.m. or p.m. on a clock of 24 hours."""
    hour, minute, second, half = time.args
    if half:
        hour = hour % 12 + (12 if half == "p" else 0)
    return hour * 3600 + minute * 60 + second


def _same_ratio(answer: Node, gold: Node, leaf: Leaf) -> bool:
    """``3:4``, ``6:8``, ``3/4`` and "3 to 4"."""
    left, right = answer.args, gold.args
    if not {answer.head, gold.head} <= {"ratio", "div"} or len(left) != len(right):
        return False
    products = [  # a : b = c : d when b c = d a
        (Node("mul", (left[index], right[0])), Node("mul", (right[index], left[0]))) for index in range(1, len(left))
    ]
    return all(leaf(*pair) for pair in products)


# Relations ---------------------------------------------------------------------------------------------


def _same_equation(answer: Node, gold: Node) -> bool:
    """One is a constant multiple of the other; ``x = 2`` and ``X = 2`` are left to the names and values."""
    gives_value = name_of(answer.args[1]) and not has_variable(answer.args[2])
    gold_gives_value = name_of(gold.args[1]) and not has_variable(gold.args[2])
    if gives_value and gold_gives_value:
        return False
    return scalars.constant_ratio(answer, gold) is not None


def _same_relation(answer: Node, gold: Node, leaf: Leaf) -> bool:
    if len(answer.args) != len(gold.args):
        return False
    if answer.args[0] != gold.args[0]:
        answer = reversed_relation(answer)
    operators = gold.args[0]
    if answer.args[0] != operators:
        return False
    if _same_in_order(answer.args[1:], gold.args[1:], leaf):
        return True
    if len(operators) > 1 or operators[0] not in ("<", "<=", ">", ">=", "!="):
        return False
    ratio = scalars.constant_ratio(answer, gold)
    return ratio is not None and (operators == ("!=",) or bool(sympy.re(ratio) > 0))


# Collections -------------------------------------------------------------------------------------------


def _same_items(answer: Node, gold: Node, leaf: Leaf) -> bool:
    """Tuples are ordered, sets and bare lists are not; see docs/verifier.md for brackets that one side lacks."""
    left, right = list(items_of(answer)), list(items_of(gold))
    if max(len(left), len(right)) > _MAX_ITEMS:
        return left == right
    kinds = _kind(answer), _kind(gold)
    if kinds[0] == "set":
        left = _distinct(left)
    if kinds[1] == "set":
        right = _distinct(right)
    if len(left) != len(right):
        return False
    if not left:
        return "set" in kinds
    if len(left) == 1:
        return _same(left[0], right[0], leaf)
    if len(left) == 2 and set(kinds) == {"()", "[]"}:
        return False  # an open interval is not a closed one
    return _same_several(left, right, kinds, leaf)


def _same_several(left: list[Node], right: list[Node], kinds: tuple[str, str], leaf: Leaf) -> bool:
    """As many items on both sides, two at least."""
    left_kind, right_kind = kinds
    if left_kind in _TUPLES and right_kind in _TUPLES:
        return _same_in_order(left, right, leaf)
    if left_kind == "set" and right_kind in _SURE_TUPLES:
        return False
    if _names_differ(left) and not any(map(_is_named, right)) and right_kind != "set":
        return _same_in_order(_by_name(left), right, leaf)
    if _names_differ(right) and not any(map(_is_named, left)):
        return _same_in_order(left, _by_name(right), leaf)
    if left_kind in _SURE_TUPLES or right_kind in _SURE_TUPLES:
        return _same_in_order(left, right, leaf)
    return _same_in_some_order(left, right, leaf)


def _kind(node: Node) -> str:
    if node.head != "group":
        return "bare"
    return "set" if node.args[0] == "{" else node.args[0] + node.args[1]


def _names_differ(items: Sequence[Node]) -> bool:
    """``x = 1, y = 2``: each value has a name of its own."""
    names = [name_and_value(item)[0] for item in items]
    return all(names) and len(set(names)) == len(names)


def _by_name(items: Sequence[Node]) -> list[Node]:
    return sorted(items, key=lambda item: name_and_value(item)[0])


def _is_named(node: Node) -> bool:
    return bool(name_and_value(node)[0])


def _same_in_order(left: Sequence[Node], right: Sequence[Node], leaf: Leaf) -> bool:
    return all(_same(*pair, leaf) for pair in zip(left, right, strict=True))


def _same_in_some_order(left: Sequence[Node], right: Sequence[Node], leaf: Leaf) -> bool:
    rest = list(right)
    for item in left:
        found = next((index for index, other in enumerate(rest) if item == other), None)
        if found is None:
            found = next((index for index, other in enumerate(rest) if _same(item, other, leaf)), None)
        if found is None:
            return False
        del rest[found]
    return True


def _distinct(items: Sequence[Node]) -> list[Node]:
    kept: list[Node] = []
    for item in items:
        is_known = item in kept
        if not is_known and len(items) <= _MAX_DISTINCT:
            is_known = any(_same(item, other, scalars.exact) for other in kept)
        if not is_known:
            kept.append(item)
    return kept


# Matrices ----------------------------------------------------------------------------------------------


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
