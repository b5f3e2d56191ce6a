"""GRPO: the loop that every Ray Train worker runs from its first line to its last.

Plain SPMD: each worker takes its share of a step's problems, computes its part of the loss, and gradients are
summed over workers. The maths is in pipeline/training/grpo.py; LearnerSession handles models, checkpoints, metrics
and weights.
"""

from collections.abc import Sequence
from pathlib import Path

from actors.learner.grpo_update import learn_groups
from actors.learner.session import LearnerSession
from actors.learner.setup import StageSetup
from actors.learner.work_ahead import StepRollouts, rollouts_of
from pipeline.config import GRPOConfig
from pipeline.runs.ledger import Use, ledger_rows
from pipeline.runs.rollout_record import write_rollouts
from pipeline.training.rollout_metrics import RolloutSummary, combined_metrics, sample_rows, ungraded_rows


def grpo_loop(setup: StageSetup) -> None:
    """Group relative policy optimization: prompts, completions, rewards, advantages, loss, update, publish."""
    session = LearnerSession(setup)
    settings: GRPOConfig = session.settings
    session.begin()
    source = rollouts_of(session)
    for stage_step in session.remaining_steps():
        iteration, iteration_step = divmod(session.schedule.pass_step, settings.num_steps)
        if iteration_step == 0 and settings.beta > 0:
            session.policy.snapshot_reference()
        rollouts = source.take(stage_step)
        groups, step = rollouts.groups, session.progress.step
        with session.clock("learner"):
            learned = learn_groups(session, groups, stage_step)
        with session.clock("weight_sync"):
            rounding = session.publish_weights(step + 1)
        metrics = {"iteration": iteration + 1, **learned.metrics, **rounding}
        _record_uses(session, rollouts, learned.uses, setup.run_path)
        metrics |= _record_groups(session, rollouts) | rollouts.metrics
        metrics |= session.evaluate_if_due()
        # Z-scores are relative to the policy's own past: their mean stays where it is while the policy improves.
        session.end_step(metrics, score=metrics.get("reward_quality", metrics["reward_mean"]))
    left = list(source.left())
    for each in left:
        _record_uses(session, each, ["stage_ended"] * len(each.groups), setup.run_path)
    if left:
        session.engines.start_attempt()  # engines refuse what they have not begun
    session.finish()


def _record_uses(session: LearnerSession, rollouts: StepRollouts, uses: Sequence[Use], run_path: Path) -> None:
    """Write the ledger's rows of groups that a step learned from or that were asked for in vain. Of the former, also
    record everything that a replay needs."""
    is_used, first = "stage_ended" not in uses, session.ranks.rank * len(rollouts.groups)
    stage, step = session.stage.name, session.progress.step + is_used
    if is_used and session.config.records_rollouts:
        write_rollouts(run_path, rollouts.groups, stage, step, first)
    taken = zip(rollouts.groups, uses, rollouts.asked_steps, range(first, first + len(uses)), strict=True)
    dropped = [(each.sampled.group, each.use, each.sampled.asked_step, each.place) for each in rollouts.dropped]
    own = [ledger_rows([group], [use], stage, step, *at) for group, use, *at in [*taken, *dropped]]
    rows = session.ranks.gather([row for (row,) in own])
    if session.recorder:
        session.recorder.ledger(rows)


def _record_groups(session: LearnerSession, rollouts: StepRollouts) -> dict[str, float]:
    """Metrics over the groups of all workers; their completions are written to samples/."""
    groups, step = rollouts.groups, session.progress.step + 1
    if session.rewards.is_needed:
        session.rewards.advance(session.ranks.gather(groups))
    rows = session.ranks.gather(sample_rows(groups, step, session.stage.name))
    ungraded = session.ranks.gather(ungraded_rows(groups, step, session.stage.name))
    if session.recorder:
        session.recorder.samples(rows, step)
        session.recorder.ungraded(ungraded)
    terms = session.config.reward.functions if session.config.reward.normalize else None
    summaries = session.ranks.gather([RolloutSummary.of(groups, rollouts.replayed, terms)])
    return combined_metrics(summaries, session.progress.step)
