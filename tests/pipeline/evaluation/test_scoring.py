"""Three scores and an outcome for each completion."""

from pipeline.evaluation.scoring import score
from pipeline.types import Completion
from pipeline.verifier import Grader

CASES = [
    # completion, stop reason, gold -> answer, outcome, strict, symbolic, numeric
    ("#### 72", "stop", "72", "72", "correct", True, True, True),
    (r"so \boxed{\frac{1}{2}}", "stop", "0.5", r"\frac{1}{2}", "correct", False, True, True),
    (r"\boxed{3.1416}", "stop", r"\pi", "3.1416", "correct", False, False, True),
    ("#### 71", "stop", "72", "71", "incorrect", False, False, False),
    ("I do not know.", "stop", "72", None, "unparsed", None, None, None),
    ("First 3 apples, then 4 and", "length", "72", "4", "truncated", False, False, False),
    ("thinking and thinking", "length", "72", None, "truncated", None, None, None),
    ("#### 72\nThe next question is", "length", "72", "72", "correct", True, True, True),
    ("#### 71\nThe next question is", "length", "72", "71", "incorrect", False, False, False),
    ("#### 5", "stop", "?!", "5", "bad_gold", None, None, None),
]


def test_three_scores_and_an_outcome():
    with Grader() as grader:
        completions = [Completion.of((), (), text, reason) for text, reason, *_ in CASES]  # type: ignore[arg-type]
        scored = score(completions, [case[2] for case in CASES], grader)
    keys = ("answer", "outcome", "strict", "symbolic", "numeric")
    assert [tuple(row[key] for key in keys) for row in scored] == [tuple(case[3:]) for case in CASES]
