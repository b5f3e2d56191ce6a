"""Stages that one process trains after another: nothing of the first stays, and each says how long it took to start."""

import gc
import logging
from pathlib import Path

import pytest
import torch

from actors.handles import ActorHandles
from pipeline.config import validate_config
from pipeline.runs.metrics_log import read_metrics
from tests.support.loops import LocalHandle, LocalStore, run_loops, write_splits
from tests.support.recipes import tiny_settings


def num_elements() -> int:
    gc.collect()
    return sum(each.numel() for each in gc.get_objects() if issubclass(type(each), torch.Tensor))


@pytest.fixture(scope="module")
def trained(tiny_model, tmp_path_factory) -> tuple[Path, int, list[logging.Handler]]:
    """A run of two stages, how many more elements of tensors there are after it, and the log handlers that it left."""
    root = tmp_path_factory.mktemp("stages")
    write_splits(root, [{"question": f"{a}?", "answer": f"so #### {a}", "level": "1"} for a in range(8)])
    stages = [{"name": name, "kind": "sft"} for name in ("first", "second")]
    settings = tiny_settings(tiny_model, root, stages=stages, output={"root": str(root / "runs")})
    settings["sft"]["max_steps"] = 2
    settings["eval"]["problems_per_level"] = 0
    handlers, before = list(logging.getLogger().handlers), num_elements()
    run = run_loops(validate_config(settings), ActorHandles((), (), LocalHandle(LocalStore())))
    left = [handler for handler in logging.getLogger().handlers if handler not in handlers]
    return run.path, num_elements() - before, left


def test_models_gradients_and_moments_are_gone_after_a_stage(trained):
    assert trained[1] < 1000  # the tiny model alone has several thousand


def test_log_files_are_closed_after_a_stage(trained):
    assert trained[2] == []


def test_the_first_step_of_every_stage_says_how_long_the_start_took(trained):
    rows = read_metrics(trained[0])
    assert ["start_s" in row for row in rows] == [True, False, True, False]
    second = rows[2]["start_s"]
    between = rows[2]["time"] - rows[1]["time"]  # the second stage's start and its first step
    assert 0 < second <= between
    assert between - second <= rows[2]["step_s"] + 1
