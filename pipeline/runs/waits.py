"""Reports waits of any process on the run's console."""

from pipeline.runs.notices import notify


def report_wait(what: str, waited_s: float, limit_s: float) -> None:
    """Say on the console, from any process of the run, what this one is waiting for.

    Call it about once a minute while waiting: each call shows a line.

    Args:
        what: completes ``waiting 60 s for ...``: ``completions (2 of 8 calls pending)``.
        waited_s: so far.
        limit_s: when the wait ends in an error.
    """
    notify(f"waiting {waited_s:.0f} s for {what} (limit {limit_s:.0f} s)")
