import json

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.verifier.sandbox.protocol import LAST, decode, encode, line, slices
from pipeline.verifier.verdict import Comparison, Job

LAWS = settings(max_examples=60, deadline=None, derandomize=True)
MAYBE = (None, False, True)
COMPARISONS = [Comparison(a, b) for a in MAYBE for b in MAYBE]
COMPARISONS += [Comparison(failure="timeout"), Comparison(failure="bad_gold")]
JOBS = st.lists(st.builds(Job, st.text(max_size=5) | st.just("9" * 30_000), st.text(max_size=5), st.booleans()))


def test_a_comparison_travels_as_one_byte():
    for comparison in COMPARISONS:
        for is_last in (False, True):
            (reply,) = encode(comparison, is_last=is_last)
            assert decode(reply) == comparison
            assert bool(reply & LAST) == is_last


@given(JOBS, st.integers(1, 5))
@LAWS
def test_slices_keep_jobs_in_order_and_fit_into_a_socket_buffer(jobs, max_jobs):
    lines = [line(encoded) for encoded in slices(jobs, max_jobs)]
    parsed = [json.loads(each) for each in lines]
    assert [Job(*job) for slice_ in parsed for job in slice_] == jobs
    assert all(1 <= len(slice_) <= max_jobs for slice_ in parsed)
    assert all(len(each) < 50_000 or len(slice_) == 1 for each, slice_ in zip(lines, parsed, strict=True))
    assert all(each.isascii() and each.count(b"\n") == 1 for each in lines)
