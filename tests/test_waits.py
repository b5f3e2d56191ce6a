"""No wait is without a limit: calls that can block for ever are found in the source."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

SOURCES = [path for folder in ("pipeline", "actors", "jobs") for path in sorted((ROOT / folder).rglob("*.py"))]
RAY = {"get": 1, "wait": 4}
"""Functions of ray, with the position of their timeout."""
METHODS = {"wait": 0, "join": 0, "result": 0, "communicate": 1, "acquire": 1}
"""Methods of threads, processes, events, futures and locks, with the position of their timeout."""
PROCESSES = {"run", "call", "check_call", "check_output"}
"""Functions of subprocess."""
LASTS_AS_LONG = {
    "parent.join()": "a grading process that ends with its parent",
    "client.wait()": "the client of a submitted job, which may run for days",
    "planned.result()": "the plan, which the same process makes in another thread",
    "checked.result()": "its checks, likewise",
    "started.result()": "the start of an engine, in another thread: whoever called the actor has a limit",
    "ray.get(learners.train.remote(setup))": "a stage of a search, which may last for days",
}
"""Waits for the end of something that has no limit itself."""


def unlimited(source: str) -> list[str]:
    """Calls in a source that may wait for ever, as they are written there."""
    return [ast.unparse(call) for call in _calls(ast.parse(source)) if _waits(call) and not _has_limit(call)]


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute))


def _waits(call: ast.Call) -> bool:
    owner, name = ast.unparse(call.func.value), call.func.attr  # type: ignore[attr-defined]
    if owner == "ray":
        return name in RAY
    if owner == "subprocess":
        return name in PROCESSES
    if name == "flock":
        return "LOCK_NB" not in ast.unparse(call) and "LOCK_UN" not in ast.unparse(call)
    # ", ".join(words) and os.path.join are no waits: a thread's join has no argument or a number
    return name in METHODS and not (name == "join" and call.args)


def _has_limit(call: ast.Call) -> bool:
    name = call.func.attr  # type: ignore[attr-defined]
    is_ray = ast.unparse(call.func.value) == "ray"  # type: ignore[attr-defined]
    position = (RAY if is_ray else METHODS).get(name, 99)
    given = [keyword.value for keyword in call.keywords if keyword.arg and keyword.arg.startswith("timeout")]
    given += call.args[position : position + 1]
    return any(not (isinstance(value, ast.Constant) and value.value is None) for value in given)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_wait_has_a_limit(path: Path):
    assert [call for call in unlimited(path.read_text()) if call not in LASTS_AS_LONG] == []


WITHOUT_LIMIT = """
ray.get(ref)
ray.get(ref, timeout=None)
ray.wait(refs)
thread.join()
event.wait()
future.result()
process.communicate()
subprocess.run(command)
fcntl.flock(file, fcntl.LOCK_EX)
"""
WITH_LIMIT = """
ray.get(ref, timeout=5)
ray.wait(refs, timeout=limit)
thread.join(5)
thread.join(timeout=5)
event.wait(0.5)
subprocess.run(command, timeout=5)
fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
', '.join(words)
"""


@pytest.mark.parametrize("source", WITHOUT_LIMIT.split("\n")[1:-1])
def test_a_wait_without_a_limit_is_found(source):
    assert unlimited(source) == [source]


@pytest.mark.parametrize("source", WITH_LIMIT.split("\n")[1:-1])
def test_a_wait_with_a_limit_is_not(source):
    assert unlimited(source) == []
