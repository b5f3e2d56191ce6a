"""Property-based tests: few examples, the same ones in every run, however slow the machine is."""

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings


def examples(count: int = 50) -> Callable[[Any], Any]:
    fixtures_are_fine = [HealthCheck.function_scoped_fixture]
    return settings(max_examples=count, deadline=None, derandomize=True, suppress_health_check=fixtures_are_fine)
