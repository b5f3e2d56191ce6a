"""evaluation.json: a resumed evaluation must be the one that was started."""

import pytest

from pipeline.config import Config
from pipeline.config.evaluation import PromptConfig
from pipeline.errors import CheckpointError
from pipeline.evaluation.datasets import load_data_set
from pipeline.evaluation.prompts import make_prompter
from pipeline.evaluation.record import EvaluationRecord, difference
from pipeline.templates import TEMPLATES
from tests.support.evaluations import evaluation_config


def test_a_registered_template_is_recorded_as_its_text(sums):
    """A run that names a template and a data set that has it make the same prompts."""
    settings = evaluation_config(str(sums), prompt={"template": TEMPLATES["gsm8k"]})
    loaded = load_data_set(str(sums), settings)
    run = Config.model_validate({"stages": [{"name": "a", "kind": "sft"}], "data": {"prompt_template": "gsm8k"}})
    auto = settings.model_copy(update={"prompt": PromptConfig()})
    prompters = {("a", "x"): make_prompter(loaded, settings, None), ("b", "x"): make_prompter(loaded, auto, run)}
    first, second = EvaluationRecord.of(settings, [], [], prompters, {}).prompts
    assert first | {"model": ""} == second | {"model": ""} and first["template"].startswith("Solve the problem")


def test_an_evaluation_is_resumed_as_it_was_started(tmp_path):
    before = EvaluationRecord([{"label": "m", "fingerprint": "a"}], [], [], {"seed": 0})
    before.write(tmp_path)
    before.check(tmp_path)
    with pytest.raises(CheckpointError, match="its models differ: fingerprint: was 'a', is 'b'"):
        EvaluationRecord([{"label": "m", "fingerprint": "b"}], [], [], {"seed": 0}).check(tmp_path)
    with pytest.raises(CheckpointError, match="its settings differ: seed: was 0, is 1"):
        EvaluationRecord([{"label": "m", "fingerprint": "a"}], [], [], {"seed": 1}).check(tmp_path)


def test_an_evaluation_of_an_earlier_version_is_resumed(tmp_path):
    """Its notes on training data were worded differently. The number of questions still counts."""
    old, new = "1,234 training questions looked through", "1,234 training questions searched"
    EvaluationRecord([{"label": "m", "training_data": old}], [], [], {}).write(tmp_path)
    EvaluationRecord([{"label": "m", "training_data": new}], [], [], {}).check(tmp_path)
    with pytest.raises(CheckpointError, match="its models differ: training_data: was '1,234', is '1,235'"):
        changed = {"label": "m", "training_data": "1,235 training questions searched"}
        EvaluationRecord([changed], [], [], {}).check(tmp_path)


def test_the_first_difference_is_named_with_its_place():
    before = {"rollout": {"stop": ["a", "b"], "num_samples": 1}, "seed": 0}
    assert difference(before, {**before, "rollout": {"stop": ["a", "c"], "num_samples": 1}}) == (
        "rollout: stop: was 'b', is 'c'"
    )
    assert difference({"a": 1}, {"a": 1, "b": 2}) == "b: was None, is 2"
    assert difference([1], [1, 2]) == "was [1], is [1, 2]"
    assert len(difference("x" * 1000, "y" * 1000)) < 200
