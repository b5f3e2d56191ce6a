"""Problems that stages write: the tasks for them, and their use as training data of later stages."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from actors.driver.encode import make_tokens
from actors.driver.plan import PlannedChain, StagePlan
from pipeline.curriculum.mixture import InTurn
from pipeline.curriculum.stages import StageSpec
from pipeline.data.selection import select_problems
from pipeline.data.table import ProblemTable, save_table
from pipeline.data.tokens import TokenTable
from pipeline.errors import DataError
from pipeline.questions.rows import written_problem
from pipeline.runs.checkpoints import read_written
from pipeline.runs.notices import notify
from pipeline.seeds import item_at
from pipeline.types import Problem


def tasks_of(spec: StageSpec, chain: PlannedChain) -> tuple[Problem, ...]:
    """The writing tasks at the end of a stage; empty if it writes nothing.

    They have the stage's levels and topics and the kinds that it writes. Levels and kinds take turns.
    """
    if spec.write is None:
        return ()
    rows: dict[tuple[str | None, str], list[int]] = {}
    chosen = spec.problems.model_copy(update={"sources": spec.write.kinds, "max_per_level": None})
    for head in select_problems(chain.problems.heads(), chosen):
        rows.setdefault((head.level, str(head.source)), []).append(head.row)
    if not rows:
        raise DataError(
            f"stage {spec.name} must have tasks to write problems for, got none of {chain.spec.config.data.name} with "
            f"{chosen.model_dump(exclude_none=True)}."
        )
    order = InTurn(tuple(rows[key] for key in sorted(rows, key=str)), (chain.spec.config.seed, spec.name, "write"))
    return tuple(chain.problems[order.row(position)] for position in range(spec.write.num_problems))


def with_written(
    chain: PlannedChain, index: int, earlier: Sequence[Path], run_path: Path
) -> tuple[ProblemTable, TokenTable]:
    """The training problems of a stage with ``written_frac``, and their tokens.

    These are the problems of this stage's levels and topics that earlier stages wrote and kept, and as many of its own
    as give the right share. If it has too few of its own, some written ones are left out. If the number of steps
    differs from the plan, a notice says so.

    Args:
        earlier: checkpoints of the chain's stages before this one, in order.

    Raises:
        DataError: no written problem was kept.
    """
    stage, config = chain.stages[index], chain.spec.config
    rows = [row for checkpoint in earlier for row in read_written(checkpoint)]
    chosen = stage.spec.problems.model_copy(update={"sources": None, "max_per_level": None})
    written = select_problems([written_problem(row) for row in rows if row["is_kept"]], chosen)
    if not written:
        reasons = sorted({row["reason"] for row in rows})
        raise DataError(
            f"stage {stage.spec.name} must have problems that earlier stages wrote and kept, got none of {len(rows)}"
            f"{': ' + ', '.join(reasons[:5]) if reasons else ''}. Train those stages longer, or lower questions.keep."
        )
    num_written, num_own = shares(stage.spec.written_frac, len(written), len(stage.problems))
    seed = (config.seed, stage.spec.name)
    written = [item_at(written, place, *seed, "written") for place in range(num_written)]
    own = [stage.problems[item_at(range(len(stage.problems)), place, *seed, "own")] for place in range(num_own)]
    digest = hashlib.sha256(json.dumps([stage.problems.digest, rows], sort_keys=True).encode()).hexdigest()[:16]
    table = save_table(run_path / "written" / stage.spec.name / digest, digest, [*written, *own])
    _tell_steps(stage, replace(stage, problems=table))
    return table, make_tokens(table, config.model, chat=config.data.uses_chat_template)


def _tell_steps(planned: StagePlan[ProblemTable], actual: StagePlan[ProblemTable]) -> None:
    if actual.num_steps != planned.num_steps:
        notify(
            f"Stage {planned.spec.name} makes {actual.num_steps} steps instead of {planned.num_steps}: it has "
            f"{len(actual.problems)} problems, because of written_frac and of how many were written and kept."
        )


def shares(written_frac: float, num_written: int, num_own: int) -> tuple[int, int]:
    """The largest numbers of written and of own problems that give this share, with at least one written problem."""
    own = round(num_written * (1 - written_frac) / written_frac)
    if own <= num_own:
        return num_written, own
    return max(1, round(num_own * written_frac / (1 - written_frac))), num_own
