import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from pipeline.verifier import SandboxedGrader, Verdict, extract, grade, last_number
from pipeline.verifier.grading import MAX_NUMBER_CHARS, judge

GSM8K = Path(__file__).parents[3] / "shared/data/gsm8k/train.jsonl"


@pytest.fixture(scope="module")
def grader():
    with SandboxedGrader(timeout_s=2.0) as shared:
        yield shared


@pytest.fixture(scope="module")
def hasty_grader():
    with SandboxedGrader(timeout_s=0.5) as shared:
        yield shared


def answered(answer: str) -> str:
    return f"<reasoning>So 1 + 1 = 2.</reasoning>\n<answer>{answer}</answer>"


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(pid: int, timeout_s: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_running(pid)


def child_pid(grader: SandboxedGrader) -> int:
    assert grader._process is not None
    return grader._process.pid


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("<reasoning>24 + 48</reasoning>\n<answer>\n72\n</answer>", "72"),
        ("<answer>5</answer> wait <answer>6</answer>", "6"),
        ("<answer>5</answer> wait <answer>6", "5"),
        ("<answer>5</answer></answer>", "5"),
        ("<answer>5<answer>6</answer>", "6"),
        ("The answer is 7. #### 8 <answer></answer> \\boxed{9}", None),
        ("<answer>$\\boxed{72}$</answer>", "$\\boxed{72}$"),
        ("so it is \\boxed{1}, no, $\\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}"),
        ("\\boxed{\\{1, 2\\}} and \\boxed{3", "\\{1, 2\\}"),
        ("\\boxed{\\boxed{5}}", "5"),
        ("<think>maybe \\boxed{3}</think> It is \\boxed{4}.", "4"),
        ("maybe \\boxed{3}</think> So the answer is 4.", "4"),
        ("<think>maybe \\boxed{3} and then", None),
        ("<reasoning>9 eggs \\boxed{9}</reasoning> She has 7 eggs.", "7"),
        ("<reasoning>9 eggs", None),
        ("Natalia sold 48+24 = <<48+24=72>>72 clips.\n#### 72", "72"),
        ("#### 1,080\nThat is all, 2 of them.", "1,080"),
        ("Thus the answer is: 42", "42"),
        ("Final answer: 3.5.", "3.5"),
        ("**Final Answer:** **12**", "12"),
        ("The final answer is $\\frac{3}{4}$. I hope it is correct.", "$\\frac{3}{4}$"),
        ("The answer is 72 because 48 + 24 = 72.", "72"),
        ("The answer is:\n\n$$x = 5$$", "$$x = 5$$"),
        ("She earned 12 + 30 = 42 dollars in 3 days", "3"),
        ("no idea", None),
        ("", None),
    ],
)
def test_extract(completion, answer):
    assert extract(completion) == answer


def test_fallback_to_the_last_number_can_be_switched_off():
    assert extract("It makes 42.") == "42"
    assert extract("It makes 42.", fallback=False) is None
    assert extract("The answer is 42.", fallback=False) == "42"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("total: $1,234.50.", "$1,234.50"),
        ("5 - 3 = 2 or 5-3", "3"),
        ("it fell to -7", "-7"),
        ("it fell to −7", "−7"),
        ("about 50% of 1/2", "1/2"),
        ("1,2,3", "3"),
        ("<answer>72</answer>", "72"),
        ("a .5 chance", ".5"),
        ("6.02e23", "6.02e23"),
        ("none", None),
    ],
)
def test_last_number(text, number):
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("answer", "gold", "method"),
    [
        ("72", "72", "exact"),
        (" $72$. ", "72", "exact"),
        ("\\(\\frac{1}{2}\\)", "\\frac{1} {2}", "exact"),
        ("Tuesday", "Tuesday", "exact"),
        ("72.0", "72", "numeric"),
        ("$72", "72", "numeric"),
        ("$1,000", "1000", "numeric"),
        ("-$1,000.50", "-1000.5", "numeric"),
        ("1,000,000", "1000000", "numeric"),
        ("1,\\!000", "1000", "numeric"),
        ("−5", "-5", "numeric"),
        ("+5", "5", "numeric"),
        ("072", "72", "numeric"),
        (".5", "1/2", "numeric"),
        ("\\frac{1}{2}", "0.5", "numeric"),
        ("-\\dfrac{3}{4}", "-0.75", "numeric"),
        ("1\\frac{1}{2}", "3/2", "numeric"),
        ("1 1/2", "1.5", "numeric"),
        ("1e3", "1000", "numeric"),
        ("50%", "50", "numeric"),
        ("50\\%", "0.5", "numeric"),
        ("0.5", "50%", "numeric"),
        ("72 clips", "72", "numeric"),
        ("72\\text{ cm}^2", "72", "numeric"),
        ("18 dollars", "$18", "numeric"),
        ("x = 1,080", "1080", "numeric"),
        ("**72**", "72", "numeric"),
        ("\\boxed{72}", "72", "numeric"),
        ("tuesday", "Tuesday", "symbolic"),
        ("\\text{Tuesday}", "Tuesday", "symbolic"),
        ("48 + 24 = 72", "72", "symbolic"),
        ("2\\sqrt{3}", "\\sqrt{12}", "symbolic"),
        ("2*sqrt(3)", "2\\sqrt{3}", "symbolic"),
        ("x**2 + 2*x + 1", "(x+1)^2", "symbolic"),
        ("2**10", "1024", "symbolic"),
        ("2pi", "2\\pi", "symbolic"),
        ("(1, 2.0)", "(1,2)", "symbolic"),
        ("2 and 1", "\\{1, 2\\}", "symbolic"),
        ("\\begin{pmatrix}1&2\\\\ 3&4\\end{pmatrix}", "\\begin{bmatrix}1&2\\\\3&4.0\\end{bmatrix}", "symbolic"),
        ("(B)", "B", "symbolic"),
    ],
)
def test_right_answers_and_the_method_that_finds_them(answer, gold, method, grader):
    assert grader.grade(answered(answer), gold) == Verdict("correct", method, answer.strip())


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("73", "72"),
        ("-72", "72"),
        ("72.01", "72"),
        ("720", "72"),
        ("0.333333", "1/3"),
        ("71, 72", "72"),
        ("72 or 71", "72"),
        ("72} or 71", "72"),
        ("5} \\boxed{6", "6"),
        ("\\boxed{71} or \\boxed{72}", "72"),
        ("5 million", "5"),
        ("2 pi", "2"),
        ("18 eggs", "$18"),
        ("y = 5", "x = 5"),
        ("5%", "500"),
        ("(1,2)", "[1,2]"),
        ("cat", "act"),
        ("Monday", "Tuesday"),
        ("I am not sure", "72"),
        ("72", "Tuesday"),
        ("1/0", "5"),
        ("\\frac{1}{", "5"),
        ("$", "5"),
        ("x", "5"),
    ],
)
def test_wrong_answers(answer, gold, grader):
    assert grader.grade(answered(answer), gold) == Verdict("incorrect", None, answer)


@pytest.mark.parametrize("gold", ["", "  \n", "$", "$$", ".", "\\(\\)", "???", "\\frac{1}{", "+ *", "9" * 5000])
def test_unreadable_gold_is_no_free_reward(gold, grader):
    for answer in ("5", gold[:4] or "$"):
        assert grader.grade(answered(answer), gold).outcome in ("bad_gold", "unparsed")
    assert grader.grade(answered("5"), gold).outcome == "bad_gold"


def test_completion_without_an_answer_is_unparsed(grader):
    assert grader.grade("I do not know.", "72") == Verdict("unparsed")


def test_all_methods_are_each_told_and_leave_the_verdict_alone(grader):
    def told(answer: str, gold: str) -> tuple[object, ...]:
        verdict = grader.grade(answered(answer), gold, all_methods=True)
        plain = grader.grade(answered(answer), gold)
        assert (verdict.outcome, verdict.method) == (plain.outcome, plain.method)
        return verdict.method, verdict.strict, verdict.symbolic, verdict.numeric

    assert told("72", "72") == ("exact", True, True, True)
    assert told("72.0", "72") == ("numeric", False, True, True)
    assert told("\\sqrt{4}", "2") == ("symbolic", False, True, False)
    assert told("73", "72") == (None, False, False, False)
    assert told("0.333333", "1/3") == (None, False, True, False)  # math-verify rounds floats to 6 decimals


HOSTILE = {
    "power tower": "9^{9^{9^{9}}}",
    "python power tower": "9**9**9**9",
    "factorial tower": "((((10!)!)!)!)!",
    "nested parentheses": "(" * 900 + "1" + ")" * 900,
    "nested fractions": "\\frac{" * 300 + "1" + "}{2}" * 300,
    "open fractions": "\\frac{" * 300,
    "huge exponent": "1e999999999",
    "huge negative exponent": "1e-999999999",
    "many digits": "9" * 1999,
    "too many digits": "9" * 1_000_000,
    "megabyte of letters": "a" * 1_000_000,
    "lone surrogates": "\ud800\udfff 1+",
    "control characters": "\x00\x01\x1b[2J\r\x85\u2028 1+",
    "json": '"}\n{"answer": "5", "gold": "5"}',
    "combining marks": "5\u0301" * 500,
    "other digits": "٥",
    "endless product": "\\prod_{n=1}^{100000000} n",
}


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_answers_are_bounded_and_never_right(answer, hasty_grader):
    assert hasty_grader.grade(answered("\\sqrt{25}"), "5").outcome == "correct"
    start = time.monotonic()
    assert hasty_grader.grade(answered(answer), "5").outcome in ("incorrect", "timeout")
    assert time.monotonic() - start < 1.9  # the deadline, the margin, and a busy machine


def test_text_is_never_run_as_code(tmp_path, grader):
    canary = tmp_path / "canary"
    command = f"__import__('os').system('touch {canary}')"
    for text in (command, f"\\boxed{{{command}}}", f"sqrt({command})", f"$({command})$", f"\\text{{{command}}}^2"):
        for gold in ("5", text + "+0"):
            grader.grade(answered(text), gold)
            grader.grade(text, gold)
    assert not canary.exists()


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
WORDS = ["answer is ", "answer ", "answer: ", " ", "\n", "*", ".", "a.", "ab ", "\\text{", "\\(", "\\frac{1}{2}"]
NUMBERS = ["1,111", "1,", "1", "1e", "1/", "1.", "-", "$", "$1", "\\$", "-$ "]


@pytest.mark.parametrize("unit", [*TAGS, *WORDS, *NUMBERS])
def test_long_text_takes_linear_time(unit):
    text = unit * (300_000 // len(unit))
    longest_number = f"5 {text[: MAX_NUMBER_CHARS - 10]}!"
    start = time.monotonic()
    last_number(text)
    for completion, gold in [(text, "5"), (answered(text), "5"), (answered(longest_number), "5"), ("5", text)]:
        judge(completion, gold, lambda answer, gold: "different")
    assert time.monotonic() - start < 5.0  # a quadratic step takes many minutes


def test_child_is_replaced_after_a_timeout():
    with SandboxedGrader(timeout_s=0.3) as grader:
        assert grader.grade(answered("\\sqrt{4}"), "2").outcome == "correct"
        first = child_pid(grader)
        assert grader.grade(answered("9^{9^{9^{9}}}"), "2") == Verdict("timeout", None, "9^{9^{9^{9}}}")
        assert not is_running(first)
        assert grader.grade(answered("\\sqrt{4}"), "2").outcome == "correct"


def test_stopped_child_is_killed_by_its_parent():
    with SandboxedGrader(timeout_s=0.2) as grader:
        assert grader.grade(answered("\\sqrt{4}"), "2").outcome == "correct"
        os.kill(child_pid(grader), signal.SIGSTOP)
        assert grader.grade(answered("\\sqrt{4}"), "2").outcome == "timeout"
        assert grader.grade(answered("\\sqrt{4}"), "2").outcome == "correct"


def test_child_that_died_between_two_calls_is_replaced_unseen():
    with SandboxedGrader() as grader:
        assert grader.grade(answered("\\sqrt{4}"), "2").outcome == "correct"
        os.kill(child_pid(grader), signal.SIGKILL)
        assert wait_until_gone(child_pid(grader))
        assert grader.grade(answered("\\sqrt{4}"), "2").outcome == "correct"


def test_memory_limit_is_a_timeout_and_not_a_wrong_answer():
    with SandboxedGrader(timeout_s=20.0, memory_limit_mib=72) as grader:
        start = time.monotonic()
        assert grader.grade(answered("(x+y+z+w)^{40}"), "(x+y)^2").outcome == "timeout"
        assert time.monotonic() - start < 15.0


def test_threads_share_one_child():
    verdicts: dict[int, Verdict] = {}
    with SandboxedGrader() as grader:

        def work(number: int) -> None:
            verdicts[number] = grader.grade(answered(f"\\sqrt{{{number**2}}}"), str(number % 4))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [verdicts[number].outcome for number in range(8)] == ["correct"] * 4 + ["incorrect"] * 4


def test_timeout_works_off_the_main_thread():
    verdicts: list[Verdict] = []
    with SandboxedGrader(timeout_s=0.3) as grader:
        thread = threading.Thread(target=lambda: verdicts.append(grader.grade(answered("9^{9^{9^{9}}}"), "5")))
        thread.start()
        thread.join()
    assert [verdict.outcome for verdict in verdicts] == ["timeout"]


def test_close_leaves_no_child_and_can_be_repeated():
    grader = SandboxedGrader()
    grader.close()
    grader.start()
    pid = child_pid(grader)
    assert is_running(pid)
    grader.close()
    grader.close()
    assert not is_running(pid)


@pytest.mark.parametrize("busy", [False, True])
def test_killed_parent_leaves_no_orphan(busy):
    script = textwrap.dedent(f"""
        from pipeline.verifier import SandboxedGrader
        grader = SandboxedGrader(timeout_s=1.0)
        grader.grade("<answer>\\\\sqrt{{4}}</answer>", "2")
        print(grader._process.pid, flush=True)
        if {busy}:
            grader.grade("<answer>9^{{9^{{9^{{9}}}}}}</answer>", "2")
        input()
    """)
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        time.sleep(0.2)
        assert is_running(pid)
        parent.kill()
    assert wait_until_gone(pid)


def test_module_level_grade_leaves_no_orphan_and_keeps_sympy_out_of_the_caller():
    script = textwrap.dedent("""
        import sys
        from pipeline.verifier import grade, sandbox
        assert grade("<answer>\\\\sqrt{4}</answer>", "2").outcome == "correct"
        assert not {"sympy", "math_verify", "torch"} & set(sys.modules)
        print(sandbox._default._process.pid)
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert wait_until_gone(int(done.stdout))


@pytest.mark.skipif(not GSM8K.exists(), reason=f"GSM8K is not at {GSM8K}")
def test_gsm8k_solutions_match_their_own_gold_only():
    solutions = [json.loads(line)["answer"] for line in GSM8K.read_text().splitlines()]
    golds = [solution.rpartition("####")[2].strip() for solution in solutions]
    assert len(solutions) == 7473
    for solution, gold, other in zip(solutions, golds, golds[1:] + golds[:1], strict=True):
        assert grade(solution, gold).method == "exact"
        same = float(gold.replace(",", "")) == float(other.replace(",", ""))
        assert (grade(solution, other).outcome == "correct") == same
