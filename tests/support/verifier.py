"""Completions with known answers, and the stored ones under tests/data."""

import json
from typing import Any

from tests.conftest import DATA


def answered(answer: str) -> str:
    return f"<reasoning>So 1 + 1 = 2.</reasoning>\n<answer>{answer}</answer>"


def stored_rows(name: str) -> list[dict[str, Any]]:
    """The rows of a JSONL file under tests/data."""
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]
