"""Verdicts on stored sets: labelled pairs, completions of the embedded model, gold answers of GSM8K and MATH."""

import re
from collections import Counter

import pytest

from pipeline.data.answers import last_boxed
from pipeline.runs.records import read_jsonl
from tests.conftest import SHARED
from tests.support.verifier import answered, stored_rows

GSM8K, MATH = SHARED / "gsm8k/train.jsonl", SHARED / "math"
EVERY_TENTH_AND_ALL = pytest.mark.parametrize("stride", [10, pytest.param(1, marks=pytest.mark.slow)])
KNOWN_MISSES = {("Wednesday", " and 100 = 14*7 + 2, so the day is Wednesday."[-40:])}
"""An answer in words that nothing announces."""


def test_labelled_pairs(grader):
    """1,345 pairs, labelled without sight of the verifier; it misses the listed ones and accepts nothing wrong."""
    rows = stored_rows("graded_pairs.jsonl")
    verdicts = grader.grade_batch([(row["completion"], row["gold"]) for row in rows])
    missed = [row for row, v in zip(rows, verdicts, strict=True) if (v.outcome == "correct") != row["correct"]]
    false_accepts = [row for row in missed if not row["correct"]]
    assert false_accepts == []
    assert len(rows) == 1345
    assert {(row["gold"], row["completion"][-40:]) for row in missed} == KNOWN_MISSES


def test_completions_of_the_embedded_model(grader):
    """Sums that SmolLM2 wrote before and during training, labelled by hand. Doubtful ones are left out."""
    rows = stored_rows("smollm2_completions.jsonl")
    verdicts = grader.grade_batch([(row["completion"], row["gold"]) for row in rows])
    wrong = [(row, v) for row, v in zip(rows, verdicts, strict=True) if (v.outcome == "correct") != row["correct"]]
    assert (len(rows), wrong) == (87, [])


@pytest.mark.skipif(not GSM8K.exists(), reason=f"GSM8K is not at {GSM8K}")
@EVERY_TENTH_AND_ALL
def test_gsm8k_solutions_match_their_own_gold_only(stride, grader):
    solutions = [row["answer"] for row in read_jsonl(GSM8K)]
    assert len(solutions) == 7473
    solutions = solutions[::stride]
    golds = [solution.rpartition("####")[2].strip() for solution in solutions]
    for solution, gold, other in zip(solutions, golds, golds[1:] + golds[:1], strict=True):
        assert grader.grade(solution, gold).method == "exact"
        same = float(gold.replace(",", "")) == float(other.replace(",", ""))
        assert (grader.grade(solution, other).outcome == "correct") == same


def respelled(gold: str, number: int) -> str:
    """A gold answer as someone else would write it; ``number`` chooses the spelling."""
    spellings = [
        gold.replace("\\frac", "\\dfrac"),
        re.sub(r"([+=,<>])", r" \1 ", gold),
        gold.replace("(", "\\left(").replace(")", "\\right)") if "\\left" not in gold else gold,
        gold + ".",
        f"${gold}$",
        f" {gold} ",
    ]
    texts = ["The answer is ${}$.", "We have \\boxed{{{}}}.", "<answer>{}</answer>", "so $\\boxed{{{}}}$, as desired."]
    return "First, 3 + 4 = 7.\n" + texts[number // 6 % 4].format(spellings[number % 6])


@pytest.mark.skipif(not MATH.exists(), reason=f"MATH is not at {MATH}")
@EVERY_TENTH_AND_ALL
def test_math_golds_equal_themselves_and_no_others(stride, grader):
    """Respelled, at least 99.5 % equal themselves; another problem's gold answer is equal only with the same value."""
    import pyarrow.parquet

    tables = [pyarrow.parquet.read_table(MATH / f"{name}.parquet") for name in ("train", "test")]
    solutions = [solution for table in tables for solution in table["solution"]]
    golds = [last_boxed(str(solution)) or "" for solution in solutions]
    assert len(golds) == 12_500
    chosen = range(0, 12_500, stride)
    own = grader.grade_batch([(respelled(golds[index], index // stride), golds[index]) for index in chosen])
    assert Counter(verdict.outcome for verdict in own)["correct"] >= 0.995 * len(chosen)
    others = [golds[(index + 6_007) % 12_500] for index in chosen]
    crossed = grader.grade_batch([(answered(other), golds[index]) for index, other in zip(chosen, others, strict=True)])
    accepted = {
        (golds[index], other)
        for index, other, verdict in zip(chosen, others, crossed, strict=True)
        if verdict.outcome == "correct" and plain(golds[index]) != plain(other)
    }
    assert accepted == ({("4.5", "\\frac92")} if stride == 1 else set())  # the same number


def plain(gold: str) -> str:
    """A gold answer without what the rules overlook: units, percent signs, bases and spellings of fractions."""
    gold = re.sub(r"\\text\s*\{[^}]*\}|\\mbox\s*\{[^}]*\}|\\?%|\^\{?\\circ\}?|\\?\$|\\!|\s|^[a-z]=", "", gold)
    gold = re.sub(r"\\[dt]?frac(\d)(\d)", r"\\frac{\1}{\2}", re.sub(r"\\[dt]frac", r"\\frac", gold))
    return re.sub(r"_\{?\d+\}?$", "", gold).removesuffix(".")
