"""Types of what Ray gives us: references to answers, and handles of the actors of a run."""

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, ParamSpec, Protocol, TypeVar

from ray.util.placement_group import PlacementGroup

from actors.engine_loop import Chunk, Decoding, SyncReport
from actors.weights import PackedWeights
from pipeline.rewards.state import RewardState
from pipeline.types import Answer, Completion, EngineRecord, PromptRequest, RewardBreakdown, RolloutGroup, WeightId

P = ParamSpec("P")
T_co = TypeVar("T_co", covariant=True)


class Ref(Protocol[T_co]):
    """A Ray object reference: the answer of a remote call."""

    def __await__(self) -> Generator[Any, None, T_co]: ...


class RemoteMethod(Protocol[P, T_co]):
    """A method of an actor handle."""

    def remote(self, *args: P.args, **kwargs: P.kwargs) -> Ref[T_co]: ...


class RolloutHandle(Protocol):
    """Handle of a RolloutWorker."""

    @property
    def sync(self) -> RemoteMethod[[WeightId | None], SyncReport | None]: ...

    @property
    def complete(self) -> RemoteMethod[[Ref[Chunk], int], Answer]: ...

    @property
    def generate(
        self,
    ) -> RemoteMethod[[WeightId | None, list[PromptRequest], Decoding], list[tuple[Completion, ...]]]: ...


class EvalHandle(Protocol):
    """Handle of an EvalWorker."""

    @property
    def answer(
        self,
    ) -> RemoteMethod[[list[PromptRequest], Decoding], tuple[list[tuple[Completion, ...]], float]]: ...


class RewardHandle(Protocol):
    """Handle of a RewardWorker."""

    @property
    def score(
        self,
    ) -> RemoteMethod[
        [RolloutGroup, Ref[Answer], RewardState | None], tuple[EngineRecord, tuple[RewardBreakdown, ...]]
    ]: ...


class WeightStoreHandle(Protocol):
    """Handle of the WeightStore."""

    @property
    def next_attempt(self) -> RemoteMethod[[], int]: ...

    @property
    def publish(self) -> RemoteMethod[[WeightId, PackedWeights], None]: ...

    @property
    def locate(self) -> RemoteMethod[[], tuple[WeightId | None, list[Ref[PackedWeights]]]]: ...


@dataclass(frozen=True)
class ActorHandles:
    """The actors that serve one stage at a time."""

    rollout_workers: tuple[RolloutHandle, ...]
    reward_workers: tuple[RewardHandle, ...]
    weight_store: WeightStoreHandle
    frozen: dict[str, RolloutHandle] = field(default_factory=dict)
    """Engines of frozen models, a solver or a teacher, by the model's name."""
    placement: PlacementGroup | None = None
    """The room of engines and graders."""
    learner_room: str | None = None
    """Name under which the room of the learners is held while no stage trains."""
