"""The rollouts that a GRPO stage learned from, ``rollouts/``: one row per completion, enough to train on them again
without engines.

A step has one file per learner worker, written whole before the step's row of metrics.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import CheckpointError, first_line
from pipeline.files import sync, write_parquet
from pipeline.types import (
    Completion,
    EngineRecord,
    Problem,
    PromptRequest,
    RewardBreakdown,
    RolloutGroup,
    WeightId,
)


def rollouts_path(run_dir: str | Path) -> Path:
    return Path(run_dir) / "rollouts"


def write_rollouts(
    run_dir: str | Path, groups: Sequence[RolloutGroup], stage: str, step: int, first_position: int = 0
) -> None:
    """Record the graded groups that one learner worker learns from in a step.

    Args:
        step: of the run, as in metrics.jsonl.
        first_position: of the first group, in the batch of all learners.
    """
    directory = rollouts_path(run_dir)
    directory.mkdir(exist_ok=True)
    rows = [
        row | {"stage": stage, "step": step}
        for position, group in enumerate(groups, first_position)
        for row in _rows(group, position)
    ]
    write_parquet(directory / f"step_{step:06d}_{first_position:06d}.parquet", rows, _columns())


def truncate_rollouts(run_dir: str | Path, last_step: int) -> None:
    """Delete the steps after ``last_step``, and what a killed writer left half-written."""
    hidden = rollouts_path(run_dir).glob(".*.tmp")
    for path in (*hidden, *(path for path in _parts(run_dir) if _step(path) > last_step)):
        path.unlink()


def sync_rollouts(run_dir: str | Path, after: int) -> int:
    """Wait until the steps after ``after`` are on the disk. Returns the last one."""
    new = [path for path in _parts(run_dir) if _step(path) > after]
    for path in (*new, rollouts_path(run_dir)) if new else ():
        sync(path)
    return max(map(_step, new), default=after)


def recorded_steps(run_dir: str | Path) -> list[int]:
    """Steps of which there are rollouts, in order."""
    return sorted({_step(path) for path in _parts(run_dir)})


def read_rollouts(
    run_dir: str | Path, stage: str, step: int, problems: Sequence[Problem], requests: Sequence[PromptRequest]
) -> list[RolloutGroup]:
    """The groups of a step, as they were learned from.

    Args:
        problems, requests: the batch of all learners, as the run that learns from it again would ask for it.

    Raises:
        CheckpointError: the step was not recorded, or was recorded from other problems, prompts or seeds.
    """
    rows = sorted(
        (row for path in _parts(run_dir) if _step(path) == step for row in _read(path)),
        key=lambda row: (row["position"], row["index"]),
    )
    by_position: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        by_position.setdefault(row["position"], []).append(row)
    place = f"{rollouts_path(run_dir)} step {step}"
    if list(by_position) != list(range(len(problems))):
        raise CheckpointError(f"{place} must hold {len(problems)} groups, got those at {list(by_position)}.")
    groups = [_group(own, problem) for own, problem in zip(by_position.values(), problems, strict=True)]
    for group, own, request in zip(groups, by_position.values(), requests, strict=True):
        recorded = (own[0]["stage"], own[0]["problem_id"], group.prompt_token_ids, group.seeds)
        asked = (stage, group.problem.id, tuple(request.prompt_token_ids), tuple(request.seeds))
        for name, was, now in zip(("stage", "problem", "prompt", "seeds"), recorded, asked, strict=True):
            if was != now:
                raise CheckpointError(
                    f"{place} must have the {name} that this run asks for, got {was!r:.80}, not {now!r:.80}: it is of "
                    "a run with other settings or data."
                )
    return groups


def read_completions(run_dir: str | Path, step: int) -> list[dict[str, Any]]:
    """Every recorded completion of a step, in the order of its batch: problem, text, reward, outcome, stop reason.

    Raises:
        CheckpointError: a file is corrupt.
    """
    names = ["position", "index", "problem_id", "text", "reward", "parts", "outcome", "stop_reason"]
    rows = [row for path in _parts(run_dir) if _step(path) == step for row in _read(path, names)]
    rows.sort(key=lambda row: (row["position"], row["index"]))
    return [row | {"text": _text(row), "parts": dict(row["parts"])} for row in rows]


def _rows(group: RolloutGroup, position: int) -> list[dict[str, Any]]:
    shared = {
        "position": position,
        "problem_id": group.problem.id,
        "prompt_token_ids": group.prompt_token_ids,
        "weight_attempt": group.weight_id.attempt,
        "weight_step": group.weight_id.step,
        **(group.record._asdict() if group.record else {}),
    }
    return [
        shared
        | {
            "index": index,
            "seed": group.seeds[index] if group.seeds else None,
            "token_ids": np.asarray(completion.token_ids, dtype=np.int32),
            "sampler_logprobs": np.asarray(completion.sampler_logprobs, dtype=np.float32),
            "versions": completion.versions,
            "text": completion.text.encode(errors="surrogatepass"),
            "stop_reason": completion.stop_reason,
            "reward": reward.total,
            "parts": list(reward.parts.items()),
            "outcome": reward.outcome,
        }
        for index, (completion, reward) in enumerate(zip(group.completions, group.rewards, strict=True))
    ]


def _group(rows: Sequence[dict[str, Any]], problem: Problem) -> RolloutGroup:
    first = rows[0]
    seeds = tuple(row["seed"] for row in rows)
    record = None
    if first["engine"] is not None:
        record = EngineRecord(*(first[name] for name in EngineRecord._fields))
    return RolloutGroup(
        problem=problem,
        prompt_token_ids=tuple(first["prompt_token_ids"]),
        completions=tuple(map(_completion, rows)),
        weight_id=WeightId(first["weight_attempt"], first["weight_step"]),
        rewards=tuple(RewardBreakdown(row["reward"], dict(row["parts"]), row["outcome"]) for row in rows),
        seeds=() if None in seeds else seeds,
        record=record,
    )


def _completion(row: dict[str, Any]) -> Completion:
    arrays: dict[str, Any] = {
        "token_ids": np.asarray(row["token_ids"], dtype=np.int32),
        "sampler_logprobs": np.asarray(row["sampler_logprobs"], dtype=np.float32),
    }
    if row["versions"] is not None:
        arrays["versions"] = np.asarray(row["versions"], dtype=np.int32)
    return Completion(text=_text(row), stop_reason=row["stop_reason"], **arrays)


def _text(row: dict[str, Any]) -> str:
    text: str = row["text"].decode(errors="surrogatepass")
    return text


def _parts(run_dir: str | Path) -> list[Path]:
    return sorted(rollouts_path(run_dir).glob("step_*.parquet"))


def _step(path: Path) -> int:
    return int(path.name.split("_")[1])


def _read(path: Path, names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """
    Args:
        names: of the columns to read. Empty: all.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, kind) for name, kind in _columns().items() if not names or name in names])
    try:
        rows: list[dict[str, Any]] = (
            pq.ParquetFile(path).read(names or None).select(schema.names).cast(schema).to_pylist()
        )
        return rows
    except (OSError, KeyError, pa.ArrowException) as error:
        raise CheckpointError(f"{path} must hold rollouts: the file is corrupt ({first_line(error)}).") from None


def _columns() -> dict[str, Any]:
    """Name -> pyarrow's type."""
    import pyarrow as pa

    tokens = pa.list_(pa.int32())
    return {
        "stage": pa.string(),
        "step": pa.int64(),
        "position": pa.int64(),
        "index": pa.int64(),
        "problem_id": pa.string(),
        "prompt_token_ids": tokens,
        "seed": pa.int64(),
        "token_ids": tokens,
        "sampler_logprobs": pa.list_(pa.float32()),
        "versions": tokens,
        "text": pa.binary(),  # a model's text may hold lone surrogates, which UTF-8 does not have
        "stop_reason": pa.string(),
        "reward": pa.float64(),
        "parts": pa.map_(pa.string(), pa.float64()),
        "outcome": pa.string(),
        "weight_attempt": pa.int64(),
        "weight_step": pa.int64(),
        "engine": pa.string(),
        "order": pa.int64(),
        "checksum": pa.string(),
        "newest_step": pa.int64(),
    }
