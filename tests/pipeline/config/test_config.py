import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import (
    Config,
    GRPOConfig,
    SFTConfig,
    load_config,
    load_saved_config,
    validate_config,
    with_settings,
)
from pipeline.config.evaluation import EvalRolloutConfig, EvaluationConfig
from pipeline.config.generation import GenerationConfig
from pipeline.errors import ConfigError
from tests.conftest import CONFIGS
from tests.support.properties import examples

RECIPES = sorted(CONFIGS.glob("*.yaml"))
OTHER_JOBS: dict[str, Any] = {"evaluate.yaml": EvaluationConfig, "generate_problems.yaml": GenerationConfig}
GRPO = {"name": "rl", "kind": "grpo"}


@pytest.fixture
def recipe(tmp_path):
    """Writes settings to a file, loads it with overrides."""

    def load(settings: dict | None = None, *overrides: str) -> Config:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({"stages": [GRPO], **(settings or {})}))
        return load_config(path, overrides)

    return load


# The recipes we ship -----------------------------------------------------------------------------


def presets(path: Path) -> list[str]:
    return [str(name) for name in yaml.safe_load(path.read_text()).get("presets", {})]


def test_there_are_recipes_to_check():
    assert RECIPES and any(presets(path) for path in RECIPES)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_loads_and_so_does_every_preset(path):
    for overrides in ([], *([f"preset={name}"] for name in presets(path))):
        model = OTHER_JOBS.get(path.name, Config)
        loaded = load_config(path, overrides, model)
        written = json.loads(json.dumps(loaded.model_dump()))
        assert model.model_validate(written) == loaded  # what experiment_config.json holds is the same configuration


def test_presets_lie_between_the_file_and_the_overrides(recipe):
    settings = {
        "preset": "big",
        "presets": {"big": {"grpo": {"batch_size": 16, "mu": 2}}, "small": {"grpo": {"batch_size": 4}}},
        "grpo": {"batch_size": 8, "beta": 0.5},
    }
    assert recipe(settings).grpo == GRPOConfig(batch_size=16, mu=2, beta=0.5)
    assert recipe(settings, "preset=small").grpo == GRPOConfig(batch_size=4, beta=0.5)
    assert recipe(settings, "preset=null").grpo == GRPOConfig(batch_size=8, beta=0.5)
    assert recipe(settings, "grpo.batch_size=2", "rollout.prompts_per_chunk=2").grpo.batch_size == 2
    with pytest.raises(ConfigError, match=r"preset must be one of \['big', 'small'\], got 'huge'"):
        recipe(settings, "preset=huge")
    with pytest.raises(ConfigError, match="preset must be one of none in this file, got 'big'"):
        recipe({}, "preset=big")


# Overrides ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("grpo.learning_rate=5e-5", "grpo", "learning_rate", 5e-5),
        ("grpo.learning_rate=1e-6", "grpo", "learning_rate", 1e-6),
        ("grpo.beta=1", "grpo", "beta", 1.0),  # a whole number where a float is wanted
        ("grpo.normalize_std=false", "grpo", "normalize_std", False),
        ("model.trust_remote_code=true", "model", "trust_remote_code", True),
        ("grpo.epsilon_high=null", "grpo", "epsilon_high", None),
        ("model.name=Qwen/Qwen2.5-1.5B-Instruct", "model", "name", "Qwen/Qwen2.5-1.5B-Instruct"),
        ("data.system_prompt=", "data", "system_prompt", ""),
        ("data.system_prompt=Think: then answer = done", "data", "system_prompt", "Think: then answer = done"),
        ("data.name=/tmp/a b.jsonl", "data", "name", "/tmp/a b.jsonl"),
        ("data.train_split=train[:1000]", "data", "train_split", "train[:1000]"),
        ("data.name='5'", "data", "name", "5"),
        ("data.subset=null", "data", "subset", None),
    ],
)
def test_overrides_are_typed_as_in_yaml(recipe, override, section, key, value):
    loaded = getattr(getattr(recipe({}, override), section), key)
    assert loaded == value and type(loaded) is type(value)


AS_TYPED = [
    "Show your work, end with #### and the number",
    "# 1",
    "a: b",
    "*not* an alias",
    "&x y",
    "!x y",
    "%d",
    "@user",
    "- item",
    "|",
    "'tis",
    'say "8',
    '"a" # b',
    " two spaces ",
    "{question}",
    "[INST]",
    "[INST] {question} [/INST]",
    "first\nsecond",
    "a\nseed: 5",
    "${question}",
    "\\${question} \\\\${x}",
    "costs ${5",
    "no",
    "0123456",
    "007",
    "2024",
    "1:20",
    "true",
    "1e5",
    "2024-01-01",
    "${oc.env:HOME}",
]


@pytest.mark.parametrize("text", AS_TYPED)
def test_a_text_is_taken_as_it_was_typed(recipe, text):
    loaded = recipe({}, f"data.system_prompt={text}", f"tracking.run_name={text}")
    assert loaded.data.system_prompt == loaded.tracking.run_name == text and loaded.seed == 0


TEXT = st.text("aA1 :=#'\"{}[],.-_é?&*!|>%@\\\n", max_size=12)


@given(text=TEXT | st.text("a\\${}: ", max_size=8) | st.text(max_size=8))
@examples(20)
def test_a_sentence_is_never_changed(recipe, text):
    assert recipe({}, f"data.system_prompt=Say {text}").data.system_prompt == f"Say {text}"


def test_lists_mappings_and_quotes_are_read_as_yaml(recipe):
    loaded = recipe(
        {},
        "data.arithmetic.worked_per_level=[1, 2, 3, 4, 5]",
        "grpo={mu: 2, learning_rate: 5e-5}",
        "data.system_prompt='a # b'",
        'data.name="5"',
        "search.grid={data: {system_prompt: ['${question}', plain]}}",
    )
    assert loaded.data.arithmetic.worked_per_level == [1, 2, 3, 4, 5]
    assert (loaded.grpo.mu, loaded.grpo.learning_rate) == (2, 5e-5)
    assert (loaded.data.system_prompt, loaded.data.name) == ("a # b", "5")
    assert loaded.search is not None and loaded.search.grid == {"data": {"system_prompt": ["${question}", "plain"]}}


def test_only_a_recipe_is_interpolated(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "stages: [{name: rl, kind: grpo}]\nseed: 7\ngrpo: {num_steps: '${seed}'}\n"
        "tracking: {run_name: '${data.system_prompt}'}\ndata: {system_prompt: 'as \\${question}'}\n"
    )
    loaded = load_config(path)
    assert (loaded.grpo.num_steps, loaded.data.system_prompt) == (7, "as ${question}")
    loaded = load_config(path, ["seed=8", "data.system_prompt=${seed}"])
    assert (loaded.grpo.num_steps, loaded.tracking.run_name) == (8, "${seed}")
    saved = tmp_path / "experiment_config.json"
    saved.write_text(json.dumps(loaded.model_dump()))
    assert load_config(saved) == loaded
    assert load_config(saved, ["data.system_prompt=${x}"]).data.system_prompt == "${x}"


def test_a_saved_configuration_does_not_allow_code(tmp_path):
    config = validate_config({"stages": [GRPO], "model": {"trust_remote_code": True}})
    saved = tmp_path / "experiment_config.json"
    saved.write_text(json.dumps(config.model_dump()))
    with pytest.raises(
        ConfigError, match=r"^model\.trust_remote_code must be given again .* add model\.trust_remote_code=t"
    ):
        load_saved_config(saved, ["seed=1"], Config)
    assert load_saved_config(saved, ["model.trust_remote_code=true"], Config) == config
    assert not load_saved_config(saved, ["model.trust_remote_code=false"], Config).model.trust_remote_code


LEAVES = {
    "seed": st.integers(0, 2**40),
    "grpo.learning_rate": st.floats(1e-12, 1, allow_subnormal=False),
    "grpo.mu": st.integers(1, 9),
    "grpo.normalize_std": st.booleans(),
    "grpo.epsilon_high": st.none() | st.floats(0.01, 9),
    "model.lora.alpha": st.integers(1, 99) | st.floats(0.5, 99),
    "model.lora.target_modules": st.lists(TEXT, min_size=1, max_size=3),
    "data.system_prompt": TEXT,
    "data.fields.level": st.none() | TEXT,
    "eval.problems_per_level_at_end": st.none() | st.just("all") | st.integers(1, 9),
    "tracking.backends": st.lists(st.sampled_from(["wandb", "mlflow"])),
}


def nested(settings: dict[str, object]) -> dict:
    tree: dict = {}
    for key, value in settings.items():
        *sections, name = key.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return tree


@given(settings=st.fixed_dictionaries({}, optional=LEAVES), order=st.randoms())
@examples(15)  # reading YAML is slow
def test_dotted_overrides_mean_the_same_as_nested_yaml(recipe, settings, order):
    in_file = recipe(nested(settings))
    overrides = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in settings.items()]
    order.shuffle(overrides)
    assert recipe({}, *overrides) == in_file
    assert recipe({"seed": 1, "grpo": {"mu": 3}}, "seed=2", "grpo.mu=4", "seed=0", "grpo.mu=1", *overrides) == in_file
    assert with_settings(recipe(), settings) == in_file
    assert validate_config(json.loads(json.dumps(in_file.model_dump()))) == in_file


def test_overrides_reach_into_lists_and_missing_sections(recipe):
    loaded = recipe(
        {}, "stages[0].name=1", "stages.0.problems.levels=['1','2']", "model.lora.r=8", "grpo.mu=2", "grpo.mu=3"
    )
    assert loaded.stages[0].name == "1" and loaded.stages[0].problems.levels == ["1", "2"]
    assert loaded.model.lora is not None and loaded.model.lora.r == 8
    assert loaded.grpo.mu == 3  # the last one wins
    assert recipe({"model": {"lora": {"r": 4}}}, "model.lora=null").model.lora is None


# Errors and their messages -----------------------------------------------------------------------

WRITE, WRITER = "data.write={}", "{name: a, kind: sft, write: {}}"
CROSS_CHECKS = [
    (["grpo.batch_size=3", "learner.num_workers=2"], r"grpo\.batch_size must be a multiple of .*workers, got 3 and 2"),
    (["grpo.batch_size=6", "rollout.prompts_per_chunk=4"], r"rollout\.prompts_per_chunk must divide .* got 4 and 6"),
    (
        ["grpo.batch_size=4", "learner.num_workers=2", "rollout.prompts_per_chunk=4"],
        r"rollout\.prompts_per_chunk must divide .* got 4 and 2",
    ),
    (["rollout.temperature=0"], r"rollout\.temperature must be above 0 for grpo"),
    (["rollout.top_p=0.9"], r"rollout\.top_p must be 1 and rollout\.top_k 0 for grpo, got 0\.9 and 0"),
    (["rollout.top_k=50"], r"rollout\.top_p must be 1 and rollout\.top_k 0 for grpo, got 1 and 50"),
    (["model.device_map=auto", "learner.num_workers=2"], r"model\.device_map must be null"),
    (["trainer.name=SpectralRefactor", "model.lora.r=4", "learner.num_workers=2", "learner.shard_optimizer=true"],
     r"^learner\.shard_optimizer must be false beside trainer\.name=SpectralRefactor"),
    (["trainer.name=SpectralRefactor"], r"^trainer\.name=SpectralRefactor needs model\.lora"),
    (["eval.metric_for_best_model=answer_accuracy"], r"needs total_eval_times above 0 or every_steps, got neither"),
    (["eval.total_eval_times=2", "eval.problems_per_level=0"], r"needs problems_per_level above 0, got 0"),
    (["eval.problems_per_level_at_end=0"], r"^eval\.problems_per_level_at_end"),
    (["eval.early_stopping_patience=2"], r"need metric_for_best_model, got none"),
    (["eval.metric_for_best_model=loss", "eval.total_eval_times=2"], r"^data\.task_name must be set for .*=loss"),
    (["eval.total_eval_times=2", "eval.every_steps=5"], r"every_steps must be null beside total_eval_times, got 5"),
    (["eval.every_steps=5", "eval.problems_per_level=0"], r"every_steps needs problems_per_level above 0, got 0"),
    (["reward.functions=[{name: a}, {name: a}]"], r"functions must name each reward once, got \['a', 'a'\]"),
    (["reward.functions=[{name: a, gate: true, weight: 0}]"], r"a gate one above 0, got 0 for a"),
    (["reward.functions=[{name: a, gate: true}, {name: b, weight: -1}]"], r"weights of 0 or more .*, got -1 for b"),
    (["stages.0.write={}"], r"^data\.write must be set for stages that write problems, got none: rl"),
    ([WRITE, "stages.0.written_frac=0.5"], r"^written_frac of rl must be 0: no stage before it has write"),
    ([WRITE, "stages.0.write={by: teacher}"], r"^questions\.teacher must be set for write\.by=teacher of rl, got none"),
    ([WRITE, f"stages=[{WRITER}, {{name: b, kind: grpo, written_frac: 0.5}}]"],
     r"^written_frac of b must be 0 in a grpo stage"),
    ([WRITE, f"stages=[{WRITER}, {{name: b, kind: sft, written_frac: 0.5}}]", "curriculum={}"],
     r"^written_frac of b must be 0 beside replay"),
    (["eval.metric_for_best_model=quality", "eval.every_steps=5"], r"^data\.write must be set for .*=quality"),
    ([WRITE, "data.prompt_template='{question}'"], r"prompt_template must be null beside write"),
    (["data.write.prompts={}"], r"must have a prompt for one kind of task at least, got none"),
    (["data.write.prompts={new: 'A {theme}'}"], r"may hold \{topic\}, .* got \{theme\} in new"),
    (["data.write.prompts={context: 'Vary.'}"], r"must hold \{original\} in variations and only there, got 'Vary\.'"),
    (["data.write.prompts={new: '{original}'}"], r"must hold \{original\} in variations and only there"),
    (["rollout.tensor_parallel_size=2"], r"rollout\.num_gpus must equal rollout\.tensor_parallel_size, got 0 and 2"),
]  # fmt: skip
WRONG = [
    (["grpo.num_generationz=4"], r"^unknown setting grpo\.num_generationz\. Did you mean grpo\.num_generations\?$"),
    (["rolout.top_p=0.5"], r"^unknown setting rolout\. Did you mean rollout\?$"),
    (["model.lora.rr=4"], r"^unknown setting model\.lora\.rr\. Did you mean model\.lora\.r\?$"),
    (["stages.0.nmae=x"], r"^unknown setting stages\.0\.nmae\. Did you mean stages\.name\?$"),
    (["zzzzzzzzzz=1"], r"^unknown setting zzzzzzzzzz\.$"),
    (["grpo.batch_size=many"], r"^grpo\.batch_size: .*integer, got 'many'\.$"),
    (["grpo.batch_size=8.0"], r"^grpo\.batch_size: .*integer, got 8\.0\.$"),
    (["grpo.mu=true"], r"^grpo\.mu: .*integer, got True\.$"),
    (["grpo.normalize_std=1"], r"^grpo\.normalize_std: .*boolean, got 1\.$"),
    (["grpo.beta=null"], r"^grpo\.beta: .*number, got None\.$"),
    (["data.name=null"], r"^data\.name: .*string, got None\.$"),
    (["grpo.batch_size=020"], r"^grpo\.batch_size must hold numbers without leading zeros and colons, got 020: "),
    (["seed=010"], r"^seed must hold numbers without leading zeros and colons, got 010: "),
    (["grpo.batch_size=1:20"], r"^grpo\.batch_size must hold numbers without leading zeros and colons, got 1:20: "),
    (["grpo.beta=-1:20.5"], r"^grpo\.beta must hold numbers without leading zeros and colons, got -1:20\.5: "),
    (["grpo={mu: 010}"], r"^grpo must hold numbers without leading zeros and colons, got 010: "),
    (["grpo.epsilon=1.5"], r"^grpo\.epsilon: .*less than or equal to 1, got 1\.5\.$"),
    (["grpo.num_generations=1"], r"^grpo\.num_generations: .*greater than or equal to 2, got 1\.$"),
    (["grpo.learning_rate=0"], r"^grpo\.learning_rate: .*greater than 0, got 0\.$"),
    (["grpo.learning_rate=.nan"], r"^grpo\.learning_rate: "),
    (["grpo.loss_aggregation=mean"], r"^grpo\.loss_aggregation: .*'sequence', 'token' or 'constant', got 'mean'\.$"),
    (["stages.0.kind=dpo"], r"^stages\.0\.kind: .*'memory_sft' or 'router', got 'dpo'\.$"),
    (["stages.0.name=../x"], r"^stages\.0\.name: "),
    (["grpo=5"], r"^grpo: "),
    (["grpo.batch_size"], r"^override must be key=value, got 'grpo\.batch_size'\.$"),
    (["=5"], r"^override must be key=value, got '=5'\.$"),
    (["stages.9.name=x"], r"stages\.9"),
    (["stages=[]"], r"^stages: .*at least 1 item"),
    (["stages.0.settings={epsilon: 2.0}"], r"^stages\.0\.settings: epsilon: .*less than or equal to 1, got 2\.0\.$"),
    (["stages.0.settings={mu: x}"], r"^stages\.0\.settings: mu: .*integer, got 'x'\.$"),
    (["stages.0.settings={num_stepz: 2}"], r"^stages\.0\.settings: unknown setting num_stepz\..* \S*num_steps\?$"),
    (["stages.0.settings={num_train_epochs: 2.0}"], r"^stages\.0\.settings: unknown setting num_train_epochs\."),
]  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "message"), CROSS_CHECKS + WRONG, ids=lambda x: x[0] if isinstance(x, list) else ""
)
def test_a_wrong_setting_is_named(recipe, overrides, message):
    with pytest.raises(ConfigError, match=message):
        recipe({}, *overrides)


def test_all_wrong_settings_are_reported_together(recipe):
    with pytest.raises(ConfigError) as error:
        recipe({"grpo": {"mu": 0, "betta": 1.0}, "seed": -1})
    assert sorted(line.split(":")[0] for line in str(error.value).splitlines()) == [
        "grpo.mu",
        "seed",
        "unknown setting grpo.betta. Did you mean grpo.beta?",
    ]


def test_stages_must_have_different_names(recipe):
    with pytest.raises(ConfigError, match=r"stages must have different names, got \['rl', 'rl'\]"):
        recipe({"stages": [GRPO, GRPO]})


def test_a_recipe_without_stages_says_so(tmp_path):
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"^stages must be set: it has no default\.$"):
        load_config(tmp_path / "empty.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"nothing\.yaml cannot be read: No such file.*configs/"),
        (b"grpo: [1, 2", r"nothing\.yaml must be YAML: .*line 1"),
        (b"grpo: {}\ngrpo: {}\n", r"nothing\.yaml must be YAML: .*duplicate key"),
        (b"a: ${no.such.key}\n", r"nothing\.yaml.*no\.such\.key.*write a backslash"),
        (b"- a\n- b\n", r"nothing\.yaml"),
        (b"seed: 010\n", r"nothing\.yaml must hold numbers without leading zeros .*got 010"),
        (b"presets: [a]\npreset: a\n", r"presets must hold settings by name for each preset, got \['a'\]"),
        (b"presets: {a: 5}\npreset: a\n", r"presets must hold settings by name .*got \{'a': 5\}"),
        pytest.param(b"5\n", r"nothing\.yaml (?!.*None)"),
        pytest.param(b"seed: \xff\xfe\n", r"nothing\.yaml"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, content, message):
    path = tmp_path / "nothing.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


# Stage settings ----------------------------------------------------------------------------------


def test_the_settings_of_a_stage_override_the_section_of_its_kind(recipe):
    stages = [
        {"name": "warm", "kind": "sft", "settings": {"num_train_epochs": 2}},
        {**GRPO, "settings": {"mu": 2, "epsilon_high": 0.28}},
        {"name": "plain", "kind": "grpo"},
    ]
    loaded = recipe({"stages": stages, "sft": {"per_device_train_batch_size": 4}, "grpo": {"beta": 0.1, "mu": 3}})
    assert loaded.stage_settings(loaded.stages[0]) == SFTConfig(per_device_train_batch_size=4, num_train_epochs=2.0)
    assert loaded.stage_settings(loaded.stages[1]) == GRPOConfig(beta=0.1, mu=2, epsilon_high=0.28)
    assert loaded.stage_settings(loaded.stages[2]) == GRPOConfig(beta=0.1, mu=3)
    assert validate_config(json.loads(json.dumps(loaded.model_dump()))) == loaded


def test_cross_checks_see_the_settings_of_a_stage(recipe):
    with pytest.raises(ConfigError, match=r"must be a multiple of learner\.num_workers, got 3 and 2"):
        recipe({"stages": [{**GRPO, "settings": {"batch_size": 3}}], "learner": {"num_workers": 2}})


def test_sft_allows_greedy_decoding(recipe):
    assert recipe({"stages": [{"name": "warm", "kind": "sft"}]}, "rollout.temperature=0").rollout.temperature == 0


def test_an_evaluation_may_sample_from_the_most_likely_tokens():
    assert EvalRolloutConfig(top_p=0.9, top_k=50).top_k == 50


def test_a_small_batch_on_one_learner_is_one_chunk(recipe):
    assert recipe({}, "grpo.batch_size=2").grpo.batch_size == 2  # below prompts_per_chunk=4: nothing to divide


def test_a_setting_that_moved_is_read_where_it_was():
    old = {"stages": [{"name": "warmup", "kind": "sft"}], "memory": {"release_above_frac": 0.5}}
    assert validate_config(old).learner.release_memory_above_frac == 0.5


def test_a_configuration_is_immutable(recipe):
    with pytest.raises(ValueError, match="frozen"):
        recipe().seed = 1
