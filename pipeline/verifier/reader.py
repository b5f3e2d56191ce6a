r"""Reads an answer into a tree: a Pratt parser for the notation that answers are written in, good LaTeX or bad.

It builds plain tuples and evaluates nothing, so it is safe on any text, linear in its length but for nesting,
which is bounded. What it does not know raises ReadError: the text is then words, or for math-verify's parser.
"""

import re
from fractions import Fraction
from typing import Any, NamedTuple

from pipeline.verifier.text import TEXT_CLOSE, TEXT_OPEN

MAX_DEPTH = 60
MAX_TOKENS = 2000


class ReadError(ValueError):
    """Not an expression that the reader knows."""


class Node(NamedTuple):
    """A tree of what was written.

    Heads: number (value, decimals), symbol, add, mul, div, pow, neg, pm, mp, call (name, *args), group (open, close,
    *items), list (separators, *items), relation (operators, *operands), union, intersection, setminus, ratio, unit
    (expression, text), matrix (*rows), set_of (relation), words, time.
    """

    head: str
    args: tuple[Any, ...]


_TOKEN = re.compile(
    rf"""\s*(?:
      (?P<repeating>[0-9]*\.[0-9]*\\(?:overline|bar|dot)\s*\{{?[0-9]+\}}?)
    | (?P<number>(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]{{1,4}}(?![0-9A-Za-z]))?)
    | (?P<text>{TEXT_OPEN}[^{TEXT_CLOSE}]*{TEXT_CLOSE})
    | (?P<command>\\(?:begin|end)\s*\{{[a-zA-Z]*\*?\}}(?:\s*\{{[clr|\s]*\}})?|\\[A-Za-z]+|\\.)
    | (?P<letters>[^\W\d_]+)
    | (?P<operator>\*\*|<=|>=|!=|==|\.\.\.|.)
    )""",
    re.VERBOSE | re.DOTALL,
)
_FUNCTIONS = frozenset(
    """sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc asin acos atan sinh cosh tanh coth arcsinh
    arccosh arctanh ln log lg exp sqrt cbrt abs max min gcd lcm floor ceil det re im sgn deg arg factorial""".split()
)
_CONSTANTS = {"pi": "pi", "infty": "infty", "infinity": "infty", "inf": "infty", "oo": "infty", "imath": "i"}
_GREEK = frozenset(
    """alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau upsilon
    phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell hbar""".split()
)
_RELATIONS = {
    "=": "=", "==": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!=", "\\le": "<=", "\\leq": "<=",
    "\\leqslant": "<=", "\\ge": ">=", "\\geq": ">=", "\\geqslant": ">=", "\\lt": "<", "\\gt": ">", "\\ne": "!=",
    "\\neq": "!=", "\\approx": "=", "\\simeq": "=", "\\equiv": "mod", "\\in": "in", "\\to": "to", "\\mapsto": "to",
    "\\rightarrow": "to", "\\subset": "subset", "\\subseteq": "subset", "\\sim": "=", "\\cong": "=", "\\coloneqq": "=",
}  # fmt: skip
_SET_OPERATORS = {"\\cup": "union", "\\cap": "intersection", "\\setminus": "setminus", "\\bigcup": "union"}
_SUMS = {"+": "add", "-": "sub", "\\pm": "pm", "\\mp": "mp", "\\oplus": "pm"}
_PRODUCTS = {"*": "mul", "/": "div", "\\cdot": "mul", "\\times": "mul", "\\div": "div", "\\ast": "mul", "\\bullet": "mul"}
_OPENING = {"(": "(", "[": "[", "\\{": "{", "\\langle": "<", "\\lparen": "(", "\\lbrack": "["}
_CLOSING = {")": ")", "]": "]", "\\}": "}", "\\rangle": ">", "\\rparen": ")", "\\rbrack": "]"}
_PAIRS = {"\\lfloor": ("\\rfloor", "floor"), "\\lceil": ("\\rceil", "ceil"), "\\lvert": ("\\rvert", "abs")}
_SEPARATORS = {",": ",", ";": ",", "and": "and", "or": "or", "&": "and", "\\land": "and", "\\lor": "or", "\\wedge": "and",
               "\\vee": "or"}  # fmt: skip
_ACCENTS = frozenset(("\\overline", "\\bar", "\\vec", "\\hat", "\\widehat", "\\tilde", "\\overrightarrow", "\\angle",
                      "\\triangle", "\\mathbf", "\\mathcal", "\\overleftrightarrow", "\\widetilde", "\\mathfrak"))  # fmt: skip
_VARIABLE_RUNS = ("abcd", "xyzwuvt", "pqrs", "klmn", "rst", "ABCD", "XYZ", "PQRS")
_SHORT_WORDS = frozenset("no on up at is it of to us we he me my go do so if by as an am pm hi ok in".split())
_ENVIRONMENT = re.compile(r"\\(begin|end)\s*\{([a-zA-Z]*)\*?\}")
_MAX_NUMBER_CHARS = 4000


class _Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int


def _tokens(text: str) -> list[_Token]:
    found = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind is None or len(found) > MAX_TOKENS:
            raise ReadError("too long")
        found.append(_Token(kind, match[kind], match.start(kind), match.end()))
    return found


def is_word(letters: str) -> bool:
    """Whether a run of letters is a word, not a product of variables: ``cat``, but not ``xy`` or ``abc``."""
    if letters in _FUNCTIONS or letters in _CONSTANTS or letters in _GREEK:
        return False
    if len(letters) <= 2:
        return not letters.isascii() or letters.lower() in _SHORT_WORDS
    return not any(set(letters) <= set(run) for run in _VARIABLE_RUNS)


def read(text: str, *, thousands: bool = True) -> Node:
    """The tree of an answer, as ``clean`` leaves it.

    Args:
        thousands: read ``1,234`` outside brackets as one number; False reads two.

    Raises:
        ReadError: it is not an expression, or too deep or too long.
    """
    parser = _Parser(text, thousands)
    node = parser.listing()
    if parser.peek() is not None:
        raise ReadError(f"stopped at {parser.position}")
    return node


class _Parser:
    def __init__(self, text: str, thousands: bool) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._thousands = thousands
        self._depth = 0
        self._brackets = 0
        self._bars = 0
        self.position = 0

    # Tokens ----------------------------------------------------------------------------------------

    def peek(self, ahead: int = 0) -> str | None:
        index = self.position + ahead
        return self._tokens[index].text if index < len(self._tokens) else None

    def _kind(self, ahead: int = 0) -> str | None:
        index = self.position + ahead
        return self._tokens[index].kind if index < len(self._tokens) else None

    def _next(self) -> _Token:
        if self.position >= len(self._tokens):
            raise ReadError("ended early")
        self.position += 1
        return self._tokens[self.position - 1]

    def _take(self, text: str) -> bool:
        if self.peek() == text:
            self.position += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._take(text):
            raise ReadError(f"{text} is missing")

    def _separator(self) -> str | None:
        token = self.peek()
        if token is None:
            return None
        if self._kind() == "text":
            token = token.strip(f"{TEXT_OPEN}{TEXT_CLOSE} ,").lower()
        return _SEPARATORS.get(token)

    # Lists, relations, sets ------------------------------------------------------------------------

    def listing(self) -> Node:
        """``a, b and c``; one item stays what it is."""
        items, separators = [self._relation()], []
        while separator := self._separator():
            self.position += 1
            while follows := self._separator():  # ", and"
                separator = follows
                self.position += 1
            if self.peek() is None or self.peek() in _CLOSING:
                break
            separators.append(separator)
            items.append(self._relation())
        return items[0] if len(items) == 1 else Node("list", (tuple(separators), *items))

    def _relation(self) -> Node:
        first = self._operand()
        operators, operands = [], [first]
        while (operator := _RELATIONS.get(self.peek() or "")) or self.peek() == "\\not":
            if self._take("\\not"):
                operator = {"=": "!=", "in": "notin"}.get(_RELATIONS.get(self.peek() or "", ""))
                if operator is None:
                    raise ReadError("not")
            self.position += 1
            assert operator
            if operator in "<>" and self._take("="):
                operator += "="
            operators.append(operator)
            operands.append(self._operand())
        return Node("relation", (tuple(operators), *operands)) if operators else first

    def _operand(self) -> Node:
        left = self._with_unit()
        while operator := _SET_OPERATORS.get(self.peek() or ""):
            self.position += 1
            left = Node(operator, (left, self._with_unit()))
        if self._kind() == "letters" and self.peek() in ("U", "u") and left.head in ("group", "union"):
            self.position += 1  # (1,2) U (3,4)
            return Node("union", (left, self._operand()))
        if self.peek() == "\\" and self._next():
            return Node("setminus", (left, self._with_unit()))
        if self._take(":"):
            parts = [left, self._sum()]
            while self._take(":"):
                parts.append(self._sum())
            return Node("ratio", tuple(parts))
        return left

    def _with_unit(self) -> Node:
        """A sum, with the currency sign in front or the words behind it."""
        currency = self._next().text if self.peek() in ("$", "€", "£", "¥", "₹") else ""
        negative = bool(self.peek() == "-" and self.peek(1) in ("$", "€", "£", "¥", "₹") and self._take("-"))
        if negative:
            currency = self._next().text
        node = self._sum()
        if negative:
            node = Node("neg", (node,))
        start = self._tokens[self.position].start if self.position < len(self._tokens) else len(self._text)
        first = self.position
        while self._is_unit_token(first):
            self.position += 1
        if self.position > first:
            unit = self._text[start : self._tokens[self.position - 1].end]
            return Node("unit", (node, unit))
        return Node("unit", (node, currency)) if currency else node

    def _is_unit_token(self, first: int) -> bool:
        token, kind = self.peek(), self._kind()
        if token is None or self._separator():
            return False
        if kind == "text" or token in ("%", "$", "€", "¢", "\\circ", "\\degree"):
            return True
        if kind == "letters":
            return is_word(token) or self.position > first or token in ("cm", "mm", "km", "kg", "ft", "mi", "ml", "hr", "in")
        if token == "^" and (self.peek(1) == "\\circ" or (self.peek(1) == "{" and self.peek(2) == "\\circ")):
            return True
        return self.position > first and (kind == "number" or token in ("^", "/", "{", "}", ".", "'", "-"))

    # Arithmetic ------------------------------------------------------------------------------------

    def _sum(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ReadError("too deep")
        left = self._signed()
        while operator := _SUMS.get(self.peek() or ""):
            self.position += 1
            right = self._signed()
            if operator == "sub":
                operator, right = "add", Node("neg", (right,))
            left = Node(operator, (left, right))
        self._depth -= 1
        return left

    def _signed(self) -> Node:
        operator = _SUMS.get(self.peek() or "")
        if operator is None:
            return self._product()
        self.position += 1
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ReadError("too deep")
        inner = self._signed()
        self._depth -= 1
        if operator == "add":
            return inner
        return Node("neg", (inner,)) if operator == "sub" else Node(operator, (Node("number", (Fraction(0), 0)), inner))

    def _product(self) -> Node:
        left = self._power()
        while True:
            operator = _PRODUCTS.get(self.peek() or "")
            if operator:
                self.position += 1
                left = Node(operator, (left, self._signed() if self.peek() in _SUMS else self._power()))
            elif self._starts_factor():
                left = self._implicit(left)
            elif self.peek() in ("mod", "\\bmod", "\\mod"):
                self.position += 1
                left = Node("call", ("mod", left, self._power()))
            else:
                return left

    def _implicit(self, left: Node) -> Node:
        """A product without a sign, or a mixed number: ``2x``, ``2 1/2``, ``2\\frac12``."""
        is_whole = left.head == "number" and left.args[1] == 0 and left.args[0].denominator == 1
        if is_whole and self._kind() == "number":
            above = self._power()
            if not (self._take("/") and self._kind() == "number"):
                raise ReadError("two numbers side by side")
            return Node("add", (left, Node("div", (above, self._power()))))
        if is_whole and self.peek() == "\\frac":
            fraction = self._power()
            if fraction.head == "div" and all(part.head == "number" for part in fraction.args):
                return Node("add", (left, fraction))
            return Node("mul", (left, fraction))
        return Node("mul", (left, self._power()))

    def _starts_factor(self) -> bool:
        token, kind = self.peek(), self._kind()
        if token is None or self._separator():
            return False
        if kind in ("number", "repeating"):
            return True
        if kind == "letters":
            if token in ("cm", "mm", "km", "kg", "ft", "mi", "ml", "hr") or (token in ("U", "u") and self.peek(1) in _OPENING):
                return False
            return not is_word(token) and token != "mod"
        if kind == "command":
            name = token[1:]
            known = name in _FUNCTIONS or name in _CONSTANTS or name in _GREEK or token in _OPENING or token in _ACCENTS
            return known or token in ("\\frac", "\\binom", "\\sqrt", "\\lfloor", "\\lceil", "\\lvert", "\\mathbb") or (
                token.startswith("\\begin")
            )
        return token in ("(", "[", "{") or (token == "|" and self._bars == 0)

    def _power(self) -> Node:
        base = self._postfix()
        if self.peek() in ("^", "**") and not self._degree_ahead():
            self.position += 1
            sign = self._take("-")
            self._take("+")
            exponent = self._script() if not sign else Node("neg", (self._script(),))
            if self.peek() in ("^", "**") and not self._degree_ahead():
                self.position += 1
                exponent = Node("pow", (exponent, self._power()))
            return self._factorials(Node("pow", (base, exponent)))
        return base

    def _degree_ahead(self) -> bool:
        return self.peek(1) == "\\circ" or (self.peek(1) == "{" and self.peek(2) == "\\circ")

    def _script(self) -> Node:
        """What stands in a superscript: a group, or the next token. ``x^12`` is x to the twelfth."""
        if self.peek() == "{":
            return self._braced()
        return self._postfix()

    def _postfix(self) -> Node:
        return self._factorials(self._atom())

    def _factorials(self, node: Node) -> Node:
        while self.peek() == "!" or (self.peek() == "'" and node.head == "symbol"):
            token = self._next().text
            node = Node("call", ("factorial", node)) if token == "!" else Node("symbol", (node.args[0] + "'",))
        if self._kind() == "operator" and self.peek() == "!=" and self.peek(1) is None:
            raise ReadError("unfinished")
        return node

    # Atoms -----------------------------------------------------------------------------------------

    def _atom(self) -> Node:
        token = self._next()
        if token.kind == "number":
            return self._number(token)
        if token.kind == "repeating":
            return _repeating(token.text)
        if token.kind == "letters":
            return self._letters(token.text)
        if token.kind == "text":
            return self._marked(token.text[1:-1].strip())
        if token.text in _OPENING:
            return self._group(_OPENING[token.text])
        if token.text == "{":
            self.position -= 1
            return self._braced()
        if token.text in ("|", "\\lvert", "\\vert", "\\|"):
            return self._absolute()
        if token.kind == "command":
            return self._command(token.text)
        raise ReadError(f"{token.text!r} begins nothing")

    def _number(self, token: _Token) -> Node:
        text = token.text
        if len(text) > _MAX_NUMBER_CHARS:
            raise ReadError("number too long")
        if self._thousands and self._brackets == 0 and text.isdigit() and len(text) <= 3 and text[0] != "0":
            text += self._more_thousands(token.end)
        digits, _, exponent = text.lower().partition("e")
        value = Fraction(digits) * Fraction(10) ** int(exponent or 0)
        decimals = len(digits.partition(".")[2])
        if self.peek() in ("...", "\\ldots", "\\dots", "\\cdots") and re.search(r"\.\d*(\d)\1\1$", digits):
            self.position += 1
            value, decimals = value + Fraction(int(digits[-1]), 9 * 10**decimals), 0
        if self.peek() == "_" and decimals == 0:
            return self._based(digits)
        return Node("number", (value, decimals))

    def _more_thousands(self, end: int) -> str:
        more = ""
        while self.peek() == "," and self._kind(1) == "number":
            comma, group = self._tokens[self.position], self._tokens[self.position + 1]
            if comma.start != end or group.start != comma.end or not re.fullmatch(r"\d{3}(\.\d+)?", group.text):
                break
            more += group.text
            end = group.end
            self.position += 2
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

    def _letters(self, letters: str) -> Node:
        if letters in _FUNCTIONS:
            return self._function(letters)
        if letters in _CONSTANTS:
            return Node("symbol", (_CONSTANTS[letters],))
        if letters in _GREEK:
            return self._subscripted(letters)
        if is_word(letters):
            raise ReadError("a word")
        *first, last = letters
        node = self._subscripted(last)
        if not first:
            return node
        if self.peek() in ("^", "**"):  # ab^2 is a b^2
            node = self._raise(node)
        for letter in reversed(first):
            node = Node("mul", (Node("symbol", (letter,)), node))
        return node

    def _raise(self, base: Node) -> Node:
        self.position += 1
        sign = self._take("-")
        exponent = self._script()
        return Node("pow", (base, Node("neg", (exponent,)) if sign else exponent))

    def _subscripted(self, name: str) -> Node:
        if not self._take("_"):
            return Node("symbol", (name,))
        start = self.position
        if self.peek() == "{":
            depth = 0
            while True:
                token = self._next().text
                depth += {"{": 1, "}": -1}.get(token, 0)
                if depth == 0:
                    break
        else:
            self._next()
        index = "".join(token.text for token in self._tokens[start : self.position]).strip("{}")
        return Node("symbol", (f"{name}_{index.strip(TEXT_OPEN + TEXT_CLOSE)}",))

    def _marked(self, word: str) -> Node:
        if word in _FUNCTIONS:
            return self._function(word)
        if word.lower() in _CONSTANTS:
            return Node("symbol", (_CONSTANTS[word.lower()],))
        if len(word) == 1 and word.isalpha():
            return self._subscripted(word)
        raise ReadError("words")

    def _braced(self) -> Node:
        self._expect("{")
        node = self._inner_list()
        self._expect("}")
        return node

    def _inner_list(self, num_bars: int = 0) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ReadError("too deep")
        bars, self._bars = self._bars, num_bars
        node = self.listing()
        self._bars = bars
        self._depth -= 1
        return node

    def _group(self, opening: str) -> Node:
        self._brackets += 1
        closing = _CLOSING.get(self.peek() or "")
        if closing:
            self.position += 1
            self._brackets -= 1
            return Node("group", (opening, closing))
        node = self._inner_list(num_bars=opening == "{")  # in {x | x > 3} the bar opens no absolute value
        if opening == "{" and self.peek() in ("|", ":", "\\mid", "\\vert"):
            self.position += 1
            node = Node("set_of", (self._inner_list(),))
        elif opening == "{" and node.head == "ratio":  # {x : x > 3} read as a ratio
            raise ReadError("set")
        self._brackets -= 1
        closing = _CLOSING.get(self._next().text)
        if closing is None or (opening in "([") != (closing in ")]"):
            raise ReadError("brackets")
        if node.head == "set_of":
            return node
        if node.head == "list" and set(node.args[0]) == {","}:
            return Node("group", (opening, closing, *node.args[1:]))
        if opening in "([" and closing in ")]" and (opening == "(") == (closing == ")"):
            if opening == "(" and self.peek() == "_" and node.head == "number":
                return self._based(str(node.args[0]))
            return node if opening == "(" or node.head not in ("number", "symbol") else Node("group", (opening, closing, node))
        return Node("group", (opening, closing, node))

    def _absolute(self) -> Node:
        self._bars += 1
        node = self._sum()
        self._bars -= 1
        if self._next().text not in ("|", "\\rvert", "\\vert", "\\|"):
            raise ReadError("bar")
        return Node("call", ("abs", node))

    def _command(self, command: str) -> Node:
        name = command[1:]
        if command == "\\frac":
            return Node("div", (self._argument(), self._argument()))
        if command in ("\\binom", "\\dbinom", "\\tbinom"):
            return Node("call", ("binomial", self._argument(), self._argument()))
        if name in _FUNCTIONS:
            return self._function(name)
        if name in _CONSTANTS:
            return Node("symbol", (_CONSTANTS[name],))
        if name in _GREEK:
            return self._subscripted(name)
        if command in _PAIRS:
            closing, function = _PAIRS[command]
            node = self._sum()
            self._expect(closing)
            return Node("call", (function, node))
        if command in ("\\emptyset", "\\varnothing"):
            return Node("group", ("{", "}"))
        if command == "\\mathbb":
            return Node("symbol", (f"mathbb {self._raw_argument()}",))
        if command == "\\overline" and re.fullmatch(r"\{?[A-Z]{2,3}\}?", (raw := self._peek_argument())):
            return self._letters_of_segment(raw)
        if command in _ACCENTS:
            return Node("symbol", (f"{name} {self._raw_argument()}",))
        if match := _ENVIRONMENT.match(command):
            return self._matrix(match[2])
        raise ReadError(f"{command} is not known")

    def _peek_argument(self) -> str:
        """The text of the next braced word, braces dropped; empty for anything else."""
        if self.peek() == "{" and self._kind(1) == "letters" and self.peek(2) == "}":
            return self.peek(1) or ""
        return ""

    def _letters_of_segment(self, letters: str) -> Node:
        """``\\overline{AB}`` is the segment AB, and BA."""
        self.position += 3
        first, *rest = sorted(letters)
        node = Node("symbol", (first,))
        for letter in rest:
            node = Node("mul", (node, Node("symbol", (letter,))))
        return node

    def _raw_argument(self) -> str:
        if not self._take("{"):
            return self._next().text
        parts = []
        while not self._take("}"):
            parts.append(self._next().text)
        return "".join(parts)

    def _argument(self) -> Node:
        r"""A braced group, or one digit or letter: ``\frac12`` is a half."""
        if self.peek() == "{":
            return self._braced()
        token = self._next()
        if token.kind == "number" and token.text.isdigit():
            rest = token.text[1:]
            if rest:  # give the other digits back
                self.position -= 1
                self._tokens[self.position] = _Token("number", rest, token.start + 1, token.end)
            return Node("number", (Fraction(int(token.text[0])), 0))
        self.position -= 1
        return self._atom()

    def _function(self, name: str) -> Node:
        if name == "sqrt":
            return self._root()
        base = None
        power = None
        if self.peek() == "_":
            self.position += 1
            base = self._script()
        if self.peek() in ("^", "**"):
            self.position += 1
            negative = self._take("-")
            power = self._script()
            power = Node("neg", (power,)) if negative else power
        if self.peek() in ("(", "{", "[") or self.peek() == "\\{":
            argument = self._atom()
        else:
            argument = self._function_argument()
        arguments = argument.args[2:] if argument.head == "group" else (argument,)
        if argument.head == "list":
            arguments = argument.args[1:]
        if power is not None and power == Node("neg", (Node("number", (Fraction(1), 0)),)) and name in ("sin", "cos", "tan"):
            return Node("call", (f"arc{name}", *arguments))
        node = Node("call", (name, *arguments) if base is None else (name, *arguments, base))
        return node if power is None else Node("pow", (node, power))

    def _function_argument(self) -> Node:
        """What a function takes without brackets: ``2x`` of ``\\sin 2x + 1``."""
        if self.peek() == "-":
            self.position += 1
            return Node("neg", (self._function_argument(),))
        node = self._power()
        while self._starts_factor() and self.peek() not in ("(", "[") and (self.peek() or "").strip("\\") not in _FUNCTIONS:
            node = self._implicit(node)
        return self._take_degree(node)

    def _take_degree(self, node: Node) -> Node:
        """The argument with its degree sign, if there is one."""
        if self.peek() == "^" and self._degree_ahead():
            self.position += 1
            if self._take("{"):
                self.position += 1
                self._expect("}")
            else:
                self.position += 1
            return Node("unit", (node, "^\\circ"))
        return node

    def _root(self) -> Node:
        r"""``\sqrt{12}``, ``\sqrt12`` (of 12: what careless writers mean), ``sqrt(x+1)``, ``\sqrt[3]{x}``."""
        index = None
        if self._take("["):
            index = self._sum()
            self._expect("]")
        radicand = self._atom()
        return Node("call", ("root", radicand, index)) if index else Node("call", ("sqrt", radicand))

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
            if token == "\\\\":
                rows.append(tuple(row))
                row = []
                if (self.peek() or "").startswith("\\end"):
                    self.position += 1
                    break
                continue
            if token.startswith("\\end"):
                rows.append(tuple(row))
                break
            raise ReadError("matrix")
        self._brackets -= 1
        if len({len(each) for each in rows}) != 1:
            raise ReadError("ragged matrix")
        return Node("matrix", tuple(rows))


def _repeating(text: str) -> Node:
    r"""``0.1\overline{6}`` is 1/6."""
    fixed, repeated = re.split(r"\\(?:overline|bar|dot)", text)
    repeated = repeated.strip("{} ")
    decimals = len(fixed.partition(".")[2])
    value = Fraction(fixed.rstrip(".") or 0) if fixed != "." else Fraction(0)
    return Node("number", (value + Fraction(int(repeated), (10 ** len(repeated) - 1) * 10**decimals), 0))
