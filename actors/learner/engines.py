"""The engines, graders and weight store of a stage, as its learner workers call them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from actors.calls import Limit, NoAnswerError, result_of, results_of, wait_for
from actors.handles import ActorHandles, Ref, RewardHandle, RolloutHandle
from actors.learner.ranks import Ranks
from actors.placement import PlacementWatch
from actors.rollout import EVAL_CHUNK, Decoding, SyncReport
from actors.weights import PackedWeights
from pipeline.config import Config, RewardConfig
from pipeline.curriculum.examples import Example
from pipeline.errors import ClusterError, RewardError
from pipeline.rewards.state import RewardState
from pipeline.runs.clock import PhaseClock
from pipeline.types import Completion, PromptRequest, RolloutGroup, WeightId

T = TypeVar("T")


class Engines:
    """Publishes weights and collects completions, rewards and held-out answers.

    Args:
        actors: shared by all learner workers of the stage.
        config: sampling, chunk size, reward functions and limits.
        ranks: rank 0 publishes; the others wait for it.
    """

    def __init__(self, actors: ActorHandles, config: Config, ranks: Ranks) -> None:
        self._actors, self._ranks = actors, ranks
        self._config, self._reward, limits = config.rollout, config.reward, config.limits
        self._chunk_size = config.rollout.prompts_per_chunk
        self._engine_limit = Limit(limits.engine_s, "limits.engine_s")
        self._reward_limit = Limit(config.reward_wait_s, "limits.reward_s")
        self._store_limit = Limit(limits.store_s, "limits.store_s")
        self._check_room = PlacementWatch(actors.placement, limits.placement_s)
        self._weight_id: WeightId | None = None
        self._synced: dict[str, Any] = {}
        self.start_attempt()

    def start_attempt(self) -> None:
        """Give all weights published from here on new ids, whatever was published for the same steps before."""
        self._attempt = self._ranks.from_first(lambda: self._ask_store(self._actors.weight_store.next_attempt.remote()))

    @property
    def weight_id(self) -> WeightId:
        """Id of the weights that requests use: the last ones published."""
        if self._weight_id is None:
            raise RuntimeError("no weights have been published yet")
        return self._weight_id

    def publish(self, step: int, pack: Callable[[], PackedWeights]) -> None:
        """Hand the weights after ``step`` steps to the store and load them into every engine. Once per step: a second
        call does nothing. Without engines nothing is packed.

        Args:
            pack: the weights of the plain model. Called on rank 0 alone.
        """
        weight_id = WeightId(self._attempt, step)
        if weight_id == self._weight_id:
            return
        if self._ranks.is_first and self._actors.rollout_workers:
            packed = pack()
            self._ask_store(self._actors.weight_store.publish.remote(weight_id, packed))
            workers = self._actors.rollout_workers
            refs = {worker.sync.remote(weight_id): worker for worker in workers}
            reports = results_of(refs, "loaded weights", _ENGINE, self._engine_limit, self._check_room)
            self._synced = _sync_metrics(packed, reports)
        self._weight_id = weight_id
        self._ranks.barrier()

    def sync_metrics(self) -> dict[str, Any]:
        """Proof that every engine has the weights that were published last. Empty without engines, and on all ranks but
        the first."""
        return self._synced

    def collect(
        self,
        prompts: Sequence[Example],
        seeds: Sequence[tuple[int, ...]],
        clock: PhaseClock,
        state: RewardState | None = None,
    ) -> list[RolloutGroup]:
        """Completions and rewards of this worker's prompts, in order.

        Prompts go to the engines in fixed chunks. A chunk is graded while later ones are still being written.

        Args:
            seeds: [num_prompts][group_size], one sampling seed per completion.
            state: of the rewards, the same for the whole step. None: at the start.
        """
        with clock("rollout"):
            workers = self._actors.rollout_workers
            grading = self._grade_as_written(prompts, seeds, state, workers, self.weight_id, self._chunk_size)
        with clock("reward"):
            return self._scored(grading)

    def write(
        self, tasks: Sequence[Example], seeds: Sequence[tuple[int, ...]], state: RewardState, teacher: str | None
    ) -> list[RolloutGroup]:
        """Problems written for tasks, with their rewards, in order.

        Args:
            teacher: a frozen model. None: the weights that were published last.
        """
        workers = self._actors.rollout_workers if teacher is None else (self._actors.frozen[teacher],)
        weight_id = self.weight_id if teacher is None else None
        return self._scored(self._grade_as_written(tasks, seeds, state, workers, weight_id, EVAL_CHUNK))

    def _scored(self, grading: Mapping[Ref[list[RolloutGroup]], RewardHandle]) -> list[RolloutGroup]:
        with self._plug_ins_blamed():
            scored = results_of(grading, "rewards", _GRADER, self._reward_limit, self._check_room)
            return [group for groups in scored for group in groups]

    def _grade_as_written(
        self,
        prompts: Sequence[Example],
        seeds: Sequence[tuple[int, ...]],
        state: RewardState | None,
        workers: Sequence[RolloutHandle],
        weight_id: WeightId | None,
        size: int,
    ) -> dict[Ref[list[RolloutGroup]], RewardHandle]:
        """The grading call of every chunk of ``size`` prompts, in order, once all chunks are written."""
        decoding = Decoding.from_config(self._config)
        writing: dict[Ref[list[tuple[Completion, ...]]], RolloutHandle] = {}
        chunks: dict[Ref[list[tuple[Completion, ...]]], Sequence[Example]] = {}
        for index, start in enumerate(range(0, len(prompts), size)):
            chunk, chunk_seeds = prompts[start : start + size], seeds[start : start + size]
            requests = [PromptRequest(e.tokens.prompt, seed) for e, seed in zip(chunk, chunk_seeds, strict=True)]
            worker = self._turn(workers, index)
            ref = worker.generate.remote(weight_id, requests, decoding)
            writing[ref], chunks[ref] = worker, chunk
        order = {ref: index for index, ref in enumerate(writing)}
        grading: dict[int, tuple[Ref[list[RolloutGroup]], RewardHandle]] = {}
        while writing:
            for ref in wait_for(writing, "completions", self._engine_limit, self._check_room):
                del writing[ref]
                grader = self._turn(self._actors.reward_workers, order[ref])
                groups = self._groups(chunks[ref], result_of(ref, _ENGINE))
                grading[order[ref]] = grader.score.remote(groups, state), grader
        return dict(grading[index] for index in sorted(grading))

    def _turn(self, workers: Sequence[T], index: int) -> T:
        """The worker of a rank's call: ranks start with different ones."""
        return workers[(self._ranks.rank + index) % len(workers)]

    def _groups(self, prompts: Sequence[Example], answers: Sequence[tuple[Completion, ...]]) -> list[RolloutGroup]:
        return [
            RolloutGroup(example.problem, example.tokens.prompt, completions, self.weight_id)
            for example, completions in zip(prompts, answers, strict=True)
        ]

    def answer(self, prompts: Sequence[tuple[int, ...]], max_completion_length: int) -> list[Completion]:
        """One greedy completion per prompt, in order, from the last published weights."""
        decoding = Decoding(temperature=0.0, max_completion_length=max_completion_length)
        chunks = [prompts[start : start + EVAL_CHUNK] for start in range(0, len(prompts), EVAL_CHUNK)]
        workers = self._actors.rollout_workers
        refs: dict[Ref[list[tuple[Completion, ...]]], RolloutHandle] = {}
        for index, chunk in enumerate(chunks):
            worker, requests = workers[index % len(workers)], [PromptRequest(ids, (0,)) for ids in chunk]
            refs[worker.generate.remote(self.weight_id, requests, decoding)] = worker
        answers = results_of(refs, "held-out answers", _ENGINE, self._engine_limit, self._check_room)
        return [completion for chunk in answers for (completion,) in chunk]

    def _ask_store(self, ref: Ref[T]) -> T:
        store = self._actors.weight_store
        (answer,) = results_of({ref: store}, "the weight store", "the weight store", self._store_limit)
        return answer

    @contextmanager
    def _plug_ins_blamed(self) -> Iterator[None]:
        """Within the block a grader that does not answer is blamed on reward functions of the user's own, if there are
        any: it would block again."""
        try:
            yield
        except NoAnswerError as error:
            if plug_ins := plug_in_names(self._reward):
                raise RewardError(
                    f"{error}: one of the reward functions {', '.join(plug_ins)} blocks, or is slow. Give "
                    "what it waits for a time limit of its own."
                ) from error
            raise


def plug_in_names(reward: RewardConfig) -> list[str]:
    """Reward functions that are not ours."""
    return [term.name for term in reward.functions if ":" in term.name]


def _sync_metrics(packed: PackedWeights, reports: Iterable[SyncReport | None]) -> dict[str, Any]:
    """Metrics of a publication. Raises ClusterError if an engine has other weights than were packed."""
    received = [report for report in reports if report]
    if wrong := {report.checksum for report in received} - {packed.checksum}:
        raise ClusterError(f"engines must hold weights {packed.checksum}, got {', '.join(sorted(wrong))}.")
    metrics: dict[str, Any] = {"weights_checksum": packed.checksum}
    if differences := [report.probe_diff for report in received if report.probe_diff is not None]:
        metrics["engine_probe_diff"] = max(differences)
    return metrics


_ENGINE, _GRADER = "an engine", "a grader"
