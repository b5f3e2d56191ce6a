from typing import Any

import pytest

from pipeline.config import MemoryConfig, load_config, validate_config
from pipeline.errors import ConfigError
from tests.conftest import CONFIGS

KNOWLEDGE = {"knowledge": "bank.jsonl"}
ROUTER, FUSION = {"name": "router", "kind": "router"}, {"name": "fusion", "kind": "memory_sft"}
KEPT = {"name": "kept", "kind": "memory_sft", "carry": {"optimizer": True}}
ROUTED = {**KNOWLEDGE, "preset": "routed"}


def memory(**settings: Any) -> MemoryConfig:
    return MemoryConfig.model_validate({**KNOWLEDGE, **settings})


def test_the_published_form_is_the_default():
    config = memory()
    assert config == memory(preset="explicitlm")
    assert (config.query, config.decode, config.selection, config.positions) == (
        "token",
        "mean",
        "straight_through",
        "all",
    )
    assert (config.similarity_loss_coef, config.diversity_loss_coef, config.counterfactual_frac) == (0.1, 0.05, 0.0)
    assert (config.num_candidates, config.gate_rank, config.fusion_rank) == (16, 128, 128)


def test_a_preset_sets_defaults_that_settings_override():
    config = memory(preset="routed", num_candidates=64)
    assert (config.query, config.decode, config.selection, config.positions) == (
        "pooled",
        "attention",
        "given",
        "answer",
    )
    assert (config.gate_rank, config.counterfactual_frac, config.num_candidates) == (None, 2 / 3, 64)
    assert (config.similarity_loss_coef, config.diversity_loss_coef) == (0.0, 0.0)


def test_a_saved_configuration_is_read_as_it_was():
    config = memory(preset="routed", num_candidates=64, gate_rank=8, counterfactual_frac=0.0)
    assert MemoryConfig.model_validate_json(config.model_dump_json()) == config


def test_the_side_is_the_root_of_the_slots():
    assert memory(knowledge_num=1_048_576).side == 1024


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "other"}, "Input should be 'explicitlm' or 'routed'"),
        ({"knowledge_num": 1000}, "must be a square number: two sets of its root of keys address the slots"),
        ({"knowledge_dim": 15}, "knowledge_dim must be even, got 15: each half has keys of its own"),
        ({"knowledge_num": 4, "num_candidates": 5}, "num_candidates must be at most knowledge_num, got 5 and 4"),
        (
            {"preset": "routed", "num_candidates": 2, "num_selected": 3},
            "num_selected must be at most num_candidates, got 3 and 2",
        ),
        ({"num_selected": 2}, "num_selected must be 1 with decode=mean, got 2. Use decode=attention"),
        ({"query": "pooled"}, "query=pooled and selection=given need each other"),
        ({"selection": "given"}, "query=pooled and selection=given need each other"),
        ({"preset": "routed", "positions": "all"}, "positions must be answer with query=pooled"),
        ({"positions": "answer"}, "positions must be all and decode mean with query=token"),
        ({"decode": "attention"}, "positions must be all and decode mean with query=token"),
        ({"counterfactual_frac": 0.5}, "counterfactual_frac must be 0 without selection=given"),
        ({"layers": []}, "at least 1 item"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        memory(**settings)


def config(**sections: Any) -> Any:
    defaults = {"memory": KNOWLEDGE, "stages": [ROUTER, FUSION], "eval": {"problems_per_level": 0}}
    return validate_config({**defaults, **sections})


def test_a_memory_is_trained_by_its_own_stages():
    assert [stage.kind for stage in config().stages] == ["router", "memory_sft"]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"memory": None}, r"memory must be set for stages of kind memory_sft and router, .*\['router', 'fusion'\]"),
        (
            {"stages": [ROUTER, {"name": "all", "kind": "sft"}]},
            r"stages must be of kind memory_sft or router beside memory, got \['all'\]",
        ),
        ({"model": {"lora": {"r": 4, "alpha": 8}}}, "model.lora must be null beside memory"),
        ({"eval": {"problems_per_level": 4}}, "eval.problems_per_level must be 0 beside memory, got 4"),
        (
            {"memory": {**KNOWLEDGE, "preset": "routed"}, "model": {"gradient_checkpointing": True}},
            "model.gradient_checkpointing must be false with memory.positions=answer",
        ),
        ({"model": {"device_map": "auto"}}, "model.device_map must be null beside memory, got auto"),
        ({"curriculum": {}}, "curriculum.replay_ratio and replay_ratio of stages must be 0 beside memory"),
        (
            {"curriculum": {"replay_ratio": 0}, "stages": [ROUTER, {**FUSION, "replay_ratio": 0.1}]},
            "curriculum.replay_ratio and replay_ratio of stages must be 0 beside memory",
        ),
        ({"stages": [ROUTER, KEPT]}, "carry.optimizer of kept must be false after a stage of another kind or train"),
        (
            {"stages": [FUSION, {**KEPT, "settings": {"train": ["memory_norm"]}}]},
            "carry.optimizer of kept must be false after a stage of another kind or train",
        ),
        ({"memory": ROUTED, "memory_sft": {"loss_on": "all"}}, "memory_sft.loss_on of fusion must be completion"),
        (
            {"memory": ROUTED, "stages": [{**FUSION, "settings": {"too_long": "truncate"}}]},
            "memory_sft.too_long of fusion must be drop with memory.selection=given, got truncate",
        ),
        ({"memory_sft": {"train": ["memory_gate"]}}, "must hold gated_memory_fusion or memory_norm: the loss has no"),
        ({"memory_sft": {"train": []}}, "must hold gated_memory_fusion or memory_norm"),
        ({"memory_sft": {"train": ["memory_norm", "product_keys"]}}, "input should be 'memory_gate'"),
        (
            {"memory": ROUTED, "router": {"train": ["memory_gate", "product_keys"]}},
            "router.train of router must not hold product_keys with memory.query=pooled: its targets are computed",
        ),
    ],
)
def test_what_cannot_be_beside_a_memory_is_refused(sections, message):
    with pytest.raises(ConfigError, match=message):
        config(**sections)


def test_the_published_form_may_recompute_activations():
    assert config(model={"gradient_checkpointing": True}).memory.positions == "all"


def test_what_is_allowed_beside_a_memory():
    again = {**KEPT, "settings": {"train": ["memory_norm", "gated_memory_fusion"]}}
    first = {**FUSION, "settings": {"train": ["gated_memory_fusion", "memory_norm"]}}
    assert config(curriculum={"replay_ratio": 0}, stages=[first, again]).stages[1].carry.optimizer
    assert config(memory_sft={"loss_on": "all", "too_long": "truncate"}).memory_sft.loss_on == "all"
    assert config(router={"train": ["memory_gate", "product_keys"]}).router.train[1] == "product_keys"


def test_the_recipe_of_qwen3_4b_is_the_published_one():
    recipe = load_config(CONFIGS / "memory_qwen3_4b.yaml")
    assert recipe.memory is not None
    expected = memory(knowledge_num=1_048_576, knowledge_dim=1536, knowledge=recipe.memory.knowledge)
    assert recipe.memory == expected
    settings: Any = recipe.stage_settings(recipe.stages[0])
    assert (settings.learning_rate, settings.num_train_epochs, settings.max_length) == (5e-5, 3.0, 256)
    assert recipe.batch_size(settings) == 128
