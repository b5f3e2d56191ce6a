import time

import pytest

from pipeline.runs.clock import PhaseClock


class Ticks:
    """A clock that the test sets."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)


def test_a_lap_leaves_nothing_out(monkeypatch):
    ticks = Ticks(monkeypatch)
    clock = PhaseClock()
    for phase, seconds in [("rollout", 4.0), ("", 0.5), ("learner", 2.0), ("rollout", 1.0), ("checkpoint", 8.0)]:
        if phase:
            with clock(phase):
                ticks.now += seconds
        else:
            ticks.now += seconds
    expected = {"rollout_s": 5.0, "learner_s": 2.0, "reward_s": 0.0, "other_s": 0.5, "step_s": 7.5, "checkpoint_s": 8.0}
    assert clock.lap(["rollout", "learner", "reward"]) == pytest.approx(expected)
    ticks.now += 3.0  # the next lap starts where the last one ended
    with clock("learner"):
        ticks.now += 1.0
    expected = {"learner_s": 1.0, "other_s": 3.0, "step_s": 4.0, "checkpoint_s": 0.0}
    assert clock.lap(["learner"]) == pytest.approx(expected)


def test_a_phase_that_fails_is_counted(monkeypatch):
    ticks = Ticks(monkeypatch)
    clock = PhaseClock()
    with pytest.raises(ValueError), clock("learner"):
        ticks.now += 2.0
        raise ValueError
    assert clock.lap(["learner"])["learner_s"] == 2.0


def test_a_phase_reports_its_end_unless_it_fails():
    ended: list[str] = []
    clock = PhaseClock(at_end=ended.append)
    with clock("rollout"):
        assert not ended
    with pytest.raises(ValueError), clock("learner"):
        raise ValueError
    assert ended == ["rollout"]
