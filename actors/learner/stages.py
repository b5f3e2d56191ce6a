"""Trains the stages of a learner worker, one after another in one process."""

import gc

from actors.learner.grpo_loop import grpo_loop
from actors.learner.memory_loop import memory_loop
from actors.learner.router_loop import router_loop
from actors.learner.setup import StageSetup
from actors.learner.sft_loop import sft_loop
from pipeline.models.imports import import_transformers
from pipeline.runs.logs import log_files_closed
from pipeline.runs.starvation import watch_starvation


def prepare() -> None:
    """Import what every stage needs, while its setup is still being made."""
    import_transformers()
    watch_starvation()


def train_stage(setup: StageSetup) -> None:
    """The loop of the stage's kind. Nothing of it stays: neither tensors nor open log files."""
    loops = {"sft": sft_loop, "grpo": grpo_loop, "memory_sft": memory_loop, "router": router_loop}
    with log_files_closed():
        loops[setup.stage.kind](setup)
    gc.collect()  # a session and its parts refer to each other
