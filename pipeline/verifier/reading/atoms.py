r"""Atoms: numbers, letters, names, functions with their arguments, commands, and scripts as in ``x^2``, ``\log_2``."""

import re
from fractions import Fraction

from pipeline.verifier.normalize.spelling import TEXT_CLOSE, TEXT_OPEN
from pipeline.verifier.reading import forms
from pipeline.verifier.reading.cursor import Cursor
from pipeline.verifier.reading.tokens import (
    ACCENTS,
    BARS,
    BINOMIALS,
    CONSTANTS,
    DOTS,
    EMPTY_SETS,
    FRACTION,
    FUNCTIONS,
    GREEK,
    OPENING,
    POWERS,
    ROUNDING,
    ReadError,
    Token,
    is_word,
)
from pipeline.verifier.reading.tree import EMPTY_SET, Node, number

_MAX_NUMBER_CHARS = 4000
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{([a-zA-Z]*)\*?\}")
_ENDS_IN_A_TRIPLE = re.compile(r"\.\d*(\d)\1\1$")
_MORE_GROUPS = re.compile(r"(?:(?:,\d{3})+|(?:,\d{2})+,\d{3})(?!\d)(?:\.\d+)?")
_OVERLINE = re.compile(r"\\(?:overline|bar|dot)")
_INVERTIBLE = ("sin", "cos", "tan")
_INVERSE = Node("neg", (number(1),))


def atom(cursor: Cursor) -> Node:
    token = cursor.next()
    match token.kind:
        case "number":
            return _number(cursor, token)
        case "repeating":
            return _repeating(token.text)
        case "letters":
            return _letters(cursor, token.text)
        case "text":
            return _marked(cursor, token.text[1:-1].strip())
    if token.text == "{":
        return forms.braced(cursor)
    if token.text in OPENING:
        return _group(cursor, OPENING[token.text])
    if token.text in BARS:
        return forms.absolute(cursor)
    if token.kind == "command":
        return _command(cursor, token.text)
    raise ReadError(f"{token.text!r} begins nothing")


def _group(cursor: Cursor, opening: str) -> Node:
    node = forms.group(cursor, opening)
    if node.head == "number" and cursor.peek() == "_":  # (1011)_2
        return _based(cursor, node.args[0])
    return node


# Scripts -----------------------------------------------------------------------------------------------


def exponent(cursor: Cursor) -> Node:
    """The power after ``^``, with its sign."""
    if cursor.take("-"):
        return Node("neg", (_script(cursor),))
    cursor.take("+")
    return _script(cursor)


def _script(cursor: Cursor) -> Node:
    """A superscript or subscript: a group, or the next token. ``x^12`` is x to the twelfth."""
    return atom(cursor) if cursor.peek() == "{" else with_marks(cursor, atom(cursor))


def with_marks(cursor: Cursor, node: Node) -> Node:
    """An atom with the factorial signs and primes after it."""
    while True:
        if cursor.take("!"):
            node = Node("call", ("factorial", node))
        elif node.head == "symbol" and cursor.take("'"):
            node = Node("symbol", (f"{node.args[0]}'",))
        else:
            return node


def _with_subscript(cursor: Cursor, name: str) -> Node:
    if not cursor.take("_"):
        return Node("symbol", (name,))
    return Node("symbol", (f"{name}_{cursor.take_raw().strip(TEXT_OPEN + TEXT_CLOSE)}",))


# Numbers -----------------------------------------------------------------------------------------------


def _number(cursor: Cursor, token: Token) -> Node:
    text = token.text
    if len(text) > _MAX_NUMBER_CHARS:
        raise ReadError("number too long")
    if cursor.thousands and cursor.num_brackets == 0 and text.isdigit() and len(text) <= 3 and text[0] != "0":
        text += _more_thousands(cursor, text, token.end)
    digits, _, power_of_ten = text.lower().partition("e")
    value = Fraction(digits) * Fraction(10) ** int(power_of_ten or 0)
    decimals = len(digits.partition(".")[2])
    if cursor.peek() in DOTS and _ENDS_IN_A_TRIPLE.search(digits):  # 0.333...
        cursor.next()
        return number(value + Fraction(int(digits[-1]), 9 * 10**decimals))
    if cursor.peek() == "_" and decimals == 0:
        return _based(cursor, digits)
    return Node("number", (value, decimals))


def _more_thousands(cursor: Cursor, digits: str, end: int) -> str:
    """The digits of ``,234,567`` or, after one or two digits, ``,34,567`` behind a number that ends at ``end``."""
    more = cursor.match(_MORE_GROUPS, end)
    if more is None or (more[0][3:4] == "," and len(digits) == 3):
        return ""
    num_tokens = 2 * more[0].count(",")
    last = cursor.token(num_tokens - 1)
    if last is None or last.end != more.end():
        return ""
    cursor.position += num_tokens
    return more[0].replace(",", "")


def _based(cursor: Cursor, written: str | Fraction) -> Node:
    """``1011_2``, from the subscript on."""
    cursor.expect("_")
    base = _script(cursor)
    if base.head != "number" or not 2 <= base.args[0] <= 36 or base.args[0].denominator != 1:
        raise ReadError("base")
    try:
        digits = str(written)
        return Node("based", (digits, int(base.args[0]), Fraction(int(digits, int(base.args[0])))))
    except ValueError:  # not digits of this base, or thousands of them
        raise ReadError("digit") from None


def _repeating(text: str) -> Node:
    r"""``0.1\overline{6}`` is 1/6."""
    fixed, repeated = _OVERLINE.split(text)
    repeated = repeated.strip("{} ")
    decimals = len(fixed.partition(".")[2])
    value = Fraction(fixed.rstrip(".") or 0)
    return number(value + Fraction(int(repeated), (10 ** len(repeated) - 1) * 10**decimals))


# Names and functions -----------------------------------------------------------------------------------


def _letters(cursor: Cursor, letters: str) -> Node:
    """A name, or a product of variables."""
    if (node := _known_name(cursor, letters)) is not None:
        return node
    if is_word(letters):
        raise ReadError("a word")
    first, last = letters[:-1], letters[-1]
    node = _with_subscript(cursor, last)
    if first and cursor.take(*POWERS):  # ab^2 is a b^2
        node = Node("pow", (node, exponent(cursor)))
    for letter in reversed(first):
        node = Node("mul", (Node("symbol", (letter,)), node))
    return node


def _marked(cursor: Cursor, word: str) -> Node:
    r"""The content of ``\text{}`` or ``\operatorname{}``."""
    if word in FUNCTIONS:
        return _function(cursor, word)
    if word.lower() in CONSTANTS:
        return Node("symbol", (CONSTANTS[word.lower()],))
    if len(word) == 1 and word.isalpha():
        return _with_subscript(cursor, word)
    raise ReadError("words")


def _known_name(cursor: Cursor, name: str) -> Node | None:
    if name in FUNCTIONS:
        return _function(cursor, name)
    if name in CONSTANTS:
        return Node("symbol", (CONSTANTS[name],))
    return _with_subscript(cursor, name) if name in GREEK else None


def _function(cursor: Cursor, name: str) -> Node:
    if name == "sqrt":
        return _root(cursor)
    base = [_script(cursor)] if cursor.take("_") else []
    power = exponent(cursor) if cursor.take(*POWERS) else None
    arguments = _arguments(cursor)
    if power == _INVERSE and name in _INVERTIBLE:
        return Node("call", (f"arc{name}", *arguments))
    node = Node("call", (name, *arguments, *base))
    return node if power is None else Node("pow", (node, power))


def _arguments(cursor: Cursor) -> tuple[Node, ...]:
    if cursor.peek() not in ("(", "{", "[", "\\{"):
        return (cursor.grammar.bare_argument(cursor),)
    argument = atom(cursor)
    if argument.head == "group":
        return argument.args[2:]
    return argument.args[1:] if argument.head == "list" else (argument,)


def _root(cursor: Cursor) -> Node:
    r"""``\sqrt{12}``, ``\sqrt12`` (of 12: what careless writers mean), ``sqrt(x+1)``, ``\sqrt[3]{x}``."""
    if not cursor.take("["):
        return Node("call", ("sqrt", atom(cursor)))
    index = cursor.grammar.sum(cursor)
    cursor.expect("]")
    return Node("call", ("root", atom(cursor), index))


# Commands ----------------------------------------------------------------------------------------------


def _command(cursor: Cursor, command: str) -> Node:
    if command == FRACTION:
        return Node("div", (_argument(cursor), _argument(cursor)))
    if command in BINOMIALS:
        return Node("call", ("binomial", _argument(cursor), _argument(cursor)))
    if (node := _known_name(cursor, command[1:])) is not None:
        return node
    if command in ROUNDING:
        return forms.rounded(cursor, command)
    if command in EMPTY_SETS:
        return EMPTY_SET
    if command == "\\overline":
        return forms.segment(cursor)
    if command == "\\mathbb" or command in ACCENTS:
        return Node("symbol", (f"{command[1:]} {cursor.take_raw()}",))
    if match := _ENVIRONMENT.match(command):
        return forms.matrix(cursor, match[1])
    raise ReadError(f"{command} is not known")


def _argument(cursor: Cursor) -> Node:
    r"""A braced group, or one digit or letter: ``\frac12`` is a half."""
    digit = cursor.take_digit()
    return atom(cursor) if digit is None else number(int(digit))
