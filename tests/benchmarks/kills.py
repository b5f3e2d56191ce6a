"""Proof that a GRPO run survives kills: ``python -m tests.benchmarks.kills --kills 20 [--mode exact ahead in-flight]``.

A tiny model trains in real processes, in each mode in turn. Engine, grader, learner, weight store and driver are killed
with SIGKILL, in random order and at random moments: some within a step, some while another is still being replaced. A
killed driver is resumed. At the end the ledger must account for every group once; the exact mode must end with the
weights of a run that nothing disturbed, the others with those of a replay from their record.

Prints a line for each kill: what, when, and the seconds until the next step.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipeline.runs.ledger import read_ledger
from pipeline.runs.ledger_check import check_ledger
from pipeline.runs.replay import first_difference
from tests.conftest import SEED
from tests.support.cluster import joining, private_ray
from tests.support.jobs import finish, only_run, start, step_of
from tests.support.models import save_tiny_model
from tests.support.recipes import grpo_recipe

JOB = "jobs/grpo_qwen.py"
MODES = {
    "exact": (),
    "ahead": ("rollout.prompts_per_chunk=null", "rollout.max_staleness=1"),
    "in-flight": ("rollout.prompts_per_chunk=null", "rollout.max_staleness=1", "rollout.in_flight_updates=true"),
}
TITLES = {
    "engine": "ray::RolloutWorker",
    "grader": "ray::RewardWorker",
    "learner": "ray::RayTrainWorker",
    "weight store": "ray::WeightStore",
}
"""Victims but the driver, and what the titles of their processes begin with."""
LIMIT_S = 300.0
"""Until the next step."""
STEPS_PER_KILL = 5
AGAIN_FRAC = 0.25
"""Kills that do not wait for the step after the one before."""
WITHIN_S = 1.5
"""A kill comes at most this long after a step: about three of them."""


def recipe_in(directory: Path, num_steps: int) -> Path:
    """Completions are long enough for weights to change meanwhile, and a restart repeats a step or none."""
    return grpo_recipe(
        save_tiny_model(directory / "model"),
        directory,
        grpo={"num_steps": num_steps, "learning_rate": 1e-3},
        rollout={"max_completion_length": 64},
        eval={"problems_per_level": 0},
        checkpoint={"every_steps": 2},
    )


@dataclass
class Attacked:
    """A run whose processes are killed."""

    root: Path
    env: dict[str, str]
    moments: random.Random
    num_given_up: int = 0
    """Times that it ended by itself and had to be resumed."""

    def start(self, *arguments: object) -> None:
        self._process = start(*arguments, f"output.root={self.root}", script=JOB, env=self.env)

    def kill(self) -> str:
        """Kill one of its processes. Returns its name."""
        found = {name: process for name, title in TITLES.items() if (process := _newest_process(title))}
        name = self.moments.choice(["driver", *found])
        if name == "driver":
            self._process.kill()
            self._resume()
        else:
            found[name].kill()
        return name

    def wait_for_step(self, step: int) -> float:
        """Seconds until metrics show this step."""
        return self._wait(lambda: step_of(self.root) >= step, f"step {step}")

    def wait_for_end(self) -> None:
        self._wait(lambda: self.is_over, "the end")

    @property
    def is_over(self) -> bool:
        return self._process.poll() == 0

    def _wait(self, is_reached: Callable[[], bool], what: str) -> float:
        started = time.monotonic()
        while not is_reached():
            if self._process.poll():
                self.num_given_up += 1
                self._resume()
            if (waited_s := time.monotonic() - started) > LIMIT_S:
                raise TimeoutError(f"{what} of {self.root} must be reached within {LIMIT_S:g} s, got {waited_s:.0f} s")
            time.sleep(0.05)
        return time.monotonic() - started

    def _resume(self) -> None:
        self._process.wait()
        self.start("--resume", only_run(self.root))


def _newest_process(title: str) -> psutil.Process | None:
    """The one of this Ray whose title begins so, if there is any: those of a killed driver may still be ending."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if " ".join(process.cmdline()).startswith(title):
                found.append((process.create_time(), process.pid, process))
    return max(found)[-1] if found else None


def attacked(run: Attacked, recipe: Path, settings: Sequence[str], num_kills: int) -> Path:
    """Start a run, kill so often, and let it end. Returns its directory."""
    run.start("--config", recipe, *settings)
    run.wait_for_step(1)
    for index in range(1, num_kills + 1):
        time.sleep(run.moments.uniform(0, WITHIN_S))
        if run.is_over:
            raise RuntimeError(f"the run must last for {num_kills} kills, got {index - 1}: raise STEPS_PER_KILL")
        reached, name = step_of(run.root), run.kill()
        line = f"  kill {index}: {name} after step {reached}"
        if index < num_kills and run.moments.random() < AGAIN_FRAC:
            print(f"{line}, and the next one before it was replaced", flush=True)
            time.sleep(run.moments.uniform(0, 5))
        else:
            print(f"{line}, next step after {run.wait_for_step(reached + 1):.1f} s", flush=True)
    run.wait_for_end()
    return only_run(run.root)


def compared(run: Path, expected: Path) -> str:
    """The first difference of the weights, in words."""
    found = first_difference(run, expected)
    name = "final_model/model.safetensors"
    if found is None and (run / name).read_bytes() != (expected / name).read_bytes():
        found = f"{name} differs"
    return found or "bit-identical"


def report(mode: str, recipe: Path, directory: Path, num_kills: int, env: dict[str, str], seed: int) -> bool:
    """Kill a run in this mode and print what came of it. Returns whether everything holds."""
    print(f"{mode}, seed {seed}:", flush=True)
    run = Attacked(directory / mode, env, random.Random(f"{seed} {mode}"))
    path = attacked(run, recipe, MODES[mode], num_kills)
    ledger, other = check_ledger(path), directory / f"{mode}-other"
    other_settings = [*MODES[mode], f"output.root={other}"] + ([] if mode == "exact" else [f"rollout.replay={path}"])
    finish("--config", recipe, *other_settings, script=JOB, env=env)
    difference = compared(path, only_run(other))
    assert ledger is not None
    print(*ledger.lines(), f"  {ledger}", *ledger.notes, sep="\n")
    print(f"  {num_kills} kills, {run.num_given_up} more resumes; {_versions(path)}")
    print(f"  beside {'an undisturbed run' if mode == 'exact' else 'a replay'}: {difference}", flush=True)
    return not ledger.violations and difference == "bit-identical"


def _versions(run: Path) -> str:
    rows = read_ledger(run)
    stale = sum(row.oldest_version < row.step - 1 for row in rows)
    mixed = sum(row.oldest_version < row.newest_version for row in rows)
    attempts = len({row.weight_attempt for row in rows})
    return f"{stale} groups older than the policy, {mixed} written by several versions, {attempts} attempts of learners"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="in each mode")
    parser.add_argument("--mode", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--seed", type=int, default=SEED, help="of the moments")
    parser.add_argument("--keep", type=Path, help="a directory for the runs, to look at them afterwards")
    options = parser.parse_args(argv)
    with private_ray() as address, tempfile.TemporaryDirectory(prefix="kills-") as folder:
        directory = options.keep or Path(folder)
        directory.mkdir(parents=True, exist_ok=True)
        recipe = recipe_in(directory, STEPS_PER_KILL * options.kills)
        held = [report(mode, recipe, directory, options.kills, joining(address), options.seed) for mode in options.mode]
    return int(not all(held))


if __name__ == "__main__":
    raise SystemExit(main())
