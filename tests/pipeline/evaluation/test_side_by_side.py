"""Evaluations side by side."""

import json

import pytest

from pipeline.errors import CheckpointError
from pipeline.evaluation.results import ResultsFile
from pipeline.evaluation.side_by_side import compare_evaluations
from tests.support.evaluations import write_evaluation


def test_two_evaluations_side_by_side(tmp_path):
    a = write_evaluation(tmp_path / "a", "base", ["9"] * 6)
    b = write_evaluation(tmp_path / "b", "tuned", list("012345"), template="Q: {question}", temperature=1.0)
    result = compare_evaluations([a, b])
    (comparison,) = result["comparisons"]
    assert (comparison["a"], comparison["b"], comparison["num_only_b"]) == ("base", "tuned", 6)
    assert comparison["sentence"].startswith("tuned is better than base: +100.0 points") and comparison["p"] == 2 / 64
    assert result["notes"] == [
        "tuned and base were asked differently on sums: their prompts differ.",
        "tuned and base differ on sums in rollout: temperature: was 0.0, is 1.0.",
    ]
    with pytest.raises(CheckpointError, match="must have problems in common, answered by two models, got base on sums"):
        compare_evaluations([a])
    other = write_evaluation(tmp_path / "c", "other", ["9"] * 6)
    rows = [{**r, "gold": "100"} for r in ResultsFile(other).rows()]
    ResultsFile(other).path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(CheckpointError, match="must agree on gold answers"):
        compare_evaluations([a, other])


def test_models_of_one_name_are_told_apart_by_their_evaluation(tmp_path):
    a, b = write_evaluation(tmp_path / "a", "m", ["9"] * 6), write_evaluation(tmp_path / "b", "m", ["9"] * 6)
    (comparison,) = compare_evaluations([a, b])["comparisons"]
    assert (comparison["a"], comparison["b"], comparison["verdict"]) == ("a: m", "b: m", "cannot tell")
    one, other = (write_evaluation(tmp_path / name / "exp_1", "m", ["9"] * 6) for name in ("x", "y"))
    (comparison,) = compare_evaluations([one, other])["comparisons"]
    assert (comparison["a"], comparison["b"]) == (f"{one}: m", f"{other}: m")
    with pytest.raises(CheckpointError, match="must be different directories"):
        compare_evaluations([a, a])
