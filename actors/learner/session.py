"""What a learner worker stands on: its model and optimizer, its ranks, checkpoints, metrics and actors."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, TypeVar, cast

import ray
import ray.train
import torch
import torch.distributed as dist

from actors.learner.gauges import Gauges
from actors.learner.held_out import evaluate
from actors.rollout import Decoding
from actors.weights import pack_weights
from pipeline.config import Config, SFTConfig
from pipeline.curriculum.examples import shortened, stage_examples
from pipeline.curriculum.replay import ReplayBuffer
from pipeline.curriculum.stages import StageSpec, stage_decision
from pipeline.data.selection import first_per_level
from pipeline.data.table import ProblemTable
from pipeline.data.tokens import TokenTable, encode_problems
from pipeline.errors import CheckpointError, DataError
from pipeline.files import append_jsonl, write_json, write_jsonl
from pipeline.models.attention import use_causal_sdpa
from pipeline.models.hub import resolve_model
from pipeline.models.policy import (
    load_policy,
    load_trainable,
    merged_weights,
    peak_memory_gib,
    pick_device,
    save_adapter,
    save_final_model,
    snapshot,
    swapped_in,
    torch_dtype,
    trainable_tensors,
    weights_digest,
)
from pipeline.models.tokenizer import load_tokenizer, prompt_token_ids
from pipeline.runs.checkpoints import Checkpoint, Progress, load_checkpoint
from pipeline.runs.clock import PhaseClock
from pipeline.runs.directory import RunDirectory
from pipeline.runs.logs import log_to_file
from pipeline.runs.metrics_log import MetricsWriter, truncate_metrics, truncate_ungraded, ungraded_path
from pipeline.seeds import derive_seed
from pipeline.training.batching import COMPILED_MULTIPLE, MicroBatch, TokenSequence, micro_batches
from pipeline.training.rollout_metrics import rollout_metrics, sample_rows, ungraded_rows
from pipeline.training.schedules import eval_steps, learning_rate
from pipeline.training.sft import held_out_sums, learned_tokens, perplexity
from pipeline.training.spectral import SpectralRefactorer, due_steps
from pipeline.types import Problem, PromptRequest, RolloutGroup, WeightId

logger = logging.getLogger(__name__)
T = TypeVar("T")
PHASES = {"sft": ("learner",), "grpo": ("rollout", "reward", "learner", "weight_sync")}


@dataclass(frozen=True)
class StageSetup:
    """Everything a learner worker is given."""

    config: Config
    stage: StageSpec
    run_path: Path
    problems: ProblemTable
    """The stage's own training problems."""
    tokens: TokenTable
    """Of these problems and of those that are replayed."""
    eval_problems: tuple[Problem, ...]
    buffer: ReplayBuffer | None
    """As it is when the stage starts: problems that earlier stages trained on. None: nothing is replayed."""
    replayed: ProblemTable
    """Problems of the buffer."""
    parent: Path | None
    """The checkpoint to start from where the run directory holds none."""
    is_last: bool
    """The run ends with it: the final model is saved."""
    rollout_workers: tuple[Any, ...]
    """Actor handles of RolloutWorker, RewardWorker and WeightStore."""
    reward_workers: tuple[Any, ...]
    weight_store: Any


class LearnerSession:
    """One worker's state in one stage. It starts from the run's newest whole checkpoint:
    within this stage it goes on after it, from an earlier stage it takes what the stage carries over."""

    def __init__(self, setup: StageSetup) -> None:
        self.config, self.stage = setup.config, setup.stage
        self.settings: Any = self.stage.settings
        self.seed = self.config.seed
        self.rank, self.num_workers = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self._setup = setup
        self._run = RunDirectory(setup.run_path)
        log_to_file(self._run.path, f"learner_{self.rank}")
        torch.set_num_threads(self.config.learner.num_threads)
        torch.manual_seed(derive_seed(self.seed, "init"))
        self.dtype = torch_dtype(self.config.model.dtype)
        self.temperature = self.config.rollout.temperature
        self.tokens_per_micro_batch = self.config.learner.tokens_per_micro_batch
        self.examples = stage_examples(
            self.stage,
            setup.problems,
            setup.replayed,
            setup.tokens,
            max_prompt_length=self.config.rollout.max_prompt_length,
            seed=self.seed,
        )
        path = resolve_model(self.config.model)
        self.tokenizer = load_tokenizer(path, self.config.model, chat=self.config.data.prompt_template is None)
        self.model = load_policy(path, self.config.model)
        self.model.train()
        use_causal_sdpa(self.model)
        if self.stage.kind == "grpo":  # old, new and reference logprobs must differ by the weights alone
            for module in self.model.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
        self.device = pick_device(self.config.model)
        self._reference: dict[str, torch.Tensor] | None = None
        self._optimizer = torch.optim.AdamW(
            trainable_tensors(self.model).values(),
            lr=self.settings.learning_rate,
            betas=(self.settings.adam_beta1, self.settings.adam_beta2),
            weight_decay=self.settings.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )
        is_pissa = self.config.model.lora is not None and self.config.model.lora.init == "pissa"
        self._initial_adapters = snapshot(self.model) if is_pissa else None
        self._refactorer = None
        if self.config.trainer.name == "SpectralRefactor":
            self._refactorer = SpectralRefactorer(self.config.trainer, trainable_tensors(self.model), self._optimizer)
        self._attempt = self._from_rank_0(self._take_run)
        self.progress = self._restore()
        self._checkpoint_time = time.monotonic()
        self._scores: list[float] = []
        self._updates: dict[str, float] = {}
        self._num_updates = 0
        self.weight_id = WeightId(self._attempt, self.progress.step)
        self._published: WeightId | None = None
        self.clock = PhaseClock()
        if self.rank == 0:
            truncate_metrics(self._run.path, self.progress.step)
            truncate_ungraded(self._run.path, self.progress.step)
            self._metrics = MetricsWriter(self._run.path, self.config.tracking)
            self._gauges = Gauges(self._run.path.name)
            self._run.record_data(self.stage.name, self.examples.counts)
            if self.examples.counts["num_tokens_left_out"]:
                logger.warning("stage %s: some examples are too long: %s", self.stage.name, self.examples.counts)
            if setup.replayed and not self.examples.mixture.replayed:
                logger.warning("stage %s replays nothing: all of the replay buffer is too long", self.stage.name)

    def _take_run(self) -> int:
        self._run.lock()
        return self._next_attempt()

    def _next_attempt(self) -> int:
        return ray.get(self._setup.weight_store.next_attempt.remote())

    def _restore(self) -> Progress:
        checkpoint = self._run.checkpoints.load_latest()
        if checkpoint is None and self._setup.parent is not None:
            checkpoint = load_checkpoint(self._setup.parent)
        if checkpoint is None:
            return self._started(Progress(stage=self.stage.name))
        logger.info("rank %d continues from %s", self.rank, checkpoint.path)
        before = checkpoint.progress
        if before.stage != self.stage.name:
            self._carry_over(checkpoint)
            return self._started(Progress(self.stage.name, step=before.step, reward_history=before.reward_history))
        load_trainable(self.model, checkpoint.tensors)
        self._optimizer.load_state_dict(checkpoint.optimizer)
        if checkpoint.reference is not None:
            self._reference = {name: tensor.to(self.device) for name, tensor in checkpoint.reference.items()}
        return before

    def _carry_over(self, checkpoint: Checkpoint) -> None:
        carry = self.stage.carry
        if carry.weights:
            load_trainable(self.model, checkpoint.tensors)
        if carry.optimizer:  # its moments alone: betas and weight decay are this stage's
            own = self._optimizer.state_dict()
            self._optimizer.load_state_dict(own | {"state": checkpoint.optimizer["state"]})

    def _started(self, progress: Progress) -> Progress:
        progress.started_from = weights_digest(self.model)
        return progress

    # Data ------------------------------------------------------------------------------------------

    def encode(self, problem: Problem) -> tuple[int, ...]:
        """The prompt as tokens, up to where the policy starts to write."""
        return prompt_token_ids(self.tokenizer, problem)

    def example_batches(self, examples: list[TokenSequence]) -> list[MicroBatch]:
        """Examples of supervised fine-tuning as the stage's settings say, packed or padded."""
        multiple = self.settings.pad_to_multiple_of
        if self.settings.packing and self.device.type == "cpu" and self.dtype == torch.bfloat16:
            multiple = math.lcm(multiple, COMPILED_MULTIPLE)
        return micro_batches(
            examples,
            self.tokens_per_micro_batch,
            self.device,
            packing=self.settings.packing,
            pad_to_multiple_of=multiple,
        )

    def share(self, items: list[T]) -> list[T]:
        """This worker's contiguous part of a global batch."""
        size = len(items) // self.num_workers
        return items[self.rank * size : (self.rank + 1) * size]

    # Steps -----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Give the engines the weights to start from; evaluate them if nothing was evaluated before."""
        if self._refactorer and not due_steps(self.config.trainer, self.examples.num_steps * self._updates_per_step):
            logger.warning("stage %s is too short for spectral refactoring: none is due", self.stage.name)
        if self.config.eval.at_start and self.progress.step == 0:
            self.publish_weights(0)
            self._evaluate("before")
        elif self.stage.kind == "grpo":
            self.publish_weights(self.progress.step)
        self.clock = PhaseClock()

    def remaining_steps(self) -> Iterator[int]:
        """Steps of this stage that are not done, from 0. Each starts from a seed of its own."""
        while not self._is_over():
            torch.manual_seed(derive_seed(self.seed, self.progress.step, self.rank))
            yield self.progress.stage_step

    def learning_rate(self, stage_step: int) -> float:
        """Of a step. A stage that is repeated goes through its schedule again."""
        return learning_rate(self.settings, stage_step - self.progress.pass_start, self.examples.num_steps)

    def _is_over(self) -> bool:
        """All steps are done, evaluations stopped getting better or, with a promotion rule, held-out accuracy on the
        stage's level decides."""
        progress, rule = self.progress, self.stage.promotion
        passed = progress.stage_step - progress.pass_start
        patience, scores = self.config.eval.early_stopping_patience, progress.eval_scores
        if patience and scores and len(scores) - 1 - scores.index(max(scores)) >= patience:
            return True
        steps_left = passed < self.examples.num_steps
        if rule is None or progress.stage_done:
            return not steps_left or progress.stage_done
        if steps_left and (passed % rule.every_steps or (passed == 0 and progress.level_accuracies)):
            return False
        with self.clock("evaluation"):
            progress.level_accuracies.append(self._level_accuracy())
        if passed == 0:  # where the stage started; it makes steps whatever it could do before
            return False
        decision = stage_decision(
            rule, progress.level_accuracies, steps_left=steps_left, num_repeats=progress.num_repeats
        )
        logger.info("%s, step %d: accuracies %s: %s", self.stage.name, passed, progress.level_accuracies, decision)
        if decision == "repeat":
            progress.num_repeats += 1
            progress.pass_start = progress.stage_step
            progress.eval_scores = []
            progress.level_accuracies = progress.level_accuracies[-1:]
        return decision == "end"

    def collect_groups(
        self, batch: list[tuple[Problem, tuple[int, ...]]], seeds: list[tuple[int, ...]]
    ) -> list[RolloutGroup]:
        """Completions and rewards of this worker's prompts, in order.

        Prompts go to the engines in fixed chunks; a chunk is graded while later ones are being written.
        """
        size = self.config.rollout.prompts_per_chunk
        decoding = Decoding.from_config(self.config.rollout)
        writing, grading = {}, {}
        with self.clock("rollout"):
            for index, start in enumerate(range(0, len(batch), size)):
                requests = [
                    PromptRequest(ids, seed)
                    for (_, ids), seed in zip(batch[start : start + size], seeds[start : start + size], strict=True)
                ]
                worker = self._setup.rollout_workers[(self.rank + index) % len(self._setup.rollout_workers)]
                writing[worker.generate.remote(self.weight_id, requests, decoding)] = index
            while writing:
                for ref in _wait(list(writing), "completions"):
                    index = writing.pop(ref)
                    chunk = batch[index * size : (index + 1) * size]
                    groups = [
                        RolloutGroup(problem, ids, completions, self.weight_id)
                        for (problem, ids), completions in zip(chunk, ray.get(ref), strict=True)
                    ]
                    worker = self._setup.reward_workers[(self.rank + index) % len(self._setup.reward_workers)]
                    grading[index] = worker.score.remote(groups)
        with self.clock("reward"):
            refs = [grading[index] for index in sorted(grading)]
            _wait(refs, "rewards", len(refs))
            return [group for ref in refs for group in ray.get(ref)]

    def snapshot_reference(self) -> None:
        """From here on the reference policy is the policy as it is now."""
        self._reference = snapshot(self.model)

    def reference_policy(self) -> AbstractContextManager[None]:
        """Within the block the model is the reference policy."""
        if self._reference is None:
            raise CheckpointError(f"stage {self.stage.name} was begun with beta 0: set grpo.beta=0 to go on with it.")
        return swapped_in(self.model, self._reference)

    def begin_update(self, rate: float) -> None:
        """Forget old gradients and set the learning rate."""
        self._optimizer.zero_grad(set_to_none=True)
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def update_policy(self) -> float:
        """Sum gradients over workers, clip, step. Returns the norm before clipping."""
        parameters = list(trainable_tensors(self.model).values())
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if self.num_workers > 1:
                dist.all_reduce(parameter.grad)
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm)
        self._optimizer.step()
        self._num_updates += 1
        if self._refactorer:
            done = (self.progress.stage_step - self.progress.pass_start) * self._updates_per_step + self._num_updates
            if report := self._refactorer.after_step(done, self.examples.num_steps * self._updates_per_step):
                self._updates = report.metrics()
                if self.rank == 0:
                    self._run.record_spectra(self.progress.step + 1, asdict(report))
        self._optimizer.zero_grad(set_to_none=True)  # frees them while completions and checkpoints are written
        return norm.item()

    @property
    def _updates_per_step(self) -> int:
        """Optimizer updates per step."""
        return getattr(self.settings, "mu", 1)

    def evaluate_if_due(self) -> dict[str, float]:
        """Metrics ``eval_*`` of the weights after this step, on held-out problems, when total_eval_times says so."""
        passed = self.progress.stage_step + 1 - self.progress.pass_start
        if passed not in eval_steps(self.config.eval.total_eval_times, self.examples.num_steps):
            return {}
        with self.clock("evaluation"):
            step = self.progress.step + 1
            self.publish_weights(step)
            problems = self._held_out(self.config.eval.problems_per_level)
            metrics = self._from_rank_0(
                lambda: {"eval_answer_accuracy": self._answer_all(problems, f"step_{step:06d}")}
            )
            if self.config.data.task_name and self.stage.kind == "sft":
                metrics |= self._token_metrics(problems)
            return metrics

    def _answer_all(self, problems: list[Problem], name: str) -> float:
        summary, rows = self._answer(problems)
        write_jsonl(self._run.samples / f"eval_{self.stage.name}_{name}.jsonl", rows)
        return float(summary["overall"]["answer_accuracy"])

    def _token_metrics(self, problems: list[Problem]) -> dict[str, float]:
        """Loss and next-token accuracy on the worked solutions of held-out problems, each worker on its part."""
        settings: SFTConfig = self.settings
        solved = [problem for problem in problems if problem.solution is not None]
        encoded = encode_problems(self.tokenizer, solved).to_pylist() if solved else []
        examples = [TokenSequence(tuple(row["prompt"]), tuple(row["completion"])) for row in encoded]
        fitting = [learned_tokens(e, settings.loss_on) for whole in examples if (e := shortened(whole, settings))]
        batches = self.example_batches(fitting[self.rank :: self.num_workers])
        loss, num_hits, num_tokens = self.sum_over_workers(held_out_sums(self.model, batches, self.dtype))
        if not num_tokens:
            return {}
        loss /= num_tokens
        return {
            "eval_loss": loss,
            "eval_perplexity": perplexity(loss),
            "eval_token_accuracy": num_hits / num_tokens,
        }

    def end_step(self, metrics: dict[str, Any], score: float) -> None:
        """Count the step, write its metrics, and a checkpoint when one is due.

        Args:
            score: of the weights, higher is better, where no metric_for_best_model is set.
        """
        self.progress.step += 1
        self.progress.stage_step += 1
        is_scored = self._keep_score(metrics, score)
        metrics |= self._updates
        self._updates, self._num_updates = {}, 0
        if self.stage.kind == "grpo":
            self.progress.reward_history.append(metrics["reward_mean"])
        if self.rank > 0:
            return
        seconds = self.clock.lap(PHASES[self.stage.kind])
        learner_tokens = metrics.pop("learner_tokens")
        row = {
            "step": self.progress.step,
            "stage": self.stage.name,
            "kind": self.stage.kind,
            "stage_step": self.progress.stage_step,
            "time": time.time(),
            **metrics,
            "learning_rate": self._optimizer.param_groups[0]["lr"],
            "learner_memory_gib": peak_memory_gib(self.device),
            "learner_tokens_per_s": learner_tokens / seconds["learner_s"],
            **seconds,
        }
        if "num_rollout_tokens" in row:
            row["rollout_tokens_per_s"] = row.pop("num_rollout_tokens") / seconds["rollout_s"]
        self._metrics.write(row)
        self._gauges.set(row)
        self._checkpoint_if_due(is_scored)

    def _keep_score(self, metrics: dict[str, Any], score: float) -> bool:
        """What tells the best checkpoint. True: this step was evaluated, so its weights are worth a checkpoint."""
        choice = self.config.eval
        if choice.metric_for_best_model is None:
            self._scores.append(score)
            return False
        value = metrics.get(f"eval_{choice.metric_for_best_model}")
        self._scores = [] if value is None else [value if choice.higher_wins else -value]
        self.progress.eval_scores += self._scores
        return bool(self._scores)

    def log_groups(self, groups: list[RolloutGroup], replayed: list[bool]) -> dict[str, float]:
        """Metrics over the groups of all workers; now and then their completions go to samples/,
        and always some of those that could not be graded.

        Args:
            groups: this worker's.
            replayed: of the whole batch, which came from the replay buffer.
        """
        groups = self._gather(groups)
        step = self.progress.step + 1
        if self.rank == 0 and step % self.config.output.samples_every_steps == 0:
            rows = sample_rows(groups, step, self.stage.name)
            write_jsonl(self._run.samples / f"step_{step:06d}.jsonl", rows)
        if self.rank == 0 and (ungraded := ungraded_rows(groups, step, self.stage.name)):
            append_jsonl(ungraded_path(self._run.path), ungraded)
        version = groups[0].weight_id.step
        return rollout_metrics(groups, replayed) | {
            "num_rollout_tokens": sum(len(c.token_ids) for group in groups for c in group.completions),
            "policy_version": version,
            "staleness": self.progress.step - version,
        }

    def finish(self) -> None:
        """Evaluate, save, and mark the stage done, in this order: what is marked is complete."""
        if self.config.eval.load_best_model_at_end:
            self._take_best()
        self.publish_weights(self.progress.step)
        self._evaluate(self.stage.name)
        if self.rank == 0:
            if self._setup.is_last and self.config.output.save_final_model:
                save_final_model(self.model, self.tokenizer, self._run.final_model, self.dtype)
                if self.config.model.lora:
                    save_adapter(self.model, self.config.model, self._run.final_adapter, self._initial_adapters)
            self.progress.stage_done = True
            self.progress.ended_with = weights_digest(self.model)
            self._save_checkpoint()
            self._metrics.close()
        ray.train.report({"step": self.progress.step, "stage": self.stage.name})

    def _take_best(self) -> None:
        self._barrier()  # rank 0 may still be writing a checkpoint
        best = self._run.checkpoints.best(self.stage.name)
        if best is None:
            return logger.warning("stage %s was never scored: it ends with its last weights", self.stage.name)
        checkpoint = load_checkpoint(best)
        logger.info("stage %s ends with its best weights, of step %d", self.stage.name, checkpoint.progress.step)
        load_trainable(self.model, checkpoint.tensors)
        self._optimizer.load_state_dict(checkpoint.optimizer)
        self._attempt = self._from_rank_0(self._next_attempt)  # this step's weights are not what the engines hold

    # Weights and evaluation ------------------------------------------------------------------------

    def publish_weights(self, step: int) -> None:
        """Hand the policy as it is after ``step`` steps to the store, and load it into every engine, once."""
        self.weight_id = WeightId(self._attempt, step)
        if self.weight_id == self._published:
            return
        if self.rank == 0:
            packed = pack_weights(merged_weights(self.model, self.dtype))
            ray.get(self._setup.weight_store.publish.remote(self.weight_id, packed))
            refs = [worker.sync.remote(self.weight_id) for worker in self._setup.rollout_workers]
            ray.get(_wait(refs, "engines to load weights", len(refs)))
        self._published = self.weight_id
        self._barrier()

    def _evaluate(self, name: str) -> None:
        """Greedy accuracy on held-out problems of every level, into eval/ and samples/."""
        at_end = self.config.eval.problems_per_level_at_end if self._setup.is_last and name != "before" else None
        problems = self._held_out(at_end or self.config.eval.problems_per_level)
        if self.rank == 0 and problems:
            summary, rows = self._answer(problems)
            write_jsonl(self._run.samples / f"eval_{name}.jsonl", rows)
            write_json(self._run.evals / f"{name}.json", {"name": name, "step": self.progress.step, **summary})
        self._barrier()

    def _level_accuracy(self) -> float:
        """On the held-out problems of the stage's level, with the weights as they are."""
        self.publish_weights(self.progress.step)
        problems = [
            problem
            for problem in self._held_out(self.config.eval.problems_per_level)
            if problem.level in (self.stage.levels or ())
        ]
        if not problems:
            raise DataError(f"curriculum.promotion must have held-out problems of {self.stage.levels}, got none.")
        return self._from_rank_0(lambda: float(self._answer(problems)[0]["overall"]["accuracy_tagged"]))

    def _held_out(self, per_level: int | Literal["all"]) -> list[Problem]:
        return self._fitting if per_level == "all" else first_per_level(self._fitting, per_level)

    @cached_property
    def _fitting(self) -> list[Problem]:
        """Held-out problems whose prompts fit."""
        limit = self.config.rollout.max_prompt_length
        fitting = [problem for problem in self._setup.eval_problems if len(self.encode(problem)) <= limit]
        if len(fitting) < len(self._setup.eval_problems):
            logger.warning("%d held-out problems are too long: left out", len(self._setup.eval_problems) - len(fitting))
        if self._setup.eval_problems and not fitting:
            raise DataError(f"held-out problems must fit into rollout.max_prompt_length={limit}, got none that does.")
        return fitting

    def _answer(self, problems: list[Problem]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        workers, length = self._setup.rollout_workers, self.config.eval.max_completion_length
        return evaluate(workers, self.weight_id, problems, self.encode, length)

    # Checkpoints -----------------------------------------------------------------------------------

    def _checkpoint_if_due(self, is_scored: bool) -> None:
        due = self.config.checkpoint
        minutes = (time.monotonic() - self._checkpoint_time) / 60
        if is_scored or self.progress.stage_step % due.every_steps == 0 or minutes >= due.every_minutes:
            self._save_checkpoint()

    def _save_checkpoint(self) -> None:
        with self.clock("checkpoint"):
            if self._scores or self.config.eval.metric_for_best_model:
                self.progress.score = fmean(self._scores) if self._scores else None
            self._scores = []
            self._run.checkpoints.save(
                self.progress,
                trainable_tensors(self.model),
                self._optimizer.state_dict(),
                self._reference,
                self._replay_state(),
            )
            self._run.checkpoints.prune(self.config.checkpoint.keep_last)
        self._checkpoint_time = time.monotonic()

    def _replay_state(self) -> dict[str, Any] | None:
        """The buffer, and the stage's own problems that it trained on so far: what later stages may replay."""
        if self.config.curriculum is None:
            return None
        return {
            "buffer": self._setup.buffer and self._setup.buffer.to_state(),
            "trained": self.examples.trained_until(self.progress.stage_step),
        }

    # Workers ---------------------------------------------------------------------------------------

    def sum_over_workers(self, values: Any) -> Any:
        """Sum a number, or a list of numbers, over all workers."""
        if self.num_workers == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def _gather(self, items: list[T]) -> list[T]:
        if self.num_workers == 1:
            return items
        parts: list[list[T]] = [[] for _ in range(self.num_workers)]
        dist.all_gather_object(parts, items)
        return [item for part in parts for item in part]

    def _from_rank_0(self, make: Callable[[], T]) -> T:
        made = [make() if self.rank == 0 else None]
        if self.num_workers > 1:
            dist.broadcast_object_list(made, src=0)
        return cast(T, made[0])

    def _barrier(self) -> None:
        if self.num_workers > 1:
            dist.barrier()


def _wait(refs: list[Any], what: str, num_returns: int = 1) -> list[Any]:
    """The refs that are ready, at least ``num_returns``. Says every minute what is waited for."""
    while True:
        ready, rest = ray.wait(refs, num_returns=num_returns, timeout=60)
        if len(ready) >= num_returns:
            return ready
        logger.warning("waiting for %s: %d of %d still to come", what, len(rest), len(refs))
