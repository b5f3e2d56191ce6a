"""Trains one stage: its setup, its attempts, and the error if they fail."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import ray.exceptions
from ray.train import TrainingFailedError

from actors.calls import describe_error
from actors.driver.plan import PlannedChain
from actors.driver.written import tasks_of, with_written
from actors.handles import ActorHandles
from actors.learner.setup import StageSetup
from pipeline.curriculum.replay import ReplayBuffer, read_trained
from pipeline.curriculum.stages import StageSpec
from pipeline.data.tokens import TokenTable
from pipeline.errors import ClusterError, GradusError
from pipeline.runs.directory import RunDirectory
from pipeline.runs.notices import notify

logger = logging.getLogger(__name__)


def stage_setup(
    chain: PlannedChain,
    index: int,
    run_path: Path,
    tokens: TokenTable,
    earlier: Sequence[Path],
    actors: ActorHandles,
    *,
    parent: Path | None = None,
    is_last: bool = False,
    since: float = 0.0,
) -> StageSetup:
    """Everything that the learner workers of a chain's stage are given.

    Args:
        earlier: checkpoints of the chain's stages before this one, in order.
        parent: the checkpoint to start from if ``run_path`` holds none.
        is_last: the run ends with this stage.
        since: Unix time of the command; 0: the stage's start is not measured.
    """
    stage = chain.stages[index]
    buffer = _replay_buffer(stage.spec, chain.spec.config.seed, earlier)
    problems = stage.problems
    if stage.spec.written_frac:
        problems, tokens = with_written(chain, index, earlier, run_path)
    return StageSetup(
        config=chain.spec.config,
        stage=stage.spec,
        run_path=run_path,
        problems=problems,
        tokens=tokens,
        held_out=chain.held_out,
        tasks=tasks_of(stage.spec, chain),
        buffer=buffer,
        replayed=buffer.pick(chain.problems) if buffer else chain.problems[:0],
        parent=parent,
        is_last=is_last,
        actors=actors,
        since=since,
    )


def _replay_buffer(spec: StageSpec, seed: int, earlier: Sequence[Path]) -> ReplayBuffer | None:
    """The problems that a stage can replay; None if it replays nothing."""
    if spec.replay is None:
        return None
    buffer = ReplayBuffer(spec.replay.capacity, spec.replay.sampling, seed)
    return buffer.add(item for source in spec.replay.sources for item in read_trained(earlier[source]))


def fit_stage(setup: StageSetup, train: Callable[[StageSetup], None]) -> None:
    """Train one stage to its end, and evaluate it. Learners that fail are restarted from the last checkpoint.

    Args:
        train: trains from the last checkpoint to the stage's end, or fails: ``Learners.train``.

    Raises:
        GradusError: they failed more than ``learner.max_failures`` times without a new checkpoint in between, or for a
            reason that a restart would not change. The full traceback is in the driver's log.
    """
    checkpoints = RunDirectory(setup.run_path).checkpoints
    config, num_failures = setup.config, 0
    while True:
        reached = checkpoints.latest_progress()
        try:
            return train(setup)
        except (TrainingFailedError, ray.exceptions.RayError) as error:
            logger.exception("stage %s failed", setup.stage.name)
            failure = _stage_error(setup, error)
            has_progressed = checkpoints.latest_progress() != reached
            num_failures = 1 if has_progressed else num_failures + 1
            if not isinstance(failure, ClusterError) or num_failures > config.learner.max_failures:
                raise failure from error
            notify(f"{failure} Restart {num_failures} of {config.learner.max_failures}.")


def _stage_error(setup: StageSetup, error: Exception) -> GradusError:
    """A worker's user error, unchanged; any other failure as one line that says where the logs are."""
    failures = [getattr(failure, "cause", failure) for failure in getattr(error, "worker_failures", {}).values()]
    for failure in failures:
        if isinstance(failure, GradusError) and not isinstance(failure, ClusterError):
            return failure
    failure = failures[0] if failures else error
    reason = str(failure) if isinstance(failure, ClusterError) else describe_error(failure)
    return ClusterError(
        f"stage {setup.stage.name} failed: {reason.rstrip('.')}. The full traceback is in {setup.run_path / 'logs'}; "
        "--resume continues from the last checkpoint."
    )
