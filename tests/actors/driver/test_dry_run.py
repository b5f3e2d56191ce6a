import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from actors.driver.dry_run import dry_run, dry_run_evaluation
from pipeline.cli import JobArguments
from pipeline.config import EvaluationConfig, load_config
from pipeline.errors import ConfigError, DataError, GradusError, ModelError, RewardError
from pipeline.rewards import scoring
from pipeline.rewards.registry import RewardContext, StatefulReward
from pipeline.runs.checkpoints import Progress
from pipeline.runs.directory import Kind, RunDirectory
from pipeline.types import RolloutGroup
from pipeline.verifier import Verdict
from tests.conftest import CONFIGS
from tests.support.data import write_jsonl
from tests.support.models import CHAT_TEMPLATE, save_tiny_model, tiny_tokenizer
from tests.support.recipes import save_recipe, tiny_settings

LORA = "model.lora={r: 2, target_modules: [q_proj]}"
NO_EVAL = "eval.problems_per_level=0"
PLUGINS = "tests.actors.driver.test_dry_run"


def test_a_missing_tracking_library_is_found(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    arguments = JobArguments(str(CONFIGS / "demo.yaml"), ["tracking.backends=[wandb]"], None, True)
    with pytest.raises(ConfigError, match=r"wandb needs the wandb library\. Run `pip install \"gradus\[wandb\]\"`\."):
        dry_run(arguments)


@pytest.fixture
def recipe(tmp_path) -> Path:
    """SFT, then GRPO, on a tiny model of 1024 positions."""
    model = save_tiny_model(tmp_path / "model")
    for split in ("train", "test"):
        shared = {"level": "1", "empty": "so #### ?"}
        rows = ({"question": f"{n} + {n}?", "answer": f"so #### {2 * n}", **shared} for n in range(3))
        write_jsonl(tmp_path / f"{split}.jsonl", *rows)
    stages = [{"name": "sft", "kind": "sft"}, {"name": "rl", "kind": "grpo"}]
    settings = tiny_settings(model, tmp_path, curriculum=None, stages=stages, output={"root": str(tmp_path / "runs")})
    return save_recipe(tmp_path, settings)


def check(recipe: Path, *overrides: str, resume: Path | None = None, kind: Kind = "chain") -> None:
    dry_run(JobArguments(str(recipe), list(overrides), str(resume) if resume else None, True), kind)


def test_a_job_that_will_start_is_valid(recipe, tmp_path, capsys):
    check(recipe, "data.system_prompt=Be brief.", LORA, "trainer.name=SpectralRefactor")
    run = RunDirectory.create(load_config(recipe))
    check(recipe, "reward.functions=[{name: correctness}]")
    check(recipe, resume=run.path)
    shown = capsys.readouterr().out
    assert shown.count(": valid") == shown.count("nothing was started") == 3
    assert not (tmp_path / "runs" / "data_cache").exists()


SETTINGS = {
    "longer than the model's context": (["rollout.max_completion_length=1000"], "must fit the 1024 tokens"),
    "an evaluation longer than the context": (["eval.max_completion_length=1000"], "must fit the 1024 tokens"),
    "a worked solution longer than the context": (
        ["sft.max_length=4000", "data.system_prompt=" + "x" * 1100, "stages=[{name: a, kind: sft}]", NO_EVAL],
        "sft.max_length must be at most the 1024 tokens",
    ),
    "no such module for LoRA": (["model.lora={target_modules: [query]}"], "model.lora.target_modules must be in"),
    "no adapter to refactor": (
        [LORA, "trainer={name: SpectralRefactor, layers: [k_proj]}"],
        "spectral refactoring must have an adapter to work on",
    ),
    "no such attention": (["model.attn_implementation=spda"], "spda"),
    "attention code from a hub": (["model.attn_implementation=some/kernels"], "model.trust_remote_code"),
    "shards that cannot share heads": (
        ["rollout.tensor_parallel_size=4", "rollout.num_gpus=4"],
        "tensor_parallel_size must divide the 2 attention heads",
    ),
    "a GPU for a learner that has none": (["model.device=cuda"], "learner.num_gpus must be above 0 for model.device"),
    "a GPU for a learner on the CPU": (
        ["learner.num_gpus=1"],
        "learner.num_gpus must be 0 for model.device=cpu, got 1",
    ),
    "attention of GPUs on a CPU": (
        ["model.attn_implementation=flash_attention_2"],
        "learner.num_gpus must be above 0 for model.attn_implementation=flash_attention_2",
    ),
    "a cache larger than the engine": (
        ["rollout.kv_cache_gib=8"],
        "must be at least rollout.kv_cache_gib for CPU engines",
    ),
    "no time to grade": (["reward.timeout_s=0.001"], "reward.timeout_s: "),
    "golds that cannot be compared": (
        ["data.fields.answer=empty", "reward.functions=[{name: correctness}]"],
        "stage rl must have gold answers that can be compared, got none in 3 problems",
    ),
    "no prompt fits": (["rollout.max_prompt_length=5"], "rollout.max_prompt_length=5"),
    "no worked solution fits": (["sft.max_length=8"], "stage sft must have a worked solution that fits into"),
    "a reward with one argument": (
        ["reward.functions=[{name: '%s:no_verdicts'}]"],
        "TypeError: no_verdicts() takes",
    ),
    "a reward that fails": (["reward.functions=[{name: '%s:fails'}]"], "got KeyError"),
    "a reward of too few values": (["reward.functions=[{name: '%s:one_value'}]"], "must return 4 values"),
    "a reward that is no number": (["reward.functions=[{name: '%s:text'}]"], "must return one number per completion"),
    "a reward of nan": (["reward.functions=[{name: '%s:nan'}]"], "must return values that are finite"),
    "a reward that ends its process": (["reward.functions=[{name: '%s:leaves'}]"], "got SystemExit: 3"),
    "a reward that fails when its values are read": (["reward.functions=[{name: '%s:yields'}]"], "got KeyError"),
    "a reward that blocks": (["reward.functions=[{name: '%s:blocks'}]"], "must return, got nothing in 0.2 s"),
    "a place that is a file": (["output.root={tmp}/train.jsonl/runs"], "output.root must be writable"),
}


@pytest.mark.parametrize(("overrides", "message"), SETTINGS.values(), ids=SETTINGS)
def test_settings_that_cannot_work_are_refused(recipe, tmp_path, monkeypatch, capsys, overrides, message):
    monkeypatch.setattr(scoring, "TRY_TIMEOUT_S", 0.2)
    with pytest.raises(GradusError) as error:
        check(recipe, *(item.replace("%s", PLUGINS).replace("{tmp}", str(tmp_path)) for item in overrides))
    assert message in str(error.value) and "valid" not in capsys.readouterr().out


def no_verdicts(group: RolloutGroup) -> list[float]:
    return [0.0 for _ in group.completions]


def fails(group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
    return [{"a": 1.0}[completion.text] for completion in group.completions]


def one_value(group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
    return [1.0]


def text(group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[str]:
    return ["good" for _ in verdicts]


def nan(group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
    return [float("nan") for _ in verdicts]


def leaves(group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
    sys.exit(3)


def yields(group: RolloutGroup, verdicts: Sequence[Verdict]) -> Iterator[float]:
    yield {"a": 1.0}["b"]


def blocks(group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
    time.sleep(5)
    return []


def with_tokenizer(
    model: Path, template: str | None = CHAT_TEMPLATE, special: Sequence[str] = ("<|im_start|>",)
) -> None:
    (model / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer = tiny_tokenizer(special=special)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(model)


def refuse_system(model: Path) -> None:
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    with_tokenizer(model, refusal + CHAT_TEMPLATE)


def cut_shard(model: Path) -> None:
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def edit_config(model: Path, **settings: object) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | settings))


def need_code(model: Path) -> None:
    (model / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "code.Config"}}))


MODELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "its template refuses a system message": (
        refuse_system,
        "data.system_prompt must be empty .*System role not supported.*Add data.system_prompt=''",
    ),
    "its template leaves the system message out": (
        lambda model: with_tokenizer(
            model, CHAT_TEMPLATE.replace("in messages", "in messages if message.role == 'user'")
        ),
        "data.system_prompt must be empty .*leaves out the system message",
    ),
    "its template leaves the question out": (
        lambda model: with_tokenizer(model, "Solve it."),
        "must have a chat template that takes the problems: it leaves out",
    ),
    "its template does not ask for an answer": (
        lambda model: with_tokenizer(model, CHAT_TEMPLATE.replace("if add_generation_prompt", "if false")),
        r"heeds add_generation_prompt.* an answer comes after '.*start\|>assistant'",
    ),
    "it has no template": (lambda model: with_tokenizer(model, None), "must have a chat template"),
    "it has no tokenizer": (lambda model: (model / "tokenizer.json").unlink(), "must have a tokenizer"),
    "tags are special tokens": (
        lambda model: with_tokenizer(model, special=["<answer>"]),
        "'format' must be able to see <answer> in",
    ),
    "its tokenizer has more tokens": (
        lambda model: with_tokenizer(model, "<x9>" + CHAT_TEMPLATE, [f"<x{n}>" for n in range(10)]),
        "must have an embedding of every token, got token 267 for 259",
    ),
    "its weights are a pointer": (
        lambda model: (model / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1"),
        "model.safetensors is missing or damaged",
    ),
    "a shard is missing": (cut_shard, "model-00002-of-00002.safetensors is missing or damaged"),
    "its configuration has a layer more than its weights": (
        lambda model: edit_config(model, num_hidden_layers=3),
        r"9 added \['model.layers.2",
    ),
    "its configuration has other shapes than its weights": (
        lambda model: edit_config(model, intermediate_size=80),
        "must have weights of the shapes that its config.json says",
    ),
    "its configuration has a text for a number": (
        lambda model: edit_config(model, hidden_size="x"),
        "must have a config.json that can be used",
    ),
    "it needs code": (need_code, "trust_remote_code|custom code"),
}


@pytest.mark.parametrize(("spoil", "message"), MODELS.values(), ids=MODELS)
def test_a_model_that_cannot_be_trained_is_refused(recipe, tmp_path, spoil, message):
    spoil(tmp_path / "model")
    with pytest.raises(GradusError, match=message):
        check(recipe, "data.system_prompt=Be brief.")


ALTERNATING = (
    "{% for message in messages %}{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}" + CHAT_TEMPLATE
)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("roles", [["user", "user"], ["system", "user"]])
def test_a_template_that_refuses_only_later_problems_is_found(recipe, tmp_path, split, roles):
    with_tokenizer(tmp_path / "model", ALTERNATING)
    check(recipe)
    chats = [["user"], ["user"], roles]
    rows = ({"question": chat(*chats[n]), "answer": "so #### 2", "level": "1"} for n in range(3))
    write_jsonl(tmp_path / f"{split}.jsonl", *rows)
    with pytest.raises(ModelError, match=f"roles must alternate.*problem [a-z0-9-]+ \\(roles: {', '.join(roles)}\\)"):
        check(recipe)


def test_most_problems_too_long_and_tags_that_no_prompt_names_are_warned_of(recipe, tmp_path, caplog):
    check(recipe)
    assert "too long" not in caplog.text and "format" not in caplog.text
    rows = ({"question": f"{'x' * 100 * (n > 0)}{n}?", "answer": "so #### 2", "level": "1"} for n in range(3))
    write_jsonl(tmp_path / "train.jsonl", *rows)
    check(recipe, "sft.max_length=110", "data.prompt_template={question}", NO_EVAL)
    assert "stage sft: 2 of 3 problems are too long and would be left out: raise sft.max_length" in caplog.text
    assert "stage rl: 2 of 3 problems are too long and would be left out: raise rollout.max_prompt" in caplog.text
    assert "reward 'format' counts <reasoning>, " in caplog.text


def chat(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": f"What is {n} + 1?"} for n, role in enumerate(roles)]


@pytest.mark.parametrize("inst", ["[INST]{{ message.content }}[/INST]", "{{ message.content }}\n"])
def test_a_template_without_a_header_for_answers_asks_for_one(recipe, tmp_path, inst, capsys):
    """Mistral's has none: an answer comes right after ``[/INST]``."""
    body = f"{{% if message.role == 'user' %}}{inst}{{% else %}}{{{{ message.content }}}}{{% endif %}}"
    with_tokenizer(tmp_path / "model", f"{{% for message in messages %}}{body}{{% endfor %}}")
    check(recipe)
    assert ": valid" in capsys.readouterr().out


def test_a_run_that_cannot_be_resumed_is_refused(recipe, tmp_path):
    import torch

    with pytest.raises(GradusError, match=r"must hold experiment_config\.json, got .*/nowhere"):
        check(recipe, resume=tmp_path / "nowhere")
    run = RunDirectory.create(load_config(recipe))
    with pytest.raises(GradusError, match="must be resumed by the job that started it"):
        check(recipe, resume=run.path, kind="search")
    path = run.checkpoints.save(Progress("old", 3, 3), {"w": torch.zeros(2)}, {}, None)
    with pytest.raises(GradusError, match="stages must hold old, where the run stopped"):
        check(recipe, resume=run.path)
    (path / "policy.safetensors").write_bytes(b"")
    with pytest.raises(GradusError, match="is corrupt"):
        check(recipe, resume=run.path)
    search = RunDirectory.create(load_config(recipe))
    (search.path / "stages").mkdir()
    with pytest.raises(GradusError, match=r"must be resumed by jobs/search_replay\.py"):
        check(recipe, resume=search.path)


def test_a_search_without_its_section_is_refused(recipe):
    with pytest.raises(ConfigError, match="a search must have a section search"):
        check(recipe, kind="search")


EVALUATIONS = {
    "a cache larger than the engine": (
        ["rollout.kv_cache_gib=8"],
        CHAT_TEMPLATE,
        "must be at least rollout.kv_cache_gib",
    ),
    "no template": (["prompt.style=chat"], None, "must have a chat template"),
    "roles that do not alternate": (["prompt.style=chat"], ALTERNATING, r"alternate.* \(roles: user, user\)"),
    "too long": (["rollout.max_completion_length=2000"], CHAT_TEMPLATE, "rollout.max_completion_length must fit"),
}


@pytest.mark.parametrize(("overrides", "template", "message"), EVALUATIONS.values(), ids=EVALUATIONS)
def test_an_evaluation_that_cannot_work_is_refused(tmp_path, overrides, template, message):
    model = save_tiny_model(tmp_path / "model")
    with_tokenizer(model, template)
    rows = [{"question": chat(*roles), "answer": "2"} for roles in (["user"], ["user", "user"], ["user"])]
    write_jsonl(tmp_path / "test.jsonl", *(rows if template == ALTERNATING else [{"question": "1?", "answer": "2"}]))
    overrides = [f"model={model}", f"dataset={tmp_path / 'test.jsonl'}", "data.eval_split=train", *overrides]
    config = load_config(CONFIGS / "evaluate.yaml", overrides, EvaluationConfig)
    with pytest.raises((ConfigError, ModelError), match=message):
        dry_run_evaluation(config)


class Longest(StatefulReward):
    """A reward of the user's own with a state."""

    def __init__(self, context: RewardContext) -> None:
        self.state = max(len(problem.question) for problem in context.training_problems())

    def __call__(self, group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
        return [min(len(completion.text) / self.state, 1.0) for completion in group.completions]

    def next_state(self, groups: Sequence[RolloutGroup]) -> int:
        return int(self.state)


class NeedsAFile:
    def __init__(self, context: RewardContext) -> None:
        raise FileNotFoundError("words.txt")


def test_reward_classes_are_made_and_tried(recipe, capsys):
    check(recipe, f"reward.functions=[{{name: '{PLUGINS}:Longest'}}]")
    assert ": valid" in capsys.readouterr().out
    with pytest.raises(RewardError, match=r"NeedsAFile' cannot be made: FileNotFoundError: words\.txt"):
        check(recipe, f"reward.functions=[{{name: '{PLUGINS}:NeedsAFile'}}]")


def test_z_scores_that_cancel_in_their_group_are_warned_of(recipe, caplog):
    two = "reward.functions=[{name: correctness}, {name: format}]"
    one = "reward.functions=[{name: correctness, gate: true}, {name: format}]"
    for overrides in ([two], [one, "grpo.normalize_std=false"], [one, "reward.normalize=null"]):
        check(recipe, "reward.normalize=zscore", *overrides)
    assert "changes little" not in caplog.text
    check(recipe, "reward.normalize=zscore", one)
    assert caplog.text.count("changes little with the one part format: grpo.normalize_std divides advantages") == 1


STORIES = "data={name: embedded:stories, arithmetic: {train_per_level: 4, eval_per_level: 1}, write: {}}"
FITTING = ["rollout.max_prompt_length=512", "sft.max_length=900"]


def test_engines_of_frozen_models_are_shown_if_there_are_some(recipe, capsys):
    check(recipe)
    assert "│ frozen" not in capsys.readouterr().out
    check(recipe, STORIES, *FITTING, "stages.1.write={by: teacher}", "questions.teacher=embedded:smollm2-135m-instruct")
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│ frozen")]
    assert "1" in row


def test_a_solver_that_cannot_be_loaded_is_found_before_anything_starts(recipe, tmp_path):
    solver = save_tiny_model(tmp_path / "solver")
    asked = [STORIES, *FITTING, f"questions.solver.model={solver}"]
    check(recipe, *asked)
    file = solver / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"max_position_embeddings": 500}))
    with pytest.raises(ConfigError, match=rf"must fit the 500 tokens of {solver} together"):
        check(recipe, *asked)
    (solver / "model.safetensors").write_bytes(b"version https://git-lfs")
    with pytest.raises(ModelError, match=rf"model {solver} must have all of its weights"):
        check(recipe, *asked)
    with pytest.raises(ModelError, match="nowhere"):
        check(recipe, *asked[:-1], f"questions.solver.model={tmp_path / 'nowhere'}")


def test_rewards_of_a_job_that_only_writes_are_tried_too(recipe):
    with pytest.raises(RewardError, match="NeedsAFile' cannot be made"):
        check(
            recipe,
            STORIES,
            *FITTING,
            "stages=[{name: sft, kind: sft, write: {}}]",
            f"reward.functions=[{{name: '{PLUGINS}:NeedsAFile'}}]",
        )


def test_a_stage_without_tasks_of_its_kinds_is_found_before_anything_starts(recipe):
    prompts = "data.write.prompts={new: 'A problem about {topic}.'}"
    with pytest.raises(DataError, match=r"stage rl must have tasks to write problems for, got none of .*'context'"):
        check(recipe, STORIES, prompts, *FITTING, "stages.1.write={kinds: [context]}")
