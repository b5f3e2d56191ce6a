"""Checks whether rewards were earned: a second, strict scorer and a search for known tricks, on stored completions.

- strict.py: the second scorer. It shares no code with ``pipeline.verifier`` or ``pipeline.rewards``, so it
  does not repeat their mistakes
- tricks.py: the tricks
- run.py: the audit of a run
- section.py: its section in the run's report
"""
