"""Paths that tests share."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
DATA = ROOT / "tests" / "data"
SHARED = ROOT.parent / "shared" / "data"
"""Real data sets of the workplace. A clone elsewhere has none: tests that read them are skipped, by name."""
