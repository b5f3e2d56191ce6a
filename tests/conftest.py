"""Paths and random numbers that tests share."""

import os
import random
import time
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("gradus", deadline=None)  # a busy machine is not an error
hypothesis.settings.load_profile("gradus")
ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
DATA = ROOT / "tests" / "data"
SHARED = ROOT.parent / "shared" / "data"
"""Real data sets of the workplace. A clone elsewhere has none: tests that read them are skipped, by name."""
SEED = int(os.environ.get("GRADUS_TEST_SEED") or time.time_ns())
"""Seed of the random moments at which tests kill processes."""


@pytest.fixture(scope="module")
def moments(request: pytest.FixtureRequest) -> random.Random:
    """Random moments: the same in every run with the same seed, whichever other tests run."""
    return random.Random(f"{SEED} {request.node.nodeid}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"random moments can be repeated with GRADUS_TEST_SEED={SEED}")
