"""Everything a learner worker is given for one stage."""

from dataclasses import dataclass
from pathlib import Path

from actors.handles import ActorHandles
from pipeline.config import Config
from pipeline.curriculum.replay import ReplayBuffer
from pipeline.curriculum.stages import StageSpec
from pipeline.data.table import ProblemTable
from pipeline.data.tokens import TokenTable
from pipeline.types import Problem


@dataclass(frozen=True)
class StageSetup:
    """Pickled once per learner worker: problems and tokens travel as paths."""

    config: Config
    stage: StageSpec
    run_path: Path
    problems: ProblemTable
    """The stage's own training problems."""
    tokens: TokenTable
    """Tokens of these problems and of the replayed ones."""
    held_out: tuple[Problem, ...]
    """Problems that evaluations use."""
    tasks: tuple[Problem, ...]
    """Tasks to write problems that are given at the stage's end; empty without ``stages.write``."""
    buffer: ReplayBuffer | None
    """The replay buffer as the stage starts: problems that earlier stages trained on. None: nothing is replayed."""
    replayed: ProblemTable
    """The buffer's problems."""
    parent: Path | None
    """The checkpoint to start from if the run directory has none."""
    is_last: bool
    """The run ends with this stage, which saves the final model."""
    actors: ActorHandles
    since: float = 0.0
    """Unix time from which its start is measured unless a stage before it ended later: of the command, or of a trial of
    a search."""
