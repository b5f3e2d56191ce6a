from typing import Any

import pytest

from pipeline.config import Config, load_config, validate_config
from pipeline.curriculum.grid import chain_specs
from pipeline.curriculum.keys import stage_keys
from pipeline.curriculum.stages import stage_specs
from pipeline.errors import ConfigError
from tests.conftest import CONFIGS

EACH = {"name": "level", "kind": "sft", "each_level": True}


def make(**sections: Any) -> Config:
    return validate_config({"stages": [EACH], "curriculum": {}, **sections})


def keys(config: Config) -> list[str]:
    """Keys of a chain of five levels, whose data digests are the names of the stages."""
    specs = stage_specs(config, ["1", "2", "3", "4", "5"])
    return stage_keys(config, specs, [spec.name for spec in specs], "held-out")


def test_the_replay_demo_has_four_ratios_and_the_baseline_with_two_seeds():
    chains = chain_specs(load_config(CONFIGS / "search_replay_demo.yaml"))
    assert [chain.name for chain in chains] == [
        f"{setting},seed={seed}"
        for setting in (
            "replay_ratio=0",
            "replay_ratio=0.1",
            "replay_ratio=0.3",
            "replay_ratio=0.5",
            "level_order=mixed",
        )
        for seed in (0, 1)
    ]
    assert [chain.is_baseline for chain in chains] == [False] * 8 + [True] * 2
    assert [chain.config.seed for chain in chains] == [0, 1] * 5
    all_keys = [keys(chain.config) for chain in chains]
    assert [len(chain) for chain in all_keys] == [5] * 8 + [1] * 2
    assert len({key for chain in all_keys for key in chain}) == 36  # 2 first stages, 4 x 2 x 4 others, 2 mixed ones


def test_every_draw_is_run_with_every_combination_of_the_grid_and_equal_ones_once():
    search = {
        "grid": {"curriculum": {"level_order": ["forward", ["2", "1"]]}},
        "space": {"sft": {"per_device_train_batch_size": [4, 8]}},
        "draws": [{"sft.per_device_train_batch_size": size} for size in (8, 4, 8)],
        "baselines": [],
    }
    chains = chain_specs(make(search=search, seed=3))
    assert [chain.name for chain in chains] == [
        f"level_order={order},per_device_train_batch_size={size},seed=3"
        for order in ("forward", "2+1")
        for size in (8, 4)
    ]
    assert all(chain.config.search is None for chain in chains)


def test_what_is_drawn_and_is_a_baseline_runs_once_as_the_baseline():
    search = {
        "space": {"grpo": {"sampler": {"name": ["uniform", "pools"]}}},
        "draws": [{"grpo.sampler.name": name} for name in ("pools", "uniform")],
        "baselines": [{"grpo": {"sampler": {"name": "uniform"}}}],
    }
    chains = chain_specs(make(search=search))
    assert [(chain.setting, chain.is_baseline) for chain in chains] == [
        ("sampler=pools", False),
        ("sampler=uniform", True),
    ]


def test_weights_of_sources_are_set_as_a_whole():
    weights = [{"a": 1.0}, {"a": 3.0, "b.c": 1.0}, {}]
    search = {
        "grid": {"grpo": {"sampler": {"source_weights": weights}}},
        "baselines": [{"grpo": {"sampler": {"source_weights": {"d.e": 2.0}}}}],
    }
    chains = chain_specs(
        make(search=search, grpo={"sampler": {"name": "uniform", "source_weights": {"a": 1.0, "b": 1.0}}})
    )
    found = [chain.config.grpo.sampler.source_weights for chain in chains if chain.config.grpo.sampler]
    assert found == [*weights, {"d.e": 2.0}]


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"grid": {"curriculum": {"replay_ration": [0.1]}}}, r"unknown setting curriculum\.replay_ration\."),
        ({"grid": {"curriculum": {"replay_ratio": [0.1, 2.0]}}}, r"curriculum\.replay_ratio: .*less than 1"),
        ({"grid": {"curriculum": {"replay_ratio": 0.1}}}, r"search\.grid\.curriculum\.replay_ratio must be a list"),
        ({"grid": {"seed": [1, 2]}}, r"must not have seed: set search\.seeds"),
        (
            {
                "grid": {"sft": {"learning_rate": [1e-5]}},
                "space": {"sft": {"learning_rate": [1e-4]}},
                "draws": [{"sft.learning_rate": 1e-4}],
            },
            r"search\.grid and search\.space must have different settings, got sft\.learning_rate in both",
        ),
        ({"baselines": [{"curriculum": {"level_order": "mixed"}}] * 2}, r"name every chain once"),
    ],
)  # fmt: skip
def test_an_invalid_search_is_rejected_before_anything_starts(search, message):
    with pytest.raises(ConfigError, match=message):
        chain_specs(make(search=search))


def test_chains_of_levels_in_another_script_have_names_of_their_own():
    orders = [["基础", "进阶"], ["进阶", "基础"]]
    config = make(search={"grid": {"curriculum": {"level_order": orders}}, "baselines": []})
    assert [chain.name for chain in chain_specs(config)] == [
        "level_order=基础+进阶,seed=0",
        "level_order=进阶+基础,seed=0",
    ]
