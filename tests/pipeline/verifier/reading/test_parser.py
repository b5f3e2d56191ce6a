"""The reader: trees worked out by hand, and its laws on texts and trees made at random."""

import inspect
import itertools
import sys
from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.verifier.normalize.spelling import TEXT_CLOSE, TEXT_OPEN
from pipeline.verifier.reading import tokens
from pipeline.verifier.reading.parser import ReadError, read
from pipeline.verifier.reading.tree import EMPTY_SET, INFINITY, Node, number

LAWS = settings(max_examples=100, deadline=None, derandomize=True)
X, Y, ONE, TWO, THREE = Node("symbol", ("x",)), Node("symbol", ("y",)), number(1), number(2), number(3)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("1,234", number(1234)),
        ("12,34,567", number(1234567)),
        ("1,23,4", Node("list", ((",", ","), ONE, number(23), number(4)))),
        ("x \\equiv 1 \\pmod{3}", Node("relation", (("mod",), X, Node("residue", (ONE, THREE))))),
        ("1 (mod x + 1)", Node("residue", (ONE, Node("add", (X, ONE))))),
        ("0.25", Node("number", (Fraction(1, 4), 2))),
        ("0.333...", number(Fraction(1, 3))),
        ("0.1\\overline{6}", number(Fraction(1, 6))),
        ("101_2", Node("based", ("101", 2, Fraction(5)))),
        ("(101)_{2}", Node("based", ("101", 2, Fraction(5)))),
        ("2x", Node("mul", (TWO, X))),
        ("xy", Node("mul", (X, Y))),
        ("2 1/3", Node("add", (TWO, Node("div", (ONE, THREE))))),
        ("2\\frac13", Node("add", (TWO, Node("div", (ONE, THREE))))),
        ("2(3)", Node("mul", (TWO, THREE))),
        ("-x^2", Node("neg", (Node("pow", (X, TWO)),))),
        ("2^x^y", Node("pow", (TWO, Node("pow", (X, Y))))),
        ("x - y", Node("add", (X, Node("neg", (Y,))))),
        ("\\sqrt12", Node("call", ("sqrt", number(12)))),
        ("\\sqrt[3]{x}", Node("call", ("root", X, THREE))),
        ("\\sin 2x + 1", Node("add", (Node("call", ("sin", Node("mul", (TWO, X)))), ONE))),
        ("\\sin^2 x", Node("pow", (Node("call", ("sin", X)), TWO))),
        ("\\sin^{-1} x", Node("call", ("arcsin", X))),
        ("\\log_2 x", Node("call", ("log", X, TWO))),
        ("|x|", Node("call", ("abs", X))),
        ("x!", Node("call", ("factorial", X))),
        ("\\{\\}", EMPTY_SET),
        ("(1, x)", Node("group", ("(", ")", ONE, X))),
        ("[1, \\infty)", Node("group", ("[", ")", ONE, INFINITY))),
        ("\\{x \\mid x > 1\\}", Node("set_of", (Node("relation", ((">",), X, ONE)),))),
        ("1, 2 and 3", Node("list", ((",", "and"), ONE, TWO, THREE))),
        ("1 \\le x < 3", Node("relation", (("<=", "<"), ONE, X, THREE))),
        ("x \\not= 1", Node("relation", (("!=",), X, ONE))),
        ("1:2", Node("ratio", (ONE, TWO))),
        ("x \\pm 1", Node("pm", (X, ONE))),
        ("$-3", Node("unit", (Node("neg", (THREE,)), "$"))),
        ("-$3", Node("unit", (Node("neg", (THREE,)), "$"))),
        ("3 cm", Node("unit", (THREE, "cm"))),
        ("3^\\circ", Node("unit", (THREE, "^\\circ"))),
        ("\\begin{pmatrix}1 & 2 \\\\ x & y\\end{pmatrix}", Node("matrix", ((ONE, TWO), (X, Y)))),
        ("\\overline{BA}", Node("mul", (Node("symbol", ("A",)), Node("symbol", ("B",))))),
    ],
)
def test_trees(text, tree):
    assert read(text) == tree


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "ended early"),
        ("cat", "a word"),
        ("(1", "ended early"),
        ("(1\\}", "brackets"),
        ("|x", "bar"),
        ("3 4", "two numbers side by side"),
        ("1)", "stopped at 1"),
        ("\\unknown", "not known"),
        ("12_2", "digit"),
        ("12_{99}", "base"),
        ("(1e9999)_2", "digit"),
        ("y = 3 when x = 2", "stopped at|a condition"),
        ("\\begin{pmatrix}1 & 2 \\\\ 3\\end{pmatrix}", "ragged"),
        ("\\begin{cases}1\\end{cases}", "cases"),
        ("(" * 100 + "1" + ")" * 100, "too deep"),
        ("-" * 100 + "1", "too deep"),
        ("1" * 5000, "number too long"),
        ("1+" * 1500 + "1", "too long"),
    ],
    ids=lambda text: text[:20],
)
def test_texts_that_are_not_expressions(text, message):
    with pytest.raises(ReadError, match=message):
        read(text)


def test_a_tower_higher_than_the_stack_is_too_deep():
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)
    try:
        with pytest.raises(ReadError, match="too deep"):
            read("^".join("3" * 500))
    finally:
        sys.setrecursionlimit(limit)


# Any text ----------------------------------------------------------------------------------------------

ALPHABET = sorted({
    *tokens.FUNCTIONS, *tokens.CONSTANTS, *(f"\\{name}" for name in [*tokens.FUNCTIONS, *tokens.CONSTANTS, "theta"]),
    *tokens.RELATIONS, *tokens.SET_OPERATORS, *tokens.SUMS, *tokens.PRODUCTS, *tokens.MODULO, *tokens.OPENING,
    *tokens.CLOSING, *tokens.ROUNDING, "\\rfloor", "\\rceil", *tokens.BARS, *tokens.SEPARATORS, tokens.FRACTION,
    *tokens.BINOMIALS, *tokens.EMPTY_SETS, *tokens.ACCENTS, *tokens.DOTS, *tokens.CURRENCY_SIGNS, *tokens.UNIT_SIGNS,
    *tokens.POWERS, "{", "}", "_", "'", "!", "\\\\", "\\not", "\\mid", "\\mathbb", "^\\circ", "\\begin{pmatrix}",
    "\\end{pmatrix}", "\\begin{cases}", "0", "7", "12", "1,234", "0.25", "1e3", "1e9999", "0.1\\overline{6}", "0.333",
    "x", "y", "ab", "U", "B", "cm", "eggs", "when", f"{TEXT_OPEN}cm{TEXT_CLOSE}", f"{TEXT_OPEN}and{TEXT_CLOSE}",
    f"{TEXT_OPEN}sin{TEXT_CLOSE}", TEXT_OPEN, "\\", "é", "\ud800",
})  # fmt: skip


@given(st.lists(st.sampled_from(ALPHABET), max_size=12), st.sampled_from(["", " "]), st.booleans())
@settings(LAWS, max_examples=300)
def test_any_text_is_read_or_refused(pieces, joint, thousands):
    with suppress(ReadError):
        assert isinstance(read(joint.join(pieces), thousands=thousands), Node)


@given(st.text(max_size=30))
@LAWS
def test_any_unicode_text_is_read_or_refused(text):
    with suppress(ReadError):
        assert isinstance(read(text), Node)


# Trees to tokens and back ------------------------------------------------------------------------------

NUMBERS = st.integers(0, 3000).map(number) | st.builds(
    lambda digits, decimals: Node("number", (Fraction(digits, 10**decimals), decimals)),
    st.integers(0, 10**6),
    st.integers(1, 4),
)
SYMBOLS = st.sampled_from(["x", "y", "n", "A", "theta", "pi", "x_1", "alpha_12"]).map(
    lambda name: Node("symbol", (name,))
)
CALLS = ["sqrt", "root", "sin", "log", "ln", "abs", "factorial", "floor", "ceil", "binomial", "max", "mod"]
BINARY_CALLS = ("root", "binomial", "max", "mod")


def calls(operands: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    def call(name: str, first: Node, second: Node) -> Node:
        return Node("call", (name, first, second) if name in BINARY_CALLS else (name, first))

    return st.builds(call, st.sampled_from(CALLS), operands, operands)


def compound(operands: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    pairs = st.tuples(operands, operands)
    binary = st.builds(Node, st.sampled_from(["add", "mul", "div", "pow", "pm", "mp"]), pairs)
    return binary | st.builds(lambda node: Node("neg", (node,)), operands) | calls(operands)


SCALARS = st.recursive(NUMBERS | SYMBOLS, compound, max_leaves=6)
SEVERAL = st.lists(SCALARS, min_size=2, max_size=4)
GROUPS = st.builds(
    lambda brackets, items: Node("group", (*brackets, *items)),
    st.sampled_from([("(", ")"), ("[", "]"), ("{", "}"), ("<", ">")]),
    SEVERAL,
)
INTERVALS = st.builds(
    lambda opening, closing, low, high: Node("group", (opening, closing, low, high)),
    st.sampled_from("(["),
    st.sampled_from(")]"),
    SCALARS,
    SCALARS,
)
LISTS = SEVERAL.map(lambda items: Node("list", ((",",) * (len(items) - 1), *items)))
RELATIONS = st.builds(
    lambda items, signs: Node("relation", (tuple(signs[: len(items) - 1]), *items)),
    st.lists(SCALARS, min_size=2, max_size=3),
    st.lists(st.sampled_from(["=", "<", ">", "<=", ">=", "!=", "mod", "to"]), min_size=2, max_size=2),
)
MATRICES = st.lists(st.tuples(SCALARS, SCALARS), min_size=1, max_size=3).map(lambda rows: Node("matrix", tuple(rows)))
SETS = st.builds(Node, st.sampled_from(["union", "intersection", "setminus"]), st.tuples(INTERVALS, INTERVALS))
RATIOS = SEVERAL.map(lambda items: Node("ratio", tuple(items)))
TREES = SCALARS | GROUPS | INTERVALS | LISTS | RELATIONS | MATRICES | SETS | RATIOS
SIGNS = {
    "add": "+", "mul": "\\cdot", "pm": "\\pm", "mp": "\\mp", "union": "\\cup", "intersection": "\\cap",
    "setminus": "\\setminus", "=": "=", "<": "<", ">": ">", "<=": "\\le", ">=": "\\ge", "!=": "\\ne", "mod": "\\equiv",
    "to": "\\to", "(": "(", ")": ")", "[": "[", "]": "]",
}  # fmt: skip


def written(node: Node) -> list[str]:
    """The tokens of a tree, in LaTeX. Compound operands stand in parentheses."""
    match node.head:
        case "number":
            value, decimals = node.args
            digits = str(int(value * 10**decimals)).zfill(decimals + 1)
            return [f"{digits[:-decimals]}.{digits[-decimals:]}" if decimals else digits]
        case "symbol":
            name, _, subscript = node.args[0].partition("_")
            return [name if len(name) == 1 else f"\\{name}", *(["_", "{", subscript, "}"] if subscript else [])]
        case "neg":
            return ["-", *operand(node.args[0])]
        case "div":
            return ["\\frac", *braced(node.args[0]), *braced(node.args[1])]
        case "pow":
            return [*operand(node.args[0]), "^", *braced(node.args[1])]
        case "call":
            return written_call(*node.args)
        case "group":
            opening, closing, *items = node.args
            ends = {"{": "\\{", "}": "\\}", "<": "\\langle", ">": "\\rangle"}
            return [ends.get(opening, opening), *joined(items, [","] * len(items)), ends.get(closing, closing)]
        case "list" | "relation":
            return joined(node.args[1:], [SIGNS.get(sign, sign) for sign in node.args[0]])
        case "ratio":
            return joined(node.args, [":"] * len(node.args))
        case "matrix":
            rows = [joined(row, ["&"] * len(row)) for row in node.args]
            lines = [token for row in rows for token in (*row, "\\\\")][:-1]
            return ["\\begin{pmatrix}", *lines, "\\end{pmatrix}"]
        case "union" | "intersection" | "setminus":
            return [*written(node.args[0]), SIGNS[node.head], *written(node.args[1])]
    return [*operand(node.args[0]), SIGNS[node.head], *operand(node.args[1])]


def written_call(name: str, first: Node, second: Node = ONE) -> list[str]:
    match name:
        case "root":
            return ["\\sqrt", "[", *written(second), "]", *braced(first)]
        case "binomial":
            return ["\\binom", *braced(first), *braced(second)]
        case "max":
            return ["\\max", "(", *joined([first, second], [","]), ")"]
        case "mod":
            return [*operand(first), "\\bmod", *operand(second)]
        case "sqrt":
            return ["\\sqrt", *braced(first)]
        case "abs":
            return ["|", *operand(first), "|"]
        case "floor" | "ceil":
            return [f"\\l{name}", *written(first), f"\\r{name}"]
        case "factorial":
            return [*operand(first), "!"]
    return [f"\\{name}", "(", *written(first), ")"]


def operand(node: Node) -> list[str]:
    return written(node) if node.head in ("number", "symbol") else ["(", *written(node), ")"]


def braced(node: Node) -> list[str]:
    return ["{", *written(node), "}"]


def joined(items: list[Node] | tuple[Node, ...], signs: list[str]) -> list[str]:
    tokens = operand(items[0])
    for sign, item in zip(signs, items[1:], strict=False):
        tokens += [sign, *operand(item)]
    return tokens


@given(TREES)
@settings(LAWS, max_examples=200)
def test_a_written_tree_is_read_back(tree):
    assert read(" ".join(written(tree))) == tree


@given(TREES, st.data())
@LAWS
def test_spaces_between_tokens_change_nothing(tree, data):
    """Except where they part a command from a letter; "1,234" is one number, unless ``thousands`` is off."""
    pieces = written(tree)
    text = pieces[0]
    for before, piece in itertools.pairwise(pieces):
        parts = before[-1].isalpha() and piece[0].isalpha()
        text += data.draw(st.sampled_from([" ", "  "] if parts else ["", " ", "  "])) + piece
    assert read(text, thousands=False) == tree
