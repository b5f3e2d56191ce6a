"""Counts of verdicts."""

from typing import Any, get_args

from hypothesis import given
from hypothesis import strategies as st

from pipeline.grading.tally import NUM_EXAMPLES, Tally
from pipeline.verifier import Method, Outcome, Verdict
from tests.support.properties import examples

verdicts: Any = st.builds(
    Verdict,
    outcome=st.sampled_from(get_args(Outcome)),
    method=st.sampled_from([None, *get_args(Method)]),
    answer=st.sampled_from([None, "7"]),
)


def tally_of(verdicts: list[Verdict], first: int = 1) -> Tally:
    tally = Tally()
    for number, verdict in enumerate(verdicts, first):
        tally.count(number, "7", verdict)
    return tally


@examples()
@given(st.lists(verdicts, max_size=12), st.integers(0, 12), st.integers(0, 12))
def test_tallies_of_parts_add_up_to_that_of_the_whole(verdicts, cut, other_cut):
    low, high = sorted((cut, other_cut))
    total = Tally()
    for first, part in ((1, verdicts[:low]), (low + 1, verdicts[low:high]), (high + 1, verdicts[high:])):
        total.add(tally_of(part, first))
    assert total == tally_of(verdicts)


def test_the_first_ungraded_rows_are_kept():
    tally = tally_of([Verdict("timeout")] * 5 + [Verdict("correct", "exact", "7"), Verdict("bad_gold")])
    assert [row.number for row in tally.examples["timeout"]] == [1, 2, 3] and NUM_EXAMPLES == 3
    assert [row.number for row in tally.examples["bad_gold"]] == [7]
    assert tally.outcomes == {"timeout": 5, "correct": 1, "bad_gold": 1} and tally.methods == {"exact": 1}
