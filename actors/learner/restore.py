"""Where a learner worker continues a stage, and the proof that all workers continue alike."""

import logging

from actors.learner.ranks import Ranks
from actors.learner.setup import StageSetup
from actors.learner.updater import PolicyUpdater
from pipeline.errors import CheckpointError
from pipeline.models.pissa import start_digest
from pipeline.models.policy import weights_digest
from pipeline.runs.checkpoints import Checkpoint, Progress, load_checkpoint
from pipeline.runs.directory import RunDirectory

logger = logging.getLogger(__name__)


def restore(setup: StageSetup, run: RunDirectory, policy: PolicyUpdater, ranks: Ranks) -> Progress:
    """Load the checkpoint to continue from, and return its progress. Rank 0 names it: others may not see the newest one
    yet.

    Raises:
        CheckpointError: it is corrupt, workers hold different weights, or PiSSA does not start as when the run began.
    """
    path = ranks.from_first(lambda: run.checkpoints.latest() or setup.parent)
    progress = _continued(setup, load_checkpoint(path), policy, ranks) if path else Progress(setup.stage.name)
    progress.stepped_at = max(progress.stepped_at, setup.since)
    start = start_digest(policy.model)
    if progress.frozen_start not in ("", start):
        raise CheckpointError(
            f"PiSSA's start must be {progress.frozen_start}, as when the run began, got {start}: it is computed from "
            "the model's weights, and this machine or library computes another. Resume where the run began."
        )
    progress.frozen_start = start
    if ranks.size > 1 or progress.stage_step == 0:
        digest = weights_digest(policy.model)
        ranks.check_equal(digest + start, "weights")
        if progress.stage_step == 0:
            progress.started_from = digest
    return progress


def _continued(setup: StageSetup, checkpoint: Checkpoint, policy: PolicyUpdater, ranks: Ranks) -> Progress:
    logger.info("rank %d continues from %s", ranks.rank, checkpoint.path)
    before, stage = checkpoint.progress, setup.stage
    if before.stage == stage.name:
        policy.restore(checkpoint)
        return before
    policy.carry_over(checkpoint, stage.carry)
    return Progress(
        stage.name,
        step=before.step,
        reward_history=before.reward_history,
        reward_state=before.reward_state if stage.carry.weights else {},
        frozen_start=before.frozen_start,
        stepped_at=before.stepped_at,
    )
