"""Completions with known answers, and the stored ones under tests/data."""

from typing import Any

from pipeline.runs.records import read_jsonl
from tests.conftest import DATA


def answered(answer: str) -> str:
    return f"<reasoning>So 1 + 1 = 2.</reasoning>\n<answer>{answer}</answer>"


def stored_rows(name: str) -> list[dict[str, Any]]:
    """The rows of a JSONL file under tests/data."""
    return read_jsonl(DATA / name)
