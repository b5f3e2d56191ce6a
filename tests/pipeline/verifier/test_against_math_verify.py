"""The symbolic score beside math-verify's verdict, on 2,000 stored completions."""

import json

import pytest

from pipeline.verifier import Grader
from tests.conftest import DATA

pytestmark = pytest.mark.slow


def read(name: str) -> list[dict]:
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


def math_verify(answer: str | None, gold: str) -> bool:
    """Whether math-verify calls the same extracted answer right."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    if answer is None:
        return False
    readings = [LatexExtractionConfig(), ExprExtractionConfig()]
    found, expected = (parse(f"${text.strip('$')}$", extraction_config=readings) for text in (answer, gold))
    return bool(verify(expected, found))


def test_they_agree_but_for_the_listed_cases_where_the_known_verdict_is_ours():
    """655 completions of the embedded model after SFT and GRPO, and the 1,345 made-up ones, labelled by hand."""
    own, labelled = read("stored_completions.jsonl"), read("graded_pairs.jsonl")
    rows = [*own, *labelled]
    assert len(rows) == 2000
    with Grader(2) as grader:
        verdicts = grader.grade_batch([(row["completion"], row["gold"]) for row in rows], all_methods=True)
    listed = {
        (case["answer"], case["gold"], case["ours"])
        for kind in json.loads((DATA / "math_verify_differences.json").read_text()).values()
        for case in kind["cases"]
    }
    differences = [
        (row, verdict)
        for row, verdict in zip(rows, verdicts, strict=True)
        if bool(verdict.symbolic) != math_verify(verdict.answer, row["gold"])
    ]
    unlisted = [(v.answer, row["gold"]) for row, v in differences if (v.answer, row["gold"], v.symbolic) not in listed]
    assert unlisted == []
    assert all(verdict.symbolic == row["correct"] for row, verdict in differences)
    assert not any(row in own for row, _ in differences)
