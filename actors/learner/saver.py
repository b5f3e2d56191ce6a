"""Saves a stage: checkpoints when they are due, and the run's final model."""

import logging
import time
from collections.abc import Sequence
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from actors.learner.setup import StageSetup
from actors.learner.updater import PolicyUpdater
from pipeline.curriculum.choices import best_rates
from pipeline.curriculum.examples import StageExamples
from pipeline.curriculum.schedule import StageSchedule
from pipeline.files import whole_directory
from pipeline.models.memory.attach import memory_of
from pipeline.models.policy import save_adapter, save_final_model, saved_tensors, snapshot, weights_digest
from pipeline.models.rounding import UpdateSample, rounding_seed
from pipeline.runs.checkpoints import Progress, memory_file
from pipeline.runs.clock import PhaseClock
from pipeline.runs.directory import RunDirectory

logger = logging.getLogger(__name__)


class StageSaver:
    """Writes to a run directory. Only rank 0 calls it.

    It must be built before the policy is trained or restored: adapters that start from PiSSA are saved relative to
    their start.
    """

    def __init__(
        self, setup: StageSetup, run: RunDirectory, model: nn.Module, policy: PolicyUpdater, examples: StageExamples
    ) -> None:
        self._setup, self._run, self._model, self._policy, self._examples = setup, run, model, policy, examples
        lora = setup.config.model.lora
        self._initial_adapters = snapshot(model) if lora is not None and lora.init == "pissa" else None
        self.updates = UpdateSample(model)
        """Measures what rounding hides of all updates since the model was loaded."""
        memory = memory_of(model)
        self._memory = memory.metadata if memory else None
        self._last_time = time.monotonic()

    def is_due(self, stage_step: int) -> bool:
        """A checkpoint is due after so many steps or minutes."""
        due = self._setup.config.checkpoint
        minutes = (time.monotonic() - self._last_time) / 60
        return stage_step % due.every_steps == 0 or minutes >= due.every_minutes

    def checkpoint(
        self, schedule: StageSchedule, clock: PhaseClock, written: Sequence[dict[str, Any]] | None = None
    ) -> None:
        """Write a checkpoint, and delete those that are no longer kept.

        Args:
            written: problems that were written at the stage's end.
        """
        with clock("checkpoint"):
            schedule.score_checkpoint()
            self._run.checkpoints.save(
                schedule.progress,
                saved_tensors(self._model),
                self._policy.optimizer_state(),
                self._policy.reference,
                self._replay_state(schedule.progress),
                written,
                self._memory,
            )
            self._run.checkpoints.prune(self._setup.config.checkpoint.keep_last)
        self._last_time = time.monotonic()

    def _replay_state(self, progress: Progress) -> dict[str, Any] | None:
        """State for later stages to replay from: the buffer, and the stage's own problems trained on so far."""
        if self._setup.config.curriculum is None:
            return None
        buffer = self._setup.buffer
        trained = self._examples.trained_until(progress.stage_step, best_rates(progress.choices))
        return {"buffer": buffer and buffer.to_state(), "trained": trained}

    def finish_stage(self, progress: Progress, tokenizer: Any, dtype: torch.dtype) -> None:
        """Mark the stage done. The last stage of a run saves the final model first and, under LoRA, its adapter, or the
        explicit memory alone."""
        if self._setup.is_last and self._setup.config.output.save_final_model:
            self._save_final(progress, tokenizer, dtype)
        progress.stage_done = True
        progress.ended_with = weights_digest(self._model)

    def _save_final(self, progress: Progress, tokenizer: Any, dtype: torch.dtype) -> None:
        if self._memory:
            with whole_directory(self._run.final_memory) as hidden:
                save_file(saved_tensors(self._model), hidden / memory_file(progress.step), self._memory)
            return
        seed = rounding_seed(self._setup.config.seed, progress.step)
        rounding = self.updates.record(dtype, seed)
        logger.info("final model: %s", rounding)
        with whole_directory(self._run.final_model) as hidden:
            save_final_model(self._model, tokenizer, hidden, dtype, seed, rounding)
        if self._setup.config.model.lora:
            with whole_directory(self._run.final_adapter) as hidden:
                save_adapter(self._model, self._setup.config.model, hidden, self._initial_adapters)
