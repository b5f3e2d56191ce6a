"""The policy and its updates: optimizer, gradient sum, clipping, spectral refactoring, reference policy."""

import logging
import math
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from actors.learner.ranks import Ranks
from actors.learner.shards import gather_moments, local_part, sharded_adamw
from pipeline.config import CarryConfig, OptimizerConfig, TrainerConfig
from pipeline.errors import CheckpointError
from pipeline.models.policy import load_trainable, snapshot, swapped_in, trainable_tensors
from pipeline.runs.checkpoints import Checkpoint
from pipeline.training.optimizer import adamw, load_moments, moments
from pipeline.training.spectral import SpectralRefactorer, SpectralReport

logger = logging.getLogger(__name__)


class PolicyUpdater:
    """Updates the trainable tensors of a model. Gradients are accumulated by the caller's ``backward`` calls.

    Args:
        model: the policy, on the learner's device.
        settings: AdamW and gradient clipping.
        trainer: refactors LoRA adapters after an update, if configured.
        ranks: the workers that gradients are summed over.
        shard_optimizer: each worker keeps only the moments of its share of the tensors.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: OptimizerConfig,
        trainer: TrainerConfig,
        ranks: Ranks,
        shard_optimizer: bool = False,
    ) -> None:
        self.model = model
        self._ranks = ranks
        self._max_grad_norm = settings.max_grad_norm
        tensors = trainable_tensors(model)
        self._parameters = list(tensors.values())
        self._is_sharded = shard_optimizer and ranks.size > 1
        make = sharded_adamw if self._is_sharded else torch.optim.AdamW
        self._optimizer = adamw(model, tensors, settings, make)
        self._refactorer: SpectralRefactorer | None = None
        if trainer.name == "SpectralRefactor":
            self._refactorer = SpectralRefactorer(trainer, tensors, self._optimizer)
        self.reference: dict[str, Tensor] | None = None
        """Weights of the reference policy; None before the first snapshot."""

    def begin(self, learning_rate: float) -> None:
        """Drop old gradients and set the learning rate of the next update."""
        self._optimizer.zero_grad(set_to_none=True)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate

    def update(self, num_updates: int, total_updates: int, loss: float = 0.0) -> tuple[float, SpectralReport | None]:
        """Sum gradients over workers, clip them, and step; then refactor adapters if that is due.

        The step is skipped if the loss or the gradient's norm is not finite. Both are sums over workers, so that all
        workers skip it or none does.

        Args:
            num_updates: updates of this pass over the stage, this one included.
            total_updates: all updates of the pass.
            loss: this worker's part.

        Returns:
            the gradient's L2 norm before clipping, NaN if the step was skipped; and the report of a refactoring.
        """
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            self._ranks.sum_in_place(parameter.grad)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._max_grad_norm).item()
        (total_loss,) = self._ranks.sum([loss])
        if math.isfinite(norm) and math.isfinite(total_loss):
            self._optimizer.step()
        else:
            logger.warning("update skipped: loss %s and gradient norm %s must be finite", total_loss, norm)
            norm = math.nan
        report = self._refactorer.after_step(num_updates, total_updates) if self._refactorer else None
        self._optimizer.zero_grad(set_to_none=True)  # frees them while completions and checkpoints are written
        return norm, report

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last update."""
        return float(self._optimizer.param_groups[0]["lr"])

    def snapshot_reference(self) -> None:
        """From here on the reference policy is the policy as it is now."""
        self.reference = snapshot(self.model)

    def reference_policy(self) -> AbstractContextManager[None]:
        """Within the block the model is the reference policy."""
        if self.reference is None:
            raise CheckpointError(
                "the checkpoint has no reference policy, because its stage began with beta 0. Set grpo.beta=0."
            )
        return swapped_in(self.model, self.reference)

    def agree(self, is_due: bool) -> bool:
        """True if a checkpoint is due. Rank 0 decides for all if all must take part in ``optimizer_state``."""
        return self._ranks.from_first(lambda: is_due) if self._is_sharded else is_due

    def optimizer_state(self) -> dict[str, Any]:
        """The state for a checkpoint, in the same form however many workers hold it. If it is sharded, all workers must
        call this, and rank 0 alone gets the moments."""
        groups = [{**group, "params": len(group["params"])} for group in self._optimizer.param_groups]
        state = moments(local_part(self._optimizer), self._parameters)
        if self._is_sharded:
            state = gather_moments(state, self._parameters, self._ranks)
        return {"state": state, "param_groups": groups}

    def restore(self, checkpoint: Checkpoint, *, with_reference: bool = True) -> None:
        """Take weights and the optimizer's moments from a checkpoint of the same stage and, by default, the reference
        policy. Betas and weight decay may have changed since: they are those of the settings."""
        load_trainable(self.model, checkpoint.tensors)
        load_moments(local_part(self._optimizer), self._parameters, checkpoint.optimizer["state"])
        if with_reference and checkpoint.reference is not None:
            own = trainable_tensors(self.model)
            self.reference = {name: tensor.to(own[name].device) for name, tensor in checkpoint.reference.items()}

    def carry_over(self, checkpoint: Checkpoint, carry: CarryConfig) -> None:
        """Take what a new stage carries over from the one before. Of the optimizer, only the moments."""
        if carry.weights:
            load_trainable(self.model, checkpoint.tensors)
        if carry.optimizer:
            load_moments(local_part(self._optimizer), self._parameters, checkpoint.optimizer["state"])
