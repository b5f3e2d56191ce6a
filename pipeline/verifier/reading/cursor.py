"""A position in the tokens of an answer. Every reading function takes a cursor and moves it past what it reads."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from pipeline.verifier.normalize.spelling import TEXT_CLOSE, TEXT_OPEN
from pipeline.verifier.reading.tokens import SEPARATORS, ReadError, Token, tokens
from pipeline.verifier.reading.tree import Node

MAX_DEPTH = 60


class Grammar(NamedTuple):
    """The levels that brackets, commands and functions can contain.

    Reading is recursive: a sum holds atoms, and an atom such as ``(x + 1)`` holds a sum. The recursion goes through
    these fields, so that atoms.py and forms.py need not import parser.py, which imports them.
    """

    list: Callable[[Cursor], Node]
    sum: Callable[[Cursor], Node]
    bare_argument: Callable[[Cursor], Node]
    """``2x`` in ``\\sin 2x + 1``."""


class Cursor:
    """The tokens of a text, the position of the next one, and the brackets and bars that are open at it."""

    def __init__(self, text: str, grammar: Grammar, *, thousands: bool) -> None:
        self.grammar = grammar
        self.thousands = thousands
        """Read ``1,234`` outside brackets as one number."""
        self.num_brackets = 0
        """Open brackets and matrices."""
        self.num_bars = 0
        """Open absolute values: the next bar closes one."""
        self.position = 0
        self._text = text
        self._tokens = tokens(text)
        self._depth = 0

    # Looking ----------------------------------------------------------------------------------------

    def token(self, ahead: int = 0) -> Token | None:
        """The next token, or one further ahead; None past the end."""
        index = self.position + ahead
        return self._tokens[index] if index < len(self._tokens) else None

    def peek(self, ahead: int = 0) -> str | None:
        """The text of the next token, or of one further ahead; None past the end."""
        token = self.token(ahead)
        return token.text if token else None

    def separator(self) -> str | None:
        """The next token if it separates list items, as ",", "and" or "or"; else None."""
        token = self.token()
        if token is None:
            return None
        text = token.text.strip(f"{TEXT_OPEN}{TEXT_CLOSE} ,").lower() if token.kind == "text" else token.text
        return SEPARATORS.get(text)

    def at_degree(self) -> bool:
        r"""True if ``^\circ`` or ``^{\circ}`` is next."""
        if self.peek() != "^":
            return False
        return self.peek(1) == "\\circ" or (self.peek(1) == "{" and self.peek(2) == "\\circ")

    def match(self, pattern: re.Pattern[str], start: int) -> re.Match[str] | None:
        """The pattern in the text at a position."""
        return pattern.match(self._text, start)

    def text_from(self, first: int) -> str:
        """The text from a token, by its position, to the last one taken."""
        return self._text[self._tokens[first].start : self._tokens[self.position - 1].end]

    # Moving -----------------------------------------------------------------------------------------

    def next(self) -> Token:
        """Take the next token, whatever it is."""
        token = self.token()
        if token is None:
            raise ReadError("ended early")
        self.position += 1
        return token

    def take(self, *texts: str) -> bool:
        """Take the next token if it is one of these."""
        if self.peek() in texts:
            self.position += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.take(text):
            raise ReadError(f"{text} is missing")

    def take_digit(self) -> str | None:
        r"""Take the first digit of an integer, as ``\frac12`` does; None if something else is next."""
        token = self.token()
        if token is None or token.kind != "number" or not token.text.isdigit():
            return None
        digit, rest = token.text[0], token.text[1:]
        if rest:
            self._tokens[self.position] = Token("number", rest, token.start + 1, token.end)
        else:
            self.position += 1
        return digit

    def take_raw(self) -> str:
        """Take a token, or the content of a braced group, as it is written."""
        if not self.take("{"):
            return self.next().text
        parts: list[str] = []
        depth = 1
        while True:
            text = self.next().text
            depth += {"{": 1, "}": -1}.get(text, 0)
            if depth == 0:
                return "".join(parts)
            parts.append(text)

    def swap_next_two(self) -> None:
        """``-$5`` becomes ``$-5``."""
        here = self.position
        self._tokens[here], self._tokens[here + 1] = self._tokens[here + 1], self._tokens[here]

    # Depth ------------------------------------------------------------------------------------------

    def descend(self) -> None:
        """Enter a nested expression; ``ascend`` leaves it."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ReadError("too deep")

    def ascend(self) -> None:
        self._depth -= 1
