"""The schedule of one stage: when it ends or is repeated, its learning rate, its evaluations, its scores.

Pure bookkeeping on the run's ``Progress``: no model, no actors, no clock.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from statistics import fmean
from typing import Literal

from pipeline.config import GRPOConfig, HeldOutConfig, PromotionConfig, SFTConfig
from pipeline.errors import TrainingError
from pipeline.runs.checkpoints import Progress
from pipeline.training.schedules import eval_steps, learning_rate

logger = logging.getLogger(__name__)
QUALITY = "validation/quality"
"""Metric: mean quality of the problems written in an evaluation."""


def stage_decision(
    rule: PromotionConfig, accuracies: Sequence[float], *, steps_left: bool, num_repeats: int
) -> Literal["continue", "end", "repeat"]:
    """Decide after an evaluation of the stage's level.

    Args:
        accuracies: all evaluations of this pass over the stage's steps, oldest first, at least one. They include
            the one before the first step.
        num_repeats: how often the stage was repeated before this pass.
    """
    reached = rule.threshold is not None and accuracies[-1] >= rule.threshold
    stalled = rule.patience is not None and _since_best(accuracies) >= rule.patience
    if steps_left and not reached and not stalled:
        return "continue"
    missed = rule.threshold is not None and not reached
    return "repeat" if missed and num_repeats < rule.max_repeats else "end"


@dataclass
class StageSchedule:
    """One stage's schedule. It reads and updates ``progress``, so a resumed stage continues where it was.

    A stage makes one pass over its steps. A promotion rule may end a pass early, or repeat it.
    """

    progress: Progress
    settings: SFTConfig | GRPOConfig
    num_steps: int
    """Steps of one pass."""
    held_out: HeldOutConfig
    promotion: PromotionConfig | None = None
    _scores: list[float | None] = field(default_factory=list, init=False, repr=False)
    """Since the last checkpoint. None: not finite, which is no score."""

    def is_over(self, level_accuracy: Callable[[], float]) -> bool:
        """True if the steps are done, or early stopping or the promotion rule ends the stage. Call once before a step.

        Args:
            level_accuracy: evaluates the weights as they are on held-out problems of the stage's level, in [0, 1].
                Called only when the promotion rule needs it. The result goes into ``progress``.
        """
        progress, patience = self.progress, self.held_out.early_stopping_patience
        if progress.ended_early:
            return True
        if patience and progress.eval_scores and _since_best(progress.eval_scores) >= patience:
            return True
        steps_left = self.pass_step < self.num_steps
        if self.promotion is None or progress.stage_done:
            return progress.stage_done or not steps_left
        if steps_left and not self._is_promotion_due(self.promotion):
            return False
        progress.level_accuracies.append(level_accuracy())
        if self.pass_step == 0:  # a stage takes steps even if its level is solved before the first
            return False
        return self._apply(self.promotion, steps_left)

    def learning_rate(self, stage_step: int) -> float:
        """Learning rate of a step of the stage, from 0. A repeated stage starts its schedule over."""
        return learning_rate(self.settings, stage_step - self.progress.pass_start, self.num_steps)

    @property
    def total_updates(self) -> int:
        """Optimizer updates of one pass. A step of GRPO makes ``mu``."""
        return self.num_steps * self._updates_per_step

    def updates_done(self, within_step: int) -> int:
        """Optimizer updates of this pass so far, of which ``within_step`` belong to the step under way."""
        return self.pass_step * self._updates_per_step + within_step

    def record_update(self, is_made: bool) -> None:
        """Record whether an optimizer update was made, or skipped because it was not finite.

        Raises:
            TrainingError: ``max_skipped_updates`` in a row were skipped.
        """
        self.progress.skipped_in_a_row = 0 if is_made else self.progress.skipped_in_a_row + 1
        if self.progress.skipped_in_a_row >= self.settings.max_skipped_updates:
            kind = self.settings.KIND
            raise TrainingError(
                f"stage {self.progress.stage} must have finite losses and gradients, got {kind}.max_skipped_updates="
                f"{self.settings.max_skipped_updates} updates in a row without, up to step {self.progress.step + 1}: "
                f"the weights were left as they were. Lower {kind}.learning_rate, or check the rewards and the model's "
                "own weights."
            )

    @property
    def is_evaluation_due(self) -> bool:
        """The step under way ends with an evaluation: one of ``total_eval_times``, or every ``every_steps``."""
        return self.pass_step + 1 in eval_steps(
            self.held_out.total_eval_times, self.num_steps, self.held_out.every_steps
        )

    def record_score(self, metrics: Mapping[str, float], score: float) -> bool:
        """Record how good the weights after a step are.

        Args:
            metrics: of the step, with ``eval_*`` if it was evaluated.
            score: higher is better. Used when no ``metric_for_best_model`` is set.

        Returns:
            True if the step has a score by ``metric_for_best_model``: its weights deserve a checkpoint.
        """
        if self.held_out.metric_for_best_model is None:
            self._scores.append(score if isfinite(score) else None)
            return False
        metric = self.held_out.metric_for_best_model
        value = metrics.get(QUALITY if metric == "quality" else f"eval_{metric}")
        if value is None:
            self._scores = []
        else:
            self._scores = [(value if self.held_out.higher_wins else -value) if isfinite(value) else None]
        self.progress.eval_scores += self._scores
        return self._scores not in ([], [None])

    def score_checkpoint(self) -> None:
        """Set ``progress.score`` of the checkpoint about to be written, from the steps since the last one.

        It is their mean score or, with a ``metric_for_best_model``, the score of the last step's evaluation, if any.
        Without a new step the old score stays.
        """
        if self._scores or self.held_out.metric_for_best_model:
            scores = [score for score in self._scores if score is not None]
            self.progress.score = fmean(scores) if scores else None
        self._scores = []

    @property
    def pass_step(self) -> int:
        """Steps of this pass that are done: the number, from 0, of the step under way."""
        return self.progress.stage_step - self.progress.pass_start

    @property
    def _updates_per_step(self) -> int:
        return self.settings.mu if isinstance(self.settings, GRPOConfig) else 1

    def _is_promotion_due(self, rule: PromotionConfig) -> bool:
        """Every ``every_steps``. A repeated stage starts from the evaluation that ended the pass before."""
        if self.pass_step == 0:
            return not self.progress.level_accuracies
        return self.pass_step % rule.every_steps == 0

    def _apply(self, rule: PromotionConfig, steps_left: bool) -> bool:
        progress, accuracies = self.progress, self.progress.level_accuracies
        decision = stage_decision(rule, accuracies, steps_left=steps_left, num_repeats=progress.num_repeats)
        logger.info("%s, step %d: accuracies %s: %s", progress.stage, self.pass_step, accuracies, decision)
        if decision == "repeat":
            progress.num_repeats += 1
            progress.pass_start = progress.stage_step
            progress.eval_scores = []
            progress.level_accuracies = accuracies[-1:]
        return decision == "end"


def _since_best(scores: Sequence[float | None]) -> int:
    """Evaluations since the first that was best; all of them if none has a score. An equal one is not better."""
    numbers = [score for score in scores if score is not None and isfinite(score)]
    return len(scores) - 1 - scores.index(max(numbers)) if numbers else len(scores)
