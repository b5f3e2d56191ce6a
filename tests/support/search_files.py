"""The files of a search or of a run with a curriculum, made up from the columns of their matrices."""

import json
from collections.abc import Sequence
from pathlib import Path

from pipeline.evaluation.held_out import accuracy_by_level
from pipeline.files import write_json, write_jsonl
from tests.support.runs import make_run, write_metrics

NUM_PROBLEMS = 10  # per level: a tenth is one problem

# Columns of the matrix, one per level, in tenths; rows: before, after stage 1, after stage 2.
FORGETS_HALF = [[1, 9, 4], [0, 2, 8]]  # level 1 falls by 50 points
FORGETS_LITTLE = [[1, 9, 8], [0, 2, 8]]  # by 10
MIXED = [[1, 6], [0, 6]]  # one stage


def evaluated(tenths: Sequence[int], levels: list[str]) -> list[dict]:
    """Evaluated problems: the first ones right when tagged, all of them by the last number."""
    return [
        {"level": level, "problem_id": f"{level}-{i}", "tagged": i < right, "last_number": True, "outcome": "correct"}
        | {"num_tokens": 9, "truncated": False}
        for level, right in zip(levels, tenths, strict=True)
        for i in range(NUM_PROBLEMS)
    ]


def write_evaluation(directory: Path, name: str, step: int, rows: list[dict]) -> None:
    (directory / "eval").mkdir(parents=True, exist_ok=True)
    (directory / "samples").mkdir(exist_ok=True)
    write_json(directory / "eval" / f"{name}.json", {"name": name, "step": step, **accuracy_by_level(rows)})
    write_jsonl(directory / "samples" / f"eval_{name}.jsonl", rows)


class SearchFiles:
    """Writes the files of a search, a chain at a time."""

    def __init__(self, run_dir: Path, levels: tuple[str, ...] = ("1", "2")) -> None:
        self.path, self.levels = run_dir, list(levels)
        self.chains: list[dict] = []
        self.outcome: dict[str, dict] = {}

    def add(
        self, setting, columns, seed=0, *, ratio=None, baseline=False, keys=(), num_done=None, before=True, **ending
    ):
        """Stage i trains on level i; a chain of one stage on all. ``keys``: of the stages it shares."""
        name = f"{setting},seed={seed}"
        after = list(zip(*columns, strict=True))[1:]
        stages = []
        for index, tenths in enumerate(after):
            key = keys[index] if index < len(keys) else f"{len(self.chains)}-{index}"
            stage = f"level_{index + 1}" if len(after) > 1 else "level_mixed"
            levels = [self.levels[index]] if len(after) > 1 else None
            directory = f"stages/{key}"
            stages.append({"name": stage, "kind": "sft", "levels": levels, "key": key, "directory": directory})
            if num_done is not None and index >= num_done:
                continue
            write_evaluation(self.path / directory, stage, index + 1, evaluated(tenths, self.levels))
            if index == 0 and before:
                rows = evaluated([column[0] for column in columns], self.levels)
                write_evaluation(self.path / directory, "before", 0, rows)
            result = {"key": key, "name": stage, "chain": name, "score": 0.5}
            result |= {"started": 1000.0 + 60 * index, "ended": 1060.0 + 60 * index}
            (self.path / "results").mkdir(exist_ok=True)
            (self.path / "results" / f"{key}.json").write_text(json.dumps(result))
        values = {"seed": seed} | ({} if ratio is None else {"curriculum.replay_ratio": ratio})
        chain = {"name": name, "setting": setting, "seed": seed, "is_baseline": baseline}
        self.chains.append({**chain, "values": values, "stages": stages})
        if ending:
            self.outcome[name] = {"num_done": num_done, "score": None, **ending}
        return self

    def add_grpo(
        self, setting: str, tokens: int, seed: int = 0, *, budget: int | None = None, baseline: bool = False
    ) -> "SearchFiles":
        """A chain of one GRPO stage that sampled these tokens, in two steps."""
        self.add(setting, MIXED, seed, baseline=baseline)
        (stage,) = self.chains[-1]["stages"]
        stage["kind"] = "grpo"
        directory = self.path / stage["directory"]
        totals = [{"stage": stage["name"], "sampled_tokens_total": total} for total in (tokens // 2, tokens)]
        write_metrics(directory, [{"step": step, **row} for step, row in enumerate(totals, 1)])
        write_json(directory / "experiment_config.json", {"grpo": {"max_sampled_tokens": budget}})
        return self

    def write(self) -> Path:
        self.path.mkdir(exist_ok=True)
        write_json(self.path / "chains.json", {"kind": "search", "chains": self.chains})
        if self.outcome:
            write_json(self.path / "outcome.json", self.outcome)
        return self.path


def finished_search(run_dir: Path) -> Path:
    """Two ratios that share their first stage, and the baseline, two seeds each."""
    search = SearchFiles(run_dir)
    for seed in (0, 1):
        search.add("replay_ratio=0.0", FORGETS_HALF, seed, ratio=0.0, keys=[f"first{seed}"])
        search.add("replay_ratio=0.5", FORGETS_LITTLE, seed, ratio=0.5, keys=[f"first{seed}"])
        search.add("level_order=mixed", MIXED, seed, baseline=True)
    return search.write()


def chain_run(run_dir: Path, num_done: int = 2, before: bool = True) -> Path:
    """A run whose curriculum of two levels is done up to a stage."""
    make_run(run_dir, num_evals=0)
    stages = [
        {"name": f"level_{level}", "kind": "sft", "levels": [level], "key": None, "directory": "."} for level in "12"
    ]
    chain = {"name": "chain", "setting": "default", "seed": 0, "is_baseline": False, "values": {}, "stages": stages}
    (run_dir / "chains.json").write_text(json.dumps({"kind": "chain", "chains": [chain]}))
    names = ["before", "level_1", "level_2"][: num_done + 1]
    for index, name in enumerate(names):
        if index or before:
            rows = evaluated([column[index] for column in FORGETS_HALF], ["1", "2"])
            write_evaluation(run_dir, name, index, rows)
    return run_dir


def summary_of(run_dir: Path) -> dict:
    """``summary.json``, which must be strict JSON."""

    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    return json.loads((run_dir / "summary.json").read_text(), parse_constant=refuse)
