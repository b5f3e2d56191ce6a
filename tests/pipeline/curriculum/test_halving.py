import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.config import HalvingConfig, SearchConfig, load_config
from pipeline.curriculum.grid import chain_specs
from pipeline.curriculum.halving import QueuedChain, Rung, plan_rungs
from pipeline.curriculum.keys import stage_keys
from pipeline.curriculum.stage_queue import StageQueue, make_queue
from pipeline.curriculum.stages import stage_specs
from pipeline.errors import ConfigError
from tests.conftest import CONFIGS
from tests.support.searches import DIAMOND, chains, do, lanes, ready, simulate

# Rungs -------------------------------------------------------------------------------------------


def test_a_rung_waits_for_all_its_chains():
    queue = StageQueue(lanes(3, 2), [Rung(1, keep=1)])
    do(queue, "0.0", score=0.9)
    assert ready(queue) == ["1.0", "2.0"]  # not 0.1, though it is sure to be the best
    do(queue, "1.0", score=0.1)
    do(queue, "2.0", score=0.2)
    assert ready(queue) == ["0.1"]
    do(queue, "0.1")
    assert queue.is_over
    assert [chain["status"] for chain in queue.outcome().values()] == ["finished", "stopped", "stopped"]


def test_seeds_of_a_setting_are_stopped_together_by_their_mean():
    queue = StageQueue(lanes(4, 2, group_size=2), [Rung(1, keep=1)])
    for key, score in (("0.0", 0.9), ("1.0", 0.0), ("2.0", 0.5), ("3.0", 0.6)):
        do(queue, key, score=score)
    assert ready(queue) == ["2.1", "3.1"]  # mean 0.55 against 0.45


def test_a_failed_chain_does_not_hold_up_the_rung():
    queue = StageQueue(lanes(3, 2), [Rung(1, keep=2)], max_retries=0)
    do(queue, "0.0", score=0.1)
    do(queue, "1.0", score=0.2)
    queue.start("2.0")
    queue.fail("2.0")
    assert sorted(ready(queue)) == ["0.1", "1.1"]


def test_settings_that_are_the_same_so_far_are_kept_together():
    """All replay ratios share their first stage: a rung after it has nothing to decide between them."""
    queue = StageQueue(DIAMOND, [Rung(1, keep=1), Rung(2, keep=1)])
    do(queue, "s1")
    assert ready(queue) == ["s2", "c2"]
    do(queue, "s2", score=0.3)
    do(queue, "c2", score=0.2)
    assert ready(queue) == ["a3", "b3"]


def test_baselines_are_never_stopped_and_stop_nobody():
    baseline = QueuedChain("mixed", ("m",), protected=True)
    queue = StageQueue([*lanes(2, 2), baseline], [Rung(1, keep=1)])
    do(queue, "0.0", score=0.1)
    do(queue, "1.0", score=0.2)
    assert ready(queue) == ["1.1", "m"]


def test_equal_scores_keep_the_first():
    queue = StageQueue(lanes(3, 2), [Rung(1, keep=2)])
    do(queue, "2.0", "1.0", "0.0")
    assert ready(queue) == ["0.1", "1.1"]


# Budgets -----------------------------------------------------------------------------------------


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
    sharing = [QueuedChain(str(i), ("shared", *(f"{i}.{stage}" for stage in (1, 2, 3)))) for i in range(4)]
    assert plan_rungs(sharing, 13) == []  # 1 + 4 + 4 + 4
    assert plan_rungs(sharing, 8) == [Rung(2, 2), Rung(3, 1)]  # 1 + 4 + 2 + 1
    baseline = QueuedChain("mixed", ("m",), protected=True)
    assert plan_rungs([*sharing, baseline], 8) == plan_rungs(sharing, 8)
    assert plan_rungs([baseline], 1) == []


def test_the_search_of_the_replay_demo():
    config = load_config(CONFIGS / "search_replay_demo.yaml")
    specs = chain_specs(config)
    all_keys = []
    for spec in specs:
        stages = stage_specs(spec.config, ["1", "2", "3", "4", "5"])
        all_keys.append(stage_keys(spec.config, stages, [stage.name for stage in stages], "held-out"))
    whole = make_queue(specs, all_keys, SearchConfig())
    assert len(simulate(whole, random.Random(0))) == 36
    halved = make_queue(specs, all_keys, SearchConfig(halving=HalvingConfig(budget_stages=20)))
    # 2 seeds, the first stage shared by the ratios: 2 x (1 + 4 + 2 + 2 + 1) = 20
    assert halved.rungs == (Rung(2, 2), Rung(4, 1))
    assert len(simulate(halved, random.Random(0))) == 20 + 2
    statuses = {name: chain["status"] for name, chain in halved.outcome().items()}
    assert [*statuses.values()].count("finished") == 2 + 2 and [*statuses.values()].count("stopped") == 6
    assert {status for name, status in statuses.items() if "mixed" in name} == {"finished"}  # the baseline


def test_a_search_trains_seed_by_seed_and_baselines_first():
    """So one that is cut short has compared all settings with the seeds that it came to."""
    config = load_config(CONFIGS / "search_replay_demo.yaml")
    specs = chain_specs(config)
    queue = make_queue(
        specs, [[f"{spec.name}/{n}" for n in range(1 + 2 * (not spec.is_baseline))] for spec in specs], SearchConfig()
    )
    order = []
    while not queue.is_over:
        stage = queue.ready()[0]
        order.append(stage.chain)
        do(queue, stage.key)
    assert len(order) == 2 * (1 + 4 * 3)
    assert ["seed=0" in chain for chain in order] == [True] * 13 + [False] * 13
    assert order[0] == "level_order=mixed,seed=0" and order[13] == "level_order=mixed,seed=1"


@pytest.mark.parametrize("budget", [11, 15, 20, 25, 31, 32])
def test_separate_chains_stay_in_the_budget(budget):
    queue = StageQueue(lanes(8, 4), plan_rungs(lanes(8, 4), budget))
    assert len(simulate(queue, random.Random(0))) <= budget


@settings(max_examples=60, deadline=None, derandomize=True)
@given(chains(baselines=False), st.integers(1, 30))
def test_a_search_stays_in_its_budget(searched, budget):
    try:
        rungs = plan_rungs(searched, budget)
    except ConfigError:
        assume(False)
    assert len(simulate(StageQueue(searched, rungs), random.Random(0))) <= budget
