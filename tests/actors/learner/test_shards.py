"""Two workers that share the optimizer's moments train as two that do not, and as one."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from actors.learner.ranks import Ranks
from actors.learner.shards import local_part, sharded_adamw
from actors.learner.updater import PolicyUpdater
from pipeline.config import CarryConfig, SFTConfig, TrainerConfig
from pipeline.errors import ModelError
from pipeline.models.policy import snapshot, trainable_tensors
from pipeline.runs.checkpoints import CheckpointStore, Progress, load_checkpoint
from tests.support.ranks import on_two_ranks

SETTINGS = SFTConfig(learning_rate=1e-2, weight_decay=0.1, max_grad_norm=0.5)
STEPS, HALF = 6, 3
SIZES = [88, 128, 88, 8, 8]
"""Of the trained tensors: embedding, hidden, head, and the norm's weight and bias."""
HELD = [{1, 3, 4}, {0, 2}]
"""Which of them each worker has. Matrices decay and come first: 128, and 88. Then 88 more go where 88 are, and the norm
where 128 are."""


class TinyModel(nn.Module):
    """Predicts the next of 11 tokens."""

    def __init__(self, frozen: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.hidden = nn.Embedding(11, 8), nn.Linear(8, 16, bias=False)
        self.head, self.norm = nn.Linear(8, 11, bias=False), nn.LayerNorm(8)
        self.down = nn.Parameter(torch.full((8, 16), frozen), requires_grad=False)

    def forward(self, rows: Tensor) -> Tensor:
        inner = self.hidden(self.embedding(rows)).relu()[..., :8]
        logits = self.head(self.norm(inner))
        return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), rows[:, 1:].flatten())


def updater(ranks: Ranks, *, sharded: bool, frozen: float = 0.0) -> PolicyUpdater:
    return PolicyUpdater(TinyModel(frozen), SETTINGS, TrainerConfig(), ranks, sharded)


def train(policy: PolicyUpdater, ranks: Ranks, steps: Iterable[int], factor: float = 1.0) -> list[list[float]]:
    """Loss and gradient norm of each step on its eight rows.

    Args:
        factor: of this worker's loss.
    """
    curve = []
    for number in steps:
        rows = torch.randint(11, (8, 6), generator=torch.Generator().manual_seed(number))
        share = rows[ranks.rank * 8 // ranks.size : (ranks.rank + 1) * 8 // ranks.size]
        policy.begin(1e-2 / (1 + number))
        loss = policy.model(share) / ranks.size * factor
        loss.backward()
        norm, _ = policy.update(number + 1, STEPS, loss.item())
        curve.append([*ranks.sum([loss.item()]), norm])
    return curve


def save(policy: PolicyUpdater, path: Path, step: int, ranks: Ranks) -> None:
    state = policy.optimizer_state()
    if ranks.is_first:
        CheckpointStore(path).save(Progress("sft", step, step), snapshot(policy.model), state, None)
    ranks.barrier()


def resumed(path: Path, ranks: Ranks, *, sharded: bool) -> PolicyUpdater:
    policy = updater(ranks, sharded=sharded)
    policy.restore(load_checkpoint(path / f"step_{HALF:06d}"))
    return policy


def held(policy: PolicyUpdater) -> dict[int, int]:
    """Bytes of this worker's moments by the index of the parameter."""
    state = local_part(policy._optimizer).state
    own = {i: state[p] for i, p in enumerate(trainable_tensors(policy.model).values()) if p in state}
    return {index: moments["exp_avg"].nbytes + moments["exp_avg_sq"].nbytes for index, moments in own.items()}


def two_workers(root: Path) -> dict[str, Any]:
    """All that two workers do, on each of them. Checkpoints: ``one`` is there, ``whole`` and ``parts`` are made."""
    ranks = Ranks()
    whole, parts = updater(ranks, sharded=False), updater(ranks, sharded=True, frozen=ranks.rank)
    curves = {"whole": train(whole, ranks, range(HALF)), "parts": train(parts, ranks, range(HALF))}
    save(whole, root / "whole", HALF, ranks)
    save(parts, root / "parts", HALF, ranks)
    skipped = train(parts, ranks, [HALF], factor=math.nan if ranks.rank == 1 else 1.0)
    curves["whole"] += train(whole, ranks, range(HALF, STEPS))
    curves["parts"] += train(parts, ranks, range(HALF, STEPS))
    save(parts, root / "parts", STEPS, ranks)
    weights = {"whole": snapshot(whole.model), "parts": snapshot(parts.model)}
    for source in ("one", "whole", "parts"):
        for sharded in (False, True):
            policy = resumed(root / source, ranks, sharded=sharded)
            train(policy, ranks, range(HALF, STEPS))
            weights[f"{source}, {'parts' if sharded else 'whole'}"] = snapshot(policy.model)
    carried = updater(ranks, sharded=True)
    carried.carry_over(load_checkpoint(root / "parts" / f"step_{STEPS:06d}"), CarryConfig(optimizer=True))
    lone = PolicyUpdater(nn.Linear(2, 1, bias=False), SETTINGS, TrainerConfig(), ranks, True)
    lone.begin(1e-2)
    lone.update(1, 1)
    held_by = {"lone": held(lone), "whole": held(whole), "parts": held(parts), "carried": held(carried)}
    return {
        "curves": curves,
        "weights": weights,
        "held": held_by,
        "skipped": skipped,
        "frozen": dict(parts.model.named_parameters())["down"][0, 0].item(),
        "agreed": (parts.agree(ranks.rank == 0), parts.agree(ranks.rank == 1), whole.agree(ranks.rank == 1)),
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def one(root) -> tuple[list[list[float]], dict[str, Tensor]]:
    """One worker's curve and weights. Halfway it leaves the checkpoint ``one``."""
    policy = updater(Ranks(), sharded=True)  # alone it has nothing to share
    curve = train(policy, Ranks(), range(HALF))
    save(policy, root / "one", HALF, Ranks())
    return curve + train(policy, Ranks(), range(HALF, STEPS)), snapshot(policy.model)


@pytest.fixture(scope="module")
def two(root, one) -> list[dict[str, Any]]:
    return on_two_ranks(two_workers, root / "store", root)


def is_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
class TestTwoWorkers:
    def test_they_train_as_two_that_share_nothing_to_the_last_bit(self, two):
        for worker in two:
            assert worker["curves"]["parts"] == worker["curves"]["whole"] == two[0]["curves"]["parts"]
            assert is_same(worker["weights"]["parts"], two[0]["weights"]["whole"])

    def test_they_train_as_one(self, one, two):
        curve, weights = one
        assert curve[0][1] > SETTINGS.max_grad_norm  # it was clipped
        torch.testing.assert_close(torch.tensor(two[0]["curves"]["parts"]), torch.tensor(curve), rtol=1e-4, atol=0)
        torch.testing.assert_close(two[0]["weights"]["parts"], weights, rtol=1e-4, atol=1e-6)

    def test_each_has_the_moments_of_its_part_only(self, two):
        for worker, own in zip(two, HELD, strict=True):
            assert worker["held"]["parts"] == worker["held"]["carried"] == {index: 8 * SIZES[index] for index in own}
            assert worker["held"]["whole"] == {index: 8 * size for index, size in enumerate(SIZES)}

    def test_one_may_have_nothing(self, two):
        assert [worker["held"]["lone"] for worker in two] == [{0: 2 * 8}, {}]

    @pytest.mark.parametrize("source", ["whole", "parts"])
    @pytest.mark.parametrize("then", ["whole", "parts"])
    def test_a_run_that_is_interrupted_ends_the_same_sharded_or_not(self, source, then, two):
        for worker in two:
            assert is_same(worker["weights"][f"{source}, {then}"], two[0]["weights"]["whole"])

    def test_a_checkpoint_is_the_same_file_sharded_or_not(self, root, two):
        whole, parts = (root / name / f"step_{HALF:06d}" for name in ("whole", "parts"))
        for name in ("policy.safetensors", "progress.json"):
            assert (whole / name).read_bytes() == (parts / name).read_bytes()
        ours, theirs = (load_checkpoint(path).optimizer for path in (parts, whole))
        assert ours["param_groups"] == theirs["param_groups"]
        assert list(ours["state"]) == list(theirs["state"]) == list(range(len(SIZES)))
        for state, other in zip(ours["state"].values(), theirs["state"].values(), strict=True):
            assert list(state) == list(other) and is_same(state, other)

    def test_one_worker_s_checkpoint_is_continued_by_two_and_theirs_by_one(self, root, one, two):
        assert is_same(two[0]["weights"]["one, parts"], two[0]["weights"]["one, whole"])
        torch.testing.assert_close(two[0]["weights"]["one, parts"], one[1], rtol=1e-4, atol=1e-6)
        alone = resumed(root / "parts", Ranks(), sharded=False)
        train(alone, Ranks(), range(HALF, STEPS))
        torch.testing.assert_close(snapshot(alone.model), one[1], rtol=1e-4, atol=1e-6)

    def test_both_skip_an_update_that_is_not_finite_on_one(self, two):
        assert all(math.isnan(worker["skipped"][0][1]) for worker in two)  # and the curves above went on as if without

    def test_frozen_weights_are_not_sent(self, two):
        assert [worker["frozen"] for worker in two] == [0.0, 1.0]

    def test_rank_0_says_when_a_checkpoint_is_due_if_all_must_take_part(self, two):
        assert [worker["agreed"] for worker in two] == [(True, False, False), (True, False, True)]


def test_weights_of_several_precisions_are_refused():
    weights = [nn.Parameter(torch.zeros(2, dtype=dtype)) for dtype in (torch.float32, torch.bfloat16)]
    with pytest.raises(ModelError, match=r"must be false .* precision, got torch\.bfloat16, torch\.float32"):
        sharded_adamw([{"params": weights}])
