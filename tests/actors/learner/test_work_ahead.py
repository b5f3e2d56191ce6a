"""Working ahead, on engines and learners with clocks of their own: see tests/support/simulation.py.

A completion takes an engine 10 units of time, unless its seed says something else, and an engine has room for one
step's completions.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from pipeline.config import Config, validate_config
from pipeline.types import WeightId
from tests.support.simulation import SimulatedStep, Simulation, batch, simulations

BATCH, SIZE, STEPS = 4, 2, 12
LENGTH = 10
FAST, EVEN, SLOW = 1, 10, 100
"""Time of an update: a learner ten times faster than its engines, as fast, and ten times slower."""
MODES: dict[str, dict[str, Any]] = {
    "fixed": {"batching": "fixed"},
    "continuous": {"batching": "continuous"},
    "in_flight": {"batching": "continuous", "in_flight_updates": True},
}

Simulate = Callable[..., Simulation]


@pytest.fixture
def simulate(monkeypatch) -> Iterator[Simulate]:
    yield from simulations(monkeypatch)


def even(seed: int) -> int:
    return LENGTH


def uneven(seed: int) -> int:
    """From 2 to 20 tokens."""
    return 2 + seed % 19


def configure(staleness: int = 0, mode: str = "fixed", engines: int = 1, learners: int = 1) -> Config:
    width = {"max_num_seqs": BATCH * SIZE // engines}
    return validate_config(
        {
            "stages": [{"name": "rl", "kind": "grpo"}],
            "grpo": {"batch_size": BATCH, "num_generations": SIZE},
            "learner": {"num_workers": learners},
            "rollout": {"max_staleness": staleness, "num_workers": engines, **width, **MODES[mode]},
        }
    )


def trained(simulation: Simulation, num_steps: int = STEPS) -> list[SimulatedStep]:
    return simulation.steps(simulation.learner(num_steps), num_steps)


def versions(step: SimulatedStep) -> set[int]:
    return {group.weight_id.step for group in step.groups}


def problems(steps: Sequence[SimulatedStep]) -> list[str]:
    return [group.problem.id for step in steps for group in step.groups]


def batches(*steps: int) -> list[str]:
    return [example.problem.id for step in steps for example in batch(step, BATCH)]


# Time --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("engines", "learners"), [(1, 1), (2, 2), (4, 2)])
@pytest.mark.parametrize("mode", ["fixed", "continuous"])
@pytest.mark.parametrize("update", [FAST, EVEN, SLOW])
def test_without_staleness_engines_and_learners_take_turns(simulate, update, mode, engines, learners):
    simulation = simulate(configure(0, mode, engines, learners), 1, update, even)
    steps = trained(simulation)
    assert simulation.clock.now == STEPS * (LENGTH + update)
    assert [versions(step) for step in steps] == [{step} for step in range(STEPS)]
    assert all(engine.loaded == [(1, step) for step in range(STEPS + 1)] for engine in simulation.engines)


@pytest.mark.parametrize(("engines", "learners"), [(1, 1), (2, 2)])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("update", [FAST, EVEN, SLOW])
def test_with_a_staleness_of_one_the_slower_side_never_waits(simulate, update, mode, engines, learners):
    simulation = simulate(configure(1, mode, engines, learners), 1, update, even)
    num_steps = 20
    trained(simulation, num_steps)
    ideal = num_steps * max(LENGTH, update)
    # The first rollouts and the last update overlap with nothing. With two learners one of them asks for its part of
    # the second step before the other asks for its part of the first, so that both steps are written at once.
    assert ideal + min(LENGTH, update) <= simulation.clock.now <= ideal / 0.9


def test_weights_in_flight_spare_engines_the_wait_for_their_longest_completion(simulate):
    times = {}
    for mode in MODES:
        simulation = simulate(configure(1, mode), 1, FAST, uneven)
        trained(simulation)
        times[mode] = simulation.clock.now
    assert times["in_flight"] < 0.8 * times["continuous"]
    assert times["continuous"] <= times["fixed"]


# Versions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("engines", "learners"), [(1, 1), (3, 2)])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("staleness", [1, 3])
@pytest.mark.parametrize("update", [FAST, SLOW])
def test_staleness_stays_within_its_bound_and_every_group_is_taken_once(
    simulate, update, staleness, mode, engines, learners
):
    simulation = simulate(configure(staleness, mode, engines, learners), 1, update, uneven)
    steps = trained(simulation)
    assert problems(steps) == batches(*range(STEPS))
    assert [step.asked for step in steps] == [max(step - staleness, 0) for step in range(STEPS)]
    for step in steps:
        assert max(step.step - staleness, 0) <= min(versions(step)) <= max(versions(step)) <= step.step
        assert all(group.record.newest_step <= step.step for group in step.groups if group.record)
    if update == SLOW:  # engines write as far ahead as they may
        assert [min(versions(step)) for step in steps] == [step.asked for step in steps]
    taken = [seed for step in steps for group in step.groups for seed in group.seeds]
    begun = [seed for engine in simulation.engines for seed, _ in engine.begun]
    assert len(set(taken)) == len(taken) == STEPS * BATCH * SIZE and sorted(begun) == sorted(taken)


def test_tokens_that_were_written_while_weights_changed_have_their_versions(simulate):
    simulation = simulate(configure(2, "in_flight"), 1, FAST, uneven)
    steps = trained(simulation)
    changed = 0
    for step in steps:
        for group in step.groups:
            for completion in group.completions:
                if completion.versions is not None:
                    changed += 1
                    assert len(completion.versions) == len(completion.token_ids)
                    assert group.weight_id.step == completion.versions[0] < completion.versions[-1] <= step.step
                    assert np.all(np.diff(completion.versions) >= 0)
    assert 0 < changed < STEPS * BATCH * SIZE


# Ends --------------------------------------------------------------------------------------------


def test_nothing_is_asked_for_beyond_a_pass(simulate):
    simulation = simulate(configure(3), 1, EVEN, even)
    (learner,) = simulation.learner(5)
    assert problems(simulation.steps([learner], 5)) == batches(*range(5))
    assert not list(learner.source.left())
    assert len(simulation.answers) == 5 * BATCH


def test_a_stage_that_ends_early_leaves_what_it_asked_for(simulate):
    simulation = simulate(configure(2), 1, EVEN, even)
    (learner,) = simulation.learner(5)
    simulation.steps([learner], 3)
    left = list(learner.source.left())
    assert [group.problem.id for each in left for group in each.groups] == batches(3, 4)
    assert [each.asked_steps for each in left] == [[1] * BATCH, [2] * BATCH]
    assert not any(group.completions for each in left for group in each.groups)


@pytest.mark.parametrize("mode", MODES)
def test_a_learner_that_restarts_gets_only_groups_of_its_own_weights(simulate, mode):
    simulation = simulate(configure(2, mode), 1, FAST, even)
    simulation.steps(simulation.learner(6), 2)  # and dies, while steps 2 and 3 are asked for
    dead = simulation.answers.copy()
    steps = simulation.steps(simulation.learner(6, done=1), 5)
    assert problems(steps) == batches(*range(1, 6))
    assert {group.weight_id.attempt for step in steps for group in step.groups} == {2}
    assert all(min(versions(step)) >= 1 for step in steps)
    (engine,) = simulation.engines
    assert engine.loaded[-5:] == [(2, step) for step in range(1, 6)]
    # What the dead one had asked for and was not begun is refused, not written with other weights.
    by_new = [seed for seed, learner in engine.begun if learner == 2]
    assert sorted(by_new) == sorted(seed for step in steps for group in step.groups for seed in group.seeds)
    refused = [answer for answer in dead if isinstance(answer.exception(timeout=0), LookupError)]
    written = [answer.result(timeout=0).weight_id for answer in dead if answer not in refused]
    assert refused and len(refused) + len(written) == 4 * BATCH
    assert {weight_id.attempt for weight_id in written if isinstance(weight_id, WeightId)} == {1}
