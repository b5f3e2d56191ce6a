"""Find the final answer in a completion and judge it. Safe on any text, from any thread. docs/verifier.md has the policy.

Importing this stays light: sympy and math-verify are loaded by child processes only.

    extract.py      where the answer stands in a completion
    text.py         one spelling for LaTeX, Unicode and Markdown
    grading.py      what is decided here: text, plain numbers (quantity.py, units.py), words (words.py)
    sandbox.py      the pool of children (child.py) that decides the rest:
    equivalence.py      by trees of what was written (reader.py) and sympy
    grader.py       all of it in one call, with a cache
"""

from pipeline.verifier.extract import extract, last_number
from pipeline.verifier.grader import Grader, grade, grade_batch
from pipeline.verifier.verdict import Method, Outcome, Verdict

__all__ = ["Grader", "Method", "Outcome", "Verdict", "extract", "grade", "grade_batch", "last_number"]
