"""The run's metrics as Ray gauges: the dashboard's metrics endpoint, and so Prometheus, shows them."""

import re
from typing import Any

from ray.util.metrics import Gauge


class Gauges:
    """One gauge ``gradus_<metric>`` per number, tagged with run and stage."""

    def __init__(self, run_name: str) -> None:
        self._run_name = run_name
        self._gauges: dict[str, Gauge] = {}

    def set(self, row: dict[str, Any]) -> None:
        """Show the numbers of one metrics row."""
        tags = {"run": self._run_name, "stage": row["stage"]}
        for key, value in row.items():
            if isinstance(value, (int, float)):
                name = "gradus_" + re.sub(r"\W", "_", key)
                if name not in self._gauges:
                    self._gauges[name] = Gauge(name, f"{key}, see docs/metrics.md", tag_keys=("run", "stage"))
                self._gauges[name].set(value, tags)
