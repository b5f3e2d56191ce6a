import math
from pathlib import Path
from typing import Any

import pytest
import torch

from actors.learner.ranks import Ranks
from actors.learner.updater import PolicyUpdater
from pipeline.config import SFTConfig, TrainerConfig, validate_config
from pipeline.errors import ModelError
from pipeline.rewards.history import RewardHistory
from pipeline.rewards.registry import RewardContext
from pipeline.types import Completion, Problem, RewardBreakdown, RolloutGroup, WeightId
from tests.support.models import tiny_llama
from tests.support.ranks import on_two_ranks


def test_a_worker_without_a_process_group_is_alone():
    ranks = Ranks()
    assert (ranks.rank, ranks.size, ranks.is_first) == (0, 1, True)
    assert ranks.share([1, 2, 3]) == [1, 2, 3]
    assert ranks.sum([1.5, 2]) == [1.5, 2]
    assert ranks.gather(["a"]) == ["a"]
    assert ranks.from_first(lambda: "made") == "made"
    ranks.barrier()


def test_a_rank_with_other_weights_is_named(monkeypatch):
    ranks = Ranks()
    ranks.check_equal("a", "weights")
    monkeypatch.setattr(ranks, "gather", lambda items: ["a", "a", "b"])
    with pytest.raises(ModelError, match=r"must have the same weights, got other ones on ranks \[2\] than on rank 0"):
        ranks.check_equal("a", "weights")


def norms_after_update(model: Any, rows: torch.Tensor, ranks: Ranks) -> tuple[float, torch.Tensor]:
    policy = PolicyUpdater(model, SFTConfig(learning_rate=1e-2), TrainerConfig(), ranks)
    policy.begin(1e-2)
    model(input_ids=rows, labels=rows).loss.mul(len(rows) / 4).backward()
    norm, _ = policy.update(1, 1)
    return norm, model.lm_head.weight.detach().clone()


def batch() -> torch.Tensor:
    return torch.arange(40).reshape(4, 10)


def scored_groups() -> list[RolloutGroup]:
    problem, whole = Problem("p", ({"role": "user", "content": "?"},), "1"), Completion.of((1,), (-0.5,), "1", "stop")
    rewards = [RewardBreakdown(n, {"correctness": float(n), "format": n / 8}, "correct") for n in range(4)]
    return [RolloutGroup(problem, (1,), (whole,), WeightId(0, 0), (reward,)) for reward in rewards]


def state_after(groups: list[RolloutGroup]) -> Any:
    """The state of the rewards after a step with these groups."""
    config = validate_config({"stages": [{"name": "rl", "kind": "grpo"}], "reward": {"normalize": "zscore"}})
    history = RewardHistory(config.reward, RewardContext(config, list), {})
    history.advance(groups)
    return history.state


def work() -> dict[str, Any]:
    ranks = Ranks()
    rank = ranks.rank
    ranks.barrier()
    norm, weights = norms_after_update(tiny_llama(), torch.stack(list(ranks.share(list(batch())))), ranks)
    model, rows = tiny_llama(), batch()
    policy = PolicyUpdater(model, SFTConfig(), TrainerConfig(), ranks)
    before = model.lm_head.weight.detach().clone()
    policy.begin(1e-2)
    (model(input_ids=rows, labels=rows).loss * (math.nan if rank == 1 else 1.0)).backward()
    skipped, _ = policy.update(1, 1)
    return {
        "share": ranks.share(list(range(6))),
        "sum": ranks.sum([rank + 1, 0.5]),
        "gathered": ranks.gather([f"{rank}a", f"{rank}b"]),
        "from_first": ranks.from_first(lambda: f"made by {rank}"),
        "to_first": [ranks.to_first(torch.tensor([rank, 5]), owner, torch.tensor([0, 0])) for owner in range(2)],
        "norm": norm,
        "weights": weights.sum().item(),
        "state": state_after(ranks.gather(list(ranks.share(scored_groups())))),
        "skipped": math.isnan(skipped) and torch.equal(model.lm_head.weight, before),
    }


@pytest.mark.slow
def test_two_workers_share_a_batch_and_agree_on_every_sum(tmp_path: Path):
    first, second = on_two_ranks(work, tmp_path / "store")
    assert [tensor.tolist() for tensor in first["to_first"]] == [[0, 5], [1, 5]]
    assert second["to_first"] == [None, None]
    assert (first["share"], second["share"]) == ([0, 1, 2], [3, 4, 5])
    for result in (first, second):
        assert result["sum"] == [3.0, 1.0]
        assert result["gathered"] == ["0a", "0b", "1a", "1b"]
        assert result["from_first"] == "made by 0"
        assert result["state"] == state_after(scored_groups())
        assert result["skipped"]  # only the second worker's gradient was NaN
    norm, weights = norms_after_update(tiny_llama(), batch(), Ranks())  # one worker with the whole batch
    assert first["norm"] == second["norm"] == pytest.approx(norm, rel=1e-5)
    assert first["weights"] == second["weights"] == pytest.approx(weights.sum().item(), rel=1e-5)
