from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import CheckpointError
from pipeline.runs.rollout_record import (
    read_completions,
    read_rollouts,
    recorded_steps,
    rollouts_path,
    sync_rollouts,
    truncate_rollouts,
    write_rollouts,
)
from pipeline.types import EngineRecord, Problem, PromptRequest, RolloutGroup
from tests.support.ledgers import group

GROUPS = [group(3, 0, EngineRecord("e", 6, None, 2)), group(3, 1)]
PROBLEMS = [each.problem for each in GROUPS]
REQUESTS = [PromptRequest(each.prompt_token_ids, each.seeds) for each in GROUPS]


def assert_same(read: RolloutGroup, written: RolloutGroup) -> None:
    names = ("problem", "prompt_token_ids", "weight_id", "rewards", "seeds", "record")
    assert [getattr(read, name) for name in names] == [getattr(written, name) for name in names]
    for own, other in zip(read.completions, written.completions, strict=True):
        assert (own.text, own.stop_reason) == (other.text, other.stop_reason)
        for name, dtype in (("token_ids", np.int32), ("sampler_logprobs", np.float32)):
            array = getattr(own, name)
            assert array.dtype == dtype and array.tobytes() == np.asarray(getattr(other, name), dtype).tobytes()


def test_every_worker_writes_its_part_and_all_are_read_to_the_last_bit(tmp_path):
    write_rollouts(tmp_path, GROUPS[1:], "rl", 3, first_position=1)
    write_rollouts(tmp_path, GROUPS[:1], "rl", 3)
    for read, written in zip(read_rollouts(tmp_path, "rl", 3, PROBLEMS, REQUESTS), GROUPS, strict=True):
        assert_same(read, written)


def test_later_steps_are_dropped_when_a_run_is_resumed(tmp_path):
    truncate_rollouts(tmp_path, 0)  # there is none yet
    for step in (1, 2, 10):
        write_rollouts(tmp_path, GROUPS, "rl", step)
    (rollouts_path(tmp_path) / ".step_000003_000000.parquet.0123456789abcdef.tmp").touch()
    assert sync_rollouts(tmp_path, 0) == 10 and sync_rollouts(tmp_path, 10) == 10
    truncate_rollouts(tmp_path, 2)
    assert recorded_steps(tmp_path) == [1, 2] and len(list(rollouts_path(tmp_path).iterdir())) == 2


@pytest.mark.parametrize(
    ("stage", "step", "problems", "requests", "message"),
    [
        ("rl", 4, PROBLEMS, REQUESTS, r"step 4 must hold 2 groups, got those at \[\]"),
        ("rl", 3, [*PROBLEMS, PROBLEMS[0]], [*REQUESTS, REQUESTS[0]], r"must hold 3 groups, got those at \[0, 1\]"),
        ("sft", 3, PROBLEMS, REQUESTS, "must have the stage that this run asks for, got 'rl', not 'sft'"),
        ("rl", 3, [PROBLEMS[0], Problem("q", (), "")], REQUESTS, "must have the problem .* got 'p1', not 'q'"),
        ("rl", 3, PROBLEMS, [REQUESTS[0], PromptRequest((4,), REQUESTS[1].seeds)], "must have the prompt"),
        ("rl", 3, PROBLEMS, [REQUESTS[0], PromptRequest((4, 5), (1, 2))], "must have the seeds"),
    ],
)
def test_what_was_not_recorded_is_named(tmp_path, stage, step, problems, requests, message):
    write_rollouts(tmp_path, GROUPS, "rl", 3)
    with pytest.raises(CheckpointError, match=message):
        read_rollouts(tmp_path, stage, step, problems, requests)


def test_a_corrupt_record_is_named(tmp_path):
    write_rollouts(tmp_path, GROUPS, "rl", 3)
    (path,) = rollouts_path(tmp_path).iterdir()
    Path(path).write_bytes(path.read_bytes()[:99])
    with pytest.raises(CheckpointError, match=r"step_000003_000000\.parquet must hold rollouts: the file is corrupt"):
        read_rollouts(tmp_path, "rl", 3, PROBLEMS, REQUESTS)


def test_completions_of_a_step_are_read_alone_in_the_order_of_the_batch(tmp_path):
    write_rollouts(tmp_path, GROUPS[1:], "rl", 3, first_position=1)
    write_rollouts(tmp_path, GROUPS[:1], "rl", 3)
    rows = read_completions(tmp_path, 3)
    assert [row["problem_id"] for row in rows] == ["p0", "p0", "p1", "p1"]
    assert (rows[0]["text"], rows[0]["parts"], rows[0]["outcome"]) == ("√2 \ud800", {"b": 1.0, "a": 0.5}, "correct")
    assert read_completions(tmp_path, 4) == []
