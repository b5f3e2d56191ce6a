"""RewardWorker as a plain class, and the verifier inside real Ray actors: on the main thread, on another one, in an
event loop."""

import time
from dataclasses import replace

import psutil
import pytest

from actors.reward import RewardWorker, learner_context
from pipeline.config import Config, QuestionsConfig, RewardConfig, RewardTerm, StageConfig
from pipeline.config.questions import SolverConfig
from pipeline.errors import RewardError
from pipeline.types import Answer, Completion, EngineRecord, Problem, RolloutGroup, WeightId
from pipeline.verifier import Grader

STAGE = StageConfig(name="rl", kind="grpo")
PAIRS = [
    ("<answer>\\sqrt{12}</answer>", "2\\sqrt{3}"),
    ("<answer>72</answer>", "72"),
    ("<answer>9^{9^{9^{9}}}</answer>", "\\sqrt{2}"),
    ("<answer>x+1</answer>", "x-1"),
]
EXPECTED = ["correct", "correct", "timeout", "incorrect"]


class Sync:
    def __init__(self) -> None:
        self.grader = Grader(num_children=1, timeout_s=1.0)

    def run(self) -> tuple[list[str], list[int]]:
        """Outcomes, and the processes of the grader."""
        return [verdict.outcome for verdict in self.grader.grade_batch(PAIRS)], self.grader.child_pids()


class Async:
    def __init__(self) -> None:
        self._sync = Sync()

    async def run(self) -> tuple[list[str], list[int]]:
        return self._sync.run()


@pytest.mark.slow
def test_the_same_verdicts_in_every_kind_of_actor_and_no_child_left(ray_address):
    import ray

    kinds = {"sync": (Sync, {}), "threaded": (Sync, {"max_concurrency": 4}), "async": (Async, {})}
    actors = {name: ray.remote(kind).options(num_cpus=0, **options).remote() for name, (kind, options) in kinds.items()}
    answers = {name: ray.get(actor.run.remote()) for name, actor in actors.items()}
    assert {name: outcomes for name, (outcomes, _) in answers.items()} == dict.fromkeys(kinds, EXPECTED)
    pids = [pid for _, children in answers.values() for pid in children]
    assert len(pids) == 6 and all(map(is_running, pids))
    for actor in actors.values():
        ray.kill(actor)
    deadline = time.monotonic() + 60
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline, "children outlive their actor"
        time.sleep(0.1)


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def group(*texts: str, gold: str = "72") -> RolloutGroup:
    problem = Problem(id="p0", prompt=({"role": "user", "content": "How many?"},), gold=gold)
    completions = tuple(Completion.of((1, 2), (-0.5, -0.5), text, "stop") for text in texts)
    return RolloutGroup(problem, (1,), completions, WeightId(0, 0))


def answer_of(written: RolloutGroup) -> Answer:
    return Answer(written.completions, written.weight_id, EngineRecord("engine", 0, None, 0))


def test_worker_scores_completions_in_their_order():
    groups = [group("<answer>72</answer>", "71"), group("<answer>1/2</answer>", gold="0.5")]
    worker = RewardWorker(Config(stages=[STAGE]))
    try:
        scored = [worker.score(replace(each, completions=()), answer_of(each)) for each in groups]
    finally:
        worker.close()
    assert [record for record, _ in scored] == [answer_of(each).record for each in groups]
    totals = [[breakdown.total for breakdown in rewards] for _, rewards in scored]
    assert totals == [[pytest.approx(2.4), 0.0], [pytest.approx(1.9)]]


def test_worker_refuses_an_unknown_reward_at_once():
    with pytest.raises(RewardError, match="formatt"):
        RewardWorker(
            Config(
                stages=[STAGE],
                reward=RewardConfig(functions=[RewardTerm(name="formatt")]),
            )
        )


def test_rewards_of_a_learner_have_a_solver_that_refuses():
    solved = learner_context(Config(stages=[STAGE], questions=QuestionsConfig(solver=SolverConfig())))
    assert solved.solve is not None
    with pytest.raises(RewardError, match="next_state must work without the solver"):
        solved.solve(group("a"), ["1 + 1?"])
    assert learner_context(Config(stages=[STAGE])).solve is None


def test_a_learner_waits_longer_for_graders_that_ask_a_solver():
    plain = Config(stages=[STAGE])
    assert plain.reward_wait_s == plain.limits.reward_s
    solved = Config(stages=[STAGE], questions=QuestionsConfig(solver=SolverConfig()))
    assert solved.reward_wait_s == solved.limits.reward_s + solved.limits.engine_s
