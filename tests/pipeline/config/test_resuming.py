"""Which settings may change when a run is resumed."""

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from pipeline.config import Config, StageConfig, validate_config
from pipeline.config.resuming import MEANING, RULES, refusals
from pipeline.curriculum.keys import _ENGINE_RESOURCES
from tests.conftest import ROOT

WHOLE = {
    "search",
    "questions",
    "data.write",
    "data.fields",
    "data.arithmetic",
    "stages.problems",
    "stages.carry",
    "stages.write",
    "grpo.sampler",
}
"""Sections with one rule for all of their settings."""
STAGE = {"name": "sft", "kind": "sft"}
BASE: dict[str, Any] = {
    "stages": [STAGE, {"name": "rl", "kind": "grpo", "settings": {"num_steps": 7}}],
    "model": {"lora": {"r": 4}},
}


def settings_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted keys of all settings, and of the sections that may be null."""
    for name, field in model.model_fields.items():
        key, kinds = prefix + name, (field.annotation, *get_args(field.annotation))
        section = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if section is None or key in WHOLE or key == "reward.functions":
            yield key
            continue
        if type(None) in kinds:
            yield key
        yield from settings_of(section, f"{key}.")


def test_every_setting_says_whether_it_may_change_when_a_run_is_resumed():
    """A new setting belongs into pipeline/config/resuming.py, under what happens to a run that it changes in."""
    by_kind = {"stages.settings"}  # compared one by one, as settings of sft or grpo
    assert set(settings_of(Config)) - by_kind == set(RULES)


def test_the_table_in_the_documents_is_the_one_in_the_code():
    text = (ROOT / "docs" / "run_directory.md").read_text()
    for rule, meaning in MEANING.items():
        sections: dict[str, list[str]] = {}
        for key in (key for key, own in RULES.items() if own == rule):
            section, _, name = key.rpartition(".")
            sections.setdefault(section, []).append(f"`{name}`")
        parts = [f"{f'{section}: ' if section else ''}{', '.join(names)}" for section, names in sections.items()]
        line = f"| {meaning} | {'; '.join(parts)} |"
        assert line in text, f"docs/run_directory.md must hold the line {line}"


def test_what_an_engine_may_differ_in_within_a_search_may_change_in_a_run():
    assert {RULES[f"rollout.{name}"] for name in _ENGINE_RESOURCES} == {"free"}


def make(**sections: Any) -> Config:
    return validate_config({**BASE, **sections})


def lines(done: int = 0, *, begun: bool = False, content: bool = True, **sections: Any) -> list[str]:
    """The refusals of a run with so many stages done.

    Args:
        begun: the next one has begun, and replays problems.
    """
    now = make(**sections)
    left = [now.stage_settings(stage) for stage in now.stages[done:]]
    return refusals(make(), now, left, fixed_steps=left[:1] if begun else (), compares_content=content)


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"seed": 3}, "seed: was 0, is 3"),
        ({"model": {"lora": {"r": 8}}}, "model.lora.r: was 4, is 8"),
        ({"sft": {"max_length": 64}}, "sft.max_length: was 1024, is 64"),
        ({"grpo": {"batch_size": 16}}, "grpo.batch_size: was 8, is 16"),
        ({"data": {"system_prompt": "Think."}}, "data.system_prompt: was 'Solve the problem."),
        ({"data": {"fields": {"level": "difficulty"}}}, "data.fields.level: was None, is 'difficulty'"),
        ({"reward": {"functions": [{"name": "format"}]}}, "reward.functions: was [{'name': 'correctness'"),
        ({"curriculum": {}}, "curriculum: was None, is {"),
        ({"stages": [STAGE]}, "stages: was ['sft', 'rl'], is ['sft']"),
        ({"stages": [STAGE | {"kind": "grpo"}, BASE["stages"][1]]}, "stages.0.kind: was 'sft', is 'grpo'"),
        (
            {"sft": {"gradient_accumulation_steps": 2}},
            "sft.per_device_train_batch_size x gradient_accumulation_steps x learner.num_workers: was 16, is 32",
        ),
        (
            {"stages": [STAGE, BASE["stages"][1] | {"settings": {"num_steps": 7, "mu": 2}}]},
            "stages.1.settings.mu: was 1, is 2",
        ),
    ],
)
def test_what_finished_steps_depend_on_is_refused(sections, line):
    (found,) = lines(**sections)
    assert found.startswith(line)


def test_everything_that_differs_is_listed():
    assert len(lines(seed=1, model={"lora": None}, grpo={"batch_size": 4, "learning_rate": 1.0})) == 3


@pytest.mark.parametrize(
    "sections",
    [
        {"sft": {"learning_rate": 1.0, "adam_beta2": 0.5, "weight_decay": 0.1}, "grpo": {"lr_schedule": "cosine"}},
        {"sft": {"max_steps": 3}, "eval": {"problems_per_level": 5}, "checkpoint": {"keep_last": 9}},
        {"learner": {"num_workers": 2}, "sft": {"per_device_train_batch_size": 8}},  # the same 16 examples
        {"stages": [*BASE["stages"], {"name": "more", "kind": "grpo"}]},
        {"rollout": {"num_workers": 3}, "output": {"root": "/elsewhere"}, "tracking": {"backends": []}},
        {"model": {"name": "/moved", "lora": {"r": 4}}, "data": {"name": "/moved"}},
    ],
)
def test_what_can_act_from_now_on_is_accepted(sections):
    assert not lines(**sections)


def test_without_digests_names_must_be_the_same():
    assert lines(content=False, data={"name": "/moved"}) == ["data.name: was 'embedded:arithmetic', is '/moved'"]


def test_a_setting_of_stages_that_are_done_is_refused():
    """Stage sft is done. Stage rl has 7 steps of its own, so that grpo.num_steps means nothing to it either way."""
    done = " (every stage that it is for is done)"
    assert lines(1, sft={"max_steps": 3}) == [f"sft.max_steps: was None, is 3{done}"]
    assert lines(1, sft={"learning_rate": 1.0}) == [f"sft.learning_rate: was 1e-05, is 1.0{done}"]
    assert not lines(1, grpo={"learning_rate": 1.0, "num_steps": 9})


def test_nothing_acts_in_a_finished_run_unless_a_stage_is_added():
    assert lines(2, eval={"problems_per_level": 5}) == ["eval.problems_per_level: was 50, is 5 (every stage is done)"]
    assert not lines(2, output={"root": "/elsewhere"})
    assert not lines(
        2, eval={"problems_per_level": 5}, stages=[*BASE["stages"], StageConfig(name="x", kind="sft").model_dump()]
    )


def test_steps_of_a_stage_that_has_begun_to_replay_stay():
    """Replayed problems are spread evenly over all of its steps, those that are done among them."""
    (line,) = lines(begun=True, sft={"max_steps": 3, "learning_rate": 1.0})
    assert line.startswith("sft.max_steps: was None, is 3 (its stage has begun")
