"""Processes of a pool: when they start, who owns them after a fork, and that none outlives its owner."""

import multiprocessing
import os
import signal
import subprocess
import threading
import time
from typing import Any

import pytest

from pipeline.verifier.sandbox.pool import SandboxPool
from pipeline.verifier.verdict import Job
from tests.support.sandbox import (
    DIFFERENT,
    EQUAL,
    TIMEOUT,
    are_gone,
    full_size,
    in_a_forked_process,
    in_a_spawned_process,
    make_pool,
    owner_command,
    slow_to_start,
    state,
)

WAIT_S = 60
"""For a process that takes a second or two on a quiet machine."""


def test_start_returns_before_the_children_are_ready_and_does_not_count_against_a_deadline():
    with make_pool(2, timeout_s=0.4, comparer=slow_to_start) as pool:
        pool.start()
        assert len(pool.child_pids()) == 1
        assert pool.compare([Job("a", "a")]) == [EQUAL]


def test_close_ends_all_processes_and_a_later_call_starts_new_ones():
    pool = make_pool()
    pool.close()
    first = full_size(pool)
    pool.close()
    pool.close()
    assert not any(state(pid) for pid in first)
    assert pool.child_pids() == []
    assert pool.compare([Job("a", "a")]) == [EQUAL]
    pool.close()


def test_close_during_a_call_ends_the_call():
    errors: list[str] = []
    pool = make_pool(2, timeout_s=60.0)

    def work() -> None:
        try:
            pool.compare([Job("sleep", "")] * 20)
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=work)
    full_size(pool)
    thread.start()
    time.sleep(0.2)
    pool.close()
    thread.join(30)
    assert errors == ["the grading pool was closed during a call"]


def test_children_that_cannot_start_raise_an_error(capfd):
    with SandboxPool(1, comparer="no_such_module:compare") as pool, pytest.raises(RuntimeError, match="must start"):
        pool.compare([Job("a", "a")])
    assert "No module named 'no_such_module'" in capfd.readouterr().err


# Other processes ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_starts_its_own_children_and_leaves_the_others_alone(pool):
    before = full_size(pool)
    busy = threading.Thread(target=pool.compare, args=([Job("sleep", "")] * 4,))
    busy.start()  # a lock of the pool might be held at the moment of the fork
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.Queue[Any] = context.Queue()
    process = context.Process(target=in_a_forked_process, args=(pool, answers))
    process.start()
    inherited, compared, own = answers.get(timeout=WAIT_S)
    assert inherited == []
    assert compared == [EQUAL, TIMEOUT, DIFFERENT]
    assert own and not set(own) & set(before)
    assert answers.get(timeout=WAIT_S) == []
    process.join(WAIT_S)
    busy.join()
    assert process.exitcode == 0
    assert full_size(pool)[0] == before[0]
    assert pool.compare([Job("a", "a")]) == [EQUAL]


def test_a_spawned_process_has_a_pool_of_its_own():
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[Any] = context.Queue()
    process = context.Process(target=in_a_spawned_process, args=(answers,))
    process.start()
    assert answers.get(timeout=WAIT_S)[1] == [EQUAL, TIMEOUT, DIFFERENT]
    assert answers.get(timeout=WAIT_S) == []
    process.join(WAIT_S)
    assert process.exitcode == 0


# Killed processes --------------------------------------------------------------------------------------


def test_a_fork_does_not_keep_the_children_of_a_killed_owner_alive():
    script = """
        pool = make_pool()
        pids = full_size(pool)
        holder = os.fork()
        if not holder:
            time.sleep(30)
            os._exit(0)
        print(holder, *pids, flush=True)
        time.sleep(30)
    """
    holder, *pids = kill_once_it_has_printed_its_pids(script)
    try:
        assert are_gone(pids)
    finally:
        os.kill(holder, signal.SIGKILL)


@pytest.mark.parametrize("action", ["nothing", "spin", "no alarm", "sleep"])
def test_a_killed_owner_leaves_no_process(action):
    script = f"""
        pool = make_pool(timeout_s=20.0)
        other = make_pool()  # must not keep sockets of the first open
        print(*full_size(pool), *full_size(other), flush=True)
        pool.compare([Job({action!r}, "")] * 99)
        input()
    """
    pids = kill_once_it_has_printed_its_pids(script)
    assert len(pids) == 6
    assert are_gone(pids)


def kill_once_it_has_printed_its_pids(script: str) -> list[int]:
    owner = subprocess.Popen(owner_command(script), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with owner:
        assert owner.stdout
        pids = [int(word) for word in owner.stdout.readline().split()]
        time.sleep(0.2)
        assert all(state(pid) for pid in pids)
        owner.kill()
    return pids


def test_an_owner_that_just_exits_leaves_no_process_and_prints_nothing():
    script = """
        import contextlib, threading
        pool = make_pool()
        print(*full_size(pool))
        def work():
            with contextlib.suppress(RuntimeError):
                pool.compare([Job("spin", "")])
        threading.Thread(target=work, daemon=True).start()
    """
    done = subprocess.run(owner_command(script), capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert are_gone([int(word) for word in done.stdout.split()])


def test_idle_workers_killed_from_outside_are_replaced_silently(pool):
    for worker in full_size(pool)[1:]:
        os.kill(worker, signal.SIGKILL)
    assert are_gone(pool.child_pids()[1:])
    assert pool.compare([Job("a", "a")] * 40) == [EQUAL] * 40


def test_a_busy_worker_killed_from_outside_costs_the_job_it_was_at(patient_pool):
    worker = full_size(patient_pool, 1)[1]
    threading.Timer(0.3, os.kill, (worker, signal.SIGKILL)).start()
    assert patient_pool.compare([Job("a", "a"), Job("sleep", ""), Job("a", "a")]) == [EQUAL, TIMEOUT, EQUAL]


def test_a_stopped_worker_is_killed_by_its_owner(pool):
    stopped = full_size(pool)[1:]
    for worker in stopped:
        os.kill(worker, signal.SIGSTOP)
    jobs = [Job("a", "a")] * 64
    answers = pool.compare([Job("a" * 2_000_000, ""), *jobs, Job("a" * 2_000_000, "")])
    assert answers.count(TIMEOUT) == 2
    assert are_gone(stopped)


def test_a_killed_zygote_is_replaced():
    with make_pool(2, timeout_s=30.0) as pool:
        first = full_size(pool)
        os.kill(first[0], signal.SIGKILL)
        assert are_gone(first)
        assert pool.compare([Job("a", "a")] * 40) == [EQUAL] * 40
        second = full_size(pool)
        threading.Timer(0.3, os.kill, (second[0], signal.SIGKILL)).start()
        assert pool.compare([Job("a", "a"), Job("sleep", ""), Job("a", "a")]) == [EQUAL, TIMEOUT, EQUAL]
        assert are_gone(second)  # workers go with it, a moment later
        assert pool.compare([Job("a", "a")] * 40) == [EQUAL] * 40
        assert full_size(pool)[0] != second[0]
