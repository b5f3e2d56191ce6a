"""Finds the final answer in a completion and judges it. Safe on any text, from any thread: see docs/verifier.md.

Importing this package is cheap: only child processes load sympy.

    extract.py      finds the answer, in the places that places/ knows
    judge.py        decides text, plain numbers and words, with normalize/
    sandbox/        the pool of child processes for everything else. There
                    reading/ parses an answer into a tree, and
                    compare/ compares trees by shape and their leaves with sympy
    grader.py       all of it in one call, with a cache
    verdict.py      the result types
"""

from pipeline.verifier.extract import extract, last_number
from pipeline.verifier.grader import Grader, grade, grade_batch
from pipeline.verifier.verdict import Method, Outcome, Verdict

__all__ = ["Grader", "Method", "Outcome", "Verdict", "extract", "grade", "grade_batch", "last_number"]
