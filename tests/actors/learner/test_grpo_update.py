"""The update of a step on a tiny model, without Ray: what is learned from groups, and what became of each."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from copy import deepcopy
from functools import cache
from itertools import combinations_with_replacement
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from actors.learner import grpo_update
from actors.learner.grpo_update import Learned, learn_groups
from actors.learner.ranks import Ranks
from pipeline.config import GRPOConfig
from pipeline.runs.ledger import ledger_rows
from pipeline.runs.ledger_check import find_violations
from pipeline.training.grpo import grpo_loss
from pipeline.types import Completion, Problem, RewardBreakdown, RolloutGroup, WeightId
from tests.support.models import tiny_llama

MAX_LENGTH = 5


def group(*rollouts: tuple) -> RolloutGroup:
    """Rollouts: (tokens, reward, outcome). One of MAX_LENGTH tokens was cut off."""
    completions = tuple(
        Completion.of(
            tuple(range(9, 9 + n)), tuple(-5.0 - k / 8 for k in range(n)), "", "length" if n == MAX_LENGTH else "stop"
        )
        for n, *_ in rollouts
    )
    rewards = tuple(RewardBreakdown(total, {}, outcome) for _, total, outcome in rollouts)
    return RolloutGroup(Problem("p", (), ""), (1, 2, 3), completions, WeightId(1, 0), rewards)


RIGHT, WRONG, LATE, CUT = (3, 1.0, "correct"), (2, 0.0, "incorrect"), (2, 0.0, "timeout"), (5, 1.0, "correct")
GROUPS = [group(RIGHT, WRONG), group(RIGHT, (4, 1.0, "correct")), group(LATE, RIGHT), group(LATE, LATE)]


@cache
def fresh_model() -> Any:
    return tiny_llama().train()


def learn(groups, ranks: Any = None, max_tokens=64, **settings: Any) -> tuple[Learned, list[torch.Tensor]]:
    """The result of one step, and the gradients of its last update."""
    model = deepcopy(fresh_model())
    session: Any = SimpleNamespace(
        settings=GRPOConfig(**settings),
        config=SimpleNamespace(
            rollout=SimpleNamespace(max_completion_length=MAX_LENGTH, temperature=1.0, max_staleness=0),
            learner=SimpleNamespace(tokens_per_micro_batch=max_tokens),
        ),
        ranks=ranks or Ranks(),
        device=torch.device("cpu"),
        dtype=torch.float32,
        model=model,
        policy=SimpleNamespace(reference_policy=nullcontext),
        begin_update=lambda step: model.zero_grad(set_to_none=False),
        update_policy=lambda loss: 1.0,
    )
    model(torch.zeros(1, 1, dtype=torch.long)).logits.sum().backward()  # all gradients are there
    return learn_groups(session, groups, 0), [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize(
    ("settings", "uses"),
    [
        ({}, ["trained", "no_variance", "ungraded", "ungraded"]),
        ({"mask_ungraded": False}, ["trained", "no_variance", "trained", "no_variance"]),
        ({"beta": 0.1}, ["trained", "trained", "trained", "ungraded"]),  # a KL term learns from equal rewards too
        ({"entropy_coef": 0.1}, ["trained", "trained", "trained", "ungraded"]),
        ({"beta": 0.1, "algorithm": "dapo"}, ["trained", "no_variance", "ungraded", "ungraded"]),
        ({"algorithm": "reinforce_plus_plus"}, ["trained", "trained", "trained", "ungraded"]),
    ],
)
def test_every_group_was_trained_or_has_a_reason(settings, uses):
    assert learn(GROUPS, **settings)[0].uses == uses


@pytest.mark.parametrize("algorithm", [{}, {"algorithm": "rloo"}, {"algorithm": "reinforce_plus_plus"}])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mask_ungraded": False},
        {"beta": 0.1},
        {"entropy_coef": 0.1, "mask_truncated": True},
        {"drop_zero_variance_groups": True, "overlong_buffer_frac": 0.4},
        {"overlong_buffer_frac": 0.4, "mask_truncated": True},
    ],
)
def test_the_check_of_the_ledger_agrees_with_every_reason(algorithm, settings):
    each = [RIGHT, WRONG, LATE, CUT, (4, 0.5, "incorrect"), (3, 1.0 - 1e-9, "correct")]
    groups, settings = [group(*pair) for pair in combinations_with_replacement(each, 2)], algorithm | settings
    rows = ledger_rows(groups, learn(groups, **settings)[0].uses, "rl", 1, 0)
    config = {"grpo": GRPOConfig(**settings).model_dump()}
    found = find_violations(rows, {1: {"step": 1, "stage": "rl"}}, config, 1)
    assert [line for line in found if "dropped as" in line or "trained, but" in line] == []


def test_a_group_whose_only_signal_was_cut_off_says_so():
    groups = [group(CUT, CUT, (5, 0.0, "incorrect")), group(CUT, WRONG, RIGHT)]
    assert learn(groups, mask_truncated=True)[0].uses == ["truncated", "trained"]


def test_overlong_completions_are_punished_before_advantages():
    """A buffer of 2 of 5 tokens: lengths 3, 4, 5 cost 0, 0.5, 1. Equal rewards then differ, and teach."""
    groups = [group(RIGHT, (4, 1.0, "correct")), group(CUT, RIGHT)]
    learned, _ = learn(groups, overlong_buffer_frac=0.4)
    assert learned.uses == ["trained", "trained"]
    assert learned.metrics["overlong_penalty"] == (0.0 + 0.5 + 1.0 + 0.0) / 4
    dropped, _ = learn(groups, overlong_buffer_frac=0.4, drop_zero_variance_groups=True)
    assert dropped.uses == ["no_variance", "no_variance"]  # by the graded rewards
    assert "overlong_penalty" not in learn(groups)[0].metrics
    made_equal = [group((4, 1.0, "correct"), (3, 0.5, "incorrect")), GROUPS[0]]
    assert learn(made_equal, overlong_buffer_frac=0.4)[0].uses == ["no_variance", "trained"]


@pytest.fixture
def losses(monkeypatch) -> list[tuple[Any, ...]]:
    """Log-probabilities, old ones and weights of every call of the loss, at loss tokens."""
    calls: list[tuple[Any, ...]] = []

    def spy(settings, logprobs, old, ref, *, sequences, weights, **others):
        calls.append(tuple(each.detach()[sequences.mask] for each in (logprobs, old, weights)))
        return original(settings, logprobs, old, ref, sequences=sequences, weights=weights, **others)

    original = grpo_loss
    monkeypatch.setattr(grpo_update, "grpo_loss", spy)
    return calls


def test_the_old_policy_is_the_learner_and_weights_correct_from_the_sampler(losses):
    learned, _ = learn(GROUPS[:1], sampler_correction="token_truncate", sampler_ratio_max=1.5, mu=2)
    first, second = losses
    for _, old, weights in losses:
        torch.testing.assert_close(old, first[0])
        assert weights.equal(second[2])
    sampler = torch.tensor([-5.0, -5.125, -5.25, -5.0, -5.125])
    ratio = (first[0] - sampler).exp()
    torch.testing.assert_close(first[2], ratio.clamp(max=1.5))
    metrics, diff = learned.metrics, (first[0] - sampler).abs()
    assert metrics["sampler_logprob_diff"] == pytest.approx(diff.mean().item())
    assert metrics["sampler_logprob_diff_max"] == pytest.approx(diff.max().item())
    assert metrics["sampler_corrected_frac"] == pytest.approx((ratio > 1.5).float().mean().item())
    weights = first[2]
    assert metrics["sampler_ess_frac"] == pytest.approx((weights.sum() ** 2 / (5 * weights.square().sum())).item())


def test_the_old_policy_may_be_the_sampler(losses):
    ours, theirs = learn(GROUPS[:1])[0].metrics, learn(GROUPS[:1], old_policy="sampler")[0].metrics
    assert losses[1][1].tolist() == [-5.0, -5.125, -5.25, -5.0, -5.125]
    assert (losses[1][2] == 1).all()
    for name in ("sampler_logprob_diff", "sampler_logprob_diff_max"):  # the learner's at the start, either way
        assert ours[name] == theirs[name]
    assert ours["loss"] != theirs["loss"]


EVERY_PART = {"algorithm": "reinforce_plus_plus", "beta": 0.1, "entropy_coef": 0.1, "overlong_buffer_frac": 0.4}
EVERY_PART |= {"sampler_correction": "sequence_truncate"}


def check_same(one: Learned, other: Learned) -> None:
    assert one.metrics == pytest.approx(other.metrics, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("settings", [{"algorithm": "gspo"}, EVERY_PART], ids=["gspo", "every part"])
def test_micro_batches_leave_the_update_unchanged(settings):
    (whole, gradients), (parts, small) = learn(GROUPS, **settings), learn(GROUPS, max_tokens=8, **settings)
    check_same(whole, parts)
    torch.testing.assert_close(gradients, small, rtol=1e-4, atol=1e-6)


class MeetingRanks:
    """Workers that are threads: each waits for the other's numbers."""

    size = 2

    def __init__(self, rank: int, meet: Barrier, board: dict[int, list[Any]]) -> None:
        self._rank, self._meet, self._board = rank, meet, board

    def gather(self, items: list[Any]) -> list[Any]:
        self._board[self._rank] = items
        self._meet.wait()
        both = self._board[0] + self._board[1]
        self._meet.wait()
        return both

    def sum(self, values: list[float]) -> list[float]:
        both = self.gather(list(values))
        return [a + b for a, b in zip(both[: len(values)], both[len(values) :], strict=True)]


def test_two_workers_learn_what_one_learns():
    meet, board = Barrier(2, timeout=60), {}  # type: ignore[var-annotated]
    work = lambda rank: learn(GROUPS[2 * rank : 2 * rank + 2], MeetingRanks(rank, meet, board), **EVERY_PART)  # noqa: E731
    alone, gradients = learn(GROUPS, **EVERY_PART)
    with ThreadPoolExecutor(2) as pool:
        (first, own), (second, others) = pool.map(work, range(2))
    assert first.uses + second.uses == alone.uses
    check_same(first, alone)
    torch.testing.assert_close([a + b for a, b in zip(own, others, strict=True)], gradients, rtol=1e-4, atol=1e-6)
