"""RewardWorker as a plain class, and the verifier inside real Ray actors: on the main thread, on another one, in an
event loop."""

import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest

from actors.reward import RewardWorker
from pipeline.config import RewardConfig, RewardTerm
from pipeline.errors import RewardError
from pipeline.types import Completion, Problem, RolloutGroup, WeightId

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


def group(*texts: str, gold: str = "72") -> RolloutGroup:
    problem = Problem(id="p0", prompt=({"role": "user", "content": "How many?"},), gold=gold)
    completions = tuple(Completion((1, 2), (-0.5, -0.5), text, "stop") for text in texts)
    return RolloutGroup(problem, (1,), completions, WeightId(0, 0))


def test_worker_fills_rewards_and_keeps_the_order():
    groups = [group("<answer>72</answer>", "71"), group("<answer>1/2</answer>", gold="0.5")]
    worker = RewardWorker(RewardConfig())
    try:
        scored = worker.score(groups)
    finally:
        worker.close()
    totals = [[breakdown.total for breakdown in one.rewards] for one in scored]
    assert totals == [[pytest.approx(2.4), 0.0], [pytest.approx(1.9)]]
    assert [replace(one, rewards=()) for one in scored] == groups


def test_worker_refuses_an_unknown_reward_at_once():
    with pytest.raises(RewardError, match="formatt"):
        RewardWorker(RewardConfig(functions=[RewardTerm(name="formatt")]))
