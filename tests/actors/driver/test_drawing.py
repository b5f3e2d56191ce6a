"""Draws from a search's space. Starts no Ray."""

import json
import math
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from actors.driver.drawing import draw_scores, require_draws, with_draws, with_next_draws
from pipeline.config import Config, validate_config
from pipeline.curriculum.grid import chain_specs
from pipeline.errors import ConfigError
from pipeline.files import write_json

RATE, SIZE = "sft.learning_rate", "sft.per_device_train_batch_size"
SPACE = {"sft": {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}, "per_device_train_batch_size": [4, 8]}}
ORDERS = [["1", "2"], ["2", "1"], ["1"]]


def make(search: dict[str, Any]) -> Config:
    stages = [{"name": "level", "kind": "sft", "each_level": True}]
    return validate_config({"stages": stages, "curriculum": {}, "search": {"baselines": [], **search}})


def draws(config: Config) -> list[dict[str, Any]]:
    assert config.search is not None
    return config.search.draws


def test_a_space_is_drawn_the_same_every_time_and_more_draws_keep_the_earlier_ones():
    made = draws(with_draws(make({"space": SPACE, "num_draws": 5})))
    assert made == draws(with_draws(make({"space": SPACE, "num_draws": 5})))
    assert len({draw[RATE] for draw in made}) == 5
    assert all(1e-5 <= draw[RATE] <= 1e-3 and draw[SIZE] in (4, 8) for draw in made)
    resumed = draws(with_draws(make({"space": SPACE, "num_draws": 8, "draws": made})))
    assert resumed[:5] == made and resumed == draws(with_draws(make({"space": SPACE, "num_draws": 8})))


def test_a_value_is_drawn_by_the_sampler_of_tune_that_is_named():
    entries = {"learning_rate": {"loguniform": ["1e-5", 1e-3]}, "num_train_epochs": {"qrandint": [2, 8, 2]}}
    space = {"sft": entries, "curriculum": {"replay_ratio": {"quniform": [0.0, 0.5, 0.25]}}}
    made = draws(with_draws(make({"space": space, "num_draws": 30})))
    assert {draw["curriculum.replay_ratio"] for draw in made} == {0.0, 0.25, 0.5}
    assert {draw["sft.num_train_epochs"] for draw in made} == {2, 4, 6, 8}
    assert all(1e-5 <= draw[RATE] <= 1e-3 for draw in made)
    assert json.loads(json.dumps(made)) == made  # plain numbers, as a YAML file holds them


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"low": 1.0, "high": 0.5}, "low must be below high"),
        ({"uniform": ["small", "large"]}, "must be a list, {low, high, log} or a sampler of Ray Tune"),
        ({"quniform": [0.0, 1.0]}, "quniform takes two numbers, and the step to round to"),
        ({"quniform": [0.0, 1.0, 0]}, "the step must be above 0, got 0"),
        ({"quniform": [0.1, 1.0, 0.25]}, "must hold what tune.quniform takes"),
        ({"randint": [1, 2.5]}, "randint takes whole numbers"),
        ({"uniform": [1.0, 0.0]}, "low must be below high"),
        ({"qloguniform": [0.0, 1.0, 0.1]}, "low must be below high and above 0"),
        ({"randint": [3, 3]}, "low must be below high"),
        ({"uniform": [1.0]}, "uniform takes two numbers"),
        ([], "must be a list, {low, high, log} or a sampler of Ray Tune"),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_refused(entry, message):
    with pytest.raises(ConfigError, match=message):
        with_draws(make({"space": {"sft": {"learning_rate": entry}}}))


def test_a_sampler_that_tune_has_not_is_an_unknown_setting():
    with pytest.raises(ConfigError, match=r"sft\.learning_rate\.normal must name a setting"):
        chain_specs(with_draws(make({"space": {"sft": {"learning_rate": {"normal": [0.0, 1.0]}}}})))


def test_a_space_without_a_setting_is_refused():
    with pytest.raises(ConfigError, match="must have a setting to draw"):
        with_draws(make({"space": {"sft": {}}}))


def test_a_multiple_that_was_drawn_is_the_number_that_people_write():
    baseline = {"curriculum": {"replay_ratio": 0.3}}
    space = {"curriculum": {"replay_ratio": {"quniform": [0.0, 0.5, 0.1]}}}
    config = with_draws(make({"space": space, "num_draws": 40, "baselines": [baseline]}))
    assert {draw["curriculum.replay_ratio"] for draw in draws(config)} == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5}
    assert [chain.is_baseline for chain in chain_specs(config) if chain.setting == "replay_ratio=0.3"] == [True]


def test_seeds_are_not_drawn():
    with pytest.raises(ConfigError, match="must not have seed"):
        with_draws(make({"space": {"seed": [1, 2]}}))


@pytest.mark.parametrize("search", [{"space": {}}, {"space": SPACE, "halving": {"budget_stages": 4}}])
def test_optuna_needs_a_space_and_final_scores(search):
    with pytest.raises(ConfigError, match="drawn_by optuna needs a space"):
        make({**search, "drawn_by": "optuna"})


def test_a_search_that_is_resumed_keeps_the_settings_it_draws():
    made = draws(with_draws(make({"space": SPACE})))
    with pytest.raises(ConfigError, match=r"settings of the search's earlier draws, got sft\.learning_rate instead"):
        with_draws(make({"space": {"sft": {"learning_rate": SPACE["sft"]["learning_rate"]}}, "draws": made}))
    with pytest.raises(ConfigError, match="draws must be empty without a space"):
        make({"draws": made})


def test_a_search_of_an_earlier_version_does_not_draw_again():
    config = make({"space": SPACE})
    with pytest.raises(ConfigError, match="must hold what this search drew"):
        require_draws(config)
    require_draws(with_draws(config))
    require_draws(make({}))


def test_optuna_keeps_to_what_it_can_draw_and_to_its_earlier_draws(tmp_path):
    normal = {"space": {"sft": {"learning_rate": {"randn": [1e-4, 1e-5]}}}, "drawn_by": "optuna"}
    with pytest.raises(ConfigError, match="must be what Optuna can draw from"):
        with_draws(make(normal))
    config = with_draws(optuna_search(num_draws=8))
    finish(config, tmp_path)
    assert config.search is not None
    narrowed = {"space": {**config.search.space, "curriculum": {"level_order": [["3"]]}}}
    search = config.search.model_copy(update=narrowed)
    with pytest.raises(ConfigError, match="hold the draws so far"):
        with_next_draws(config.model_copy(update={"search": search}), tmp_path)


def test_a_baseline_that_was_drawn_too_scores_for_its_draw(tmp_path):
    chains = [
        {"name": "a", "values": {"order": 1, RATE: 0.1, "seed": 0}, "is_baseline": False},
        {"name": "b", "values": {RATE: 0.2, "seed": 0}, "is_baseline": True},
        {"name": "c", "values": {RATE: 0.1, SIZE: 8, "seed": 0}, "is_baseline": True},  # of other settings
    ]
    write_json(tmp_path / "chains.json", {"chains": chains})
    outcome = {name: {"status": "finished", "score": score} for name, score in zip("abc", (0.5, 0.7, 0.9), strict=True)}
    write_json(tmp_path / "outcome.json", outcome)
    assert draw_scores(tmp_path, [{RATE: 0.1}, {RATE: 0.2}, {RATE: 0.3}], {"order"}) == [0.5, 0.7, None]


def optuna_search(num_draws: int) -> Config:
    space = {"sft": {"learning_rate": {"loguniform": [1e-5, 1e-3]}}, "curriculum": {"level_order": ORDERS}}
    return make({"space": space, "seeds": [0, 1], "num_draws": num_draws, "drawn_by": "optuna"})


def finish(config: Config, run_path: Path) -> None:
    """Leave what a search leaves, with scores that are best at a rate of 1e-4 and the order of two levels backward."""
    chains, outcome = [], {}
    for spec in chain_specs(config):
        order = spec.config.curriculum.level_order if spec.config.curriculum else None
        score = (order == ["2", "1"]) - abs(math.log10(spec.config.sft.learning_rate) + 4) + 0.01 * spec.seed
        chains.append({"name": spec.name, "values": spec.values, "is_baseline": False})
        outcome[spec.name] = {"status": "finished", "score": score}
    write_json(run_path / "chains.json", {"chains": chains})
    write_json(run_path / "outcome.json", outcome)


def all_rounds(config: Config, run_path: Path) -> Config:
    more: Config | None = with_draws(config)
    while more:
        config = more
        finish(config, run_path)
        more = with_next_draws(config, run_path)
    return config


def test_optuna_draws_round_by_round_and_ever_better_settings(tmp_path):
    gains = []
    for seed in range(4):
        config = optuna_search(num_draws=30).model_copy(update={"seed": seed})
        searched = all_rounds(config, tmp_path)
        scores = [score for score in draw_scores(tmp_path, draws(searched)) if score is not None]
        assert len(scores) == len(draws(searched)) == 30
        gains.append(fmean(scores[-10:]) - fmean(scores[:10]))
    assert fmean(gains) > 0.25  # of a spread of about 0.6
    assert searched == all_rounds(config, tmp_path)  # a resumed search draws what it would have


def test_a_draw_whose_chains_failed_has_no_score_and_the_search_goes_on(tmp_path):
    config = with_draws(optuna_search(num_draws=8))
    finish(config, tmp_path)
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    first = draws(config)[0]
    failing = [spec.name for spec in chain_specs(config) if spec.values[RATE] == first[RATE]]
    write_json(tmp_path / "outcome.json", {**outcome, **{name: {"status": "failed", "score": 0.5} for name in failing}})
    scores = draw_scores(tmp_path, draws(config))
    assert scores[0] is None and all(scores[1:])
    more = with_next_draws(config, tmp_path)
    assert more is not None and len(draws(more)) == 8 and draws(more)[:4] == draws(config)
