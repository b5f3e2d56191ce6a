"""Searches that train nothing: chains by the keys of their stages, and a simulated run."""

import random
import zlib
from collections import Counter

from hypothesis import strategies as st

from pipeline.curriculum.halving import QueuedChain, Rung
from pipeline.curriculum.stage_queue import StageQueue

DIAMOND = [
    QueuedChain("a", ("s1", "s2", "a3", "a4")),
    QueuedChain("b", ("s1", "s2", "b3", "b4")),
    QueuedChain("c", ("s1", "c2", "c3", "c4")),
]
"""3 chains x 4 stages: all share the first stage, two of them the second."""


def ready(queue: StageQueue) -> list[str]:
    return [stage.key for stage in queue.ready()]


def do(queue: StageQueue, *keys: str, score: float = 0.5) -> None:
    """Start and finish stages, one after the other."""
    for key in keys:
        queue.start(key)
        queue.finish(key, score)


def lanes(num_chains: int, num_stages: int, group_size: int = 1) -> list[QueuedChain]:
    """Chains 0, 1, 2 ... that share nothing, with stages ``0.0``, ``0.1`` ..."""
    return [
        QueuedChain(str(chain), tuple(f"{chain}.{stage}" for stage in range(num_stages)), f"g{chain // group_size}")
        for chain in range(num_chains)
    ]


@st.composite
def chains(draw: st.DrawFn, *, baselines: bool = True) -> list[QueuedChain]:
    """Up to nine chains of at most five stages that share prefixes, in settings of two seeds."""
    built: list[QueuedChain] = []
    num_stages = draw(st.integers(1, 5))
    for index in range(draw(st.integers(1, 9))):
        other = draw(st.sampled_from(built)).keys if built else ()
        shared = other[: draw(st.integers(0, num_stages))]
        keys = shared + tuple(f"{index}.{stage}" for stage in range(len(shared), num_stages))
        protected = baselines and draw(st.integers(0, 4)) == 0
        built.append(QueuedChain(str(index), keys[: 1 if protected else None], f"g{index // 2}", protected))
    return built


RUNGS = st.lists(
    st.builds(Rung, st.integers(1, 4), keep=st.integers(1, 4)), max_size=3, unique_by=lambda r: r.num_stages
)


def score(key: str) -> float:
    """Score of a stage, the same whenever it runs."""
    return zlib.crc32(key.encode()) / 2**32


def simulate(
    queue: StageQueue, generator: random.Random, slots: int = 3, broken: frozenset[str] = frozenset()
) -> list[str]:
    """Run to the end with stages that take a random time: the keys finished, in order.

    Stages in ``broken`` always fail, others now and then. Checks that no stage starts before its parent is done, or
    beside another one of its chain.
    """
    parents = {key: parent for chain in queue.chains for parent, key in zip(chain.keys, chain.keys[1:], strict=False)}
    done, running, finished, failed = set(queue.to_state()["scores"]), list[str](), list[str](), Counter[str]()
    while not queue.is_over:
        startable = ready(queue)
        if startable and len(running) < slots and generator.random() < 0.7:
            key = generator.choice(startable)
            assert key not in parents or parents[key] in done
            queue.start(key)
            running.append(key)
            assert all(len(set(chain.keys) & set(running)) <= 1 for chain in queue.chains)
        elif running:
            key = running.pop(generator.randrange(len(running)))
            failed[key] += 1
            if key in broken or (failed[key] <= queue.max_retries and generator.random() < 0.2):
                queue.fail(key)
            else:
                queue.finish(key, score(key))
                finished.append(key)
                done.add(key)
    return finished
