"""The pool, mostly with ``misbehave`` as its comparer: the workers import this module and do what a job says."""

import asyncio
import ctypes
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.verifier.sandbox.pool import SandboxPool
from pipeline.verifier.verdict import Comparison, Job

HERE = Path(__file__)
EQUAL, DIFFERENT = Comparison(symbolic=True), Comparison(symbolic=False)
TIMEOUT = Comparison(failure="timeout")
FAILED = Comparison(symbolic=False, numeric=False)
"""What an exception inside a comparison becomes."""


def _recurse() -> None:
    _recurse()


def _overflow_the_stack() -> None:
    sys.setrecursionlimit(10**7)
    nested: list[Any] = []
    for _ in range(10**6):
        nested = [nested]
    repr(nested)


def _take(num_mib: int) -> None:
    pieces = [b"x" * 2**16 for _ in range(16 * num_mib)]
    assert pieces


def _swallow() -> None:
    try:
        _take(4096)
    except MemoryError:
        raise PermissionError from None  # "different"


def _raise() -> None:
    raise ValueError


def _run(code: int) -> None:
    _, status = os.waitpid(code, 0)
    assert status == 0


ACTIONS: dict[str, Callable[[], object]] = {
    "sleep": partial(time.sleep, 60),
    "spin": lambda: 9**9**9,  # one operation of one integer: no Python code runs for minutes
    "no alarm": lambda: signal.setitimer(signal.ITIMER_REAL, 0) and ACTIONS["sleep"](),
    "exit": lambda: os._exit(0),
    "system exit": sys.exit,
    "die": lambda: signal.raise_signal(signal.SIGKILL),
    "crash": lambda: signal.raise_signal(signal.SIGSEGV),
    "recurse": _recurse,
    "overflow": _overflow_the_stack,
    "raise": _raise,
    "take 64": lambda: _take(64),
    "take 160": lambda: _take(160),
    "take 4096": lambda: _take(4096),
    "take 4096 at once": lambda: b"x" * 2**32,
    "swallow": _swallow,
    "print": lambda: (os.write(1, b"\x02" * 999), print("\x02" * 999), print("\x02", file=sys.stderr)),
    "nothing": lambda: None,
    "read": lambda: HERE.read_bytes(),
    "list": lambda: os.listdir(HERE.parent),
    "late import": lambda: __import__("colorsys"),
    "connect": lambda: socket.create_connection(("127.0.0.1", 9)),
    "resolve": lambda: socket.getaddrinfo("localhost", 80),
    "unix socket": lambda: socket.socket(socket.AF_UNIX),
    "system": lambda: os.system("true"),
    "run": lambda: subprocess.run(["true"], check=True),
    "spawn": lambda: _run(os.posix_spawn("/bin/true", ["true"], {})),
    "exec": lambda: os.execv("/bin/true", ["true"]),
    "fork": os.fork,
    "kill": lambda: os.kill(os.getppid(), 0),
    "ctypes": lambda: ctypes.CDLL(None).getpid(),
    "eval": lambda: eval("1 + 1"),
    "exec text": lambda: exec("pass"),
    "compile": lambda: compile("1 + 1", "answer", "eval"),
    "write here": lambda: Path("canary").write_text("x"),
    "write": lambda: Path("/tmp/gradus-canary").write_text("x"),
    "append": lambda: HERE.open("a"),
    "truncate": lambda: os.truncate(HERE, HERE.stat().st_size),
    "update": lambda: HERE.open("r+"),
    "low-level write": lambda: os.open("/tmp/gradus-canary", os.O_CREAT | os.O_WRONLY),
    "make a directory": lambda: os.mkdir("/tmp/gradus-canary"),
    "remove": lambda: os.remove("/tmp/gradus-not-there"),
}


KILLERS = ["sleep", "spin", "no alarm", "exit", "system exit", "die", "crash", "recurse", "overflow"]
KILLERS += ["take 4096", "take 4096 at once", "swallow"]


def misbehave(answer: str, gold: str, all_methods: bool) -> tuple[bool | None, bool | None] | None:
    """What a job names as its answer is done; otherwise texts are compared."""
    if gold == "bad":
        return None
    if answer in ACTIONS:
        try:
            ACTIONS[answer]()
        except PermissionError:
            return False, None
        return True, None
    return answer == gold, (True if all_methods else None)


def make_pool(num_children: int = 2, timeout_s: float = 1.0, memory_limit_mib: int = 256) -> SandboxPool:
    return SandboxPool(num_children, timeout_s, memory_limit_mib, comparer=f"{__name__}:misbehave")


@pytest.fixture(scope="module")
def pool() -> Iterator[SandboxPool]:
    with make_pool() as shared:
        yield shared


@pytest.fixture(scope="module")
def real_pool() -> Iterator[SandboxPool]:
    with SandboxPool(2, timeout_s=1.0, memory_limit_mib=128) as shared:
        shared.compare([Job("1", "1")])
        yield shared


def state(pid: int) -> str:
    """R, S, Z, ..., or empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(entry.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def wait_for(condition: Callable[[], object], timeout_s: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(condition())


def are_gone(pids: list[int]) -> bool:
    return wait_for(lambda: all(state(pid) in ("", "Z") for pid in pids))


def full_size(pool: SandboxPool, num_children: int = 2) -> list[int]:
    """The pids of a pool once all of its workers are ready."""

    def is_full() -> bool:
        pids = pool.child_pids()
        if len(pids) == 1 + num_children and all(state(pid) not in ("", "Z") for pid in pids):
            return True
        pool.compare([Job("nothing", "")] * 8)  # a worker killed while idle is replaced with the next jobs
        return False

    pool.start()
    assert wait_for(is_full, timeout_s=60)
    return pool.child_pids()


def test_every_kind_of_comparison_comes_back_as_it_was(pool):
    jobs = [Job("a", "a"), Job("a", "b"), Job("a", "a", True), Job("a", "bad"), Job("raise", "a"), Job("sleep", "a")]
    assert pool.compare(jobs) == [
        EQUAL,
        DIFFERENT,
        Comparison(True, True),
        Comparison(failure="bad_gold"),
        FAILED,
        TIMEOUT,
    ]
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
def test_any_text_arrives_unchanged(text, pool):
    jobs = [Job(text, text), Job(text, text + "x"), Job("a", "a"), Job(text, text, True)]
    assert pool.compare(jobs) == [EQUAL, DIFFERENT, EQUAL, Comparison(True, True)]


@pytest.mark.parametrize(
    "action",
    KILLERS,
)
def test_a_killer_costs_a_timeout_for_its_own_job_only(action, pool):
    jobs = [Job(str(number), str(number % 30)) for number in range(60)]
    jobs[29] = Job(action, "")
    start = time.monotonic()
    assert pool.compare(jobs) == [EQUAL] * 29 + [TIMEOUT] + [DIFFERENT] * 30
    assert time.monotonic() - start < 1.9  # deadline + margin = 1.5 s
    full_size(pool)


def test_memory_is_counted_from_what_a_worker_takes_to_begin_with():
    with make_pool(1, timeout_s=10.0) as pool:
        first = full_size(pool, 1)
        assert pool.compare([Job("take 64", "")] * 20) == [EQUAL] * 20
        assert pool.child_pids() == first
        # Above half of the limit "different" would not be trusted any more: "equal" is, and the worker goes.
        assert pool.compare([Job("take 160", ""), Job("a", "b")]) == [EQUAL, DIFFERENT]
        assert pool.child_pids() != first


@pytest.mark.parametrize("action", ["nothing", "read", "list", "late import", "print"])
def test_workers_may_read_and_import(action, pool):
    assert pool.compare([Job(action, ""), Job("a", "b")]) == [EQUAL, DIFFERENT]


@pytest.mark.parametrize(
    "action",
    """connect;resolve;unix socket;system;run;spawn;exec;fork;kill;ctypes;eval;exec text;compile
    write here;write;append;truncate
    update;low-level write;make a directory;remove""".replace("\n", ";").split(";"),
)
def test_workers_are_refused_what_they_do_not_need(action, pool):
    assert pool.compare([Job(action.strip(), ""), Job("a", "a")]) == [DIFFERENT, EQUAL]


def test_the_kernel_holds_workers_too(pool):
    worker = full_size(pool)[1]
    assert os.readlink(f"/proc/{worker}/cwd") == "/proc"
    assert {os.readlink(f"/proc/{worker}/fd/{fd}") for fd in range(3)} == {os.devnull}
    lines = Path(f"/proc/{worker}/limits").read_text().splitlines()
    limits = {line[:26].strip(): line[26:47].strip() for line in lines}
    assert limits["Max file size"] == limits["Max processes"] == limits["Max core file size"] == "0"
    assert 256 * 2**20 < int(limits["Max address space"]) < 768 * 2**20
    if can_unshare():
        assert os.readlink(f"/proc/{worker}/ns/net") != os.readlink("/proc/self/ns/net")


def can_unshare() -> bool:
    return subprocess.run(["unshare", "--user", "--net", "true"], capture_output=True).returncode == 0


REAL_BOMBS = [
    "9^{9^{9^{9}}}",
    "((((10!)!)!)!)!",
    "2^{10^{12}}",
    "\\prod_{n=1}^{100000000} n",
    "\\frac{" * 300,
    "(" * 2000 + "1" + ")" * 2000,
    "(x+y+z+w)^{60}",
]


def test_real_bombs_are_answered_in_time_and_never_equal(real_pool):
    for bomb in REAL_BOMBS:
        start = time.monotonic()
        answers = real_pool.compare([Job(bomb, "(x+y)^2"), Job("\\frac{1}{2}", "0.5"), Job("5", bomb)])
        assert time.monotonic() - start < 2.9  # two deadlines
        assert answers[1].is_equal
        assert not answers[0].is_equal and not answers[2].is_equal


def test_a_thousand_hostile_jobs_leave_a_full_pool_and_no_zombie(pool):
    zygote = full_size(pool)[0]
    actions = ["exit", "crash", "die", "recurse", "raise", "take 4096 at once", "system exit", "run", "connect", "spin"]
    jobs = [Job(actions[number % (10 if number < 40 else 9)], "") for number in range(1000)]
    answers = pool.compare(jobs)
    assert len(answers) == 1000
    assert all(answer == TIMEOUT for answer, job in zip(answers, jobs, strict=True) if job.answer in KILLERS)
    assert not any(answer.is_equal for answer in answers)
    after = full_size(pool)
    assert after[0] == zygote
    assert wait_for(lambda: sorted(children(zygote)) == sorted(after[1:]))
    assert pool.compare([Job("a", "a")] * 64) == [EQUAL] * 64


def test_memory_and_descriptors_stay_flat(pool):
    def measure() -> tuple[int, int, int]:
        zygote = full_size(pool)[0]
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4
        return len(os.listdir("/proc/self/fd")), len(os.listdir(f"/proc/{zygote}/fd")), resident

    jobs = [Job(str(number), "7" * 200) for number in range(64)] + [Job("exit", "")]
    for _ in range(10):
        pool.compare(jobs)
    own, zygotes, resident_kib = measure()
    for _ in range(100):
        pool.compare(jobs)
    own_after, zygotes_after, resident_kib_after = measure()
    assert (own_after, zygotes_after) == (own, zygotes)
    assert resident_kib_after - resident_kib < 4096


def test_workers_are_replaced_after_many_jobs_without_a_trace():
    with make_pool(1, timeout_s=10.0) as pool:
        first = full_size(pool, 1)
        assert pool.compare([Job("a", "a")] * 6000) == [EQUAL] * 6000
        assert full_size(pool, 1)[1] != first[1]


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


def test_in_an_event_loop_directly_and_beside_it(pool):
    async def work() -> list[list[Comparison]]:
        jobs = [Job("a", "a"), Job("sleep", "a")]
        calls = [asyncio.to_thread(pool.compare, jobs) for _ in range(4)]
        return [pool.compare(jobs), *await asyncio.gather(*calls)]

    assert asyncio.run(work()) == [[EQUAL, TIMEOUT]] * 5


def in_another_process(pool: SandboxPool, answers: "multiprocessing.Queue[Any]") -> None:
    answers.put((pool.child_pids(), pool.compare([Job("a", "a"), Job("exit", "a"), Job("a", "b")]), pool.child_pids()))
    pool.close()
    answers.put(children(os.getpid()))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_starts_its_own_children_and_leaves_the_others_alone(pool):
    before = full_size(pool)
    busy = threading.Thread(target=pool.compare, args=([Job("sleep", "")] * 4,))
    busy.start()  # a lock of the pool might be held at the moment of the fork
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.Queue[Any] = context.Queue()
    process = context.Process(target=in_another_process, args=(pool, answers))
    process.start()
    inherited, compared, own = answers.get(timeout=20)
    assert inherited == []
    assert compared == [EQUAL, TIMEOUT, DIFFERENT]
    assert own and not set(own) & set(before)
    assert answers.get(timeout=20) == []
    process.join(20)
    busy.join()
    assert process.exitcode == 0
    assert full_size(pool)[0] == before[0]
    assert pool.compare([Job("a", "a")]) == [EQUAL]


def in_a_spawned_process(answers: "multiprocessing.Queue[Any]") -> None:
    pool = make_pool()
    in_another_process(pool, answers)


def test_in_a_spawned_process():
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[Any] = context.Queue()
    process = context.Process(target=in_a_spawned_process, args=(answers,))
    process.start()
    assert answers.get(timeout=60)[1] == [EQUAL, TIMEOUT, DIFFERENT]
    assert answers.get(timeout=20) == []
    process.join(20)
    assert process.exitcode == 0


def test_a_fork_does_not_keep_the_children_of_a_killed_owner_alive():
    script = """
        import os, time
        pool = make_pool()
        pids = full_size(pool)
        holder = os.fork()
        if not holder:
            time.sleep(30)
            os._exit(0)
        print(holder, *pids, flush=True)
        time.sleep(30)
    """
    holder, *pids = kill_when_it_has_told_its_pids(script)
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
    pids = kill_when_it_has_told_its_pids(script)
    assert len(pids) == 6
    assert are_gone(pids)


def kill_when_it_has_told_its_pids(script: str) -> list[int]:
    script = "from tests.pipeline.verifier.sandbox.test_pool import *\n" + textwrap.dedent(script)
    owner = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with owner:
        assert owner.stdout
        pids = [int(word) for word in owner.stdout.readline().split()]
        time.sleep(0.2)
        assert all(state(pid) for pid in pids)
        owner.kill()
    return pids


def test_an_owner_that_just_ends_leaves_no_process_and_no_message():
    script = """
        import contextlib, threading
        from tests.pipeline.verifier.sandbox.test_pool import *
        pool = make_pool()
        print(*full_size(pool))
        def work():
            with contextlib.suppress(RuntimeError):
                pool.compare([Job("spin", "")])
        threading.Thread(target=work, daemon=True).start()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert are_gone([int(word) for word in done.stdout.split()])


def test_a_worker_killed_from_outside_costs_at_most_the_job_it_was_at(pool):
    for worker in full_size(pool)[1:]:  # idle: nobody notices
        os.kill(worker, signal.SIGKILL)
    assert are_gone(pool.child_pids()[1:])
    assert pool.compare([Job("a", "a")] * 40) == [EQUAL] * 40

    with make_pool(1, timeout_s=30.0) as slow:
        worker = full_size(slow, 1)[1]
        threading.Timer(0.3, os.kill, (worker, signal.SIGKILL)).start()
        assert slow.compare([Job("a", "a"), Job("sleep", ""), Job("a", "a")]) == [EQUAL, TIMEOUT, EQUAL]


def test_a_stopped_worker_is_killed_by_its_owner(pool):
    stopped = full_size(pool)[1:]
    for worker in stopped:
        os.kill(worker, signal.SIGSTOP)
    jobs = [Job("a", "a")] * 64
    start = time.monotonic()
    answers = pool.compare([Job("a" * 2_000_000, ""), *jobs, Job("a" * 2_000_000, "")])
    assert time.monotonic() - start < 2.9
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


def test_start_returns_before_the_children_are_ready_and_does_not_count_against_a_deadline():
    with make_pool(2, timeout_s=0.02) as pool:
        pool.start()
        assert pool.compare([Job("a", "a")]) == [EQUAL]


def test_close_ends_all_and_a_later_call_starts_again():
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
    start = time.monotonic()
    pool.close()
    thread.join(10)
    assert time.monotonic() - start < 3
    assert errors == ["the grading pool was closed during a call"]


def test_children_that_cannot_start_are_an_error_and_not_an_answer(capfd):
    with SandboxPool(1, comparer="no_such_module:compare") as pool, pytest.raises(RuntimeError, match="must start"):
        pool.compare([Job("a", "a")])
    assert "No module named 'no_such_module'" in capfd.readouterr().err
