"""Texts made to break or misuse the verifier: every one gets an answer in time, and none is run as code."""

import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.verifier import Grader, last_number
from pipeline.verifier.judge import judge
from pipeline.verifier.normalize.quantity import MAX_CHARS
from pipeline.verifier.verdict import Comparison
from tests.conftest import DATA
from tests.support.hostile_texts import hostile
from tests.support.sandbox import wait_for
from tests.support.verifier import answered


@contextmanager
def untraced() -> Iterator[None]:
    """Without the tracer of a coverage run, which would take longer than the verifier."""
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)


@pytest.mark.parametrize(("divisor", "timeout_s"), [(20, 0.15), pytest.param(1, 1.0, marks=pytest.mark.slow)])
def test_every_hostile_text_is_answered_in_time_and_none_is_run(divisor, timeout_s):
    """Up to 7 MB each, see tests/support/hostile_texts.py. Some equal their gold, so outcomes are not asserted."""
    for canary in Path("/tmp").glob("gradus_canary*"):
        canary.unlink()
    with Grader(num_children=2, timeout_s=timeout_s) as grader, untraced():
        grader.grade(answered("\\sqrt{4}"), "2")
        late = {}
        for name, completion, gold in hostile(divisor=divisor):
            start, start_cpu = time.monotonic(), time.process_time()
            verdict = grader.grade(completion, gold)
            seconds, cpu_seconds = time.monotonic() - start, time.process_time() - start_cpu
            if cpu_seconds > 4.0 or seconds > 60.0:  # a quadratic step or an endless child takes many minutes
                late[name] = (verdict.outcome, seconds)
        assert not late
        assert wait_for(lambda: grader.grade(answered("\\sqrt{9}"), "3").outcome == "correct")
    assert not list(Path("/tmp").glob("gradus_canary*"))


def test_text_is_never_run_as_code(tmp_path, grader):
    canary = tmp_path / "canary"
    command = f"__import__('os').system('touch {canary}')"
    for text in (command, f"\\boxed{{{command}}}", f"sqrt({command})", f"$({command})$", f"\\text{{{command}}}^2"):
        for gold in ("5", text + "+0"):
            grader.grade(answered(text), gold)
            grader.grade(text, gold)
    assert not canary.exists()


def test_nothing_is_compiled_or_executed_while_answers_are_compared():
    """In one process, under an audit hook. In the children a hook refuses it: see sandbox/test_confinement.py."""
    script = textwrap.dedent("""
        import json, sys
        from pipeline.verifier.compare.shapes import compare
        from pipeline.verifier.judge import judge
        from pipeline.verifier.verdict import Comparison

        def compare_here(jobs):
            results = [compare(*job) for job in jobs]
            return [Comparison(failure="bad_gold") if each is None else Comparison(*each) for each in results]

        pairs = [(row["completion"], row["gold"]) for row in map(json.loads, open(sys.argv[1]))][::3]
        injected = "__import__('os').system('touch /tmp/gradus_canary_audit')"
        pairs += [(f"<answer>{text}</answer>", gold) for text in (injected, f"\\\\sqrt{{{injected}}}", f"f({injected})")
                  for gold in ("\\\\sqrt{2}", text)]
        judge(pairs[:1], compare_here)
        seen = []

        def watch(event, arguments):
            is_text = event == "exec" and arguments[0].co_filename.startswith("<")  # importing a module executes a file
            if is_text or event == "compile":
                seen.append((event, str(arguments)[:200]))

        sys.addaudithook(watch)
        eval("1")
        assert [event for event, _ in seen] == ["compile", "exec"], seen
        judge(pairs, compare_here, all_methods=True)
        print(len(pairs), len(seen), seen[2:4])
    """)
    command = [sys.executable, "-c", script, str(DATA / "graded_pairs.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "455 2 []\n", done.stderr[-1000:]
    assert not Path("/tmp/gradus_canary_audit").exists()


TAGS = [
    "<answer>",
    "</answer>",
    "<think>",
    "<reasoning>",
    "</reasoning>",
    "\\boxed{",
    "\\boxed",
    "\\",
    "{",
    "}",
    "####",
]
WORDS = ["answer is ", "answer ", "answer: ", " ", "\n", "*", ".", "a", "a.", "ab ", "\\text{", "\\(", "\\frac{1}{2}"]
NUMBERS = ["1,111", "1,", "1", "1e", "1/", "1.", "-", "$", "$1", "\\$", "-$ "]


@pytest.mark.parametrize("unit", [*TAGS, *WORDS, *NUMBERS])
def test_long_text_takes_linear_time(unit):
    text = unit * (50_000 // len(unit))
    longest_number, longest_words = f"5 {text[: MAX_CHARS - 10]}!", text[: MAX_CHARS - 10]
    start = time.process_time()
    last_number(text)
    for answer in (text, longest_number, longest_words):
        judge([(answered(answer), "5")], lambda jobs: [Comparison(False, False)] * len(jobs))
    for completion, gold in [(text, "5"), ("5", text)]:
        judge([(completion, gold)], lambda jobs: [Comparison(False, False)] * len(jobs))
    assert time.process_time() - start < 3.0  # a quadratic step takes much longer
