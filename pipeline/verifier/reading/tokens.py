"""The tokens of the notation that answers are written in, and the tables of its names and signs."""

import re
from typing import NamedTuple

from pipeline.verifier.normalize.spelling import TEXT_CLOSE, TEXT_OPEN

MAX_TOKENS = 2000


class ReadError(ValueError):
    """The text is not an expression that the reader knows."""


class Token(NamedTuple):
    kind: str
    """number, repeating, text, command, letters or operator."""
    text: str
    start: int
    end: int


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


def tokens(text: str) -> list[Token]:
    """The tokens of a text.

    Raises:
        ReadError: there are more than ``MAX_TOKENS``.
    """
    cut: list[Token] = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind is None or len(cut) > MAX_TOKENS:
            raise ReadError("too long")
        cut.append(Token(kind, match[kind], match.start(kind), match.end()))
    return cut


# Names, as letters or after a backslash ----------------------------------------------------------------

FUNCTIONS = frozenset([
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "arccot", "arcsec", "arccsc", "asin",
    "acos", "atan", "sinh", "cosh", "tanh", "coth", "arcsinh", "arccosh", "arctanh", "ln", "log", "lg", "exp", "sqrt",
    "cbrt", "abs", "max", "min", "gcd", "lcm", "floor", "ceil", "det", "re", "im", "sgn", "arg", "factorial",
])  # fmt: skip
CONSTANTS = {"pi": "pi", "infty": "infty", "infinity": "infty", "inf": "infty", "oo": "infty", "imath": "i"}
GREEK = frozenset([
    "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta", "iota", "kappa",
    "lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "upsilon", "phi", "varphi", "chi", "psi", "omega", "Gamma",
    "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega", "ell", "hbar",
])  # fmt: skip
_SHORT_UNITS = frozenset(["cm", "mm", "km", "kg", "ft", "mi", "ml", "hr"])
_SHORT_WORDS = frozenset([
    "no", "on", "up", "at", "is", "it", "of", "to", "us", "we", "he", "me", "my", "go", "do", "so", "if", "by", "as",
    "an", "am", "pm", "hi", "ok", "in",
])  # fmt: skip
_VARIABLE_RUNS = ("abcd", "xyzwuvt", "pqrs", "klmn", "rst", "ABCD", "XYZ", "PQRS")


def is_word(letters: str) -> bool:
    """True if letters are a word and not a product of variables: ``cat``, but not ``xy`` or ``abc``."""
    if letters in FUNCTIONS or letters in CONSTANTS or letters in GREEK:
        return False
    if len(letters) <= 2:
        return not letters.isascii() or letters.lower() in _SHORT_WORDS
    return not any(set(letters) <= set(run) for run in _VARIABLE_RUNS)


def is_unit_word(letters: str) -> bool:
    """True if letters after a number can only be a unit: ``5 cm`` and ``5 eggs``, but not ``5 xy``."""
    return letters in _SHORT_UNITS or is_word(letters)


# Signs and commands ------------------------------------------------------------------------------------

RELATIONS = {
    "=": "=", "==": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!=", "\\le": "<=", "\\leq": "<=",
    "\\leqslant": "<=", "\\ge": ">=", "\\geq": ">=", "\\geqslant": ">=", "\\lt": "<", "\\gt": ">", "\\ne": "!=",
    "\\neq": "!=", "\\approx": "=", "\\simeq": "=", "\\equiv": "mod", "\\in": "in", "\\to": "to", "\\mapsto": "to",
    "\\rightarrow": "to", "\\subset": "subset", "\\subseteq": "subset", "\\sim": "=", "\\cong": "=", "\\coloneqq": "=",
}  # fmt: skip
NEGATED = {"=": "!=", "in": "notin", "mod": "notmod"}
SET_OPERATORS = {"\\cup": "union", "\\cap": "intersection", "\\setminus": "setminus", "\\bigcup": "union"}
SUMS = {"+": "add", "-": "sub", "\\pm": "pm", "\\mp": "mp"}
PRODUCTS = {
    "*": "mul", "/": "div", "\\cdot": "mul", "\\times": "mul", "\\div": "div", "\\ast": "mul", "\\bullet": "mul",
}  # fmt: skip
POWERS = ("^", "**")
MODULO = ("mod", "\\bmod", "\\mod", "modulo")
OPENING = {"(": "(", "[": "[", "\\{": "{", "\\langle": "<", "\\lparen": "(", "\\lbrack": "["}
CLOSING = {")": ")", "]": "]", "\\}": "}", "\\rangle": ">", "\\rparen": ")", "\\rbrack": "]"}
ROUNDING = {"\\lfloor": ("\\rfloor", "floor"), "\\lceil": ("\\rceil", "ceil")}
BARS = ("|", "\\lvert", "\\rvert", "\\vert", "\\|")
SEPARATORS = {
    ",": ",", ";": ",", "and": "and", "or": "or", "&": "and", "\\land": "and", "\\lor": "or", "\\wedge": "and",
    "\\vee": "or",
}  # fmt: skip
FRACTION = "\\frac"
BINOMIALS = ("\\binom", "\\dbinom", "\\tbinom")
EMPTY_SETS = ("\\emptyset", "\\varnothing")
ACCENTS = frozenset([
    "\\overline", "\\bar", "\\vec", "\\hat", "\\widehat", "\\tilde", "\\overrightarrow", "\\angle", "\\triangle",
    "\\mathbf", "\\mathcal", "\\overleftrightarrow", "\\widetilde", "\\mathfrak",
])  # fmt: skip
DOTS = ("...", "\\ldots", "\\dots", "\\cdots")
CURRENCY_SIGNS = ("$", "€", "£", "¥", "₹")
UNIT_SIGNS = ("%", "$", "€", "¢", "\\circ", "\\degree")
"""Signs that can follow a number."""


def starts_factor(token: Token) -> bool:
    """True if a token after a factor starts another one, without a sign between them: ``x`` in ``2x``."""
    if token.kind in ("number", "repeating"):
        return True
    if token.kind == "letters":
        return not is_unit_word(token.text)
    if token.kind != "command":
        return token.text in ("(", "[", "{")
    name = token.text[1:]
    is_known = name in FUNCTIONS or name in CONSTANTS or name in GREEK or token.text in OPENING or token.text in ACCENTS
    return is_known or token.text in _FACTOR_COMMANDS or token.text.startswith("\\begin")


_FACTOR_COMMANDS = frozenset([FRACTION, "\\binom", "\\lvert", "\\mathbb", *ROUNDING])
