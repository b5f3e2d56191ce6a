"""The GRPO loop around its maths, with everything else replaced: iterations, references, metrics."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from actors.learner import grpo_loop, grpo_update
from actors.learner.ranks import Ranks
from pipeline.config import GRPOConfig, HeldOutConfig, RewardConfig
from pipeline.curriculum.schedule import StageSchedule
from pipeline.runs.checkpoints import Progress
from pipeline.training.rollout_metrics import RolloutSummary, combined_metrics
from pipeline.types import Completion, Problem, RewardBreakdown, RolloutGroup, WeightId


class FakeSession:
    """Steps through a stage whose passes start at the given steps."""

    def __init__(self, settings: GRPOConfig, pass_starts: dict[int, int], num_steps: int) -> None:
        self.settings, self.num_steps, self._pass_starts = settings, num_steps, pass_starts
        self.progress, self.ranks = Progress("rl"), Ranks()
        self.schedule = StageSchedule(self.progress, settings, num_steps, HeldOutConfig())
        self.config = SimpleNamespace(seed=0)
        self.examples = SimpleNamespace(batch=lambda step: [])
        self.engines = SimpleNamespace(collect=lambda *_: [])
        self.policy = SimpleNamespace(snapshot_reference=lambda: self.references.append(self.progress.stage_step))
        self.rewards = SimpleNamespace(state={})
        self.references: list[int] = []
        self.rows: list[dict[str, Any]] = []
        self.scores: list[float] = []

    def remaining_steps(self) -> Any:
        for step in range(self.num_steps):
            self.progress.pass_start = self._pass_starts.get(step, self.progress.pass_start)
            yield step

    def clock(self, phase: str) -> Any:
        return nullcontext()

    def begin(self) -> None: ...

    finish = begin

    def publish_weights(self, step: int) -> dict[str, float]:
        return {}

    evaluate_if_due = dict

    def end_step(self, metrics: dict[str, Any], score: float) -> None:
        self.rows.append(metrics)
        self.scores.append(score)
        self.progress.step += 1
        self.progress.stage_step += 1


def run(monkeypatch: pytest.MonkeyPatch, session: FakeSession, recorded: dict[str, float] | None = None) -> None:
    monkeypatch.setattr(grpo_loop, "LearnerSession", lambda setup: session)
    rollouts = SimpleNamespace(groups=[], metrics={})
    monkeypatch.setattr(
        grpo_loop, "rollouts_of", lambda session: SimpleNamespace(take=lambda step: rollouts, left=list)
    )
    monkeypatch.setattr(grpo_loop, "learn_groups", lambda *_: grpo_update.Learned({}, []))
    monkeypatch.setattr(grpo_loop, "_record_uses", lambda *_: None)
    monkeypatch.setattr(grpo_loop, "_record_groups", lambda *_: dict(recorded or {"reward_mean": 0.0}))
    grpo_loop.grpo_loop(SimpleNamespace(run_path=None))  # type: ignore[arg-type]


def test_a_repeated_stage_starts_its_iterations_and_its_reference_over(monkeypatch):
    """Iterations of two steps. The first pass was cut short after three, the second began with the fourth step."""
    session = FakeSession(GRPOConfig(num_steps=2, num_iterations=2, beta=0.1), {3: 3}, num_steps=7)
    run(monkeypatch, session)
    assert [row["iteration"] for row in session.rows] == [1, 1, 2, 1, 1, 2, 2]
    assert session.references == [0, 2, 3, 5]


def breakdown(total: float, **parts: float) -> RewardBreakdown:
    return RewardBreakdown(total, parts, "correct")


@pytest.mark.parametrize(("normalize", "score"), [("zscore", (0.0 + 0.75) / 2), (None, (-1.0 + 2.0) / 2)])
def test_where_rewards_are_normalised_a_step_is_scored_by_their_raw_values(monkeypatch, normalize, score):
    """Z-scores are relative to the policy's own past: their mean says nothing about its progress."""
    functions = [{"name": "checked", "gate": True}, {"name": "novel", "weight": 3.0}]
    reward = RewardConfig.model_validate({"functions": functions, "normalize": normalize})
    rewards = (breakdown(-1.0, checked=0.0, novel=1.0), breakdown(2.0, checked=1.0, novel=2 / 3))
    completion = Completion.of((1,), (-0.5,), "")
    group = RolloutGroup(Problem("p", (), ""), (1,), (completion,) * 2, WeightId(0, 0), rewards)
    session = FakeSession(GRPOConfig(num_steps=1), {}, num_steps=1)
    session.config = SimpleNamespace(seed=0, reward=reward)
    terms = reward.functions if normalize else None
    recorded = combined_metrics([RolloutSummary.of([group], [False], terms)], 0)
    run(monkeypatch, session, recorded)
    assert session.scores == [pytest.approx(score)]


def test_without_a_kl_term_there_is_no_reference(monkeypatch):
    session = FakeSession(GRPOConfig(num_steps=2), {}, num_steps=3)
    run(monkeypatch, session)
    assert session.references == []


FIRST_PASS = {"first_tokens": 4, "sampler_diff": 1.0, "weights": 3.0, "weight_squares": 3.0, "corrected": 1}


def metrics(**settings: Any) -> dict[str, float]:
    """Metrics of two passes over 4 tokens; three weights of 1 and one of 0."""
    session: Any = SimpleNamespace(settings=GRPOConfig.model_validate({"mu": 2, **settings}), ranks=Ranks())
    totals = grpo_update._Totals(loss=2.0, kl=2.0, clipped=1.0, entropy=4.0, tokens=8.0)
    totals.add(**{name: torch.tensor(value) for name, value in FIRST_PASS.items()})
    empty = grpo_update._Totals(learner_tokens=5.0)
    assert grpo_update._metrics(session, empty, 0.0) == {"learner_tokens": 5.0}
    return grpo_update._metrics(session, totals, 0.75)


def test_what_was_not_measured_is_absent():
    """Nothing was learned from (above), there is no KL term, or no correction."""
    means = {"loss": 1.0, "clip_frac": 0.125, "entropy": 0.5, "learner_tokens": 0.0}
    means |= {"sampler_logprob_diff": 0.25, "sampler_logprob_diff_max": 0.75}
    assert metrics(beta=0.0) == means
    assert metrics(beta=0.1) == means | {"kl": 0.25}
    corrected = {"sampler_corrected_frac": 0.25, "sampler_ess_frac": 0.75}  # 3^2 / (4 x 3)
    assert metrics(sampler_correction="token_mask") == means | corrected
