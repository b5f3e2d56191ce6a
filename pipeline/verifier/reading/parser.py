r"""Reads an answer into a tree: a Pratt parser for the notation that answers are written in, good LaTeX or bad.

It builds plain tuples and evaluates nothing, so it is safe on any text, linear in its length but for nesting,
which is bounded. What it does not know raises ReadError: the text is then words.
"""

import re
from fractions import Fraction

from pipeline.verifier.normalize.spelling import TEXT_CLOSE, TEXT_OPEN
from pipeline.verifier.reading.tokens import (
    ACCENTS,
    BARS,
    BINOMIALS,
    CLOSING,
    CONSTANTS,
    CURRENCY_SIGNS,
    DOTS,
    EMPTY_SETS,
    FRACTION,
    FUNCTIONS,
    GREEK,
    MODULO,
    NEGATED,
    OPENING,
    PRODUCTS,
    RELATIONS,
    ROUNDING,
    SEPARATORS,
    SET_OPERATORS,
    SUMS,
    UNIT_SIGNS,
    ReadError,
    Token,
    is_unit_word,
    is_word,
    starts_factor,
    tokens,
)
from pipeline.verifier.reading.tree import EMPTY_SET, Node, number

__all__ = ["ReadError", "read"]

MAX_DEPTH = 60
_MAX_NUMBER_CHARS = 4000
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{([a-zA-Z]*)\*?\}")
_CONDITION = re.compile(r"\b(?:when|if|where|for|with|given|at|as|since|because|but|unless|except)\b", re.IGNORECASE)
_POWERS = ("^", "**")
_INVERTIBLE = ("sin", "cos", "tan")
_INVERSE = Node("neg", (number(1),))


def read(text: str, *, thousands: bool = True) -> Node:
    """The tree of an answer, as ``clean`` leaves it.

    Args:
        thousands: read ``1,234`` outside brackets as one number; False reads two.

    Raises:
        ReadError: it is not an expression, or too deep or too long.
    """
    return _Parser(text, thousands).whole()


class _Parser:
    """One method for each level of binding, from lists down to atoms; each leaves the position behind what it read."""

    def __init__(self, text: str, thousands: bool) -> None:
        self._text = text
        self._tokens = tokens(text)
        self._thousands = thousands
        self._position = 0
        self._depth = 0
        self._brackets = 0
        self._bars = 0
        """Absolute values that are open: the next bar closes one."""

    def whole(self) -> Node:
        node = self._list()
        if self._peek() is not None:
            raise ReadError(f"stopped at {self._position}")
        return node

    # Tokens ----------------------------------------------------------------------------------------

    def _token(self, ahead: int = 0) -> Token | None:
        index = self._position + ahead
        return self._tokens[index] if index < len(self._tokens) else None

    def _peek(self, ahead: int = 0) -> str | None:
        token = self._token(ahead)
        return token.text if token else None

    def _kind(self, ahead: int = 0) -> str | None:
        token = self._token(ahead)
        return token.kind if token else None

    def _next(self) -> Token:
        token = self._token()
        if token is None:
            raise ReadError("ended early")
        self._position += 1
        return token

    def _take(self, *texts: str) -> bool:
        if self._peek() in texts:
            self._position += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._take(text):
            raise ReadError(f"{text} is missing")

    def _separator(self) -> str | None:
        token = self._token()
        if token is None:
            return None
        text = token.text.strip(f"{TEXT_OPEN}{TEXT_CLOSE} ,").lower() if token.kind == "text" else token.text
        return SEPARATORS.get(text)

    def _descend(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ReadError("too deep")

    # Lists, relations, sets ------------------------------------------------------------------------

    def _list(self) -> Node:
        """``a, b and c``; one item stays what it is."""
        items, separators = [self._relation()], []
        while separator := self._separator():
            self._position += 1
            while follows := self._separator():  # ", and"
                separator = follows
                self._position += 1
            if self._peek() is None or self._peek() in CLOSING:
                break
            separators.append(separator)
            items.append(self._relation())
        return items[0] if len(items) == 1 else Node("list", (tuple(separators), *items))

    def _nested_list(self, num_bars: int = 0) -> Node:
        self._descend()
        bars, self._bars = self._bars, num_bars
        node = self._list()
        self._bars = bars
        self._depth -= 1
        return node

    def _relation(self) -> Node:
        first = self._operand()
        operators, operands = [], [first]
        while operator := self._relation_sign():
            operators.append(operator)
            operands.append(self._operand())
        if any(each.head == "unit" and _CONDITION.search(each.args[1]) for each in operands[:-1]):
            raise ReadError("a condition")  # y = 3 when x = 2
        return Node("relation", (tuple(operators), *operands)) if operators else first

    def _relation_sign(self) -> str | None:
        is_negated = self._take("\\not")
        sign = RELATIONS.get(self._peek() or "")
        if is_negated:
            sign = NEGATED.get(sign or "")
            if sign is None:
                raise ReadError("not")
        if sign is None:
            return None
        self._position += 1
        return f"{sign}=" if sign in ("<", ">") and self._take("=") else sign

    def _operand(self) -> Node:
        left = self._with_unit()
        while operator := SET_OPERATORS.get(self._peek() or ""):
            self._position += 1
            left = Node(operator, (left, self._with_unit()))
        if left.head in ("group", "union") and self._take("U", "u"):  # (1,2) U (3,4)
            return Node("union", (left, self._operand()))
        if self._take("\\"):
            return Node("setminus", (left, self._with_unit()))
        if self._peek() != ":":
            return left
        parts = [left]
        while self._take(":"):
            parts.append(self._sum())
        return Node("ratio", tuple(parts))

    # Units -----------------------------------------------------------------------------------------

    def _with_unit(self) -> Node:
        """A sum, with the currency sign in front or the words behind it."""
        currency = self._currency()
        node = self._sum()
        first = self._position
        while self._continues_unit(is_first=self._position == first):
            self._position += 1
        if self._position > first:
            return Node("unit", (node, self._text[self._tokens[first].start : self._tokens[self._position - 1].end]))
        return Node("unit", (node, currency)) if currency else node

    def _currency(self) -> str:
        """The sign in front; ``-$5`` is read as ``$-5``."""
        if self._peek() == "-" and self._peek(1) in CURRENCY_SIGNS:
            here = self._position
            self._tokens[here], self._tokens[here + 1] = self._tokens[here + 1], self._tokens[here]
        return self._next().text if self._peek() in CURRENCY_SIGNS else ""

    def _continues_unit(self, *, is_first: bool) -> bool:
        token = self._token()
        if token is None or self._separator():
            return False
        if token.kind == "text" or token.text in UNIT_SIGNS or self._at_degree():
            return True
        if token.kind == "letters":
            return not is_first or is_unit_word(token.text)
        return not is_first and (token.kind == "number" or token.text in ("^", "/", "{", "}", ".", "'", "-"))

    def _at_degree(self) -> bool:
        r"""Whether ``^\circ`` or ``^{\circ}`` is next."""
        if self._peek() != "^":
            return False
        return self._peek(1) == "\\circ" or (self._peek(1) == "{" and self._peek(2) == "\\circ")

    def _with_degree(self, node: Node) -> Node:
        """The argument of a function with its degree sign, if there is one."""
        if not self._at_degree():
            return node
        self._position += 1
        if self._take("{"):
            self._expect("\\circ")
            self._expect("}")
        else:
            self._expect("\\circ")
        return Node("unit", (node, "^\\circ"))

    # Arithmetic ------------------------------------------------------------------------------------

    def _sum(self) -> Node:
        self._descend()
        left = self._signed()
        while operator := SUMS.get(self._peek() or ""):
            self._position += 1
            right = self._signed()
            left = Node("add", (left, Node("neg", (right,)))) if operator == "sub" else Node(operator, (left, right))
        self._depth -= 1
        return left

    def _signed(self) -> Node:
        operator = SUMS.get(self._peek() or "")
        if operator is None:
            return self._product()
        self._position += 1
        self._descend()
        inner = self._signed()
        self._depth -= 1
        if operator == "add":
            return inner
        return Node("neg", (inner,)) if operator == "sub" else Node(operator, (number(0), inner))

    def _product(self) -> Node:
        left = self._power()
        while True:
            if operator := PRODUCTS.get(self._peek() or ""):
                self._position += 1
                left = Node(operator, (left, self._signed() if self._peek() in SUMS else self._power()))
            elif self._starts_factor():
                left = self._implicit(left)
            elif self._take(*MODULO):
                left = Node("call", ("mod", left, self._power()))
            else:
                return left

    def _starts_factor(self) -> bool:
        token = self._token()
        if token is None or self._separator():
            return False
        if token.text in ("U", "u") and self._peek(1) in OPENING:
            return False
        return starts_factor(token) or (token.text == "|" and self._bars == 0)

    def _implicit(self, left: Node) -> Node:
        r"""A product without a sign, or a mixed number: ``2x``, ``2 1/2``, ``2\frac12``."""
        is_whole = left.head == "number" and left.args[1] == 0 and left.args[0].denominator == 1
        if is_whole and self._kind() == "number":
            above = self._power()
            if not (self._take("/") and self._kind() == "number"):
                raise ReadError("two numbers side by side")
            return Node("add", (left, Node("div", (above, self._power()))))
        is_fraction = self._peek() == FRACTION
        right = self._power()
        if is_whole and is_fraction and right.head == "div" and all(part.head == "number" for part in right.args):
            return Node("add", (left, right))
        return Node("mul", (left, right))

    def _power(self) -> Node:
        base = self._factorials(self._atom())
        if not self._takes_power():
            return base
        exponent = self._exponent()
        if self._takes_power():
            exponent = Node("pow", (exponent, self._power()))
        return self._factorials(Node("pow", (base, exponent)))

    def _takes_power(self) -> bool:
        return not self._at_degree() and self._take(*_POWERS)

    def _exponent(self) -> Node:
        """What follows ``^``, with its sign."""
        if self._take("-"):
            return Node("neg", (self._script(),))
        self._take("+")
        return self._script()

    def _script(self) -> Node:
        """What stands in a superscript: a group, or the next token. ``x^12`` is x to the twelfth."""
        return self._braced() if self._peek() == "{" else self._factorials(self._atom())

    def _factorials(self, node: Node) -> Node:
        while True:
            if self._take("!"):
                node = Node("call", ("factorial", node))
            elif node.head == "symbol" and self._take("'"):
                node = Node("symbol", (f"{node.args[0]}'",))
            else:
                return node

    # Atoms -----------------------------------------------------------------------------------------

    def _atom(self) -> Node:
        if self._peek() == "{":
            return self._braced()
        token = self._next()
        match token.kind:
            case "number":
                return self._number(token)
            case "repeating":
                return _repeating(token.text)
            case "letters":
                return self._letters(token.text)
            case "text":
                return self._marked(token.text[1:-1].strip())
        if token.text in OPENING:
            return self._group(OPENING[token.text])
        if token.text in BARS:
            return self._absolute()
        if token.kind == "command":
            return self._command(token.text)
        raise ReadError(f"{token.text!r} begins nothing")

    def _braced(self) -> Node:
        self._expect("{")
        node = self._nested_list()
        self._expect("}")
        return node

    def _absolute(self) -> Node:
        self._bars += 1
        node = self._sum()
        self._bars -= 1
        if not self._take(*BARS):
            raise ReadError("bar")
        return Node("call", ("abs", node))

    # Numbers ---------------------------------------------------------------------------------------

    def _number(self, token: Token) -> Node:
        text = token.text
        if len(text) > _MAX_NUMBER_CHARS:
            raise ReadError("number too long")
        if self._thousands and self._brackets == 0 and text.isdigit() and len(text) <= 3 and text[0] != "0":
            text += self._more_thousands(token.end)
        digits, _, exponent = text.lower().partition("e")
        value = Fraction(digits) * Fraction(10) ** int(exponent or 0)
        decimals = len(digits.partition(".")[2])
        if self._peek() in DOTS and re.search(r"\.\d*(\d)\1\1$", digits):  # 0.333...
            self._position += 1
            return number(value + Fraction(int(digits[-1]), 9 * 10**decimals))
        if self._peek() == "_" and decimals == 0:
            return self._based(digits)
        return Node("number", (value, decimals))

    def _more_thousands(self, end: int) -> str:
        """The digits of ``,234,567`` behind a number that ends there."""
        more = ""
        while self._peek() == ",":
            comma, group = self._token(), self._token(1)
            if comma is None or group is None or comma.start != end or group.start != comma.end:
                break
            if not re.fullmatch(r"\d{3}(\.\d+)?", group.text):
                break
            more += group.text
            end = group.end
            self._position += 2
            if "." in group.text:
                break
        return more

    def _based(self, digits: str) -> Node:
        self._expect("_")
        base = self._script()
        if base.head != "number" or not 2 <= base.args[0] <= 36 or base.args[0].denominator != 1:
            raise ReadError("base")
        try:
            return Node("based", (digits, int(base.args[0]), Fraction(int(digits, int(base.args[0])))))
        except ValueError:
            raise ReadError("digit") from None

    # Names and functions ---------------------------------------------------------------------------

    def _letters(self, letters: str) -> Node:
        if (node := self._known_name(letters)) is not None:
            return node
        if is_word(letters):
            raise ReadError("a word")
        *first, last = list(letters)
        node = self._subscripted(last)
        if first and self._take(*_POWERS):  # ab^2 is a b^2
            node = Node("pow", (node, self._exponent()))
        for letter in reversed(first):
            node = Node("mul", (Node("symbol", (letter,)), node))
        return node

    def _known_name(self, name: str) -> Node | None:
        if name in FUNCTIONS:
            return self._function(name)
        if name in CONSTANTS:
            return Node("symbol", (CONSTANTS[name],))
        return self._subscripted(name) if name in GREEK else None

    def _marked(self, word: str) -> Node:
        r"""What stood in ``\text{}`` or ``\operatorname{}``."""
        if word in FUNCTIONS:
            return self._function(word)
        if word.lower() in CONSTANTS:
            return Node("symbol", (CONSTANTS[word.lower()],))
        if len(word) == 1 and word.isalpha():
            return self._subscripted(word)
        raise ReadError("words")

    def _subscripted(self, name: str) -> Node:
        if not self._take("_"):
            return Node("symbol", (name,))
        return Node("symbol", (f"{name}_{self._raw().strip(TEXT_OPEN + TEXT_CLOSE)}",))

    def _function(self, name: str) -> Node:
        if name == "sqrt":
            return self._root()
        base = [self._script()] if self._take("_") else []
        power = self._exponent() if self._take(*_POWERS) else None
        arguments = self._arguments()
        if power == _INVERSE and name in _INVERTIBLE:
            return Node("call", (f"arc{name}", *arguments))
        node = Node("call", (name, *arguments, *base))
        return node if power is None else Node("pow", (node, power))

    def _arguments(self) -> tuple[Node, ...]:
        if self._peek() not in ("(", "{", "[", "\\{"):
            return (self._bare_argument(),)
        argument = self._atom()
        if argument.head == "group":
            return argument.args[2:]
        return argument.args[1:] if argument.head == "list" else (argument,)

    def _bare_argument(self) -> Node:
        r"""What a function takes without brackets: ``2x`` of ``\sin 2x + 1``."""
        if self._take("-"):
            return Node("neg", (self._bare_argument(),))
        node = self._power()
        while self._starts_factor() and not self._take_no_more():
            node = self._implicit(node)
        return self._with_degree(node)

    def _take_no_more(self) -> bool:
        next_text = self._peek() or ""
        return next_text in ("(", "[") or next_text.strip("\\") in FUNCTIONS

    def _root(self) -> Node:
        r"""``\sqrt{12}``, ``\sqrt12`` (of 12: what careless writers mean), ``sqrt(x+1)``, ``\sqrt[3]{x}``."""
        if not self._take("["):
            return Node("call", ("sqrt", self._atom()))
        index = self._sum()
        self._expect("]")
        return Node("call", ("root", self._atom(), index))

    # Groups ----------------------------------------------------------------------------------------

    def _group(self, opening: str) -> Node:
        r"""What stands in brackets: a tuple, an interval, a set, or one item. ``(x)`` is x, ``[5]`` stays a list."""
        self._brackets += 1
        closing = CLOSING.get(self._peek() or "")
        if closing:
            self._position += 1
            self._brackets -= 1
            return Node("group", (opening, closing))
        node = self._in_braces() if opening == "{" else self._nested_list()
        self._brackets -= 1
        closing = CLOSING.get(self._next().text)
        if closing is None or (opening in "([") != (closing in ")]"):
            raise ReadError("brackets")
        if node.head == "set_of":
            return node
        if node.head == "list" and set(node.args[0]) == {","}:
            return Node("group", (opening, closing, *node.args[1:]))
        if (opening, closing) == ("(", ")"):
            return self._based(str(node.args[0])) if node.head == "number" and self._peek() == "_" else node
        if (opening, closing) == ("[", "]") and node.head not in ("number", "symbol"):
            return node
        return Node("group", (opening, closing, node))

    def _in_braces(self) -> Node:
        r"""The items of a set, or the condition of ``\{x : x > 3\}``."""
        node = self._nested_list(num_bars=1)  # in {x | x > 3} the bar opens no absolute value
        if self._take("|", ":", "\\mid", "\\vert"):
            return Node("set_of", (self._nested_list(),))
        if node.head == "ratio":  # {x : x > 3} read as a ratio
            raise ReadError("set")
        return node

    def _matrix(self, environment: str) -> Node:
        if "matrix" not in environment and environment != "array":
            raise ReadError(environment)
        rows: list[tuple[Node, ...]] = []
        row: list[Node] = []
        self._brackets += 1
        while True:
            row.append(self._sum())
            token = self._next().text
            if token == "&":
                continue
            rows.append(tuple(row))
            row = []
            if token == "\\\\" and not (self._peek() or "").startswith("\\end"):
                continue
            if token == "\\\\":
                token = self._next().text
            if not token.startswith("\\end"):
                raise ReadError("matrix")
            break
        self._brackets -= 1
        if len({len(each) for each in rows}) != 1:
            raise ReadError("ragged matrix")
        return Node("matrix", tuple(rows))

    # Commands --------------------------------------------------------------------------------------

    def _command(self, command: str) -> Node:
        name = command[1:]
        if command == FRACTION:
            return Node("div", (self._argument(), self._argument()))
        if command in BINOMIALS:
            return Node("call", ("binomial", self._argument(), self._argument()))
        if (node := self._known_name(name)) is not None:
            return node
        if command in ROUNDING:
            closing, function = ROUNDING[command]
            node = self._sum()
            self._expect(closing)
            return Node("call", (function, node))
        if command in EMPTY_SETS:
            return EMPTY_SET
        if command == "\\mathbb":
            return Node("symbol", (f"mathbb {self._raw()}",))
        if command in ACCENTS:
            return self._segment() if command == "\\overline" else Node("symbol", (f"{name} {self._raw()}",))
        if match := _ENVIRONMENT.match(command):
            return self._matrix(match[1])
        raise ReadError(f"{command} is not known")

    def _segment(self) -> Node:
        r"""``\overline{AB}`` is the segment AB, and BA."""
        ends = self._raw()
        if not re.fullmatch(r"[A-Z]{2,3}", ends):
            return Node("symbol", (f"overline {ends}",))
        first, *rest = sorted(ends)
        node = Node("symbol", (first,))
        for letter in rest:
            node = Node("mul", (node, Node("symbol", (letter,))))
        return node

    def _argument(self) -> Node:
        r"""A braced group, or one digit or letter: ``\frac12`` is a half."""
        token = self._token()
        if token is None or token.kind != "number" or not token.text.isdigit():
            return self._atom()
        digit, rest = token.text[0], token.text[1:]
        if rest:
            self._tokens[self._position] = Token("number", rest, token.start + 1, token.end)
        else:
            self._position += 1
        return number(int(digit))

    def _raw(self) -> str:
        """The next token, or what stands between the next braces, unread."""
        if not self._take("{"):
            return self._next().text
        parts: list[str] = []
        depth = 1
        while True:
            text = self._next().text
            depth += {"{": 1, "}": -1}.get(text, 0)
            if depth == 0:
                return "".join(parts)
            parts.append(text)


def _repeating(text: str) -> Node:
    r"""``0.1\overline{6}`` is 1/6."""
    fixed, repeated = re.split(r"\\(?:overline|bar|dot)", text)
    repeated = repeated.strip("{} ")
    decimals = len(fixed.partition(".")[2])
    value = Fraction(fixed.rstrip(".") or 0)
    return number(value + Fraction(int(repeated), (10 ** len(repeated) - 1) * 10**decimals))
