"""The engines, graders and weight store of a stage, as its learner workers call them."""

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

from actors.calls import result_of, results_of, wait_for
from actors.handles import ActorHandles, Ref
from actors.learner.ranks import Ranks
from actors.rollout import EVAL_CHUNK, Decoding
from actors.weights import pack_weights
from pipeline.config import RolloutConfig
from pipeline.curriculum.examples import Example
from pipeline.runs.clock import PhaseClock
from pipeline.types import Completion, PromptRequest, RolloutGroup, WeightId


class Engines:
    """Publishes weights and collects completions, rewards and held-out answers.

    Args:
        actors: shared by all learner workers of the stage.
        config: sampling and chunk size.
        ranks: rank 0 publishes; the others wait for it.
    """

    def __init__(self, actors: ActorHandles, config: RolloutConfig, ranks: Ranks) -> None:
        self._actors, self._config, self._ranks = actors, config, ranks
        self._weight_id: WeightId | None = None
        self.start_attempt()

    def start_attempt(self) -> None:
        """Give all weights published from here on new ids, whatever was published for the same steps before."""
        self._attempt = self._ranks.from_first(
            lambda: result_of(self._actors.weight_store.next_attempt.remote(), _STORE)
        )

    @property
    def weight_id(self) -> WeightId:
        """Id of the weights that requests use: the last ones published."""
        if self._weight_id is None:
            raise RuntimeError("no weights have been published yet")
        return self._weight_id

    def publish(self, step: int, weights: Callable[[], Iterable[tuple[str, Tensor]]]) -> None:
        """Hand the weights after ``step`` steps to the store and load them into every engine. Once per step: a second
        call does nothing.

        Args:
            weights: (name, tensor) pairs of the plain model. Called on rank 0 alone.
        """
        weight_id = WeightId(self._attempt, step)
        if weight_id == self._weight_id:
            return
        if self._ranks.is_first:
            packed = pack_weights(weights())
            result_of(self._actors.weight_store.publish.remote(weight_id, packed), _STORE)
            refs = [worker.sync.remote(weight_id) for worker in self._actors.rollout_workers]
            results_of(refs, "engines to load weights", _ENGINE)
        self._weight_id = weight_id
        self._ranks.barrier()

    def collect(
        self, prompts: Sequence[Example], seeds: Sequence[tuple[int, ...]], clock: PhaseClock
    ) -> list[RolloutGroup]:
        """Completions and rewards of this worker's prompts, in order.

        Prompts go to the engines in fixed chunks. A chunk is graded while later ones are still being written.

        Args:
            seeds: [num_prompts][group_size], one sampling seed per completion.
        """
        with clock("rollout"):
            grading = self._grade_as_written(prompts, seeds)
        with clock("reward"):
            refs = [grading[index] for index in sorted(grading)]
            return [group for groups in results_of(refs, "rewards", _GRADER) for group in groups]

    def _grade_as_written(
        self, prompts: Sequence[Example], seeds: Sequence[tuple[int, ...]]
    ) -> dict[int, Ref[list[RolloutGroup]]]:
        """The grading call of every chunk, by its index, once all chunks are written."""
        size = self._config.prompts_per_chunk
        chunks = [prompts[start : start + size] for start in range(0, len(prompts), size)]
        chunk_seeds = [seeds[start : start + size] for start in range(0, len(prompts), size)]
        decoding = Decoding.from_config(self._config)
        writing: dict[Ref[list[tuple[Completion, ...]]], int] = {}
        for index, (chunk, its_seeds) in enumerate(zip(chunks, chunk_seeds, strict=True)):
            requests = [PromptRequest(e.tokens.prompt, seed) for e, seed in zip(chunk, its_seeds, strict=True)]
            worker = self._actors.rollout_workers[(self._ranks.rank + index) % len(self._actors.rollout_workers)]
            writing[worker.generate.remote(self.weight_id, requests, decoding)] = index
        grading = {}
        while writing:
            for ref in wait_for(list(writing), "completions"):
                index = writing.pop(ref)
                groups = [
                    RolloutGroup(example.problem, example.tokens.prompt, completions, self.weight_id)
                    for example, completions in zip(chunks[index], result_of(ref, _ENGINE), strict=True)
                ]
                grader = self._actors.reward_workers[(self._ranks.rank + index) % len(self._actors.reward_workers)]
                grading[index] = grader.score.remote(groups)
        return grading

    def answer(self, prompts: Sequence[tuple[int, ...]], max_completion_length: int) -> list[Completion]:
        """One greedy completion per prompt, in order, from the last published weights."""
        decoding = Decoding(temperature=0.0, max_completion_length=max_completion_length)
        chunks = [prompts[start : start + EVAL_CHUNK] for start in range(0, len(prompts), EVAL_CHUNK)]
        workers = self._actors.rollout_workers
        refs = [
            workers[index % len(workers)].generate.remote(
                self.weight_id, [PromptRequest(ids, (0,)) for ids in chunk], decoding
            )
            for index, chunk in enumerate(chunks)
        ]
        answers = results_of(refs, "held-out answers", _ENGINE) if refs else []
        return [completion for chunk in answers for (completion,) in chunk]


_ENGINE, _GRADER, _STORE = "an engine", "a grader", "the weight store"
