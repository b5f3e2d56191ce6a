"""Writes what happens in a stage: metrics rows, sampled completions, evaluations, spectra."""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from actors.learner.gauges import Gauges
from actors.learner.setup import StageSetup
from pipeline.config import GRPOConfig
from pipeline.curriculum.examples import StageExamples
from pipeline.files import append_jsonl, sync, write_json, write_jsonl
from pipeline.runs.checkpoints import Progress
from pipeline.runs.directory import RunDirectory
from pipeline.runs.ledger import LedgerRow, LedgerWriter
from pipeline.runs.metrics_log import MetricsWriter, truncate_ungraded, ungraded_path
from pipeline.runs.newest_completions import sync_newest, truncate_newest, write_newest
from pipeline.runs.notices import notify
from pipeline.runs.problem_record import write_problems
from pipeline.runs.rollout_record import sync_rollouts, truncate_rollouts
from pipeline.training.rollout_metrics import chosen_ungraded
from pipeline.training.spectral import SpectralReport

logger = logging.getLogger(__name__)
SMALL_FRAC = 0.5
"""A visible share of the update below this is warned about, once a stage."""


class StepRecorder:
    """Only rank 0 has one. Rows that an earlier attempt wrote for later steps are removed first."""

    def __init__(self, setup: StageSetup, run: RunDirectory, progress: Progress) -> None:
        self._run, self._stage = run, setup.stage
        self._replayed = setup.replayed
        self._works_ahead = setup.config.rollout.max_staleness > 0
        truncate_ungraded(run.path, progress.step)
        self._metrics = MetricsWriter(run.path, setup.config.tracking, progress.step)
        self._ledger = LedgerWriter(run.path, progress.step)
        truncate_rollouts(run.path, progress.step)
        truncate_newest(run.path, progress.step)
        self._samples_every_steps = setup.config.output.samples_every_steps
        self._keeps_newest = not setup.config.records_rollouts
        self._synced_step = progress.step
        self._uses: Counter[str] = Counter()
        """Groups of this step, by what became of them."""
        self._gauges = Gauges(run.path.name)
        settings = setup.stage.settings
        self._sampler_bound = settings.warn_sampler_diff_above if isinstance(settings, GRPOConfig) else None
        self._warnings: set[str] = set()

    def data(self, examples: StageExamples) -> None:
        """Record which of its problems the stage uses and how many, and warn if some are too long."""
        self._run.record_data(self._stage.name, examples.counts)
        if self._stage.kind == "grpo":
            write_problems(self._run.path, self._stage.name, [examples.problems, self._replayed])
        if examples.counts["num_tokens_left_out"]:
            logger.warning("stage %s: some examples are too long: %s", self._stage.name, examples.counts)
        if self._replayed and not examples.mixture.replayed:
            logger.warning("stage %s replays nothing: all of the replay buffer is too long", self._stage.name)

    def memory(self, points: dict[str, dict[str, float]]) -> None:
        """Record the highest memory figures of every point of the stage so far."""
        self._run.record_memory(self._stage.name, points)

    def step(self, progress: Progress, metrics: dict[str, Any], seconds: dict[str, float]) -> None:
        """Write one row of metrics.

        Args:
            metrics: with ``learner_tokens`` and, for GRPO, ``num_rollout_tokens``, which become rates.
            seconds: per phase of the step.
        """
        learner_tokens, rollout_tokens = metrics.pop("learner_tokens"), metrics.pop("num_rollout_tokens", None)
        row = {
            "step": progress.step,
            "stage": self._stage.name,
            "kind": self._stage.kind,
            "stage_step": progress.stage_step,
            "time": time.time(),
            **metrics,
            "learner_tokens_per_s": learner_tokens / seconds["learner_s"],
            **seconds,
        }
        if rollout_tokens is not None:
            rollout_tokens = metrics.get("sampled_tokens", rollout_tokens)
            # Engines that work ahead write while the learner does not wait for them.
            row["rollout_tokens_per_s"] = rollout_tokens / seconds["step_s" if self._works_ahead else "rollout_s"]
        if self._uses:
            row |= {"num_groups": self._uses.total(), "num_groups_trained": self._uses["trained"]}
            self._uses.clear()
        self._metrics.write(row)
        self._gauges.set(row)
        self._warn_of_rounding(row.get("visible_update_frac", 1.0))
        self._warn_of_sampler(row.get("sampler_logprob_diff", 0.0))

    def _warn_of_rounding(self, visible_frac: float) -> None:
        if visible_frac < SMALL_FRAC:
            self._warn_once(
                "rounding",
                f"{visible_frac:.1%} of the update so far survives rounding, in engines and in the learner's own "
                "forward passes. It adds up in the master weights; if it stays small, raise the learning rate",
            )

    def _warn_of_sampler(self, diff: float) -> None:
        bound = self._sampler_bound
        if bound is not None and not diff <= bound:
            self._warn_once(
                "sampler",
                f"sampler_logprob_diff is {diff:.3g}, above grpo.warn_sampler_diff_above={bound:g}: completions are "
                "not from the policy that learns from them. Set grpo.sampler_correction, lower rollout.max_staleness "
                "or grpo.learning_rate, or set model.dtype=float32",
            )

    def _warn_once(self, subject: str, text: str) -> None:
        if subject not in self._warnings:
            self._warnings.add(subject)
            notify(f"stage {self._stage.name}: {text}")

    def samples(self, rows: Sequence[dict[str, Any]], step: int) -> None:
        """Record all completions of a step, every ``output.samples_every_steps`` for good. Where rollouts are recorded,
        the newest ones are among them."""
        if self._keeps_newest:
            write_newest(self._run.path, rows, step)
        if step % self._samples_every_steps == 0:
            write_jsonl(self._run.samples / f"step_{step:06d}.jsonl", rows)

    def ungraded(self, rows: Sequence[dict[str, Any]]) -> None:
        """Record some of the completions that could not be graded."""
        if chosen := chosen_ungraded(rows):
            append_jsonl(ungraded_path(self._run.path), chosen)

    def ledger(self, rows: Sequence[LedgerRow]) -> None:
        """Record what became of all workers' rollout groups, before their step's row of metrics is written."""
        self._ledger.write(rows)
        self._uses.update(row.use for row in rows if row.use != "stage_ended")

    def spectra(self, report: SpectralReport, step: int) -> None:
        """Record the singular values of every adapter before and after a refactoring."""
        self._run.record_spectra(step, asdict(report))

    def answers(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        """Record every answer of an evaluation."""
        write_jsonl(self._run.samples / f"eval_{name}.jsonl", rows)

    def evaluation(self, name: str, step: int, summary: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
        """Record an evaluation between stages: its answers, then its summary."""
        self.answers(name, rows)
        write_json(self._run.evals / f"{name}.json", {"name": name, "step": step, **summary})

    def sync(self) -> None:
        """Wait until everything recorded so far is on the disk: the next checkpoint counts on it."""
        self._metrics.sync()
        self._ledger.sync()
        self._synced_step = sync_rollouts(self._run.path, self._synced_step)
        sync_newest(self._run.path)
        if (ungraded := ungraded_path(self._run.path)).exists():
            sync(ungraded)
        for directory in (self._run.metrics, self._run.samples, self._run.evals):
            sync(directory)

    def close(self) -> None:
        self._metrics.close()
