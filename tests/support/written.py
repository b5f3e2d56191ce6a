"""Rows of written problems, made up by hand."""

from typing import Any

JARS = "Mia has 5 jars with 11 stones in each jar. How many stones does Mia have?"
SHELF = "A shop sells 12 pens a day for one week. How many pens does it sell in total?"
BOATS = "Each of 4 boats carries 6 sailors over the lake. Find the number of sailors."


def make_row(id: str = "written-0-000000-0", statement: str = JARS, **values: Any) -> dict[str, Any]:
    """A row that is kept, unless ``reason`` says why not."""
    row: dict[str, Any] = {
        **{"id": id, "sample": 0, "kind": "new", "topic": "stories", "level": "1", "statement": statement},
        **{"solution": "5 * 11 = 55", "answer": "55", "original": None, "original_answer": None, "completion": "<p>"},
        **{"parts": {"checked": 1.0, "novel": 0.5}, "quality": 0.75, "reason": "", "detail": "", "model": "tiny"},
        **{"seed": 7, "prompt": [{"role": "user", "content": "Write a problem."}]},
    }
    row |= values
    return row | {"is_kept": not row["reason"]}


ROWS = [
    make_row(),
    make_row("written-0-000000-1", SHELF, level="2", topic="shops", solution="so it is", answer="$\\frac{168}{2}$"),
    make_row("written-0-000001-0", JARS, reason="exact duplicate", detail=f"1.00 similar to: {JARS}", quality=0.25),
    make_row("written-0-000001-1", "", solution="", answer="", reason="not well formed", detail="<answer> missing")
    | {"completion": "I do not KNOW", "quality": 0.0, "parts": {"checked": 0.0, "novel": 0.0}},
]
