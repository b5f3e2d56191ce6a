"""The symbolic score against math-verify's verdict, on 2,000 stored completions."""

import json

import pytest

from pipeline.verifier import Grader
from tests.conftest import DATA
from tests.support.verifier import stored_rows

pytestmark = pytest.mark.slow


def math_verify(answer: str | None, gold: str) -> bool:
    """The verdict of math-verify on the same extracted answer."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    if answer is None:
        return False
    readings = [LatexExtractionConfig(), ExprExtractionConfig()]
    parsed_answer, parsed_gold = (parse(f"${text.strip('$')}$", extraction_config=readings) for text in (answer, gold))
    return bool(verify(parsed_gold, parsed_answer))


def test_they_agree_except_in_listed_cases_where_the_label_agrees_with_ours():
    """655 completions of the embedded model after SFT and GRPO, and 1,345 made-up ones, labelled by hand."""
    own, labelled = stored_rows("stored_completions.jsonl"), stored_rows("graded_pairs.jsonl")
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
