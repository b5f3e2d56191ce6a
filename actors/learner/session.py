"""State a learner worker keeps for one stage: built or restored here, and stepped by the loops."""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import ray.train
import torch

from actors.learner.engines import Engines
from actors.learner.held_out import HeldOutEvaluator
from actors.learner.models import load_stage_model
from actors.learner.ranks import Ranks
from actors.learner.recorder import StepRecorder
from actors.learner.restore import restore
from actors.learner.saver import StageSaver
from actors.learner.setup import StageSetup
from actors.learner.updater import PolicyUpdater
from actors.learner.writing import ProblemWriter
from actors.reward import learner_context, reward_context
from actors.weights import PackedWeights, Probe, pack_weights
from pipeline.config import SFTConfig
from pipeline.curriculum.examples import StageExamples, stage_examples
from pipeline.curriculum.schedule import StageSchedule
from pipeline.models.allocators import allocator_of
from pipeline.models.device import pick_device, torch_dtype
from pipeline.models.policy import merged_weights, weight_specs
from pipeline.models.rounding import rounding_seed
from pipeline.questions.filters import stage_keeper
from pipeline.rewards.history import RewardHistory
from pipeline.runs.checkpoints import load_checkpoint
from pipeline.runs.clock import PHASES, PhaseClock
from pipeline.runs.directory import RunDirectory
from pipeline.runs.logs import log_to_file
from pipeline.runs.memory_monitor import MemoryMonitor
from pipeline.seeds import derive_seed
from pipeline.training.batching import MicroBatch, TokenSequence
from pipeline.training.logprobs import text_logprobs
from pipeline.training.sft import solution_batches
from pipeline.training.spectral import due_steps

logger = logging.getLogger(__name__)


class LearnerSession:
    """Builds the parts of a stage, starts them from the newest complete checkpoint, and begins and ends its steps.

    It continues from a checkpoint of this stage. From one of an earlier stage it takes what this stage carries over.
    """

    def __init__(self, setup: StageSetup) -> None:
        self.config, self.stage, self._setup = setup.config, setup.stage, setup
        self.settings: Any = setup.stage.settings
        self.device, self.dtype = pick_device(self.config.model), torch_dtype(self.config.model.dtype)
        self.ranks = Ranks(self.device)
        self._run = RunDirectory(setup.run_path)
        log_to_file(self._run.path, f"learner_{self.ranks.rank}")
        torch.set_num_threads(self.config.learner.num_threads)
        torch.manual_seed(derive_seed(self.config.seed, "init"))
        self.examples = _stage_examples(setup)
        self.model, self.tokenizer = load_stage_model(setup, self.ranks)
        shards = self.config.learner.shard_optimizer
        self.policy = PolicyUpdater(self.model, self.stage.settings, self.config.trainer, self.ranks, shards)
        self._saver = StageSaver(setup, self._run, self.model, self.policy, self.examples)
        if self.ranks.is_first:
            self._run.lock_for_learner()
        self.engines = Engines(setup.actors, self.config, self.ranks)
        self.progress = restore(setup, self._run, self.policy, self.ranks)
        self.rewards = RewardHistory(self.config.reward, learner_context(self.config), self.progress.reward_state)
        self.schedule = StageSchedule(
            self.progress, self.stage.settings, self.examples.num_steps, self.config.eval, self.stage.promotion
        )
        threshold = self.config.learner.release_memory_above_frac
        self.memory = MemoryMonitor(allocator_of(self.device), self.stage.name, threshold)
        self.memory.at("model_loaded")
        self.clock = PhaseClock(at_end=self.memory.at)
        self._num_updates = self._num_skipped = 0
        self._occasional: dict[str, float] = {}  # metrics of the next row alone
        self.recorder = StepRecorder(setup, self._run, self.progress) if self.ranks.is_first else None
        if self.recorder:
            self.recorder.data(self.examples)
        self._writer = ProblemWriter(self.config, self.tokenizer, self.engines)
        self._held_out = HeldOutEvaluator(
            setup.held_out,
            self.tokenizer,
            self.config.eval,
            self.config.rollout.max_prompt_length,
            self.engines,
            self.ranks,
            self._writer,
            self.recorder,
        )

    def begin(self) -> None:
        """Give the engines the weights to start from. A new run evaluates them first."""
        _warn_if_short(self._setup, self.schedule.total_updates)
        if self.config.eval.at_start and self.progress.step == 0:
            self.publish_weights(0)
            self._evaluate("before")
        elif self.stage.kind == "grpo":
            self.publish_weights(self.progress.step)
        if self.progress.stage_step == 0 and self._setup.since:
            self._occasional = {"start_s": time.time() - self.progress.stepped_at}
        self.clock.lap(())  # starting up is not part of the first step
        self.memory.lap()

    def remaining_steps(self) -> Iterator[int]:
        """Steps of this stage that are left, counted from 0. Each seeds torch, so that a resumed run draws the same
        dropout masks."""
        while not self.schedule.is_over(self._level_accuracy):
            torch.manual_seed(derive_seed(self.config.seed, self.progress.step, self.ranks.rank))
            yield self.progress.stage_step

    def publish_weights(self, step: int) -> dict[str, float]:
        """Load the policy as it is after ``step`` steps into every engine. Returns metrics of its rounding."""
        seed = rounding_seed(self.config.seed, step)
        self.engines.publish(step, lambda: self._packed_weights(seed))
        return self._saver.updates.metrics(self.dtype, seed) if self.recorder else {}

    def _packed_weights(self, seed: int) -> PackedWeights:
        token_ids = self.examples.probe_tokens(self.config.rollout.max_prompt_length)
        probe = Probe(token_ids, text_logprobs(self.model, token_ids, self.dtype))
        return pack_weights(weight_specs(self.model, self.dtype), merged_weights(self.model, self.dtype, seed), probe)

    def begin_update(self, stage_step: int) -> None:
        """Drop old gradients and set the step's learning rate."""
        self.policy.begin(self.schedule.learning_rate(stage_step))

    def update_policy(self, loss: float) -> float:
        """Step the optimizer with the gradients since ``begin_update``, unless they or the loss are not finite.

        Args:
            loss: this worker's part.

        Returns:
            the gradient's norm before clipping; NaN if the step was skipped.

        Raises:
            TrainingError: too many steps in a row were skipped.
        """
        self._num_updates += 1
        self.memory.at("backward")
        norm, report = self.policy.update(
            self.schedule.updates_done(self._num_updates), self.schedule.total_updates, loss
        )
        self.schedule.record_update(math.isfinite(norm))
        self._num_skipped += math.isnan(norm)
        if report:
            self._occasional |= report.metrics()
            if self.recorder:
                self.recorder.spectra(report, self.progress.step + 1)
        return norm

    def evaluate_if_due(self) -> dict[str, float]:
        """Metrics ``eval_*`` of the weights after this step, if an evaluation is due here."""
        if not self.schedule.is_evaluation_due:
            return {}
        with self.clock("evaluation"):
            step = self.progress.step + 1
            metrics = self.publish_weights(step)
            metrics |= self._held_out.answer_metrics(f"{self.stage.name}_step_{step:06d}")
            if self.config.data.task_name and isinstance(self.settings, SFTConfig):
                metrics |= self._held_out.solution_metrics(self.model, self.settings, self.solution_batches, self.dtype)
            return metrics

    def solution_batches(self, sequences: Sequence[TokenSequence]) -> list[MicroBatch]:
        """Micro-batches of worked solutions, packed or padded as the stage's settings say."""
        limit = self.config.learner.tokens_per_micro_batch
        return solution_batches(sequences, self.settings, limit, self.device, self.dtype)

    def _level_accuracy(self) -> float:
        with self.clock("evaluation"):
            self.publish_weights(self.progress.step)
            return self._held_out.level_accuracy(self.stage.levels or ())

    def _evaluate(self, name: str) -> None:
        """Greedy accuracy on held-out problems of every level, before the run or after a stage."""
        at_end = self.config.eval.problems_per_level_at_end if self._setup.is_last and name != "before" else None
        started = time.time()
        self._held_out.evaluate(name, self.progress.step, at_end)
        self.progress.stepped_at += time.time() - started
        self.memory.at("evaluation")

    def end_step(self, metrics: dict[str, Any], score: float) -> None:
        """Count the step and write its metrics, and a checkpoint if one is due.

        Args:
            score: of the weights, higher is better. Used if no ``eval.metric_for_best_model`` is set.
        """
        self.progress.step += 1
        self.progress.stage_step += 1
        is_scored = self.schedule.record_score(metrics, score)
        metrics |= {"num_skipped_updates": self._num_skipped, **self._occasional}
        self._occasional, self._num_updates, self._num_skipped = {}, 0, 0
        self.progress.stepped_at = time.time()
        if self.stage.kind == "grpo":
            self.progress.reward_history.append(metrics["reward_mean"])
        self.progress.reward_state = dict(self.rewards.state)
        if self.recorder:
            metrics |= self.engines.sync_metrics()
            metrics |= {"learning_rate": self.policy.learning_rate, "learner_memory_gib": self.memory.peak_gib}
            metrics |= self.memory.lap()
            self.recorder.step(self.progress, metrics, self.clock.lap(PHASES[self.stage.kind]))
        if self.policy.agree(is_scored or self._saver.is_due(self.progress.stage_step)):
            self._checkpoint()

    def _checkpoint(self, written: Sequence[dict[str, Any]] | None = None) -> None:
        """Rank 0 writes a checkpoint; the others give it what they hold of the optimizer's state."""
        if not self.recorder:
            self.policy.optimizer_state()
            return
        self.recorder.sync()
        self._saver.checkpoint(self.schedule, self.clock, written)
        self.recorder.memory(self.memory.points)

    def finish(self) -> None:
        """Evaluate, save, and mark the stage done, in this order: a stage that is marked done is complete."""
        if self.config.eval.load_best_model_at_end:
            self._load_best()
        self.publish_weights(self.progress.step)
        self._evaluate(self.stage.name)
        written = self._write_problems() if self.recorder and self.stage.write else None
        if self.recorder:
            self._saver.finish_stage(self.progress, self.tokenizer, self.dtype)
        self._checkpoint(written)
        if self.recorder:
            self.recorder.close()
            self._run.unlock()
        ray.train.report({"step": self.progress.step, "stage": self.stage.name})

    def _write_problems(self) -> list[dict[str, Any]]:
        """Training data for later stages: every problem that was written, those that are kept marked."""
        assert self.stage.write is not None
        teacher = self.config.questions.teacher if self.stage.write.by == "teacher" else None
        return _judged(self._setup, self._writer.write(self._setup.tasks, f"write {self.stage.name}", teacher))

    def _load_best(self) -> None:
        best = self.ranks.from_first(lambda: self._run.checkpoints.best(self.stage.name))
        if best is None:
            return logger.warning("stage %s was never scored: it ends with its last weights", self.stage.name)
        checkpoint = load_checkpoint(best)
        logger.info("stage %s ends with its best weights, of step %d", self.stage.name, checkpoint.progress.step)
        self.policy.restore(checkpoint, with_reference=False)
        self.engines.start_attempt()  # the engines hold other weights of this very step


def _warn_if_short(setup: StageSetup, total_updates: int) -> None:
    trainer = setup.config.trainer
    if trainer.name == "SpectralRefactor" and not due_steps(trainer, total_updates):
        logger.warning("stage %s is too short for spectral refactoring: none is due", setup.stage.name)


def _judged(setup: StageSetup, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of problems that a stage wrote, with names, those that are kept marked."""
    keeper = stage_keeper(setup.config, reward_context(setup.config).training_problems(), setup.held_out)
    named = [row | {"id": f"{setup.stage.name}-{index:06d}"} for index, row in enumerate(rows)]  # tasks may repeat
    judged = [keeper.judged(row) for row in named]
    num_kept = sum(row["is_kept"] for row in judged)
    logger.info("stage %s wrote %d problems and keeps %d", setup.stage.name, len(judged), num_kept)
    return judged


def _stage_examples(setup: StageSetup) -> StageExamples:
    return stage_examples(
        setup.stage,
        setup.problems,
        setup.replayed,
        setup.tokens,
        max_prompt_length=setup.config.rollout.max_prompt_length,
        seed=setup.config.seed,
        best_rates={item.problem_id: item.best_rate for item in setup.buffer.items} if setup.buffer else None,
    )
