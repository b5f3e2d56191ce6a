import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from actors.learner import recorder
from actors.learner.recorder import StepRecorder
from actors.learner.saver import StageSaver
from pipeline.config import Config, validate_config
from pipeline.curriculum.replay import ReplayBuffer, ReplayItem
from pipeline.models.policy import load_trainable
from pipeline.runs.checkpoints import Progress, load_checkpoint
from pipeline.runs.clock import PhaseClock
from pipeline.runs.directory import RunDirectory
from pipeline.runs.ledger import ledger_rows, read_ledger
from pipeline.runs.metrics_log import read_metrics
from pipeline.runs.rollout_record import recorded_steps, write_rollouts
from pipeline.training.rollout_metrics import sample_rows, ungraded_rows
from pipeline.types import Completion, Problem, RewardBreakdown, RolloutGroup, WeightId
from tests.support.models import tiny_llama, tiny_tokenizer

SECONDS = {"rollout_s": 2.0, "learner_s": 4.0, "other_s": 0.5, "step_s": 6.5, "checkpoint_s": 0.0}


@pytest.fixture
def gauges(monkeypatch) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr(recorder, "Gauges", lambda name: SimpleNamespace(set=shown.append))
    return shown


def make_run(tmp_path: Path, **sections: Any) -> tuple[Config, RunDirectory]:
    settings = {"stages": [{"name": "rl", "kind": "grpo"}], "tracking": {"backends": []}, **sections}
    config = validate_config({**settings, "output": {"root": str(tmp_path), "samples_every_steps": 2}})
    return config, RunDirectory.create(config)


def make_recorder(config: Config, run: RunDirectory, step: int = 0, num_replayed: int = 0) -> StepRecorder:
    replayed = range(num_replayed)
    stage = SimpleNamespace(name="rl", kind="grpo", settings=config.grpo)
    setup = SimpleNamespace(config=config, stage=stage, replayed=replayed)
    return StepRecorder(setup, run, Progress("rl", step, step))  # type: ignore[arg-type]


def group(outcome: str = "correct") -> RolloutGroup:
    problem = Problem("p", ({"role": "user", "content": "1+1?"},), "2")
    completion = Completion.of((1, 2), (0.0, 0.0), "2", "stop")
    reward = RewardBreakdown(1.5, {"format": 1.5}, outcome)  # type: ignore[arg-type]
    return RolloutGroup(problem, (5,), (completion,), WeightId(1, 0), (reward,))


def test_a_row_holds_the_metrics_rates_and_seconds_of_a_step(tmp_path, gauges):
    _, run = given = make_run(tmp_path)
    record = make_recorder(*given)
    record.step(Progress("rl", 3, 8), {"loss": 0.5, "learner_tokens": 100, "num_rollout_tokens": 30}, dict(SECONDS))
    record.close()
    (row,) = read_metrics(run.path)
    assert row.pop("time") > 0
    assert row == {
        "step": 8,
        "stage": "rl",
        "kind": "grpo",
        "stage_step": 3,
        "loss": 0.5,
        "learner_tokens_per_s": 25.0,
        "rollout_tokens_per_s": 15.0,
        **SECONDS,
    }
    assert [shown["loss"] for shown in gauges] == [0.5]


def test_a_row_counts_the_groups_of_its_step_in_the_ledger_which_is_cut_back_with_it(tmp_path, gauges):
    _, run = given = make_run(tmp_path)
    record = make_recorder(*given)
    for step in (1, 2, 3):
        record.ledger(ledger_rows([group()], ["refilled"], "rl", step, step - 1))
        record.ledger(ledger_rows([group(), group()], ["trained", "no_variance"], "rl", step, step - 1))
        record.step(Progress("rl", step, step), {"learner_tokens": 1}, dict(SECONDS))
        write_rollouts(run.path, [group()], "rl", step)
    record.ledger(ledger_rows([group()], ["stage_ended"], "rl", 3, 3))
    record.sync()
    record.close()
    assert [(row["num_groups"], row["num_groups_trained"]) for row in read_metrics(run.path)] == [(3, 1)] * 3
    assert len(read_ledger(run.path)) == 10
    make_recorder(*given, step=2).close()
    assert [row.step for row in read_ledger(run.path)] == [1, 1, 1, 2, 2, 2]
    assert recorded_steps(run.path) == [1, 2]


def test_an_update_that_rounding_hides_is_said_once_on_the_console(tmp_path, gauges, capsys):
    record = make_recorder(*make_run(tmp_path))
    for step, frac in enumerate((0.9, 0.2, 0.1), 1):
        record.step(Progress("rl", step, step), {"visible_update_frac": frac, "learner_tokens": 1}, dict(SECONDS))
    record.close()
    assert capsys.readouterr().out.count("of the update so far survives rounding") == 1


@pytest.mark.parametrize(("bound", "said"), [(0.2, 1), (0.5, 0), (None, 0)])
def test_a_sampler_far_from_the_learner_is_said_once_on_the_console(tmp_path, gauges, capsys, bound, said):
    record = make_recorder(*make_run(tmp_path, grpo={"warn_sampler_diff_above": bound}))
    for step, diff in enumerate((0.04, 0.31, 0.4), 1):
        record.step(Progress("rl", step, step), {"sampler_logprob_diff": diff, "learner_tokens": 1}, dict(SECONDS))
    record.close()
    out = capsys.readouterr().out
    assert out.count("sampler_logprob_diff is 0.31, above grpo.warn_sampler_diff_above=0.2") == said
    assert out.count("Set grpo.sampler_correction") == said


def test_rows_after_the_last_checkpoint_are_removed(tmp_path, gauges):
    _, run = given = make_run(tmp_path)
    record = make_recorder(*given)
    for step in (1, 2, 3):
        record.step(Progress("rl", step, step), {"learner_tokens": 1}, dict(SECONDS))
        record.ungraded(ungraded_rows([group("timeout")], step, "rl"))
    record.close()
    make_recorder(*given, step=2).close()
    assert [row["step"] for row in read_metrics(run.path)] == [1, 2]
    ungraded = (run.samples / "ungraded.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in ungraded] == [1, 2]


def test_sampled_completions_and_those_that_could_not_be_graded_are_kept(tmp_path, gauges):
    _, run = given = make_run(tmp_path)
    record, groups = make_recorder(*given), [group(), group("bad_gold")]
    for step in (1, 2, 3):
        record.samples(sample_rows(groups, step, "rl"), step)
        record.ungraded(ungraded_rows(groups, step, "rl"))
    record.close()
    assert sorted(path.name for path in run.samples.iterdir()) == ["newest", "step_000002.jsonl", "ungraded.jsonl"]
    assert (run.samples / "step_000002.jsonl").read_text().count("\n") == 2
    assert (run.samples / "ungraded.jsonl").read_text().count("\n") == 3


def test_completions_of_the_newest_steps_are_kept_until_a_resumed_run_repeats_them(tmp_path, gauges):
    _, run = given = make_run(tmp_path)

    def steps_after(record: StepRecorder, *steps: int) -> list[str]:
        for step in steps:
            record.samples(sample_rows([group()], step, "rl"), step)
        record.close()
        return sorted(path.stem.removeprefix("step_00000") for path in (run.samples / "newest").iterdir())

    assert steps_after(make_recorder(*given), *range(1, 9)) == list("45678")
    assert steps_after(make_recorder(*given, step=5)) == list("45")
    assert steps_after(make_recorder(*given, step=5), 6) == list("456")


def test_an_evaluation_writes_its_answers_and_then_its_summary(tmp_path, gauges):
    _, run = given = make_run(tmp_path)
    record = make_recorder(*given)
    record.evaluation("before", 0, {"levels": {}, "overall": {"x": 1}}, [{"problem_id": "p"}])
    record.close()
    assert json.loads((run.evals / "before.json").read_text()) == {
        "name": "before",
        "step": 0,
        "levels": {},
        "overall": {"x": 1},
    }
    assert json.loads((run.samples / "eval_before.jsonl").read_text()) == {"problem_id": "p"}


@pytest.mark.parametrize(
    ("left_out", "num_replayed", "warnings"), [(0, 0, []), (7, 3, ["too long", "replays nothing"])]
)
def test_examples_are_recorded_and_those_that_are_too_long_with_a_warning(
    tmp_path, gauges, caplog, monkeypatch, left_out, num_replayed, warnings
):
    caplog.set_level(logging.WARNING)
    recorded: list[Any] = []
    monkeypatch.setattr(recorder, "write_problems", lambda *given: recorded.append(given))
    _, run = given = make_run(tmp_path)
    mixture = SimpleNamespace(replayed=[])
    examples = SimpleNamespace(counts={"num_tokens_left_out": left_out}, mixture=mixture, problems="own")
    record = make_recorder(*given, num_replayed=num_replayed)
    record.data(examples)  # type: ignore[arg-type]
    record.close()
    assert json.loads((run.path / "data.json").read_text()) == {"rl": {"num_tokens_left_out": left_out}}
    assert recorded == [(run.path, "rl", ["own", range(num_replayed)])]
    assert len(caplog.records) == len(warnings) and all(text in caplog.text for text in warnings)


# Saving ------------------------------------------------------------------------------------------


class Schedule:
    def __init__(self, progress: Progress) -> None:
        self.progress, self.num_scored = progress, 0

    def score_checkpoint(self) -> None:
        self.num_scored += 1


def make_saver(tmp_path: Path, model: torch.nn.Module, **sections: Any) -> tuple[StageSaver, RunDirectory]:
    is_last, buffer = sections.pop("is_last", False), sections.pop("buffer", None)
    config, run = make_run(tmp_path, **sections)
    setup = SimpleNamespace(config=config, buffer=buffer, is_last=is_last)
    policy = SimpleNamespace(optimizer_state=lambda: {"state": {}}, reference=None)
    examples = SimpleNamespace(trained_until=lambda step, best_rates: [ReplayItem(f"p{n}", None) for n in range(step)])
    return StageSaver(setup, run, model, policy, examples), run  # type: ignore[arg-type]


def save(saver: StageSaver, progress: Progress) -> Schedule:
    schedule = Schedule(progress)
    saver.checkpoint(schedule, PhaseClock())  # type: ignore[arg-type]
    return schedule


def test_a_checkpoint_is_due_by_steps_or_by_minutes(tmp_path):
    saver, _ = make_saver(tmp_path, tiny_llama(), checkpoint={"every_steps": 3, "every_minutes": 1e9})
    assert [step for step in range(1, 8) if saver.is_due(step)] == [3, 6]
    saver, _ = make_saver(tmp_path, tiny_llama(), checkpoint={"every_steps": 99, "every_minutes": 1e-9})
    assert saver.is_due(1)


def test_a_checkpoint_holds_what_resuming_needs_and_old_ones_are_deleted(tmp_path):
    model = tiny_llama()
    saver, run = make_saver(tmp_path, model, checkpoint={"keep_last": 1})
    assert save(saver, Progress("rl", 1, 1)).num_scored == 1
    save(saver, Progress("rl", 2, 2))
    (path,) = run.checkpoints.paths()
    assert path.name == "step_000002" and path == run.checkpoints.latest()
    load_trainable(tiny_llama(seed=1), load_checkpoint(path).tensors)  # names and shapes are the model's
    assert not (path / "replay.json").exists()  # no curriculum


def test_a_checkpoint_in_a_curriculum_names_the_problems_that_later_stages_may_replay(tmp_path):
    buffer = ReplayBuffer(5).add([ReplayItem("old", "1")])
    saver, run = make_saver(tmp_path, tiny_llama(), curriculum={}, buffer=buffer)
    save(saver, Progress("rl", 2, 2))
    replay = json.loads((run.checkpoints.paths()[0] / "replay.json").read_text())
    trained = [["p0", None, None], ["p1", None, None]]
    assert replay == {"buffer": json.loads(json.dumps(buffer.to_state())), "trained": trained}


@pytest.mark.parametrize("is_last", [False, True])
def test_only_the_last_stage_of_a_run_saves_the_final_model(tmp_path, is_last):
    saver, run = make_saver(tmp_path, tiny_llama(), is_last=is_last)
    progress = Progress("rl", 2, 2)
    saver.finish_stage(progress, tiny_tokenizer(), torch.float32)
    assert (run.final_model / "model.safetensors").exists() is is_last
    assert progress.stage_done and len(progress.ended_with) == 16


def test_a_final_model_that_could_not_be_written_whole_is_not_there(tmp_path, monkeypatch):
    saver, run = make_saver(tmp_path, tiny_llama(), is_last=True)

    def killed(model: Any, tokenizer: Any, directory: Path, *_: Any) -> None:
        (directory / "config.json").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("actors.learner.saver.save_final_model", killed)
        with pytest.raises(KeyboardInterrupt):
            saver.finish_stage(Progress("rl", 2, 2), tiny_tokenizer(), torch.float32)
    assert not run.final_model.exists()
    saver.finish_stage(Progress("rl", 2, 2), tiny_tokenizer(), torch.float32)
    assert (run.final_model / "model.safetensors").exists()
    assert not list(run.path.glob(".final_model*"))
