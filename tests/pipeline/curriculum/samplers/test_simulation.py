"""Simulation: problems with known solve rates, to see that each sampler does what its paper says.

Five levels of 40 problems. The policy gets better at all of them as it trains on groups whose rewards differ.
"""

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pytest

from pipeline.config.samplers import DynamicConfig
from pipeline.curriculum.samplers.base import Outcome
from pipeline.curriculum.samplers.dynamic import Filling
from tests.support.sampling import asked, heads, sampler

LEVELS, PER_LEVEL, BATCH, STEPS = 5, 40, 16, 60
LOGITS = np.repeat([5.0, 2.0, -1.0, -4.0, -7.0], PER_LEVEL) + np.tile(np.linspace(-1.5, 1.5, PER_LEVEL), LEVELS)
"""Logits of the solve rates at the start: 0.99, 0.88, 0.27, 0.02 and 0.001 in the middle of each level."""
GAIN = 0.01
"""Added to every logit for a group that teaches something."""


class Step(NamedTuple):
    outcomes: list[Outcome]
    levels: Counter[int]
    """Groups of each level, from 1."""

    @property
    def variance_frac(self) -> float:
        return sum(each.has_variance for each in self.outcomes) / len(self.outcomes)


def level_of(outcome: Outcome) -> int:
    assert outcome.row is not None
    return 1 + outcome.row // PER_LEVEL


def simulate(name: str, gain: float = GAIN, seed: int = 0, **settings: Any) -> list[Step]:
    sampled = sampler(name, heads(*[PER_LEVEL] * LEVELS), STEPS, seed, **settings)
    logits, steps = LOGITS.copy(), []
    for step in range(STEPS):
        rates = 1 / (1 + np.exp(-logits))
        outcomes = [asked(row, rates[row], seed, step) for row in sampled.choose(step, BATCH)]
        sampled.observe(step, outcomes)
        logits += gain * sum(each.has_variance for each in outcomes)
        steps.append(Step(outcomes, Counter(map(level_of, outcomes))))
    return steps


def variance_frac(steps: list[Step]) -> float:
    return float(np.mean([step.variance_frac for step in steps]))


def budget(steps: list[Step]) -> list[float]:
    """Share of the groups of each level."""
    total = sum((step.levels for step in steps), Counter[int]())
    return [total[level] / total.total() for level in range(1, LEVELS + 1)]


@pytest.fixture(scope="module")
def uniform() -> list[Step]:
    return simulate("uniform")


def test_uniform_spends_the_same_on_every_level(uniform):
    assert budget(uniform) == pytest.approx([0.2] * LEVELS, abs=0.02)


@pytest.mark.parametrize("name", ["pools", "thompson", "target_difficulty", "bandit"])
def test_samplers_that_measure_find_more_groups_to_learn_from(name, uniform):
    assert variance_frac(simulate(name)[10:]) > 1.4 * variance_frac(uniform[10:])


def test_pools_retire_what_is_solved(uniform):
    """Level 1 is solved from the start: it is asked once, and hardly again within 50 steps."""
    asked_of = [step.levels[1] for step in simulate("pools")]
    assert sum(asked_of) < 0.7 * sum(step.levels[1] for step in uniform)


def test_thompson_samples_solve_rates_near_its_target():
    def distance(name: str) -> float:
        """From the target, on average, by a policy that does not change."""
        rates = [each.solve_rate for step in simulate(name, gain=0.0)[20:] for each in step.outcomes]
        return float(np.mean(np.abs(np.array(rates) - 0.5)))

    assert distance("thompson") < 0.75 * distance("uniform")


def test_the_target_difficulty_climbs_as_the_policy_learns():
    steps = simulate("target_difficulty", target_difficulty={"step_size": 0.1})
    means = [np.mean(list(map(level_of, step.outcomes))) for step in steps]
    assert means[0] == 1 and np.mean(means[10:20]) < np.mean(means[-10:])
    rates = [each.solve_rate for step in steps[20:] for each in step.outcomes]
    assert np.mean(rates) == pytest.approx(0.5, abs=0.15)


def test_the_bandit_spends_most_on_the_levels_with_the_largest_advantages():
    """Without learning: levels 2 and 3 have the solve rates with the largest variance."""
    shares = budget(simulate("bandit", gain=0.0)[10:])
    assert min(shares[1], shares[2]) > 1.3 * max(shares[0], shares[3], shares[4])


@pytest.mark.parametrize("shape", ["gaussian", "cosine"])
def test_a_schedule_fades_easy_levels_out(shape):
    steps = simulate("schedule", schedule={"shape": shape, "exponent": 1.0})
    thirds = [budget(steps[start : start + STEPS // 3]) for start in range(0, STEPS, STEPS // 3)]
    easy, hard = ([third[level] for third in thirds] for level in (0, LEVELS - 1))
    assert easy == sorted(easy, reverse=True) and hard == sorted(hard)
    assert easy[0] > 2 * hard[0] and hard[-1] > 2 * easy[-1]


def test_dynamic_has_full_batches_and_pays_for_them():
    """All of every batch teaches something, and of all that is sampled the share that uniform finds."""
    sampled = sampler("dynamic", heads(*[PER_LEVEL] * LEVELS), STEPS)
    rates = 1 / (1 + np.exp(-LOGITS))
    num_sampled = num_teaching = 0
    for step in range(20):
        filling: Filling[Outcome] = Filling(DynamicConfig(), [None] * BATCH)
        rows, count = sampled.choose(step, BATCH), 0
        while rows:
            outcomes = [asked(row, rates[row], step, filling.num_rounds) for row in rows]
            filling.add([(each, each.has_variance) for each in outcomes])
            count += len(rows)
            rows = sampled.choose_more(step, filling.num_to_ask) if filling.num_to_ask else []
        batch = filling.batch()
        assert all(each.has_variance for each in batch)
        num_teaching += BATCH + len(filling.surplus)
        assert count == BATCH + len(filling.dropped) + len(filling.surplus)
        num_sampled += count
    expected = float(np.mean(1 - rates**8 - (1 - rates) ** 8))
    assert num_teaching / num_sampled == pytest.approx(expected, abs=0.08)
