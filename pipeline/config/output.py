"""The output of a run: checkpoints, its directory, trackers."""

from typing import Literal

from pydantic import Field

from pipeline.config.base import StrictModel


class CheckpointConfig(StrictModel):
    """Intervals between checkpoints, and the number to keep."""

    every_steps: int = Field(50, ge=1)
    """Steps of a stage between two checkpoints."""
    every_minutes: float = Field(5.0, gt=0)
    """Minutes after which a checkpoint is written even if every_steps have not passed."""
    keep_last: int = Field(2, ge=1)
    """Checkpoints to keep, besides the best of the newest stage: see ``eval.metric_for_best_model``."""


class OutputConfig(StrictModel):
    """Run directories, and what is written to them. docs/run_directory.md."""

    root: str = "output/experiments"
    """The directory for run directories. For a submitted job it must be an absolute path."""
    samples_every_steps: int = Field(10, ge=1)
    """Steps between two files of completions that samples/ keeps. Those of the newest steps are there as well."""
    record_rollouts: bool = False
    """Store in rollouts/ what every GRPO step learned from, so that ``rollout.replay`` can learn from it again.
    Always done with ``rollout.max_staleness`` above 0."""
    save_final_model: bool = True
    """Save final_model/, adapters merged, after the last stage."""


class TrackingConfig(StrictModel):
    """Trackers that get metrics besides metrics.jsonl. API keys come from the environment only. docs/tracking.md."""

    backends: list[Literal["tensorboard", "wandb", "swanlab", "mlflow"]] = ["tensorboard"]
    """``wandb``, ``swanlab`` and ``mlflow`` are extras: ``pip install "gradus[wandb]"``."""
    online: bool = False
    """False: files under metrics/ of the run directory; nothing leaves the machine."""
    project: str = Field("gradus", min_length=1)
    """Project, or experiment in MLflow, that the run belongs to."""
    run_name: str | None = None
    """None: the run directory's name."""
    mlflow_uri: str | None = None
    """A tracking server, or ``sqlite:///FILE``. None: a file under metrics/, online or not."""
