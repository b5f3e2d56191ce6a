import contextlib
import json
import random
import zlib
from collections import Counter

import pytest

from pipeline.config import HalvingConfig, SearchConfig, load_config
from pipeline.curriculum.stage_queue import (
    QueuedChain,
    Rung,
    StageQueue,
    make_queue,
    plan_rungs,
    read_markers,
    write_marker,
)
from pipeline.curriculum.stages import chain_specs, stage_keys, stage_specs
from pipeline.errors import CheckpointError, ConfigError
from tests.conftest import CONFIGS

DIAMOND = [
    QueuedChain("a", ("s1", "s2", "a3", "a4")),
    QueuedChain("b", ("s1", "s2", "b3", "b4")),
    QueuedChain("c", ("s1", "c2", "c3", "c4")),
]
"""3 chains x 4 stages: all share the first stage, two of them the second."""


def ready(search: StageQueue) -> list[str]:
    return [stage.key for stage in search.ready()]


def do(search: StageQueue, *keys: str, score: float = 0.5) -> None:
    for key in keys:
        search.start(key)
        search.finish(key, score)


# Order -------------------------------------------------------------------------------------------


def test_a_stage_is_ready_when_the_one_before_it_is_done():
    search = StageQueue(DIAMOND)
    assert ready(search) == ["s1"]
    search.start("s1")
    assert ready(search) == [] and not search.is_over
    search.finish("s1", 0.1)
    assert ready(search) == ["s2", "c2"]
    do(search, "s2")
    assert sorted(ready(search)) == ["a3", "b3", "c2"]
    do(search, "a3", "a4", "b3", "b4", "c2", "c3")
    assert ready(search) == ["c4"]
    do(search, "c4", score=0.9)
    assert search.is_over
    assert search.outcome()["c"] == {"status": "finished", "num_done": 4, "score": 0.9}


def test_chains_with_most_left_come_first():
    search = StageQueue([QueuedChain("short", ("x",)), QueuedChain("long", ("y1", "y2", "y3"))])
    assert ready(search) == ["y1", "x"]


def test_a_shared_stage_is_named_after_the_first_chain_that_has_it():
    search = StageQueue(DIAMOND)
    do(search, "s1")
    assert [(stage.chain, stage.index) for stage in search.ready()] == [("a", 1), ("c", 1)]


def test_a_stage_that_starts_afresh_belongs_to_the_chain_that_can_start_it():
    search = StageQueue([QueuedChain("forward", ("a", "x")), QueuedChain("reverse", ("x", "b"))])
    assert [(stage.key, stage.chain, stage.index) for stage in search.ready()] == [
        ("a", "forward", 0),
        ("x", "reverse", 0),
    ]


def test_a_stage_that_is_not_ready_cannot_start():
    search = StageQueue(DIAMOND)
    search.start("s1")
    for key in ("s1", "s2", "nonsense"):
        with pytest.raises(ValueError, match="must be ready"):
            search.start(key)


def test_parents():
    assert StageQueue(DIAMOND).parents() == {
        **{"s1": set(), "s2": {"s1"}, "a3": {"s2"}, "a4": {"a3"}, "b3": {"s2"}, "b4": {"b3"}},
        **{"c2": {"s1"}, "c3": {"c2"}, "c4": {"c3"}},
    }


# Failures ----------------------------------------------------------------------------------------


def test_a_stage_that_fails_is_tried_again():
    search = StageQueue(DIAMOND, max_retries=1)
    search.start("s1")
    search.fail("s1")
    assert ready(search) == ["s1"]
    do(search, "s1")
    assert ready(search) == ["s2", "c2"]


def test_a_chain_that_keeps_failing_ends_alone():
    search = StageQueue(DIAMOND, max_retries=1)
    do(search, "s1", "s2", "a3")
    for _ in range(2):
        search.start("a4")
        search.fail("a4")
    assert sorted(ready(search)) == ["b3", "c2"]
    do(search, "b3", "b4", "c2", "c3", "c4")
    assert search.is_over
    assert {name: found["status"] for name, found in search.outcome().items()} == {
        "a": "failed",
        "b": "finished",
        "c": "finished",
    }


def test_a_shared_stage_that_keeps_failing_ends_all_chains_that_need_it():
    search = StageQueue(DIAMOND, max_retries=0)
    do(search, "s1")
    search.start("s2")
    search.fail("s2")
    do(search, "c2", "c3", "c4")
    assert search.is_over and [found["status"] for found in search.outcome().values()] == [
        "failed",
        "failed",
        "finished",
    ]


def test_a_score_must_be_a_number():
    search = StageQueue(DIAMOND)
    search.start("s1")
    with pytest.raises(ValueError, match="score of stage s1 must be a number, got nan"):
        search.finish("s1", float("nan"))


# Rungs -------------------------------------------------------------------------------------------


def lanes(num_chains: int, num_stages: int, group_size: int = 1) -> list[QueuedChain]:
    """Chains 0, 1, 2 ... that share nothing, with stages ``0.0``, ``0.1`` ..."""
    return [
        QueuedChain(
            str(chain), tuple(f"{chain}.{stage}" for stage in range(num_stages)), group=f"g{chain // group_size}"
        )
        for chain in range(num_chains)
    ]


def test_a_rung_waits_for_all_its_chains():
    search = StageQueue(lanes(3, 2), [Rung(1, keep=1)])
    do(search, "0.0", score=0.9)
    assert ready(search) == ["1.0", "2.0"]  # not 0.1, though it is sure to be the best
    do(search, "1.0", score=0.1)
    do(search, "2.0", score=0.2)
    assert ready(search) == ["0.1"]
    do(search, "0.1")
    assert search.is_over
    assert [found["status"] for found in search.outcome().values()] == ["finished", "stopped", "stopped"]


def test_seeds_of_a_setting_are_stopped_together_by_their_mean():
    search = StageQueue(lanes(4, 2, group_size=2), [Rung(1, keep=1)])
    for key, score in (("0.0", 0.9), ("1.0", 0.0), ("2.0", 0.5), ("3.0", 0.6)):
        do(search, key, score=score)
    assert ready(search) == ["2.1", "3.1"]  # mean 0.55 against 0.45


def test_a_failed_chain_does_not_hold_up_the_rung():
    search = StageQueue(lanes(3, 2), [Rung(1, keep=2)], max_retries=0)
    do(search, "0.0", score=0.1)
    do(search, "1.0", score=0.2)
    search.start("2.0")
    search.fail("2.0")
    assert sorted(ready(search)) == ["0.1", "1.1"]


def test_settings_that_are_the_same_so_far_are_not_told_apart():
    """All replay ratios share their first stage: a rung after it has nothing to decide between them."""
    search = StageQueue(DIAMOND, [Rung(1, keep=1), Rung(2, keep=1)])
    do(search, "s1")
    assert ready(search) == ["s2", "c2"]
    do(search, "s2", score=0.3)
    do(search, "c2", score=0.2)
    assert ready(search) == ["a3", "b3"]


def test_baselines_are_never_stopped_and_stop_nobody():
    baseline = QueuedChain("mixed", ("m",), protected=True)
    search = StageQueue([*lanes(2, 2), baseline], [Rung(1, keep=1)])
    do(search, "0.0", score=0.1)
    do(search, "1.0", score=0.2)
    assert ready(search) == ["1.1", "m"]


def test_equal_scores_keep_the_first():
    search = StageQueue(lanes(3, 2), [Rung(1, keep=2)])
    do(search, "2.0", "1.0", "0.0")
    assert ready(search) == ["0.1", "1.1"]


@pytest.mark.parametrize(
    ("budget", "rungs"),
    [
        (32, []),  # 8 + 8 + 8 + 8
        (31, [(1, 7)]),  # 99 %: 8 + 7 + 7 + 7 = 29
        (15, [(1, 4), (2, 2), (3, 1)]),  # halving: 8 + 4 + 2 + 1
        (11, [(1, 1)]),  # 8 + 1 + 1 + 1
    ],
)
def test_rungs_fit_the_budget(budget, rungs):
    assert plan_rungs(lanes(8, 4), budget) == [Rung(*rung) for rung in rungs]


def test_a_budget_is_for_all_seeds():
    assert plan_rungs(lanes(16, 4, group_size=2), 30) == plan_rungs(lanes(8, 4), 15)
    with pytest.raises(ConfigError, match=r"budget_stages must be at least 22, got 21: "):
        plan_rungs(lanes(16, 4, group_size=2), 21)


def test_no_rung_comes_where_settings_are_still_the_same():
    chains = [QueuedChain(str(i), ("shared", *(f"{i}.{stage}" for stage in (1, 2, 3)))) for i in range(4)]
    assert plan_rungs(chains, 13) == []  # 1 + 4 + 4 + 4
    assert plan_rungs(chains, 8) == [Rung(2, 2), Rung(3, 1)]  # 1 + 4 + 2 + 1
    baseline = QueuedChain("mixed", ("m",), protected=True)
    assert plan_rungs([*chains, baseline], 8) == plan_rungs(chains, 8)
    assert plan_rungs([baseline], 1) == []


def test_the_search_of_the_replay_demo():
    config = load_config(CONFIGS / "search_replay_demo.yaml")
    chains = chain_specs(config)
    all_keys = []
    for chain in chains:
        specs = stage_specs(chain.config, ["1", "2", "3", "4", "5"])
        all_keys.append(stage_keys(chain.config, specs, [spec.name for spec in specs], "held-out"))
    search = make_queue(chains, all_keys, SearchConfig())
    assert len(simulate(search, random.Random(0)).finished) == 36
    halved = make_queue(chains, all_keys, SearchConfig(halving=HalvingConfig(budget_stages=20)))
    # 2 seeds, the first stage shared by the ratios: 2 x (1 + 4 + 2 + 2 + 1) = 20
    assert halved.rungs == (Rung(2, 2), Rung(4, 1))
    run = simulate(halved, random.Random(0))
    assert len(run.finished) == 20 + 2
    statuses = [found["status"] for found in halved.outcome().values()]
    assert statuses.count("finished") == 2 + 2 and statuses.count("stopped") == 6
    assert statuses[-2:] == ["finished"] * 2  # the baseline


def test_a_search_stays_in_its_budget():
    for budget in (11, 15, 20, 25, 31, 32):
        search = StageQueue(lanes(8, 4), plan_rungs(lanes(8, 4), budget))
        assert len(simulate(search, random.Random(0)).finished) <= budget
    for seed in range(200):
        chains = [chain for chain in random_plan(random.Random(seed))[0] if not chain.protected]
        for budget in range(1, 30) if chains else ():
            with contextlib.suppress(ConfigError):
                search = StageQueue(chains, plan_rungs(chains, budget))
                assert len(simulate(search, random.Random(0)).finished) <= budget


# Any order of completion -------------------------------------------------------------------------


class Run:
    """What a simulated search did, in order."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.finished: list[str] = []


def score(key: str) -> float:
    """Of a stage: the same whenever it runs."""
    return zlib.crc32(key.encode()) / 2**32


def simulate(search: StageQueue, generator: random.Random, slots: int = 3, broken: frozenset[str] = frozenset()) -> Run:
    """Run to the end with stages that take a random time. Stages in ``broken`` always fail, others now and then."""
    run, running, failed, done = Run(), list[str](), Counter[str](), set(search.to_state()["scores"])
    while not search.is_over:
        startable = ready(search)
        if startable and len(running) < slots and generator.random() < 0.7:
            key = generator.choice(startable)
            assert search.parents()[key] <= done
            search.start(key)
            run.started.append(key)
            running.append(key)
        elif running:
            key = running.pop(generator.randrange(len(running)))
            failed[key] += 1
            if key in broken or (failed[key] <= search.max_retries and generator.random() < 0.2):
                search.fail(key)
            else:
                search.finish(key, score(key))
                run.finished.append(key)
                done.add(key)
    return run


def random_plan(generator: random.Random) -> tuple[list[QueuedChain], list[Rung], frozenset[str]]:
    """Chains that share random prefixes, rungs, and up to two stages that never succeed."""
    chains: list[QueuedChain] = []
    num_stages = generator.randint(1, 5)
    for index in range(generator.randint(1, 9)):
        other = generator.choice(chains).keys if chains else ()
        shared = other[: generator.randint(0, num_stages)]
        own = tuple(f"{index}.{stage}" for stage in range(len(shared), num_stages))
        protected = generator.random() < 0.2
        chains.append(QueuedChain(str(index), (shared + own)[: 1 if protected else None], f"g{index // 2}", protected))
    rungs = [Rung(stage, generator.randint(1, 4)) for stage in range(1, num_stages) if generator.random() < 0.6]
    keys = sorted({key for chain in chains for key in chain.keys})
    return chains, rungs, frozenset(generator.sample(keys, min(len(keys), generator.choice([0, 0, 1, 2]))))


@pytest.mark.parametrize("seed", range(60))
def test_the_outcome_does_not_depend_on_the_order_of_completion(seed):
    chains, rungs, broken = random_plan(random.Random(seed))
    outcomes, trained = [], []
    for order in range(6):
        search = StageQueue(chains, rungs, max_retries=2)
        run = simulate(search, random.Random(f"{seed}.{order}"), slots=1 + order, broken=broken)
        assert len(set(run.finished)) == len(run.finished)  # nothing twice
        outcomes.append(search.outcome())
        trained.append(sorted(run.finished))
        assert "unfinished" not in {found["status"] for found in outcomes[-1].values()}
    assert outcomes == outcomes[:1] * 6 and trained == trained[:1] * 6


@pytest.mark.parametrize("seed", range(30))
def test_a_search_killed_at_any_moment_ends_the_same(seed, tmp_path):
    chains, rungs, _ = random_plan(random.Random(seed))
    whole = StageQueue(chains, rungs)
    simulate(whole, random.Random(0))
    generator, num_finished = random.Random(seed), 0
    for _ in range(10):  # ten lives, each killed after a few events; only the markers survive
        search = StageQueue(chains, rungs)
        search.restore({key: found["score"] for key, found in read_markers(tmp_path).items()})
        running: list[str] = []
        for _ in range(generator.randint(0, 4)):
            if (startable := ready(search)) and generator.random() < 0.6:
                search.start(key := generator.choice(startable))
                running.append(key)
            elif running:
                key = running.pop(generator.randrange(len(running)))
                assert key not in read_markers(tmp_path)
                write_marker(tmp_path, key, {"score": score(key)})
                num_finished += 1
                if generator.random() < 0.5:
                    break  # killed between the marker and the news of it
                search.finish(key, score(key))
    last = StageQueue(chains, rungs)
    last.restore({key: found["score"] for key, found in read_markers(tmp_path).items()})
    run = simulate(last, generator)
    assert last.outcome() == whole.outcome()
    assert num_finished == len(read_markers(tmp_path)) and not set(run.finished) & set(read_markers(tmp_path))


# State -------------------------------------------------------------------------------------------


def test_the_state_comes_back_from_json():
    search = StageQueue(DIAMOND, max_retries=1)
    do(search, "s1", score=0.25)
    search.start("s2")
    search.start("c2")
    search.fail("c2")
    restored = StageQueue(DIAMOND, max_retries=1)
    restored.set_state(json.loads(json.dumps(search.to_state())))
    assert restored.to_state() == search.to_state() and ready(restored) == ready(search) == ["c2"]


def test_stages_that_were_running_start_again_and_other_searches_are_ignored():
    search = StageQueue(DIAMOND)
    search.start("s1")
    search.restore({"from another search": 0.5})
    assert ready(search) == ["s1"] and search.to_state()["scores"] == {}


def test_a_broken_marker_is_named(tmp_path):
    assert read_markers(tmp_path / "none") == {}
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"x\.json cannot be read: .* Delete it to train its stage again"):
        read_markers(tmp_path)


def test_chains_must_have_names_and_stages():
    for chains in ([], [QueuedChain("a", ())], [QueuedChain("a", ("x",)), QueuedChain("a", ("y",))]):
        with pytest.raises(ValueError, match="different names and at least one stage"):
            StageQueue(chains)
