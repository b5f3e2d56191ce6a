"""Find the final answer in a completion and judge it. Safe on any text, from any thread: see docs/verifier.md.

Importing this stays light: sympy is loaded by child processes only.

    extract.py      where the answer stands in a completion
    text.py         one spelling for LaTeX, Unicode and Markdown
    grading.py      what is decided here: text, plain numbers (quantity.py, units.py), words (words.py)
    sandbox.py      the pool of children (child.py) that decides the rest:
    equivalence.py      compares by shape the trees (tree.py) that reader.py makes of tokens.py,
    real_sets.py        intervals and inequalities as pieces of the line,
    scalars.py          and the leaves as sympy expressions
    grader.py       all of it in one call, with a cache
    verdict.py      what it answers
"""

from pipeline.verifier.extract import extract, last_number
from pipeline.verifier.grader import Grader, grade, grade_batch
from pipeline.verifier.verdict import Method, Outcome, Verdict

__all__ = ["Grader", "Method", "Outcome", "Verdict", "extract", "grade", "grade_batch", "last_number"]
