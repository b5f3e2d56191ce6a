"""Which settings may change when a run is resumed. docs/run_directory.md shows the table.

Every setting of a training job is in the table; tests/pipeline/config/test_resuming.py fails until a new one is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.config.job import Config
from pipeline.config.training import GRPOConfig, SFTConfig

Rule = Literal["fixed", "content", "product", "steps", "free"]

_SFT_FREE = (
    "learning_rate lr_schedule warmup_ratio weight_decay adam_beta1 adam_beta2 max_grad_norm max_skipped_updates "
    "packing pad_to_multiple_of"
)
_SFT_STEPS, _SFT_BATCH = "num_train_epochs max_steps", "per_device_train_batch_size gradient_accumulation_steps"
_SFT_FIXED = "max_length too_long loss_on"
_SETTINGS: dict[Rule, dict[str, str]] = {
    "free": {
        "model": "device device_map attn_implementation gradient_checkpointing",
        "sft": _SFT_FREE,
        "grpo": "learning_rate lr_schedule warmup_ratio weight_decay adam_beta1 adam_beta2 max_grad_norm "
        "max_skipped_updates warn_sampler_diff_above",
        "memory_sft": _SFT_FREE,
        "router": _SFT_FREE,
        "rollout": "num_workers num_cpus num_gpus memory_gib num_threads tensor_parallel_size gpu_memory_utilization "
        "kv_cache_gib enforce_eager max_num_seqs batching exact_seeds prompts_per_chunk in_flight_updates replay",
        "reward": "timeout_s num_children memory_limit_mib num_workers num_cpus memory_gib",
        "learner": "num_cpus num_gpus memory_gib num_threads tokens_per_micro_batch shard_optimizer max_failures "
        "release_memory_above_frac",
        "eval": "problems_per_level problems_per_level_at_end max_completion_length total_eval_times every_steps "
        "early_stopping_patience load_best_model_at_end",
        "checkpoint": "every_steps every_minutes keep_last",
        "output": "root samples_every_steps record_rollouts save_final_model",
        "tracking": "backends online project run_name mlflow_uri",
        "limits": "placement_s engine_s reward_s collective_s store_s",
        "memory": "recompute_cache",
        "": "search",  # a run of one chain has no use for it; a search compares the keys of its stages
    },
    "steps": {
        "sft": _SFT_STEPS,
        "memory_sft": _SFT_STEPS,
        "router": _SFT_STEPS,
        "grpo": "num_iterations num_steps max_sampled_tokens",
    },
    "product": {"sft": _SFT_BATCH, "memory_sft": _SFT_BATCH, "router": _SFT_BATCH, "learner": "num_workers"},
    "content": {"model": "name hub revision", "data": "name hub revision", "memory": "knowledge"},
    "fixed": {
        "": "seed curriculum questions memory",
        "model": "dtype master_dtype trust_remote_code lora",
        "model.lora": "r alpha dropout target_modules use_rslora init",
        "data": "layout subset train_split eval_split fields task_name answer_format prompt_template system_prompt "
        "arithmetic write",
        "trainer": "name refactor_every warmup_steps cooldown_steps mode lambda_start damping floor first_moments "
        "layers min_layer_params max_layer_params",
        "stages": "name kind each_level problems carry replay_ratio balance_levels write written_frac",
        "curriculum": "level_order levels max_train_samples_per_level replay_ratio buffer_capacity buffer_sampling "
        "promotion",
        "curriculum.promotion": "threshold patience max_repeats every_steps",
        "sft": _SFT_FIXED,
        "memory_sft": f"{_SFT_FIXED} train",
        "router": f"{_SFT_FIXED} train token_dropout",
        "memory": "preset knowledge_num knowledge_length knowledge_dim num_candidates num_selected gate_rank "
        "fusion_rank layers query query_layer decode selection positions gumbel_temperature similarity_loss_coef "
        "diversity_loss_coef counterfactual_frac prompt_cache_gib router_path fusion_path",
        "grpo": "batch_size num_generations mu sampler algorithm policy_loss epsilon epsilon_high beta entropy_coef "
        "advantage_baseline normalize_std normalize_over loss_aggregation drop_zero_variance_groups mask_ungraded "
        "mask_truncated overlong_buffer_frac overlong_penalty old_policy sampler_correction sampler_ratio_min "
        "sampler_ratio_max",
        "rollout": "temperature top_p top_k max_prompt_length max_completion_length max_staleness",
        "reward": "functions normalize",
        "reward.zscore": "history warmup std_floor clip",
        "eval": "at_start metric_for_best_model greater_is_better",
    },
}
MEANING: dict[Rule, str] = {
    "free": "acts from the step that the run continues with",
    "steps": "acts in unfinished stages, except one that has begun to mix in replayed problems",
    "product": "may change if the batch over all learners stays as large",
    "content": "may change if the files or the problems stay the same: a model or data set that was moved",
    "fixed": "refused",
}
"""What happens to a change."""
RULES: dict[str, Rule] = {
    f"{section}.{name}".removeprefix("."): rule
    for rule, sections in _SETTINGS.items()
    for section, names in sections.items()
    for name in names.split()
}
"""By dotted key. A section's key stands for all of its settings that have no key of their own."""


@dataclass(frozen=True)
class Change:
    """One setting that differs."""

    setting: str
    """As an override would name it."""
    rule: Rule
    before: Any
    now: Any
    kind: str = ""
    """The kind of stage that the setting is for; empty if it is for the whole run."""
    key: str = ""
    """Its name in the settings of that kind."""

    def __str__(self) -> str:
        return f"{self.setting}: was {self.before!r:.80}, is {self.now!r:.80}"


def rule_of(path: str) -> Rule:
    """The rule of a setting, or of the nearest section around it that has one."""
    while path not in RULES:
        path, dot, _ = path.rpartition(".")
        if not dot:
            raise KeyError(path)
    return RULES[path]


def refusals(
    before: Config,
    now: Config,
    left: Sequence[SFTConfig | GRPOConfig],
    *,
    fixed_steps: Sequence[SFTConfig | GRPOConfig] = (),
    compares_content: bool = True,
) -> list[str]:
    """One line for each change that a resumed run does not accept.

    Args:
        left: settings of the stages that are not done.
        fixed_steps: of the one among them that has begun and whose number of steps must stay.
        compares_content: files and problems are compared elsewhere. False: their names must be the same.
    """
    found: dict[str, None] = {}  # in order, each once
    for change in changes(before, now):
        reason = _refusal(change, left, fixed_steps, compares_content)
        if reason is not None:
            found[f"{change}{reason}"] = None
    return list(found)


def replay_refusals(before: Config, now: Config) -> list[str]:
    """One line for each change that keeps a run from repeating another one from its rollouts, to the last bit."""
    found = [change for change in changes(before, now) if not _leaves_learning(change)]
    return [str(change) for change in found]


def _leaves_learning(change: Change) -> bool:
    section, _, name = change.setting.partition(".")
    if section in ("rollout", "reward"):
        return change.rule == "free"
    return (
        change.rule == "content"
        or section in ("output", "tracking", "checkpoint", "limits", "search")
        or (section == "learner" and name in _LEARNERS_ROOM)
        or (section == "eval" and name in _EVALUATION)
    )


_LEARNERS_ROOM = ("num_cpus", "memory_gib", "max_failures", "release_memory_above_frac")
_EVALUATION = (
    "at_start",
    "problems_per_level",
    "problems_per_level_at_end",
    "max_completion_length",
    "total_eval_times",
    "every_steps",
)


def _refusal(
    change: Change,
    left: Sequence[SFTConfig | GRPOConfig],
    fixed_steps: Sequence[SFTConfig | GRPOConfig],
    compares_content: bool,
) -> str | None:
    """The reason to append to a refused change; None if the change is accepted."""
    if change.rule == "fixed":
        return ""
    if change.rule == "content":
        return None if compares_content else ""
    if not left and change.setting != "output.root":
        return " (every stage is done)"
    if change.kind and not _acts(change, left):
        return " (every stage that it is for is done)"
    if change.rule == "steps" and _acts(change, fixed_steps):
        return " (its stage has begun, and spreads its replayed problems over all steps)"
    return None


def _acts(change: Change, stages: Sequence[SFTConfig | GRPOConfig]) -> bool:
    return any(change.kind == s.KIND and getattr(s, change.key) == change.now for s in stages)


def changes(before: Config, now: Config) -> Iterator[Change]:
    """Everything that differs, except that stages may be added after the last one."""
    per_stage = {"stages", "sft", "grpo", "memory_sft", "router", "search"}
    yield from _compared("", before.model_dump(exclude=per_stage), now.model_dump(exclude=per_stage))
    old, new = ([stage.name for stage in config.stages] for config in (before, now))
    if old != new[: len(old)]:
        yield Change("stages", "fixed", old, new)
        return
    for index in range(len(old)):
        yield from _stage_changes(index, before, now)


def _stage_changes(index: int, before: Config, now: Config) -> Iterator[Change]:
    old, new = before.stages[index], now.stages[index]
    own = {"settings"}
    yield from _compared(f"stages.{index}", old.model_dump(exclude=own), new.model_dump(exclude=own), "stages")
    if old.kind != new.kind:
        return
    old_settings, new_settings = before.stage_settings(old), now.stage_settings(new)
    for change in _compared(new.kind, old_settings.model_dump(), new_settings.model_dump()):
        key = change.setting.partition(".")[2]
        is_own = key in old.settings or key in new.settings
        name = f"stages.{index}.settings.{key}" if is_own else change.setting
        if change.rule != "product":
            yield Change(name, change.rule, change.before, change.now, new.kind, key)
    sizes = before.batch_size(old_settings), now.batch_size(new_settings)
    if new.kind != "grpo" and sizes[0] != sizes[1]:
        factors = "per_device_train_batch_size x gradient_accumulation_steps x learner.num_workers"
        yield Change(f"{new.kind}.{factors}", "fixed", *sizes)


def _compared(path: str, before: Any, now: Any, rule_path: str | None = None) -> Iterator[Change]:
    """The values that differ, each with the rule of its key.

    Args:
        rule_path: the key in RULES, if it is not the path.
    """
    rule_path = path if rule_path is None else rule_path
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {**before, **now}:
            below = (f"{part}.{key}".removeprefix(".") for part in (path, rule_path))
            yield from _compared(next(below), before.get(key), now.get(key), next(below))
    elif before != now:
        yield Change(path, rule_of(rule_path), before, now)
