"""A run that learns again from the rollouts of another: may it, and did it end with the same weights?"""

from pathlib import Path

from pipeline.config import Config
from pipeline.config.resuming import replay_refusals
from pipeline.errors import CheckpointError
from pipeline.runs.checkpoints import read_progress
from pipeline.runs.directory import RunDirectory
from pipeline.runs.inputs import Inputs
from pipeline.runs.metrics_log import read_metrics
from pipeline.runs.notices import notify
from pipeline.runs.rollout_record import recorded_steps

COMPARED = ("loss", "grad_norm", "learning_rate", "reward_mean", "kl", "entropy", "clip_frac")


def check_replay(config: Config, inputs: Inputs) -> None:
    """Before a run with ``rollout.replay`` starts, check that the recorded run had the same settings, files and data,
    and that every step was recorded.

    Raises:
        CheckpointError: lists every difference.
    """
    if config.rollout.replay is None:
        return
    record = RunDirectory.open(config.rollout.replay, config.output.root)
    recorded = Inputs.read(record.path)
    lines = replay_refusals(record.load_config(), config) + (recorded.differences(inputs) if recorded else [])
    steps = {row["step"] for row in read_metrics(record.path) if row.get("kind") == "grpo"}
    if missing := sorted(steps - set(recorded_steps(record.path))):
        lines.append(f"rollouts of {len(missing)} of {len(steps)} steps are not recorded: the first is {missing[0]}")
    if lines or not steps:
        lines = lines or ["it has no GRPO steps"]
        raise CheckpointError(
            f"rollout.replay must be a run with the same settings and the record of every step, got {record.path}:\n  "
            + "\n  ".join(lines)
        )


def first_difference(run: str | Path, other: str | Path) -> str | None:
    """The first step or stage in which two runs differ, in words; None if they ended with the same weights."""
    rows, others = read_metrics(run), read_metrics(other)
    for row, expected in zip(rows, others, strict=False):
        for name in ("step", "stage", *COMPARED):
            if row.get(name) != expected.get(name):
                return f"step {row['step']}: {name} is {row.get(name)}, not {expected.get(name)}"
    if len(rows) != len(others):
        return f"{len(rows)} steps, not {len(others)}"
    ends, others_ends = _ends(run), _ends(other)
    for stage in others_ends:
        if ends.get(stage) != others_ends[stage]:
            return f"stage {stage}: weights {ends.get(stage)}, not {others_ends[stage]}"
    return None


def announce_replay(config: Config, run_dir: Path) -> None:
    """At the end of a run with ``rollout.replay``: did it end like the recorded one?"""
    if config.rollout.replay is not None:
        found = first_difference(run_dir, config.rollout.replay)
        notify(f"replay of {config.rollout.replay}: {found or 'the same weights at the end of every stage'}")


def _ends(run: str | Path) -> dict[str, str]:
    """Digest of the weights that every finished stage ended with."""
    return {
        name: read_progress(path).ended_with
        for name, path in RunDirectory(Path(run)).checkpoints.stage_results().items()
    }
