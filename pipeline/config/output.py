"""What a run writes: checkpoints, its directory, trackers."""

from typing import Literal

from pydantic import Field

from pipeline.config.base import StrictModel


class CheckpointConfig(StrictModel):
    every_steps: int = Field(50, ge=1)
    every_minutes: float = Field(5.0, gt=0)
    keep_last: int = Field(2, ge=1)
    """The last k are kept, and the newest stage's best: see ``eval.metric_for_best_model``."""


class OutputConfig(StrictModel):
    root: str = "output/experiments"
    """Run directories are made here. A submitted job needs an absolute path."""
    samples_every_steps: int = Field(10, ge=1)
    """Completions of a step are written to samples/ this often."""
    save_final_model: bool = True


class TrackingConfig(StrictModel):
    """Where metrics go besides metrics.jsonl. Keys are taken from the environment alone. docs/tracking.md."""

    backends: list[Literal["tensorboard", "wandb", "swanlab", "mlflow"]] = ["tensorboard"]
    """``wandb``, ``swanlab`` and ``mlflow`` are extras: ``pip install "gradus[wandb]"``."""
    online: bool = False
    """False: files under metrics/ of the run directory, nothing leaves the machine."""
    project: str = Field("gradus", min_length=1)
    run_name: str | None = None
    """None: the run directory's name."""
    mlflow_uri: str | None = None
    """A tracking server, or ``sqlite:///FILE``. None: a file under metrics/, online or not."""
