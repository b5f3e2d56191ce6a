"""The verifier inside real Ray actors: on the main thread, on another one, in an event loop."""

import subprocess
import sys
import textwrap

import pytest

SCRIPT = textwrap.dedent("""
    import sys, time
    import psutil, ray
    from pipeline.verifier import Grader

    PAIRS = [("<answer>\\\\\\\\sqrt{12}</answer>", "2\\\\\\\\sqrt{3}"), ("<answer>72</answer>", "72"),
             ("<answer>9^{9^{9^{9}}}</answer>", "\\\\\\\\sqrt{2}"), ("<answer>x+1</answer>", "x-1")]

    class Sync:
        def __init__(self):
            self.grader = Grader(num_children=1, timeout_s=1.0)
        def run(self):
            return [verdict.outcome for verdict in self.grader.grade_batch(PAIRS)], self.grader.child_pids()

    class Async(Sync):
        async def run(self):
            return Sync.run(self)

    ray.init(num_cpus=1, include_dashboard=False, _temp_dir=sys.argv[1], object_store_memory=80 * 2**20)
    actors = {
        "sync": ray.remote(num_cpus=0)(Sync).remote(),
        "threaded": ray.remote(num_cpus=0, max_concurrency=4)(Sync).remote(),
        "async": ray.remote(num_cpus=0)(Async).remote(),
    }
    pids = []
    for name, actor in actors.items():
        outcomes, children = ray.get(actor.run.remote())
        print(name, *outcomes)
        pids += children
    ray.shutdown()
    deadline = time.monotonic() + 20
    while any(map(psutil.pid_exists, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    print(len(pids), "children,", sum(map(psutil.pid_exists, pids)), "left")
""").replace("\\\\\\\\", "\\\\")


@pytest.mark.slow
def test_the_same_verdicts_in_every_kind_of_actor_and_no_child_left(tmp_path_factory):
    directory = tmp_path_factory.mktemp("r")  # socket paths are short
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(directory)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    expected = "correct correct timeout incorrect"
    kinds = ["sync", "threaded", "async"]
    assert done.stdout.splitlines() == [*(f"{kind} {expected}" for kind in kinds), "6 children, 0 left"]
