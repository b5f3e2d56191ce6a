"""GRPO: the loop that every Ray Train worker runs from its first line to its last.

Plain SPMD: each worker takes its share of a step's problems, computes its part of the loss, and gradients are
summed over workers. The maths is in pipeline/training/grpo.py; LearnerSession handles models, checkpoints, metrics
and weights.
"""

from collections.abc import Sequence
from statistics import fmean

from actors.learner.grpo_update import learn_groups
from actors.learner.session import LearnerSession
from actors.learner.setup import StageSetup
from pipeline.config import GRPOConfig
from pipeline.rewards.totals import quality
from pipeline.seeds import completion_seeds
from pipeline.training.rollout_metrics import rollout_metrics
from pipeline.types import RolloutGroup


def grpo_loop(setup: StageSetup) -> None:
    """Group relative policy optimization: prompts, completions, rewards, advantages, loss, update, publish."""
    session = LearnerSession(setup)
    settings: GRPOConfig = session.settings
    session.begin()
    for stage_step in session.remaining_steps():
        iteration, iteration_step = divmod(session.schedule.pass_step, settings.num_steps)
        if iteration_step == 0 and settings.beta > 0:
            session.policy.snapshot_reference()
        batch, step = session.examples.batch(stage_step), session.progress.step
        seeds = [  # the position counts too: a small data set may repeat a problem within a batch
            completion_seeds(session.config.seed, step, f"{place}:{example.problem.id}", settings.num_generations)
            for place, example in enumerate(batch)
        ]
        share = session.ranks.share
        groups = session.engines.collect(share(batch), share(seeds), session.clock, session.rewards.state)
        with session.clock("learner"):
            learned = learn_groups(session, groups, stage_step)
        with session.clock("weight_sync"):
            rounding = session.publish_weights(step + 1)
        metrics = {"iteration": iteration + 1, **learned.metrics, **rounding}
        metrics |= _record_groups(session, groups, [example.is_replayed for example in batch])
        metrics |= session.evaluate_if_due()
        # Z-scores are relative to the policy's own past: their mean stays where it is while the policy improves.
        session.end_step(metrics, score=metrics.get("reward_quality", metrics["reward_mean"]))
    session.finish()


def _record_groups(session: LearnerSession, groups: list[RolloutGroup], replayed: Sequence[bool]) -> dict[str, float]:
    """Metrics over the groups of all workers; some completions are written to samples/.

    Args:
        groups: this worker's.
        replayed: for every prompt of the global batch, whether it came from the replay buffer.
    """
    groups = session.ranks.gather(groups)
    if session.recorder:
        session.recorder.groups(groups, session.progress.step + 1)
    session.rewards.advance(groups)
    version = groups[0].weight_id.step
    return (
        rollout_metrics(groups, replayed)
        | _quality(session, groups)
        | {
            "num_rollout_tokens": sum(len(c.token_ids) for group in groups for c in group.completions),
            "policy_version": version,
            "staleness": session.progress.step - version,
        }
    )


def _quality(session: LearnerSession, groups: Sequence[RolloutGroup]) -> dict[str, float]:
    """The mean quality of the completions where totals are normalised."""
    reward = session.config.reward
    qualities = [quality(each.parts, reward.functions) for group in groups for each in group.rewards]
    return {"reward_quality": fmean(qualities)} if reward.normalize else {}
