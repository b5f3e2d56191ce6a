"""The engines, graders and weight store of a stage, as its learner workers call them."""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from actors.calls import Limit, NoAnswerError, put, results_of
from actors.engine_loop import Chunk, Decoding, SyncReport
from actors.handles import ActorHandles, Ref, RewardHandle, RolloutHandle
from actors.learner.ranks import Ranks
from actors.placement import PlacementWatch
from actors.weights import PackedWeights
from pipeline.config import Config, RewardConfig
from pipeline.curriculum.examples import Example
from pipeline.errors import ClusterError, RewardError
from pipeline.rewards.state import RewardState
from pipeline.runs.clock import PhaseClock
from pipeline.types import Answer, Completion, EngineRecord, PromptRequest, RewardBreakdown, RolloutGroup, WeightId

T = TypeVar("T")
Graded = tuple[EngineRecord, tuple[RewardBreakdown, ...]]
"""A grader's answer: what it graded, and the rewards."""


@dataclass
class AskedGroups:
    """Groups that engines write and graders score."""

    groups: list[RolloutGroup] = field(default_factory=list)
    """Without completions and rewards."""
    writing: dict[Ref[Answer], RolloutHandle] = field(default_factory=dict)
    """In the order of the groups."""
    grading: dict[Ref[Graded], RewardHandle] = field(default_factory=dict)


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
        self._engine_limit = Limit(limits.engine_s, "limits.engine_s")
        self._reward_limit = Limit(config.reward_wait_s, "limits.reward_s")
        self._store_limit = Limit(limits.store_s, "limits.store_s")
        self._check_room = PlacementWatch(actors.placement, limits.placement_s)
        self._weight_id: WeightId | None = None
        self._checksums: dict[WeightId, str] = {}
        self._syncing: dict[Ref[SyncReport | None], RolloutHandle] = {}
        self._probe: dict[str, float] = {}
        self.start_attempt()

    def start_attempt(self) -> None:
        """Give all weights published from here on new ids, whatever was published for the same steps before."""
        self._syncing = {}  # engines cannot load what the store has of an earlier attempt
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

        Without staleness this waits until every engine has them. Otherwise it waits only until every engine has the
        weights published before these.

        Args:
            pack: returns the weights of the plain model. Called on rank 0 alone.
        """
        weight_id = WeightId(self._attempt, step)
        if weight_id == self._weight_id:
            return
        if self._ranks.is_first and self._actors.rollout_workers:
            packed = pack()
            self._ask_store(self._actors.weight_store.publish.remote(weight_id, packed))
            self._checksums[weight_id] = packed.checksum
            before, self._syncing = (
                self._syncing,
                {worker.sync.remote(weight_id): worker for worker in self._actors.rollout_workers},
            )
            self._check_synced(before if self._config.max_staleness else self._syncing)
        self._weight_id = weight_id
        self._ranks.barrier()

    def _check_synced(self, syncing: Mapping[Ref[SyncReport | None], RolloutHandle]) -> None:
        """Wait for engines to load weights. Raises ClusterError if one has others than were packed."""
        reports = results_of(syncing, "loaded weights", _ENGINE, self._engine_limit, self._check_room)
        received = [report for report in reports if report]
        for report in received:
            self._check_checksum(report.weight_id, report.checksum)
        differences = [report.probe_diff for report in received if report.probe_diff is not None]
        self._probe = {"engine_probe_diff": max(differences)} if differences else {}

    def _check_checksum(self, weight_id: WeightId, checksum: str | None) -> None:
        packed = self._checksums.get(weight_id, checksum)
        if checksum != packed:
            raise ClusterError(f"engines must hold weights {packed} of step {weight_id.step}, got {checksum}.")

    def sync_metrics(self) -> dict[str, Any]:
        """Checksum of the weights that were published last, and proof that engines have what was packed. Empty without
        engines, and on all ranks but the first."""
        if self._weight_id not in self._checksums:
            return {}
        return {"weights_checksum": self._checksums[self._weight_id], **self._probe}

    def ask(
        self,
        prompts: Sequence[Example],
        seeds: Sequence[tuple[int, ...]],
        state: RewardState | None = None,
        is_urgent: bool = False,
    ) -> "AskedGroups":
        """Ask for completions and rewards of this worker's prompts. Engines answer with the weights that were published
        last, or newer ones.

        Every group is graded as soon as it is written.

        Args:
            seeds: [num_prompts][group_size], one sampling seed per completion.
            state: the state of the rewards, the same for the whole step. None: the initial state.
            is_urgent: put the requests before those that were asked for ahead.
        """
        workers = self._actors.rollout_workers
        size = self._config.prompts_per_chunk or -(-len(prompts) // self._own(workers)) if self._config.is_fixed else 1
        return self._asked(prompts, seeds, state, workers, self.weight_id, max(size, 1), is_urgent)

    def collect(self, asked: "AskedGroups", clock: PhaseClock) -> list[RolloutGroup]:
        """The groups that were asked for, in order, with their rewards."""
        with clock("rollout"):
            answers = results_of(asked.writing, "completions", _ENGINE, self._engine_limit, self._check_room)
            for answer in answers:
                if answer.weight_id:
                    self._check_checksum(answer.weight_id, answer.record.checksum)
        with clock("reward"):
            graded = self._rewards(asked)
        return [_scored(*each) for each in zip(asked.groups, answers, graded, strict=True)]

    def write(
        self, tasks: Sequence[Example], seeds: Sequence[tuple[int, ...]], state: RewardState, teacher: str | None
    ) -> list[RolloutGroup]:
        """Problems written for tasks, with their rewards, in order.

        Args:
            teacher: a frozen model. None: the weights that were published last.
        """
        workers = self._actors.rollout_workers if teacher is None else (self._actors.frozen[teacher],)
        weight_id = self.weight_id if teacher is None else None
        asked = self._asked(tasks, seeds, state, workers, weight_id, self._config.width, is_urgent=True)
        return self.collect(asked, PhaseClock())

    def _asked(
        self,
        prompts: Sequence[Example],
        seeds: Sequence[tuple[int, ...]],
        state: RewardState | None,
        workers: Sequence[RolloutHandle],
        weight_id: WeightId | None,
        size: int,
        is_urgent: bool,
    ) -> "AskedGroups":
        """Calls for prompts in chunks of ``size``. Graders wait for the engines by themselves."""
        decoding, asked = Decoding.from_config(self._config), AskedGroups()
        for index, start in enumerate(range(0, len(prompts), size)):
            part = slice(start, start + size)
            groups = [
                RolloutGroup(each.problem, each.tokens.prompt, (), self.weight_id, seeds=own)
                for each, own in zip(prompts[part], seeds[part], strict=True)
            ]
            requests = tuple(PromptRequest(group.prompt_token_ids, group.seeds) for group in groups)
            chunk = put(Chunk(uuid.uuid4().hex, weight_id, requests, decoding, self._config.is_fixed, is_urgent))
            worker = self._turn(workers, index)
            for place, group in enumerate(groups):
                grader = self._turn(self._actors.reward_workers, len(asked.groups))
                answer = worker.complete.remote(chunk, place)
                asked.groups.append(group)
                asked.writing[answer] = worker
                asked.grading[grader.score.remote(group, answer, state)] = grader
        return asked

    def _rewards(self, asked: "AskedGroups") -> list["Graded"]:
        with self._plug_ins_blamed():
            return results_of(asked.grading, "rewards", _GRADER, self._reward_limit, self._check_room)

    def _turn(self, workers: Sequence[T], index: int) -> T:
        """The worker of a rank's call: each rank starts with its own."""
        return workers[(self._ranks.rank * self._own(workers) + index) % len(workers)]

    def _own(self, workers: Sequence[T]) -> int:
        """Workers that each rank has to itself; at least one, which others may share."""
        return max(len(workers) // self._ranks.size, 1)

    def answer(self, prompts: Sequence[tuple[int, ...]], max_completion_length: int) -> list[Completion]:
        """One greedy completion per prompt, in order, from the last published weights."""
        decoding, size = Decoding(temperature=0.0, max_completion_length=max_completion_length), self._config.width
        chunks = [prompts[start : start + size] for start in range(0, len(prompts), size)]
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


_ENGINE, _GRADER = "an engine", "a grader"


def _scored(group: RolloutGroup, answer: Answer, graded: Graded) -> RolloutGroup:
    record, rewards = graded
    if record != answer.record:  # Ray lost the answer with its node, and asked for it again
        raise ClusterError("completions must be those that were graded, got others: their engine wrote them again")
    return replace(group.answered(answer), rewards=rewards)
