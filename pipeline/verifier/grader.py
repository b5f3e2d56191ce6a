"""Grading in one call: cheap cases in the caller's process, the rest in child processes, repeats from a cache."""

import threading
from collections import OrderedDict
from collections.abc import Sequence

from pipeline.verifier import judge
from pipeline.verifier.sandbox.pool import SandboxPool
from pipeline.verifier.verdict import Comparison, Job, Verdict

_CACHE_SIZE = 20_000


class Grader:
    """Grades completions. Safe on any text, from any thread, in async and threaded actors, under fork and spawn.

    Children start with the first pair that needs one, or with ``start``; starting does not count against a deadline.
    """

    def __init__(self, num_children: int = 1, timeout_s: float = 2.0, memory_limit_mib: int = 512) -> None:
        self._pool = SandboxPool(num_children, timeout_s, memory_limit_mib)
        self._cache: OrderedDict[Job, Comparison] = OrderedDict()
        self._lock = threading.Lock()

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def grade(self, completion: str, gold: str, *, all_methods: bool = False) -> Verdict:
        return self.grade_batch([(completion, gold)], all_methods=all_methods)[0]

    def grade_batch(self, pairs: Sequence[tuple[str, str]], *, all_methods: bool = False) -> list[Verdict]:
        """One verdict per (completion, gold) pair, in order. Pairs that need a child go there in one batch."""
        return judge.judge(pairs, self._compare, all_methods=all_methods)

    def start(self) -> None:
        """Start the children now; returns before they are ready."""
        self._pool.start()

    def close(self) -> None:
        """End the children. A later call starts new ones."""
        self._pool.close()

    def child_pids(self) -> list[int]:
        return self._pool.child_pids()

    def _compare(self, jobs: list[Job]) -> list[Comparison]:
        with self._lock:
            known = {job: self._cache[job] for job in jobs if job in self._cache}
        missing = [job for job in dict.fromkeys(jobs) if job not in known]
        compared = dict(zip(missing, self._pool.compare(missing), strict=True)) if missing else {}
        with self._lock:
            self._cache |= {job: each for job, each in compared.items() if each.failure != "timeout"}
            while len(self._cache) > _CACHE_SIZE:
                self._cache.popitem(last=False)
        known |= compared
        return [known[job] for job in jobs]


_default = Grader(num_children=2)


def grade(completion: str, gold: str, *, all_methods: bool = False) -> Verdict:
    """Judge the final answer of a completion. Safe on any text, from any thread.

    Args:
        completion: the text that the policy wrote. ``extract`` says where its answer is looked for.
        gold: the true final answer, as text. The sides are not symmetric: the gold decides whether a unit counts.
        all_methods: also fill ``strict``, ``symbolic`` and ``numeric``, each comparison on its own.
    """
    return _default.grade(completion, gold, all_methods=all_methods)


def grade_batch(pairs: Sequence[tuple[str, str]], *, all_methods: bool = False) -> list[Verdict]:
    """``grade`` for many (completion, gold) pairs, in order; faster than one by one."""
    return _default.grade_batch(pairs, all_methods=all_methods)
