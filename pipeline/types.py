"""The nouns of Gradus: the values that travel between data, rollout, reward and learner.

Plain frozen types, cheap to pickle and free of torch, so that any actor can import them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from pipeline.verifier.verdict import Outcome

SplitName = Literal["train", "eval"]
"""Training problems or held-out ones. The name of the split in the data set is a setting."""

Role = Literal["system", "user", "assistant"]


class Message(TypedDict):
    role: Role
    content: str


WritingKind = Literal["new", "parameters", "context", "practical"]
"""A problem of its own, or a variation of another: with other numbers, with other names and things, or in a practical
setting."""


@dataclass(frozen=True, slots=True)
class WritingTask:
    """A task to write a problem instead of solving one. Topic and difficulty are the ``type`` and ``level`` of the
    Problem that carries it."""

    kind: WritingKind
    original: str | None = None
    """The statement to vary; None for a new problem."""
    original_answer: str | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """One item of a data set."""

    id: str
    """Unique within a data set, the same in every run: it seeds the completions."""
    prompt: tuple[Message, ...]
    """Chat messages up to the assistant's turn. The last one is the question."""
    gold: str
    """The true final answer, as text."""
    solution: str | None = None
    """A worked solution in the form the policy should write (SFT trains on it), or None."""
    level: str | None = None
    type: str | None = None
    source: str = ""
    prompt_text: str | None = None
    """Plain text that the policy sees instead of the chat, or None."""
    learns_all_turns: bool = False
    """SFT learns every assistant's turn of the prompt too, not only the solution."""
    writing: WritingTask | None = None
    """The completion is to be a problem. ``gold`` and ``solution`` are those of an example, and its solution is the
    example in full: statement, worked solution and answer in their tags."""

    @property
    def question(self) -> str:
        return self.prompt[-1]["content"]


class ProblemHead(NamedTuple):
    """The attributes that problems are chosen by, without the texts."""

    row: int
    """Position in the sequence of problems."""
    id: str
    level: str | None
    type: str | None
    source: str
    has_solution: bool


class WeightId(NamedTuple):
    """Names one set of weights. A restarted learner group starts a new attempt."""

    attempt: int
    step: int
    """Optimizer steps of the run behind these weights (the policy version)."""


@dataclass(frozen=True, slots=True)
class PromptRequest:
    """A prompt to complete once per seed."""

    prompt_token_ids: tuple[int, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Completion:
    """Tokens that the policy wrote for one prompt."""

    token_ids: npt.NDArray[np.int32]
    """[num_tokens], the end-of-turn token among them if the policy wrote it."""
    sampler_logprobs: npt.NDArray[np.float32]
    """[num_tokens]: the engine's log-probability of each token, under the distribution it was sampled from."""
    text: str
    stop_reason: Literal["stop", "length"]
    """``length``: cut off at ``max_completion_length``."""
    versions: npt.NDArray[np.int32] | None = None
    """[num_tokens]: the version of the weights that wrote each token, if they changed meanwhile. None: they did not."""

    @classmethod
    def of(
        cls,
        token_ids: Sequence[int],
        sampler_logprobs: Sequence[float],
        text: str,
        stop_reason: Literal["stop", "length"] = "stop",
    ) -> "Completion":
        """From plain sequences."""
        return cls(np.array(token_ids, np.int32), np.array(sampler_logprobs, np.float32), text, stop_reason)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Completion):
            return NotImplemented
        arrays = ("token_ids", "sampler_logprobs", "versions")
        same = (self.text, self.stop_reason) == (other.text, other.stop_reason)
        return same and all(np.array_equal(getattr(self, name), getattr(other, name)) for name in arrays)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class RewardBreakdown:
    """The reward of one completion, in parts."""

    total: float
    """Sum of weight x part, behind the gate. With ``reward.normalize``: of the parts' z-scores."""
    parts: dict[str, float]
    """Unweighted value of each reward function, by its name."""
    outcome: Outcome
    """The verifier's verdict on the final answer."""


class EngineRecord(NamedTuple):
    """How an engine wrote a group, for the ledger."""

    engine: str
    """Its name and its process, which a restart replaces."""
    order: int
    """Groups that this process began before this one."""
    checksum: str | None
    """Of the weights that it began with; None for those in the model's files."""
    newest_step: int
    """Version of the weights that wrote the last tokens. Above ``weight_id.step`` if weights changed meanwhile."""


@dataclass(frozen=True, slots=True)
class RolloutGroup:
    """All completions of one prompt; ``rewards`` is filled in later, in the same order."""

    problem: Problem
    prompt_token_ids: tuple[int, ...]
    completions: tuple[Completion, ...]
    weight_id: WeightId
    """The weights that it was begun with: the oldest that wrote any of its tokens."""
    rewards: tuple[RewardBreakdown, ...] = ()
    seeds: tuple[int, ...] = ()
    """Sampling seed of each completion."""
    record: EngineRecord | None = None

    def answered(self, answer: "Answer") -> "RolloutGroup":
        """The group with what an engine wrote for it."""
        return replace(
            self, completions=answer.completions, weight_id=answer.weight_id or self.weight_id, record=answer.record
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """An engine's answer to a request."""

    completions: tuple[Completion, ...]
    """One per seed."""
    weight_id: WeightId | None
    """The weights that it was begun with. None: those in the model's files."""
    record: EngineRecord
    seconds: float = 0.0
    """From its first token to its last."""
