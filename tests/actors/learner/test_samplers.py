"""Samplers in the GRPO loop: see tests/support/sampled_stage.py."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from actors.learner import grpo_loop
from pipeline.curriculum.choices import best_rates
from pipeline.seeds import derive_seed
from tests.support.sampled_stage import (
    BATCH,
    GROUP,
    PER_LEVEL,
    Record,
    SampledSession,
    ThreadRanks,
    configure,
    learned,
    train,
    train_killed,
)

STEPS = 20
SAMPLERS: dict[str, dict[str, Any]] = {
    "none": {},
    "uniform": {"source_weights": {"a": 1.0, "b": 3.0}},
    "dynamic": {"dynamic": {"oversampling": 1.25}},
    "pools": {"pools": {"ask_again_after": 5}},
    "thompson": {"forgetting_frac": 0.2},
    "target_difficulty": {"target_difficulty": {"difficulty": "measured"}},
    "bandit": {},
    "schedule": {},
}


MOMENTS = random.Random(derive_seed("kills with staleness"))


def settings_of(name: str) -> dict[str, Any] | None:
    return None if name == "none" else {"name": name, **SAMPLERS[name]}


def undisturbed(config: Any, **session: Any) -> Record:
    record = Record()
    train(config, record, **session)
    return record


def test_without_a_sampler_the_order_is_that_of_the_examples():
    config, record = configure(None, num_steps=4), Record()
    session = train(config, record, replay_ratio=0.25)
    expected = [[each.problem.id for each in session.examples.batch(step)] for step in range(4)]
    assert record.asked() == expected
    assert record.violations(config) == []


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_run_killed_at_ten_moments_asks_the_same_problems_in_the_same_order(name):
    config = configure(settings_of(name))
    steps = sorted(random.Random(derive_seed("kills", name)).choices(range(1, STEPS + 1), k=10))
    how: dict[str, Any] = {"replay_ratio": 0.25, "save_every": 3}
    whole, killed = undisturbed(config, **how), train_killed(config, steps, **how)
    assert killed.asked() == whole.asked()
    strip: dict[str, Any] = {"weight_attempt": 0, "engine": None, "order": None}
    assert [replace(row, **strip) for row in killed.rows] == [replace(row, **strip) for row in whole.rows]
    assert killed.metrics == whole.metrics
    assert killed.violations(config) == whole.violations(config) == []


@pytest.mark.parametrize("name", SAMPLERS)
def test_with_staleness_the_ledger_holds_and_what_was_chosen_ahead_is_asked_again(name):
    config = configure(settings_of(name), staleness=1)
    record = train_killed(config, sorted([4, 4, *MOMENTS.choices(range(5, STEPS + 1), k=8)]))
    assert record.violations(config) == []
    assert sorted(record.metrics) == list(range(1, STEPS + 1))
    whole = undisturbed(config)
    first = [rows[:BATCH] for rows in whole.asked()]
    # Step 4 was chosen before the kill; those after it depend on what is sampled again, with newer weights.
    assert [rows[:BATCH] for rows in record.asked()][:4] == first[:4]


@pytest.mark.parametrize("name", SAMPLERS)
def test_two_learners_choose_the_same_and_share_the_batch(name):
    config = configure(settings_of(name), num_steps=8, max_sampled_tokens=None)
    meeting: list[Any] = [[], []]
    barrier, record = threading.Barrier(2), Record()
    sessions = [
        SampledSession(config, record, ranks=ThreadRanks(rank, 2, meeting, barrier), replay_ratio=0.25)
        for rank in range(2)
    ]
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(grpo_loop, "write_rollouts", lambda *_: None)
        patch.setattr(grpo_loop, "LearnerSession", lambda session: session)
        patch.setattr(grpo_loop, "learn_groups", learned)
        for session in sessions:
            session.run_path = None  # type: ignore[attr-defined]
        runs = [pool.submit(grpo_loop.grpo_loop, session) for session in sessions]  # type: ignore[arg-type]
        for run in runs:
            run.result(120)
    assert sessions[0].progress == sessions[1].progress
    assert record.violations(config) == []
    alone = undisturbed(configure(settings_of(name), num_steps=8), replay_ratio=0.25)
    if name != "dynamic":  # its rounds are rounded up to equal shares
        assert [sorted(names) for names in record.asked()] == [sorted(names) for names in alone.asked()]


@pytest.mark.parametrize("staleness", [0, 1])
@pytest.mark.parametrize("name", ["none", "pools", "target_difficulty", "bandit"])
def test_a_recorded_run_is_replayed_with_the_same_choices(name, staleness, tmp_path):
    config = configure(settings_of(name), staleness, num_steps=8)
    record = train_killed(config, [3, 6], run_path=tmp_path, replay_ratio=0.25)
    again = undisturbed(configure(settings_of(name), staleness, num_steps=8, replay=tmp_path), replay_ratio=0.25)
    assert again.asked() == record.asked()
    assert [row["sampled_tokens_total"] for row in again.metrics.values()] == [
        row["sampled_tokens_total"] for row in record.metrics.values()
    ]


def test_replayed_problems_keep_their_share():
    record = undisturbed(configure({"name": "dynamic"}), replay_ratio=0.25)
    used = [row for row in record.rows if row.use in ("trained", "no_variance")]
    assert sum(row.problem_id.startswith("old") for row in used) == STEPS * BATCH * 0.25


@pytest.mark.parametrize("staleness", [0, 1])
def test_replay_follows_forgetting_and_is_resumed(staleness):
    """All problems of the buffer were solved in their stage; every other one is lost now, and asked more often."""
    config = configure({"name": "uniform", "forgetting_frac": 0.5}, staleness)
    how: dict[str, Any] = {"replay_ratio": 0.25, "replayed": [("1", 1.0), ("3", 1.0)] * 20}
    record = undisturbed(config, **how)
    assert record.violations(config) == []
    old = [int(name[4:]) % 2 for names in record.asked() for name in names if name.startswith("old")]
    assert len(old) == STEPS * BATCH * 0.25 and sum(old) > 0.6 * len(old)
    if not staleness:
        assert train_killed(config, [3, 11], save_every=2, **how).asked() == record.asked()


def test_later_stages_learn_the_best_solve_rate_of_what_was_asked():
    record = Record()
    session = train(configure({"name": "uniform"}), record, replay_ratio=0.25)
    trained = session.examples.trained_until(STEPS, best_rates(session.progress.choices))
    assert len(trained) == 3 * PER_LEVEL  # each once or more, none of the buffer
    assert {item.best_rate for item in trained if item.level == "1"} == {1.0}
    assert all(item.best_rate is not None and item.best_rate < 1 for item in trained if item.level == "3")


def test_dynamic_learns_from_full_batches_and_charges_what_it_drops(capsys):
    config = configure({"name": "dynamic"})
    record = undisturbed(config)
    assert record.violations(config) == []
    for step, metrics in record.metrics.items():
        rows = [row for row in record.rows if row.step == step]
        assert [row.use for row in rows].count("trained") == BATCH
        assert metrics["rejected_groups"] == len(rows) - BATCH > 0
        assert metrics["sampled_tokens"] == sum(row.num_tokens for row in rows) > metrics["num_rollout_tokens"]
        assert metrics["sampling_rounds"] > 1
        assert metrics["zero_variance_frac"] == sum(row.use == "refilled" for row in rows) / len(rows)
    total = sum(metrics["sampled_tokens"] for metrics in record.metrics.values())
    assert record.metrics[STEPS]["sampled_tokens_total"] == total
    assert "left" not in capsys.readouterr().out


def test_dynamic_says_so_when_its_rounds_are_over_and_learns_from_what_it_has(capsys):
    config = configure({"name": "dynamic", "dynamic": {"max_rounds": 1}}, num_steps=3)
    record = undisturbed(config)
    assert record.violations(config) == []
    uses = [row.use for row in record.rows if row.step == 1]
    assert len(uses) == BATCH and {"trained", "no_variance"} == set(uses)
    assert capsys.readouterr().out.count("rounds of sampling (grpo.sampler.dynamic.max_rounds) left") == 1


HOPELESS = {"1": 1.0, "2": 0.0, "3": 0.0}


def test_dynamic_ends_the_stage_with_a_message_when_nothing_can_be_learned(capsys):
    config = configure({"name": "dynamic", "dynamic": {"max_rounds": 2, "max_empty_steps": 3}})
    record = undisturbed(config, rates=HOPELESS)
    assert sorted(record.metrics) == [1, 2, 3]
    assert record.violations(config) == []
    assert "stage rl ends with step 3: in 3 steps in a row all rewards" in capsys.readouterr().out
    killed = train_killed(config, [2, 3], rates=HOPELESS)
    assert killed.asked() == record.asked() and killed.metrics == record.metrics


def test_a_step_that_teaches_something_starts_the_count_of_empty_ones_over():
    """One problem in sixty is half solved: steps without it are empty, but never three in a row here."""
    config = configure({"name": "dynamic", "dynamic": {"max_rounds": 1, "max_empty_steps": 4}})
    assert len(undisturbed(config, rates={"1": 1.0, "2": 0.0, "3": 0.05}).metrics) == STEPS


@pytest.mark.parametrize("name", ["none", "uniform", "dynamic"])
@pytest.mark.parametrize("staleness", [0, 1])
def test_a_budget_of_sampled_tokens_ends_the_stage(name, staleness, capsys):
    """A completion has 3 tokens on average, a batch of 8 groups of 4 about 96."""
    config = configure(settings_of(name), staleness, max_sampled_tokens=1000)
    record = undisturbed(config)
    totals = [metrics["sampled_tokens_total"] for _, metrics in sorted(record.metrics.items())]
    assert len(totals) < STEPS and totals[-2] < 1000 <= totals[-1]
    assert totals[-1] < 1000 + 120  # at most by a batch: further rounds of a step ask for what is left
    assert record.violations(config) == []
    assert f"ends with step {len(totals)}: {totals[-1]} tokens are sampled" in capsys.readouterr().out
    assert totals[0] / BATCH / GROUP < 3.5 or name == "dynamic"
    if not staleness:
        killed = train_killed(config, [2, len(totals)])
        assert killed.metrics == record.metrics


def test_tokens_that_are_not_charged_and_groups_that_are_dropped_wrongly_are_violations():
    config = configure({"name": "dynamic"}, num_steps=3)
    record = undisturbed(config)
    index = next(i for i, row in enumerate(record.rows) if row.use == "refilled" and row.step == 2)
    row = record.rows.pop(index)
    assert any("got sampled_tokens" in line for line in record.violations(config))
    assert any("got rejected_groups" in line for line in record.violations(config))
    record.rows.insert(index, replace(row, reward_min=0.0, reward_max=1.0))
    assert [line.split(": ")[1] for line in record.violations(config)] == [
        "dropped as refilled, but its rewards differ"
    ]
    record.rows[index] = replace(row, use="surplus")
    assert [line.split(": ")[1] for line in record.violations(config)] == [
        "dropped as surplus, but its rewards are equal"
    ]
    record.rows[index] = row
    other = configure({"name": "uniform"}, num_steps=3)
    assert "refilled needs grpo.sampler.name dynamic, got uniform" in record.violations(other)[0]
