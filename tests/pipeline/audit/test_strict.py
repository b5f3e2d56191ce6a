"""The strict scorer: what it accepts, and how it disagrees with a first scorer."""

import ast
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pipeline
from pipeline.audit.strict import DISAGREEMENTS, disagreement, number_in, read, same, strict_correct
from tests.support.audits import HONEST, META, written
from tests.support.properties import examples

pieces = st.sampled_from(
    ["<reasoning>", "</reasoning>", "<answer>", "</answer>", "####", "The answer is:", r"\boxed{", "{", "}", "\n", "$"]
)
completions = st.lists(st.one_of(pieces, st.sampled_from(["72", "71", " 72.0", "or", "="])), max_size=15).map("".join)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("72", "72"),
        ("\n 72 \n", "72"),
        ("$72$", "72"),
        ("$72", "72"),
        ("72.0", "72"),
        ("+72", "72"),
        ("1,234", "1234"),
        ("1234", "1,234.00"),
        ("3/4", "0.75"),
        ("-6/8", "-3/4"),
        (r"\frac{1}{2}", r"$\frac{1}{2}$"),
        ("Tuesday", "Tuesday"),
    ],
)
def test_the_same_text_or_the_same_plain_number_is_correct(answer, gold):
    assert strict_correct(written(answer), gold)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("71", "72"),
        ("-72", "72"),
        ("", ""),
        ("$$", "$"),
        ("72 clips", "72"),
        ("72.", "72"),
        (r"\frac{1}{2}", "1/2"),
        ("50%", "50"),
        ("1,23", "123"),
        ("12,34", "1234"),
        ("1e2", "100"),
        ("5/0", "5/00"),
        ("７２", "72"),
        ("0.333", "1/3"),
        ("tuesday", "Tuesday"),
        ("70 + 2", "72"),
        ("72, 73", "72"),
    ],
)
def test_nothing_else_is_correct(answer, gold):
    assert not strict_correct(written(answer), gold)


@pytest.mark.parametrize(
    "completion",
    [
        "72",
        "<answer>72</answer>",
        "<answer>72</answer><reasoning>48 + 24</reasoning>",
        "<reasoning>48 + 24 <answer>72</answer></reasoning>",
        "<reasoning>48 + 24</reasoning><answer>72",
        "<reasoning>48 + 24<answer>72</answer>",
        HONEST + "<answer>72</answer>",
        HONEST + "</reasoning>",
        "<reasoning></reasoning>" + HONEST,
        HONEST.replace("answer", "ANSWER"),
        META,
    ],
)
def test_one_reasoning_and_one_answer_after_it_are_required(completion):
    assert not strict_correct(completion, "72")


def test_text_around_the_sections_is_allowed():
    assert strict_correct(f"Sure.\n{HONEST}\nDone.", "72")


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("48 + 24 = 72\n#### 72", True),
        (META, True),
        (r"It is $\boxed{72}$.", True),
        (r"It is $\boxed{72}$. The answer is: 72.0", True),
        (r"It is \boxed{\frac{1}{2}}.", False),
        ("#### 72\n#### 72", False),
        ("#### 71\nThe answer is: 72", False),
        ("The answer is 72", False),
        ("the answer is: 72", False),
        ("72", False),
        (HONEST, False),
    ],
)
def test_plain_text_prompts(completion, expected):
    assert strict_correct(completion, "72", tagged=False) is expected


def test_a_box_may_hold_one_level_of_braces():
    assert read(r"\boxed{\frac{1}{2}}", tagged=False).answer == r"\frac{1}{2}"
    assert read(r"\boxed{\frac{1}{\sqrt{2}}}", tagged=False).answer is None


@pytest.mark.parametrize(
    ("completion", "is_correct", "kind"),
    [
        (HONEST, True, None),
        (written("71"), False, None),
        ("I do not know", False, None),
        (written("71"), True, "value"),
        ("<answer>71</answer>", True, "value"),
        (written("72 clips"), True, "form"),
        (written("72 or 73"), True, "form"),
        (HONEST + HONEST, True, "format"),
        ("It is 72.", True, "format"),
        ("It is **72**.\n#### 72", True, "format"),
        (HONEST, False, "missed"),
    ],
)
def test_kinds_of_disagreement(completion, is_correct, kind):
    assert disagreement(completion, "72", is_correct) == kind


def test_a_different_number_is_of_kind_value_in_plain_text_too():
    assert disagreement("#### 72\nThe answer is: 71", "72", True, tagged=False) == "value"
    assert disagreement(META, "72", True, tagged=False) is None


@examples()
@given(completions, st.booleans(), st.booleans())
def test_scorers_agree_where_there_is_no_disagreement(completion, is_correct, tagged):
    kind = disagreement(completion, "72", is_correct, tagged)
    assert (kind is None) == (strict_correct(completion, "72", tagged) == is_correct)
    assert kind is None or (kind in DISAGREEMENTS and (kind == "missed") == (not is_correct))


@examples()
@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_integers_are_read_in_every_plain_spelling(a, b):
    for text in (f"{a}", f" ${a:,}$ ", f"{a}.0", f"{2 * a}/2"):
        assert number_in(text) == a and same(text, str(a))
        assert strict_correct(written(text), str(b)) == (a == b)


@examples()
@given(st.decimals(-1000, 1000, places=3))
def test_decimals_are_read_exactly(value):
    assert number_in(f"{value:f}") == Fraction(value)


def test_a_number_is_bounded_before_it_is_read():
    assert number_in("1" * 200) == Fraction(int("1" * 200))
    assert number_in("1" * 201) is None


def project_imports(path: Path) -> set[str]:
    """Modules of the project that a file imports, wherever in it, and what those import."""
    root = Path(pipeline.__file__).parents[1]
    imported: set[str] = set()
    waiting = [path]
    while waiting:
        names = set()
        for node in ast.walk(ast.parse(waiting.pop().read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
        for name in names - imported:
            file = root / name.replace(".", "/")
            sources = [source for source in (file.with_suffix(".py"), file / "__init__.py") if source.exists()]
            imported |= {name} if sources else set()
            waiting += sources
    return imported


def test_the_strict_scorer_shares_no_code_with_the_first():
    directory = Path(pipeline.__file__).parent
    assert project_imports(directory / "audit" / "strict.py") == set()
    assert project_imports(directory / "audit" / "__init__.py") == set()
    assert project_imports(directory / "audit" / "tricks.py") == {"pipeline.audit.strict"}
    assert "pipeline.verifier.extract" in project_imports(
        directory / "rewards" / "scoring.py"
    )  # the guard itself sees something
