"""Watches the room of a run's engines and graders, which a lost node takes away."""

import time

from ray.util.placement_group import PlacementGroup, placement_group_table

from pipeline.errors import ClusterError
from pipeline.runs.waits import report_wait


class PlacementWatch:
    """Called while answers are waited for.

    Args:
        group: None if nothing is reserved.
        limit_s: maximum seconds without room.
    """

    def __init__(self, group: PlacementGroup | None, limit_s: float) -> None:
        self._group, self._limit_s = group, limit_s
        self._lost_at: float | None = None

    def __call__(self) -> None:
        """Raises ClusterError if an engine or a grader has had no node for too long."""
        if self._group is None or placement_group_table(self._group)["state"] == "CREATED":
            self._lost_at = None
            return
        self._lost_at = self._lost_at or time.monotonic()
        lost_s = time.monotonic() - self._lost_at
        if lost_s >= self._limit_s:
            raise ClusterError(
                f"engines and graders must have room on the cluster, got no node for some in {self._limit_s:g} s: "
                "a node was lost. Add one, then continue with --resume."
            )
        report_wait("room for engines and graders, whose node was lost", lost_s, self._limit_s)
