"""Settings of jobs/evaluate.py."""

import pytest

from pipeline.config import load_config
from pipeline.config.evaluation import EvaluationConfig
from pipeline.errors import ConfigError
from tests.conftest import CONFIGS
from tests.support.evaluations import evaluation_config


def test_one_model_or_many_with_or_without_labels():
    assert evaluation_config(model="a").model == {"a": "a"}
    assert evaluation_config(model=["a", "b"]).model == {"a": "a", "b": "b"}
    assert evaluation_config(model={"base": "a"}).model == {"base": "a"}
    assert evaluation_config("math").dataset == ["math"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rollout": {"num_samples": 4}}, "rollout.temperature must be above 0"),
        ({"prompt": {"template": "Q: {problem}"}}, "must hold {question}"),
        ({"prompt": {"template": "Q: {question} {hint} A: "}}, "and no other field"),
        ({"prompt": {"template": "{question}", "style": "chat"}}, "prompt.template must be null"),
        ({"dataset": ["math", "math"]}, "dataset must name each data set once"),
        ({"model": []}, "at least 1"),
        ({"rollout": {"num_gpus": 1.0, "tensor_parallel_size": 2}}, "rollout.num_gpus must equal"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        evaluation_config(**settings)


def test_the_recipe_is_valid_and_an_unknown_setting_gets_a_suggestion():
    recipe = CONFIGS / "evaluate.yaml"
    overrides = ["rollout.num_samples=4", "rollout.temperature=1.0"]
    assert load_config(recipe, overrides, EvaluationConfig).rollout.num_samples == 4
    with pytest.raises(ConfigError, match=r"unknown setting rollout.num_sample. Did you mean rollout.num_samples\?"):
        load_config(recipe, ["rollout.num_sample=4"], EvaluationConfig)


def test_resuming_may_change_only_settings_that_results_do_not_depend_on():
    assert evaluation_config(rollout={"num_workers": 3}).results_key() == evaluation_config().results_key()
    assert evaluation_config(rollout={"num_threads": 1}).results_key() != evaluation_config().results_key()
    assert evaluation_config(seed=1).results_key() != evaluation_config().results_key()
