"""Settings of samplers: refused where they make no sense, and searched over."""

from typing import Any

import pytest

from pipeline.config import Config, validate_config
from pipeline.config.loading import load_config
from pipeline.curriculum.grid import chain_specs
from pipeline.curriculum.keys import stage_keys
from pipeline.curriculum.stages import stage_specs
from pipeline.errors import ConfigError

STAGES = [{"name": "sft", "kind": "sft"}, {"name": "rl", "kind": "grpo"}]


def make(sampler: dict[str, Any] | None, **sections: Any) -> Config:
    return validate_config({"stages": STAGES, "grpo": {"sampler": sampler}, **sections})


@pytest.mark.parametrize(
    ("sampler", "sections", "message"),
    [
        ({"name": "random"}, {}, "grpo.sampler.name: input should be 'uniform', 'dynamic'"),
        ({"name": "pools", "pools": {"easy_weigth": 1.0}}, {}, "Did you mean grpo.sampler.pools.easy_weight?"),
        ({"name": "pools", "pools": {"easy_above": 0.2}}, {}, "hard_below must be below easy_above, got 0.25 and 0.2"),
        (
            {"name": "pools", "pools": {"easy_weight": 0.0, "middle_weight": 0.0, "hard_weight": 0.0}},
            {},
            "easy_weight, middle_weight or hard_weight must be above 0",
        ),
        ({"name": "uniform", "source_weights": {"a": 0.0}}, {}, "must be 0 or above, and one of them above 0"),
        ({"name": "uniform", "source_weights": {"a": 1.0, "b": -1.0}}, {}, "must be 0 or above"),
        ({"name": "thompson", "thompson": {"target_rate": 1.0}}, {}, "grpo.sampler.thompson.target_rate"),
        (
            {"name": "dynamic"},
            {"rollout": {"replay": "/run"}},
            "rollout.replay must be null with grpo.sampler.name=dynamic",
        ),
        (
            {"name": "uniform"},
            {"stages": [{**STAGES[1], "balance_levels": True}]},
            "balance_levels of rl must be false with grpo.sampler",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(sampler, sections, message):
    with pytest.raises(ConfigError) as error:
        make(sampler, **sections)
    assert message in str(error.value)


def test_a_sampler_is_set_from_the_command_line(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("stages: [{name: rl, kind: grpo}]")
    config = load_config(path, ["grpo.sampler.name=pools", "grpo.sampler.pools.hard_weight=0.5"])
    assert config.grpo.sampler and config.grpo.sampler.pools.hard_weight == 0.5


GRIDS: list[tuple[dict[str, Any] | None, Any, list[str]]] = [
    (None, [None, {"name": "uniform"}, {"name": "bandit"}], ["sampler=None", "sampler=uniform", "sampler=bandit"]),
    (
        {"name": "dynamic", "dynamic": {"max_rounds": 3}},
        [{"name": "uniform"}, {"name": "pools", "pools": {"hard_weight": 0.5}}, {"name": "pools"}],
        ["sampler=uniform", "sampler=pools+pools.hard_weight=0.5", "sampler=pools"],
    ),
    (None, {"name": ["uniform", "dynamic"]}, ["sampler=uniform", "sampler=dynamic"]),
    ({"name": "pools"}, {"name": ["uniform", "dynamic"]}, ["sampler=uniform", "sampler=dynamic"]),
]


@pytest.mark.parametrize(("base", "grid", "names"), GRIDS)
def test_a_search_compares_samplers_and_shares_the_stages_before_them(base, grid, names):
    search = {"grid": {"grpo": {"sampler": grid}}, "baselines": [], "seeds": [0]}
    chains = chain_specs(make(base, curriculum={}, search=search))
    assert [chain.setting for chain in chains] == names
    keys = [stage_keys(chain.config, stage_specs(chain.config, ("1",)), ["a", "b"], "held-out") for chain in chains]
    assert len({first for first, _ in keys}) == 1
    assert len({second for _, second in keys}) == len(names)


def test_a_key_depends_on_the_settings_that_a_sampler_reads():
    def key(sampler: dict[str, Any] | None, **grpo: Any) -> str:
        config = validate_config({"stages": STAGES[1:], "grpo": {"sampler": sampler, **grpo}})
        return stage_keys(config, stage_specs(config, ("1",)), ["a"], "held-out")[0]

    uniform = key({"name": "uniform"})
    assert uniform == key({"name": "uniform", "pools": {"hard_weight": 0.5}})
    assert len({uniform, key(None), key({"name": "pools"}), key({"name": "pools", "pools": {"hard_weight": 0.5}})}) == 4
    assert key(None, max_sampled_tokens=9) != key(None) == key(None, max_sampled_tokens=None)
