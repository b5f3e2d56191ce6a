import sys
from pathlib import Path

import pytest

from pipeline.runs.starvation import CpuTime, describe_starvation, thread_times

S = 10**9
IDLE = {"1": CpuTime(5 * S, 2 * S)}


def test_a_process_that_mostly_waits_for_a_cpu_is_starved():
    # Thread 1 ran 9 s and waited 30 s, thread 2 is new and ran 3 s and waited 18 s: 12 of 60 s.
    after = {"1": CpuTime(14 * S, 32 * S), "2": CpuTime(3 * S, 18 * S)}
    assert describe_starvation(IDLE, after, 60, niceness=15) == (
        "this process got 20% of the CPU time it asked for in the last 60 s: others use the CPUs, or it has more "
        "threads than CPUs. It runs at nice 15; for 0, start Ray with RAY_worker_niceness=0 in its environment"
    )
    assert "nice" not in (describe_starvation(IDLE, after, 60, niceness=0) or "nice")


@pytest.mark.parametrize(
    ("ran_s", "waited_s"),
    [
        (30, 30),  # shares a CPU with one other process
        (1, 4),  # asked for 5 of 60 s: idle
        (0, 0),
    ],
)
def test_sharing_a_cpu_or_being_idle_is_not_starvation(ran_s: int, waited_s: int):
    after = {"1": CpuTime((5 + ran_s) * S, (2 + waited_s) * S)}
    assert describe_starvation(IDLE, after, 60, niceness=15) is None


def test_threads_that_ended_are_left_out():
    assert describe_starvation(IDLE | {"2": CpuTime(S, 50 * S)}, IDLE, 60, niceness=15) is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps these accounts")
def test_the_time_of_this_process_is_counted():
    before = thread_times()
    assert sum(range(3_000_000)) > 0  # some milliseconds of work
    ran_ns = sum(time.ran_ns for time in thread_times().values()) - sum(time.ran_ns for time in before.values())
    assert ran_ns > 5_000_000


def test_a_system_without_accounts_says_nothing(tmp_path: Path):
    assert thread_times(tmp_path / "none") == {}
    assert describe_starvation({}, {}, 60, niceness=15) is None
