"""Rows for the browser over completions, honest and hostile."""

from typing import Any

from pipeline.evaluation.browser import FIELDS
from tests.support.runs import HOSTILE

ATTACKS = [
    HOSTILE,
    "<!--<script>alert(1)</script>",
    '{"values": [], "rows": []}]]></script><svg onload=alert(1)>',
    "$\\href{javascript:alert(1)}{x}$ $\\includegraphics{https://example.invalid/x.png}$ $\\style{position:fixed}{x}$",
    "$\\label{rows}x\\ref{rows}$ $\\def\\a#1{\\a{#1#1}}\\a{xx}$ $\\color{red;background:url(https://example.invalid)}x$",
    "$" + "\\smash{" * 240 + "x" + "}" * 240 + "$ $\\__proto__$ $}{$ $" + "x" * 3000 + "$",
    "\u2028 \u2029 \u202e \ufeff \udfff \x00 \x1b \r & < > ' \"",
    "10 kB " * 1_500,
    "\\[" * 10_000 + "$a " * 15_000,  # more than formulas.js looks at
]


def make_row(**values: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        **{
            "model": "tiny",
            "dataset": "math",
            "problem_id": "p0",
            "sample": 0,
            "level": "1",
            "type": None,
            "source": None,
        },
        **{
            "difficulty": None,
            "question": "What is $1+1$?",
            "prompt": "Q: What is $1+1$?\nA:",
            "completion": "It is 2.",
        },
        **{"answer": "2", "gold": "2", "outcome": "correct", "method": "exact", "strict": True, "symbolic": True},
        **{"numeric": None, "num_prompt_tokens": 9, "num_tokens": 5, "seconds": 0.5, "in_training_data": None},
    }
    assert set(row) == set(FIELDS)
    return row | values


ROWS = [
    make_row(level="10", num_tokens=100, seconds=20.0),
    make_row(problem_id="p1", level="9", num_tokens=9, seconds=3.0, answer="7", outcome="incorrect", type="algebra"),
    make_row(problem_id="p2", level=None, num_tokens=30, answer=None, outcome="unparsed", completion="No FINAL word"),
    make_row(
        **{
            "problem_id": "p3",
            "level": "2",
            "num_tokens": 4,
            "answer": "\\frac{1}{2}",
            "gold": "0.5",
            "dataset": "gsm",
        },
        completion="For $5 and $6, $5/$6.\n\\[x^2\\] and \\(y\\), $$\\unknown z$$, $\\frac{1}{$, $\\boxed{\\frac12}$.",
    ),
]
