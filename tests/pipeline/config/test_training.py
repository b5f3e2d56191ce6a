"""Presets of GRPO: what they set, and who wins."""

import json
import math
from typing import Any, get_args

import pytest

from pipeline.config import Config, GRPOConfig, load_config, validate_config, with_settings
from pipeline.errors import ConfigError

STAGE = {"name": "rl", "kind": "grpo"}
ALGORITHMS = get_args(GRPOConfig.model_fields["algorithm"].annotation)
PAPERS: dict[str, dict[str, Any]] = {
    "grpo": {},
    "dr_grpo": {"normalize_std": False, "loss_aggregation": "constant"},
    "dapo": {
        "epsilon": 0.2,
        "epsilon_high": 0.28,
        "loss_aggregation": "token",
        "drop_zero_variance_groups": True,
        "overlong_buffer_frac": 4096 / 20480,
        "overlong_penalty": 1.0,
    },
    "gspo": {"policy_loss": "sequence_clip", "epsilon": 3e-4, "epsilon_high": 4e-4, "loss_aggregation": "sequence"},
    "cispo": {"policy_loss": "cispo", "clip_range": (0.0, 5.0), "loss_aggregation": "token"},
    "rloo": {"advantage_baseline": "leave_one_out", "normalize_std": False, "policy_loss": "product_clip"},
    "reinforce_plus_plus": {"advantage_baseline": "batch", "normalize_over": "batch", "loss_aggregation": "token"},
    "gmpo": {"policy_loss": "geometric_mean", "clip_range": (math.exp(-0.4), math.exp(0.4))},
}


def config(**sections: Any) -> Config:
    return validate_config({"stages": [STAGE], **sections})


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_algorithm_sets_what_its_paper_sets(algorithm):
    settings = GRPOConfig(algorithm=algorithm)
    for name, value in PAPERS[algorithm].items():
        assert getattr(settings, name) == (value if isinstance(value, str | bool) else pytest.approx(value)), name
    changed = settings.model_dump(exclude_defaults=True).keys() - {"algorithm", "epsilon", "epsilon_high"}
    assert changed <= PAPERS[algorithm].keys()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_saved_configuration_is_read_as_it_was(algorithm, tmp_path):
    saved = config(grpo={"algorithm": algorithm, "epsilon": 0.11, "sampler_correction": "token_mask"})
    path = tmp_path / "experiment_config.json"
    path.write_text(saved.model_dump_json())
    assert json.loads(path.read_text())["grpo"]["policy_loss"] == saved.grpo.policy_loss  # resolved values
    assert load_config(path) == saved


def test_settings_beside_an_algorithm_win():
    settings = config(grpo={"algorithm": "dapo", "epsilon_high": None, "loss_aggregation": "sequence"}).grpo
    assert (settings.clip_range, settings.loss_aggregation) == ((0.8, 1.2), "sequence")
    assert settings.drop_zero_variance_groups and settings.overlong_buffer_frac == 0.2


GSPO: dict[str, Any] = {"algorithm": "gspo", "epsilon": 0.1, "beta": 0.05}


def test_an_algorithm_of_an_override_sets_everything_anew(tmp_path):
    recipe, saved = tmp_path / "recipe.yaml", tmp_path / "saved.json"
    recipe.write_text(json.dumps({"stages": [STAGE], "grpo": GSPO}))
    saved.write_text(config(grpo=GSPO).model_dump_json())
    for path in (recipe, saved):
        settings = load_config(path, ["grpo.epsilon_high=0.3", "grpo.algorithm=dapo"]).grpo
        expected = GRPOConfig(algorithm="dapo", epsilon_high=0.3, beta=0.05)
        assert settings == expected
    assert load_config(recipe, ["grpo={algorithm: grpo}"]).grpo == GRPOConfig(beta=0.05)


def test_an_algorithm_of_a_search_sets_everything_anew():
    base = config(grpo=GSPO)
    assert with_settings(base, {"grpo.algorithm": "cispo"}).grpo == GRPOConfig(algorithm="cispo", beta=0.05)


def test_a_stage_may_have_an_algorithm_of_its_own():
    own: dict[str, Any] = {"algorithm": "cispo", "epsilon_high": 2.0}
    whole = config(grpo=GSPO, stages=[{**STAGE, "settings": own}, {**STAGE, "name": "other", "settings": {"mu": 2}}])
    for each in (whole, validate_config(json.loads(whole.model_dump_json()))):
        assert each.stage_settings(each.stages[0]) == GRPOConfig(**own, beta=0.05)
        assert each.stage_settings(each.stages[1]) == GRPOConfig(**GSPO, mu=2)


def test_a_correction_sets_its_bounds():
    bounds = {
        name: (settings.sampler_ratio_min, settings.sampler_ratio_max)
        for name in get_args(GRPOConfig.model_fields["sampler_correction"].annotation)
        if (settings := GRPOConfig(sampler_correction=name))
    }
    assert bounds["token_truncate"][1] == bounds["sequence_truncate"][1] == 2.0
    assert (bounds["token_mask"], bounds["sequence_mask"]) == ((0.5, 5.0), (0.9, 1.1))
    assert GRPOConfig(sampler_correction="token_mask", sampler_ratio_max=3.0).sampler_ratio_max == 3.0


@pytest.mark.parametrize(
    ("settings", "exact", "stale"),
    [
        ({}, "learner", "sampler"),
        ({"sampler_correction": "sequence_mask"}, "learner", "sampler"),  # it re-weights nothing
        ({"sampler_correction": "token_truncate"}, "learner", "learner"),  # decoupled: corrected once
        ({"sampler_correction": "sequence_truncate"}, "learner", "learner"),
        ({"sampler_correction": "token_mask"}, "learner", "learner"),
        ({"old_policy": "learner"}, "learner", "learner"),
        ({"old_policy": "sampler"}, "sampler", "sampler"),
    ],
)
def test_the_old_policy_of_stale_completions_is_the_sampler_unless_weights_correct_for_it(settings, exact, stale):
    grpo = GRPOConfig.model_validate(settings)
    assert (grpo.old_policy_for(0), grpo.old_policy_for(1)) == (exact, stale)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"old_policy": "sampler", "sampler_correction": "token_mask"}, "old_policy must be learner with sampler_corr"),
        (
            {"algorithm": "reinforce_plus_plus", "normalize_over": "group"},
            "normalize_over must be batch with advantage",
        ),
        ({"algorithm": ["grpo"]}, "grpo.algorithm: input should be 'grpo'"),
        ({"algorithm": "ppo"}, "grpo.algorithm: input should be 'grpo'"),
    ],
)
def test_what_does_not_fit_together_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        config(grpo=settings)
