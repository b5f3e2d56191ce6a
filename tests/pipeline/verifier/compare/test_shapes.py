"""Congruences: a residue class modulo a number, however it is written."""

import pytest

from pipeline.verifier.compare.shapes import compare
from pipeline.verifier.normalize.spelling import clean

SPELLINGS = [
    "x \\equiv 3 \\pmod{7}", "x \\equiv 3 \\pmod 7", "x ≡ 3 (mod 7)", "x≡3（mod 7）",
    "x \\equiv 3 \\ (\\mathrm{mod}\\ 7)",
    "x \\equiv 3 \\text{ (mod 7)}", "x \\equiv 3 (\\text{mod } 7)", "x \\equiv 3 \\bmod 7", "x = 3 (mod 7)",
    "x \\equiv 10 \\pmod{7}", "3 mod 7", "10 mod 7", "3 \\pmod{7}", "3", "{x \\equiv 3 \\pmod{7}}",
]  # fmt: skip


def is_same(answer: str, gold: str) -> bool:
    return compare(clean(answer), clean(gold)) == (True, None)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_a_residue_class_is_the_same(spelling):
    assert is_same(spelling, "x \\equiv 3 \\pmod{7}")
    assert is_same("x \\equiv 3 \\pmod{7}", spelling)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("x \\equiv 4 \\pmod 7", "x \\equiv 3 \\pmod 7"),
        ("x \\equiv 3 \\pmod 8", "x \\equiv 3 \\pmod 7"),
        ("3 mod 8", "3 mod 7"),
        ("y \\equiv 3 \\pmod 7", "x \\equiv 3 \\pmod 7"),
        ("10", "x \\equiv 3 \\pmod 7"),
        ("17", "17 mod 7"),
        ("x \\not\\equiv 3 \\pmod 7", "x \\equiv 3 \\pmod 7"),
        ("x \\equiv 1 \\pmod 5", "x \\equiv 1, 4 \\pmod 5"),
    ],
)
def test_other_classes(answer, gold):
    assert not is_same(answer, gold)
    assert not is_same(gold, answer)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("672", "\\[ N \\equiv 672 \\pmod{1000} \\]"),
        ("6", "x \\equiv -1 \\pmod 7"),
        ("x \\equiv \\pm 1 \\pmod 5", "x \\equiv 4, 1 \\pmod 5"),
        ("x \\equiv 1 \\pmod 5 \\text{ or } x \\equiv 4 \\pmod 5", "x \\equiv 1, 4 \\pmod 5"),
        ("x ≢ 3 (mod 7)", "x \\not\\equiv 10 \\pmod 7"),
        ("n \\equiv 1 \\pmod{2k}", "n \\equiv 1 \\pmod{2k}"),
        ("17 mod 7", "3"),
    ],
)
def test_residues_and_several_classes(answer, gold):
    assert is_same(answer, gold)
