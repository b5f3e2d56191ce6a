"""Find the final answer in a completion and judge it. Safe on any text, from any thread.

Importing this stays light: sympy and math-verify are loaded by a child process only.
"""

from pipeline.verifier.extract import extract, last_number
from pipeline.verifier.sandbox import SandboxedGrader, grade
from pipeline.verifier.verdict import Method, Outcome, Verdict

__all__ = ["Method", "Outcome", "SandboxedGrader", "Verdict", "extract", "grade", "last_number"]
