"""Answers of a pool, whatever its jobs do. See tests/support/sandbox.py for the jobs."""

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest

from pipeline.verifier.sandbox.pool import SandboxPool
from pipeline.verifier.verdict import Comparison, Job
from tests.support.sandbox import DIFFERENT, EQUAL, FAILED, KILLERS, TIMEOUT, children, full_size, wait_for

FAR_BELOW_A_MINUTE_S = 30.0
"""A job that nobody ends sleeps for 60 s, and computes for longer."""


def test_every_kind_of_comparison_comes_back_unchanged(pool):
    jobs = [Job("a", "a"), Job("a", "b"), Job("a", "a", True), Job("a", "bad"), Job("raise", "a"), Job("sleep", "a")]
    both, bad_gold = Comparison(True, True), Comparison(failure="bad_gold")
    assert pool.compare(jobs) == [EQUAL, DIFFERENT, both, bad_gold, FAILED, TIMEOUT]
    assert pool.compare([]) == []


@pytest.mark.parametrize(
    "text",
    [
        "\ud800 \udfff\ud83d",
        "\x00\x01\x1b[2J\r\x7f\x85\u2028",
        '"]\n[["a", "a", true]]\n',
        "\x02\n\x82\n{}\n",
        "\\u0041\\",
        "٥ 𝟓 5\u0301",
        "a" * 3_000_000,
        "\u2028" * 300_000,
    ],
    ids=lambda text: ascii(text[:12]),
)
def test_any_text_arrives_unchanged(text, patient_pool):
    jobs = [Job(text, text), Job(text, text + "x"), Job("a", "a"), Job(text, text, True)]
    assert patient_pool.compare(jobs) == [EQUAL, DIFFERENT, EQUAL, Comparison(True, True)]


@pytest.mark.parametrize("action", KILLERS)
def test_a_killer_costs_a_timeout_for_its_own_job_only(action, pool):
    jobs = [Job(str(number), str(number % 30)) for number in range(60)]
    jobs[29] = Job(action, "")
    start = time.monotonic()
    assert pool.compare(jobs) == [EQUAL] * 29 + [TIMEOUT] + [DIFFERENT] * 30
    assert time.monotonic() - start < FAR_BELOW_A_MINUTE_S
    full_size(pool)


def test_memory_is_counted_on_top_of_what_a_worker_starts_with(patient_pool):
    first = full_size(patient_pool, 1)
    assert patient_pool.compare([Job("take 64", "")] * 10) == [EQUAL] * 10
    assert patient_pool.child_pids() == first
    # Above half of the limit, "different" is no longer trusted. "equal" is, and the worker is replaced.
    assert patient_pool.compare([Job("take 160", ""), Job("a", "b")]) == [EQUAL, DIFFERENT]
    assert patient_pool.child_pids() != first


REAL_BOMBS = [
    "9^{9^{9^{9}}}",
    "((((10!)!)!)!)!",
    "2^{10^{12}}",
    "\\prod_{n=1}^{100000000} n",
    "\\frac{" * 300,
    "(" * 2000 + "1" + ")" * 2000,
    "(x+y+z+w)^{60}",
]


def test_real_bombs_are_answered_in_time_and_never_equal():
    with SandboxPool(2, timeout_s=0.3, memory_limit_mib=128) as pool:
        for bomb in REAL_BOMBS:
            start = time.monotonic()
            answers = pool.compare([Job(bomb, "(x+y)^2"), Job("\\frac{1}{2}", "0.5"), Job("5", bomb)])
            assert time.monotonic() - start < FAR_BELOW_A_MINUTE_S
            assert answers[1].is_equal
            assert not answers[0].is_equal and not answers[2].is_equal


def test_hundreds_of_hostile_jobs_leave_a_full_pool_and_no_zombie(pool):
    zygote = full_size(pool)[0]
    actions = ["exit", "crash", "die", "recurse", "raise", "take 4096 at once", "system exit", "run", "connect", "spin"]
    jobs = [Job(actions[number % (10 if number < 10 else 9)], "") for number in range(300)]
    answers = pool.compare(jobs)
    assert len(answers) == 300
    assert all(answer == TIMEOUT for answer, job in zip(answers, jobs, strict=True) if job.answer in KILLERS)
    assert not any(answer.is_equal for answer in answers)
    after = full_size(pool)
    assert after[0] == zygote
    assert wait_for(lambda: sorted(children(zygote)) == sorted(after[1:]))
    assert pool.compare([Job("a", "a")] * 64) == [EQUAL] * 64


def test_memory_and_descriptors_stay_flat(pool):
    def num_descriptors() -> tuple[int, int]:
        zygote = full_size(pool)[0]
        return len(os.listdir("/proc/self/fd")), len(os.listdir(f"/proc/{zygote}/fd"))

    def resident_kib() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024

    jobs = [Job(str(number), "7" * 200) for number in range(64)] + [Job("exit", "")]
    for _ in range(10):
        pool.compare(jobs)
    own, zygotes = num_descriptors()
    before_kib = resident_kib()
    for _ in range(50):
        pool.compare(jobs)
    # A zygote that has just forked still closes the worker's socket.
    assert wait_for(lambda: all(now <= before for now, before in zip(num_descriptors(), (own, zygotes), strict=True)))
    assert resident_kib() - before_kib < 4096


def test_a_worker_is_replaced_after_many_jobs_and_nobody_notices(patient_pool):
    first = full_size(patient_pool, 1)
    assert patient_pool.compare([Job("a", "a")] * 6000) == [EQUAL] * 6000
    assert full_size(patient_pool, 1)[1] != first[1]


def test_threads_share_the_pool(pool):
    answers: dict[int, list[Comparison]] = {}

    def work(number: int) -> None:
        killer = Job("exit" if number % 2 else "raise", "")
        answers[number] = pool.compare([Job(str(number), str(number % 8)), killer, Job("a", "a")] * 3)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(16):
        equal = EQUAL if number < 8 else DIFFERENT
        assert answers[number] == [equal, TIMEOUT if number % 2 else FAILED, EQUAL] * 3


def test_the_pool_works_in_an_event_loop_and_in_threads_beside_it(pool):
    async def work() -> list[list[Comparison]]:
        jobs = [Job("a", "a"), Job("sleep", "a")]
        calls = [asyncio.to_thread(pool.compare, jobs) for _ in range(2)]
        return [pool.compare(jobs), *await asyncio.gather(*calls)]

    assert asyncio.run(work()) == [[EQUAL, TIMEOUT]] * 3
