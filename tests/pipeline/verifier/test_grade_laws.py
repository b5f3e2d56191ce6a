"""Laws of a verdict. Plain numbers are decided without a child process."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.verifier import Verdict
from pipeline.verifier.judge import judge
from pipeline.verifier.verdict import Comparison, Job
from tests.support.verifier import answered

LAWS = settings(max_examples=100, deadline=None, derandomize=True)
INTEGERS = st.integers(-(10**6), 10**6)
NUMBERS = INTEGERS.map(str) | st.builds("{}.{}".format, INTEGERS, st.integers(1, 999))


def no_child(jobs: list[Job]) -> list[Comparison]:
    raise AssertionError(f"{jobs} need no child")


def grade_here(completion: str, gold: str) -> Verdict:
    return judge([(completion, gold)], no_child)[0]


@given(NUMBERS)
@LAWS
def test_a_plain_number_is_exactly_itself(gold):
    for completion in (answered(gold), f"<answer> ${gold}$. </answer>", f"#### {gold}", f"so \\boxed{{{gold}}}."):
        assert grade_here(completion, gold) == Verdict("correct", "exact", gold)


@given(NUMBERS, NUMBERS)
@LAWS
def test_two_numbers_are_equal_whichever_is_gold(left, right):
    is_equal = Fraction(left) == Fraction(right)
    for answer, gold in ((left, right), (right, left)):
        assert (grade_here(answered(answer), gold).outcome == "correct") == is_equal


@given(st.integers(1, 10**6), st.integers(1, 999))
@LAWS
def test_another_spelling_is_equal_but_not_exact(whole, decimals):
    gold = f"{whole}.{decimals:03}"
    for answer in (f"{gold}0", f"+{gold}", f"x = {gold}", f"\\frac{{{whole}{decimals:03}}}{{1000}}", f"{gold} apples"):
        assert grade_here(answered(answer), gold).method == "symbolic"


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=5))
@settings(LAWS, max_examples=30)
def test_a_batch_is_judged_like_its_pairs(pairs):
    pairs = [(answered(answer), gold) for answer, gold in pairs]
    assert judge(pairs, no_child) == [grade_here(*pair) for pair in pairs]


@given(st.lists(st.sampled_from(["72", "\\sqrt{5184}", "x"]), max_size=6))
@settings(LAWS, max_examples=30)
def test_only_undecided_pairs_are_compared_in_one_batch_and_in_order(answers):
    batches: list[list[Job]] = []

    def compare(jobs: list[Job]) -> list[Comparison]:
        batches.append(jobs)
        return [Comparison(job.answer != "x", None) for job in jobs]

    verdicts = judge([(answered(answer), "72") for answer in answers], compare)
    undecided = [answer for answer in answers if answer != "72"]
    assert batches == ([[Job(answer, "72") for answer in undecided]] if undecided else [])
    methods = {"72": "exact", "\\sqrt{5184}": "symbolic", "x": None}
    assert [verdict.method for verdict in verdicts] == [methods[answer] for answer in answers]
