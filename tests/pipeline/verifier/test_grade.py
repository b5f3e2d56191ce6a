import json
import re
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.data.answers import last_boxed
from pipeline.verifier import Grader, Verdict, extract, grade, last_number
from pipeline.verifier.judge import judge
from pipeline.verifier.normalize.quantity import MAX_CHARS
from pipeline.verifier.verdict import Comparison
from tests.conftest import DATA, SHARED
from tests.support.hostile_texts import hostile

GSM8K, MATH = SHARED / "gsm8k/train.jsonl", SHARED / "math"


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(num_children=2, timeout_s=10.0) as shared:  # a busy machine must not decide
        yield shared


def answered(answer: str) -> str:
    return f"<reasoning>So 1 + 1 = 2.</reasoning>\n<answer>{answer}</answer>"


def read(name: str) -> list[dict]:
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("<reasoning>24 + 48</reasoning>\n<answer>\n72\n</answer>", "72"),
        ("<answer>5</answer> wait <answer>6</answer>", "6"),
        ("<answer>5</answer> wait <answer>6", "5"),
        ("<answer>5</answer></answer>", "5"),
        ("<answer>5<answer>6</answer>", "6"),
        ("The answer is 7. #### 8 <answer></answer> \\boxed{9}", None),
        ("<answer>$\\boxed{72}$</answer>", "72"),
        ("so it is \\boxed{1}, no, $\\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}"),
        ("\\boxed{\\{1, 2\\}} and \\boxed{3", "\\{1, 2\\}"),
        ("\\boxed{\\boxed{5}}", "5"),
        ("<think>maybe \\boxed{3}</think> It is \\boxed{4}.", "4"),
        ("maybe \\boxed{3}</think> So the answer is 4.", "4"),
        ("<think>maybe \\boxed{3} and then", None),
        ("<reasoning>9 eggs \\boxed{9}</reasoning> She has 7 eggs.", "7"),
        ("<reasoning>9 eggs", None),
        ("Natalia sold 48+24 = <<48+24=72>>72 clips.\n#### 72", "72"),
        ("#### Step 4:\n##### 72", "72"),
        ("#### 1,080\nThat is all, 2 of them.", "1,080"),
        ("Thus the answer is: 42", "42"),
        ("Final answer: 3.5.", "3.5"),
        ("**Final Answer:** **12**", "12"),
        ("The final answer is $\\frac{3}{4}$. I hope it is correct.", "\\frac{3}{4}"),
        ("The answer is 72 because 48 + 24 = 72.", "72"),
        ("The answer is:\n\n$$x = 5$$", "x = 5"),
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
        ("72.0", "72", "symbolic"),
        ("$72", "72", "symbolic"),
        ("$1,000", "1000", "symbolic"),
        ("-$1,000.50", "-1000.5", "symbolic"),
        ("1,000,000", "1000000", "symbolic"),
        ("1,\\!000", "1000", "symbolic"),
        ("−5", "-5", "symbolic"),
        ("+5", "5", "symbolic"),
        ("072", "72", "symbolic"),
        (".5", "1/2", "symbolic"),
        ("\\frac{1}{2}", "0.5", "symbolic"),
        ("-\\dfrac{3}{4}", "-0.75", "symbolic"),
        ("1\\frac{1}{2}", "3/2", "symbolic"),
        ("1 1/2", "1.5", "symbolic"),
        ("1e3", "1000", "symbolic"),
        ("50%", "50", "symbolic"),
        ("50\\%", "0.5", "symbolic"),
        ("0.5", "50%", "symbolic"),
        ("72 clips", "72", "symbolic"),
        ("72\\text{ cm}^2", "72", "symbolic"),
        ("18 dollars", "$18", "symbolic"),
        ("x = 1,080", "1080", "symbolic"),
        ("**72**", "72", "exact"),
        ("\\boxed{72}", "72", "exact"),
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
        ("(B)", "B", "exact"),
        ("B: language family", "B", "symbolic"),
        ("0.33333", "1/3", "numeric"),
        ("3.14159", "\\pi", "numeric"),
        ("2 hours 30 minutes", "150 minutes", "symbolic"),
        ("0.05 m", "5 cm", "symbolic"),
        ("3:30 PM", "15:30", "symbolic"),
        ("\\frac{6}{8}", "3:4", "symbolic"),
        ("1101_2", "13", "symbolic"),
        ("x > 3", "(3, \\infty)", "symbolic"),
        ("4x + 6y = 12", "2x + 3y = 6", "symbolic"),
        ("\\pm 2", "2, -2", "symbolic"),
        ("0.333...", "1/3", "symbolic"),
        ("\\frac{\\pi}{2}", "90^\\circ", "symbolic"),
        ("1/2^98", "\\frac{2}{2^{99}}", "symbolic"),
        ("12 345", "12345", "symbolic"),
        ("5 cm2", "5\\text{ cm}^2", "symbolic"),
        ("5 third graders", "5", "symbolic"),
        ("Yes!", "yes", "symbolic"),
        ("|-x - 1|", "|x + 1|", "symbolic"),
        ("y > 5", "(5, \\infty)", "symbolic"),
    ],
)
def test_right_answers_and_the_method_that_finds_them(answer, gold, method, grader):
    verdict = grader.grade(answered(answer), gold)
    assert (verdict.outcome, verdict.method) == ("correct", method)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("73", "72"),
        ("-72", "72"),
        ("72.01", "72"),
        ("720", "72"),
        ("0.333", "1/3"),
        ("3.14", "\\pi"),
        ("1000.001", "1000"),
        ("0.99999", "1"),
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
        ("not 72", "72"),
        ("1/2^98", "1/2^99"),
        ("5 m", "5 cm"),
        ("(2, 1)", "(1, 2)"),
        ("x \\ge 3", "x > 3"),
        ("2", "\\pm 2"),
        ("3:1", "3"),
        ("July 20", "June 20"),
        ("99!", "100!"),
        ("\\sqrt{10^{100}+1}", "10^{50}"),
        ("e^{\\pi\\sqrt{163}}", "262537412640768744"),
        ("72", "Tuesday"),
        ("3 1/2", "31/2"),
        ("31/2", "3 1/2"),
        ("3 4", "34"),
        ("n!", "n"),
        ("5 times 3", "5"),
        ("5 plus 3", "5"),
        ("5 divided by 2", "5"),
        ("5 out of 6", "5"),
        ("5% of 20", "5"),
        ("5 to 7 hours", "5"),
        ("5 remainder 2", "5"),
        ("5 squared", "5"),
        ("5 tenths", "5"),
        ("two thirds", "2"),
        ("three quarters", "3"),
        ("5 not 6", "5"),
        ("y = 3 when x = 2", "2"),
        ("3 at x = 2", "2"),
        ("|x + 1|", "x + 1"),
        ("\\max(x, -5)", "x"),
        ("x > 5", "y > 5"),
        ("0 < x < 1", "0 < y < 1"),
        ("\\tan 90^\\circ", "\\log 0"),
        ("1/0", "5"),
        ("\\frac{1}{", "5"),
        ("$", "5"),
        ("x", "5"),
    ],
)
def test_wrong_answers(answer, gold, grader):
    verdict = grader.grade(answered(answer), gold)
    assert verdict.outcome in ("incorrect", "unparsed") and verdict.method is None


@pytest.mark.parametrize("gold", ["", "  \n", "$", "$$", ".", "\\(\\)", "???", "\\frac{1}{", "+ *", "9" * 5000])
def test_unreadable_gold_is_no_free_reward(gold, grader):
    for answer in ("5", gold[:4] or "$"):
        assert grader.grade(answered(answer), gold).outcome in ("bad_gold", "unparsed")
    assert grader.grade(answered("5"), gold).outcome == "bad_gold"


@pytest.mark.parametrize(
    "gold", ["48 + 24 = 72\n#### 72", "It is \\boxed{72}.", "$72$", "The sum is $72$.", "\\boxed{72}", "\\fbox{72}."]
)
def test_a_gold_text_may_say_more_than_the_answer(gold, grader):
    assert grader.grade(answered("72"), gold) == Verdict("correct", "exact", "72")
    assert grader.grade(answered("48"), gold).outcome == "incorrect"


def test_completion_without_an_answer_is_unparsed(grader):
    assert grader.grade("I do not know.", "72") == Verdict("unparsed")


def test_all_methods_are_each_told_and_leave_the_verdict_alone(grader):
    def told(answer: str, gold: str) -> tuple[object, ...]:
        verdict = grader.grade(answered(answer), gold, all_methods=True)
        plain = grader.grade(answered(answer), gold)
        assert (verdict.outcome, verdict.method) == (plain.outcome, plain.method)
        return verdict.method, verdict.strict, verdict.symbolic, verdict.numeric

    assert told("72", "72") == ("exact", True, True, True)
    assert told("72.0", "72") == ("symbolic", False, True, True)
    assert told("\\sqrt{4}", "2") == ("symbolic", False, True, True)
    assert told("73", "72") == (None, False, False, False)
    assert told("0.333333", "1/3") == ("numeric", False, False, True)


def test_every_hostile_text_is_answered_in_time_and_none_is_run():
    """Up to 7 MB each, see tests/support/hostile_texts.py. Some equal their gold, so outcomes are not asserted."""
    for canary in Path("/tmp").glob("gradus_canary*"):
        canary.unlink()
    with Grader(num_children=2, timeout_s=1.0) as grader:
        grader.grade(answered("\\sqrt{4}"), "2")
        late = {}
        for name, completion, gold in hostile():
            start = time.monotonic()
            verdict = grader.grade(completion, gold)
            if (seconds := time.monotonic() - start) > 4.0:  # deadline + 1 s, on a machine that does other work too
                late[name] = (verdict.outcome, seconds)
        assert not late
        assert grader.grade(answered("\\sqrt{4}"), "2").outcome == "correct"
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
    """In one process, under an audit hook; in the children a hook refuses it: see sandbox/test_pool.py."""
    script = textwrap.dedent("""
        import json, sys
        from pipeline.verifier.compare.shapes import compare
        from pipeline.verifier.judge import judge
        from pipeline.verifier.verdict import Comparison

        def compare_here(jobs):
            found = [compare(*job) for job in jobs]
            return [Comparison(failure="bad_gold") if each is None else Comparison(*each) for each in found]

        pairs = [(row["completion"], row["gold"]) for row in map(json.loads, open(sys.argv[1]))]
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
    assert done.stdout == "1351 2 []\n", done.stderr[-1000:]
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
    text = unit * (300_000 // len(unit))
    longest_number, longest_words = f"5 {text[: MAX_CHARS - 10]}!", text[: MAX_CHARS - 10]
    start = time.monotonic()
    last_number(text)
    for answer in (text, longest_number, longest_words):
        judge([(answered(answer), "5")], lambda jobs: [Comparison(False, False)] * len(jobs))
    for completion, gold in [(text, "5"), ("5", text)]:
        judge([(completion, gold)], lambda jobs: [Comparison(False, False)] * len(jobs))
    assert time.monotonic() - start < 5.0  # a quadratic step takes many minutes


@pytest.mark.skipif(not GSM8K.exists(), reason=f"GSM8K is not at {GSM8K}")
def test_gsm8k_solutions_match_their_own_gold_only():
    solutions = [json.loads(line)["answer"] for line in GSM8K.read_text().splitlines()]
    golds = [solution.rpartition("####")[2].strip() for solution in solutions]
    assert len(solutions) == 7473
    for solution, gold, other in zip(solutions, golds, golds[1:] + golds[:1], strict=True):
        assert grade(solution, gold).method == "exact"
        same = float(gold.replace(",", "")) == float(other.replace(",", ""))
        assert (grade(solution, other).outcome == "correct") == same


def test_labelled_pairs(grader):
    """1,345 pairs by a labeller who had not seen the verifier, and which of them it is known to miss."""
    rows = read("graded_pairs.jsonl")
    verdicts = grader.grade_batch([(row["completion"], row["gold"]) for row in rows])
    missed = [row for row, v in zip(rows, verdicts, strict=True) if (v.outcome == "correct") != row["correct"]]
    false_accepts = [row for row in missed if not row["correct"]]
    assert false_accepts == []
    assert len(rows) == 1345
    assert {(row["gold"], row["completion"][-40:]) for row in missed} == KNOWN_MISSES


KNOWN_MISSES = {("Wednesday", " and 100 = 14*7 + 2, so the day is Wednesday."[-40:])}
"""An answer in words that nothing announces."""


def test_what_smollm2_writes(grader):
    """Sums by the embedded model, before any training and in training; labelled by reading, doubtful ones left out."""
    rows = read("smollm2_completions.jsonl")
    verdicts = grader.grade_batch([(row["completion"], row["gold"]) for row in rows])
    wrong = [(row, v) for row, v in zip(rows, verdicts, strict=True) if (v.outcome == "correct") != row["correct"]]
    assert (len(rows), wrong) == (87, [])


def test_extracted_answers():
    """220 completions by the same labeller; white space, ``$`` and bold marks do not count."""

    def bare(text: str | None) -> str | None:
        return None if text is None else re.sub(r"[\s$*`]", "", text).removesuffix(".")

    wrong = [
        (row["completion"], found)
        for row in read("extracted_answers.jsonl")
        if bare(found := extract(row["completion"])) not in map(bare, [row["answer"], *row.get("also", [])])
    ]
    assert wrong == []


def respelled(gold: str, number: int) -> str:
    """A gold answer as another hand writes it; the spelling goes by ``number``."""
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
def test_math_golds_equal_themselves_and_no_others(grader):
    """All 12,500: respelled in at least 99.5 %; another problem's gold answer only with the same value."""
    import pyarrow.parquet

    tables = [pyarrow.parquet.read_table(MATH / f"{name}.parquet") for name in ("train", "test")]
    solutions = [solution for table in tables for solution in table["solution"]]
    golds = [last_boxed(str(solution)) or "" for solution in solutions]
    assert len(golds) == 12_500
    own = grader.grade_batch([(respelled(gold, number), gold) for number, gold in enumerate(golds)])
    assert Counter(verdict.outcome for verdict in own)["correct"] >= 0.995 * 12_500
    others = golds[6_007:] + golds[:6_007]
    crossed = grader.grade_batch([(answered(other), gold) for gold, other in zip(golds, others, strict=True)])
    accepted = [
        (gold, other)
        for gold, other, verdict in zip(golds, others, crossed, strict=True)
        if verdict.outcome == "correct" and plain(gold) != plain(other)
    ]
    assert accepted == [("4.5", "\\frac92")]  # the same number


def plain(gold: str) -> str:
    """A gold answer without what the policy overlooks: units, percent signs, bases and spellings of fractions."""
    gold = re.sub(r"\\text\s*\{[^}]*\}|\\mbox\s*\{[^}]*\}|\\?%|\^\{?\\circ\}?|\\?\$|\\!|\s|^[a-z]=", "", gold)
    gold = re.sub(r"\\[dt]?frac(\d)(\d)", r"\\frac{\1}{\2}", re.sub(r"\\[dt]frac", r"\\frac", gold))
    return re.sub(r"_\{?\d+\}?$", "", gold).removesuffix(".")
