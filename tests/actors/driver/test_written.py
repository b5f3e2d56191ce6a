"""Problems that stages write, the stages that train on them, and a whole job that is killed in every stage."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from actors.driver.plan import plan_run
from actors.driver.written import shares, tasks_of, with_written
from pipeline.config import validate_config
from pipeline.errors import DataError
from pipeline.files import write_jsonl
from pipeline.runs.checkpoints import read_progress, read_written
from pipeline.runs.metrics_log import read_metrics
from tests.support.cluster import joining
from tests.support.jobs import finish, killed_at, killed_when, only_run
from tests.support.models import save_tiny_model
from tests.support.writing_job import NUM_WRITTEN, writing_recipe
from tests.support.written import make_row

STORIES: dict[str, Any] = {
    "data": {"name": "embedded:stories", "arithmetic": {"train_per_level": 8, "eval_per_level": 2}, "write": {}},
    "stages": [
        {"name": "quality", "kind": "grpo", "write": {"num_problems": 12, "kinds": ["new", "context"]}},
        {"name": "final", "kind": "sft", "problems": {"sources": ["new"]}, "written_frac": 0.5},
    ],
    "tracking": {"backends": []},
}


def test_shares_are_exact_and_nothing_comes_twice():
    assert shares(0.5, 10, 100) == (10, 10)
    assert shares(0.25, 10, 100) == (10, 30)
    assert shares(1.0, 10, 100) == (10, 0)
    assert shares(0.5, 10, 4) == (4, 4)  # too few of its own: 6 of those that were written are left out
    assert shares(0.1, 10, 9) == (1, 9)
    assert shares(0.1, 10, 3) == (1, 3)


def test_tasks_take_levels_and_kinds_in_turn(tmp_path):
    (chain,) = plan_run(validate_config(STORIES), tmp_path).chains
    tasks = tasks_of(chain.stages[0].spec, chain)
    assert Counter((task.level, task.source) for task in tasks) == {
        (level, kind): 2 for level in "123" for kind in ("new", "context")
    }
    assert len({task.id for task in tasks}) == 12
    assert tasks == tasks_of(chain.stages[0].spec, chain)
    assert tasks_of(chain.stages[1].spec, chain) == ()


def test_tasks_are_of_the_levels_of_the_stage(tmp_path):
    stage = {**STORIES["stages"][0], "problems": {"levels": ["2"], "max_per_level": 1}}
    (chain,) = plan_run(validate_config({**STORIES, "stages": [stage]}), tmp_path).chains
    tasks = tasks_of(chain.stages[0].spec, chain)
    assert Counter((task.level, task.source) for task in tasks) == {("2", "new"): 6, ("2", "context"): 6}


def test_a_stage_that_has_no_tasks_of_its_kinds_is_refused(tmp_path):
    config = {**STORIES, "data": {**STORIES["data"], "write": {"prompts": {"new": "A problem about {topic}."}}}}
    config["stages"] = [{**STORIES["stages"][0], "write": {"kinds": ["context"]}}]
    (chain,) = plan_run(validate_config(config), tmp_path).chains
    with pytest.raises(DataError, match=r"stage quality must have tasks .*'context'"):
        tasks_of(chain.stages[0].spec, chain)


def written_in(directory: Path, *rows: dict[str, Any]) -> Path:
    directory.mkdir()
    write_jsonl(directory / "written.jsonl", rows)
    return directory


def test_a_later_stage_trains_on_what_was_kept_and_as_many_of_its_own(tiny_model, tmp_path):
    config = {**STORIES, "model": {"name": str(tiny_model), "dtype": "float32"}}
    (chain,) = plan_run(validate_config(config), tmp_path / "cache").chains
    first = written_in(tmp_path / "first", make_row("a"), make_row("b", reason="low quality"))
    second = written_in(tmp_path / "second", make_row("c", "Ann has 2 cats. How many?", answer="2"))
    table, tokens = with_written(chain, 1, [first, second], tmp_path)
    assert Counter(problem.source for problem in table) == {"written": 2, "new": 2}
    assert {problem.id for problem in table if problem.source == "written"} == {"a-written", "c-written"}
    assert len(tokens.lengths()[0]) == 4
    (own,) = [problem for problem in table if problem.id == "c-written"]
    assert own.solution == (
        "<problem>\nAnn has 2 cats. How many?\n</problem>\n<solution>\n5 * 11 = 55\n</solution>\n<answer>2</answer>"
    )


def test_what_was_written_passes_the_filter_of_the_stage_and_few_problems_are_told(tiny_model, tmp_path, capsys):
    final = {**STORIES["stages"][1], "problems": {"sources": ["new"], "levels": ["1"]}}
    config = {
        **STORIES,
        "model": {"name": str(tiny_model), "dtype": "float32"},
        "stages": [STORIES["stages"][0], final],
    }
    config["sft"] = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}
    (chain,) = plan_run(validate_config(config), tmp_path / "cache").chains
    earlier = written_in(tmp_path / "first", make_row("a", level="2"), make_row("b", level="1"))
    table, _ = with_written(chain, 1, [earlier], tmp_path)
    assert [problem.id for problem in table if problem.source == "written"] == ["b-written"]
    # 8 problems of its own in batches of 2; with one that was written and one of its own: 1 step.
    assert "Stage final makes 1 steps instead of 4: it has 2 problems" in capsys.readouterr().out


def test_nothing_to_train_on_is_an_error_with_the_reasons(tmp_path):
    (chain,) = plan_run(validate_config(STORIES), tmp_path / "cache").chains
    earlier = written_in(tmp_path / "first", make_row(reason="low quality"), make_row(reason="fails checked"))
    with pytest.raises(DataError, match=r"stage final .* got none of 2: fails checked, low quality"):
        with_written(chain, 1, [earlier], tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_in_every_stage_and_while_it_writes_a_job_ends_the_same(ray_address, tmp_path):
    """Undisturbed with one grader, disturbed with three."""
    recipe = writing_recipe(save_tiny_model(tmp_path / "model"), tmp_path)
    roots = [tmp_path / name for name in ("undisturbed", "disturbed")]
    how: dict[str, Any] = {"script": "jobs/questions_gen.py", "env": joining(ray_address)}
    finish("--config", recipe, f"output.root={roots[0]}", **how)
    killed_at(20, roots[1], "--config", recipe, "reward.num_workers=3", **how)
    undisturbed, run = map(only_run, roots)
    killed_at(47, roots[1], "--resume", run, **how)
    # Problems are written as soon as the stage has been evaluated.
    killed_when((run / "samples" / "eval_quality.jsonl").exists, "--resume", run, **how)
    killed_at(51, roots[1], "--resume", run, **how)
    finish("--resume", run, **how)
    for stage in ("basic", "quality", "final"):
        expected, actual = (read_progress(path / "checkpoints" / stage) for path in (undisturbed, run))
        assert actual == expected, stage  # digests of the weights, and the state of the rewards
    rows = read_written(run / "checkpoints" / "quality")
    assert rows == read_written(undisturbed / "checkpoints" / "quality")
    assert len(rows) == NUM_WRITTEN and 0 < sum(row["is_kept"] for row in rows) < NUM_WRITTEN
    state = read_progress(run / "checkpoints" / "final").reward_state
    assert state["rewards"]["tests.support.writing_job:Rising"] == {"num_groups": 4 * 4}
    assert len(state["rewards"]["novel"]) > 20 and len(state["raw"]["novel"]) == 20
    assert json.loads(json.dumps(state)) == state
    metrics = [read_metrics(path) for path in (undisturbed, run)]
    qualities = [[row.get("validation/quality") for row in rows] for rows in metrics]
    assert qualities[0] == qualities[1]
    evaluated = [row["step"] for row in metrics[0] if "validation/quality" in row]
    assert evaluated == [15, 30, 45, 49, 53]  # every 15 steps of a stage, and after its last
