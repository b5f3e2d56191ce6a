"""Stage keys: hashes of everything a stage's result depends on.

Stages that have the same key in two chains are one stage, trained once.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from pipeline.config import Config, GRPOConfig, SFTConfig
from pipeline.curriculum.stages import StageSpec
from pipeline.data.table import ProblemTable
from pipeline.types import Problem

KEY_FORMAT = 2
"""Part of every key. Raise it when the same settings start to give another result."""
_ENGINE_RESOURCES = {
    "num_workers",
    "num_cpus",
    "num_gpus",
    "memory_gib",
    "num_threads",
    "tensor_parallel_size",
    "gpu_memory_utilization",
    "kv_cache_gib",
    "enforce_eager",
    "replay",
}
"""Settings of ``rollout`` that do not change the result, except as ``_rollout`` says."""
_NEWER_ROLLOUT = {"max_num_seqs", "batching", "exact_seeds", "max_staleness", "in_flight_updates"}
_WITHOUT_EFFECT = {"max_skipped_updates", "algorithm", "warn_sampler_diff_above"}
"""Settings of a stage that do not change its result: they end a run, set others or warn."""
_NEWER = {
    "policy_loss",
    "entropy_coef",
    "advantage_baseline",
    "normalize_over",
    "overlong_buffer_frac",
    "overlong_penalty",
    "old_policy",
    "sampler_correction",
    "sampler_ratio_min",
    "sampler_ratio_max",
    "sampler",
    "max_sampled_tokens",
}
"""Settings of GRPO that are newer than the keys: with their defaults a stage keeps the key it has always had."""


def root_key(config: Config, eval_digest: str) -> str:
    """Key of a chain's start, the initial model and its evaluation. The same for every seed and order."""
    return _digest({"format": KEY_FORMAT, "model": config.model.model_dump(), **_evaluation(config, eval_digest)})


def stage_keys(config: Config, specs: Sequence[StageSpec], data_digests: Sequence[str], eval_digest: str) -> list[str]:
    """One key per stage, over everything that its result depends on, and nothing else.

    The resources of a stage are left out, and so are replay settings without effect: the first stage of a chain has
    the same key at every replay ratio.

    Args:
        data_digests: one per stage, of its own problems, by ``problems_digest``.
        eval_digest: of the held-out problems.
    """
    root = root_key(config, eval_digest)
    keys: list[str] = []
    for spec, data in zip(specs, data_digests, strict=True):
        parent = keys[-1] if keys and spec.carry.weights else root
        keys.append(_digest(_inputs(config, spec, data, parent, keys)))
    return keys


def problems_digest(problems: Sequence[Problem]) -> str:
    """A digest of the problems with all their texts, in order. A table brings its own, of its source and rows."""
    if isinstance(problems, ProblemTable):
        return problems.digest
    return _digest([[p.id, p.prompt, p.gold, p.solution, p.level, p.type, p.source, p.prompt_text] for p in problems])


def _inputs(config: Config, spec: StageSpec, data_digest: str, parent: str, keys: Sequence[str]) -> dict[str, Any]:
    replay = spec.replay and {
        "ratio": spec.replay.ratio,
        "capacity": spec.replay.capacity,
        "sampling": spec.replay.sampling,
        "sources": [keys[index] for index in spec.replay.sources],
    }
    inputs = {
        "parent": parent,
        "seed": config.seed,
        "name": spec.name,
        "kind": spec.kind,
        "settings": spec.settings.model_dump(exclude=_WITHOUT_EFFECT | _NEWER)
        | spec.settings.model_dump(include=_NEWER, exclude_defaults=True)
        | _sampler(spec.settings, config),
        "mixes_levels": spec.mixes_levels,
        "data": data_digest,
        "carry": {"weights": spec.carry.weights, "optimizer": spec.carry.optimizer},
        "replay": replay,
        "promotion": spec.promotion and spec.promotion.model_dump(),
        "learner": config.learner.model_dump(include={"num_workers", "tokens_per_micro_batch"}),
        "trainer": config.trainer.model_dump(),
    }
    inputs |= _writing(config, spec, keys)
    if spec.kind == "grpo":
        normalize = {"normalize", "zscore"} if config.reward.normalize else set()
        inputs["rollout"] = _rollout(config)
        reward = config.reward.model_dump(include={"timeout_s", "memory_limit_mib", *normalize})
        inputs["reward"] = reward | {"functions": _terms(config)}
    return inputs


def _sampler(settings: SFTConfig | GRPOConfig, config: Config) -> dict[str, Any]:
    """A dump with the only section that its sampler reads, and the order of levels if it reads that."""
    sampler = settings.sampler if isinstance(settings, GRPOConfig) else None
    levels = config.curriculum.levels if config.curriculum else None
    is_ordered = sampler and sampler.name in ("schedule", "target_difficulty")
    ordered = {"sampler_levels": levels} if levels and is_ordered else {}
    return {"sampler": sampler.with_effect(), **ordered} if sampler else {}


def _rollout(config: Config) -> dict[str, Any]:
    """Newer settings with their defaults are left out, so that a stage keeps the key it has always had."""
    rollout = config.rollout
    inputs = rollout.model_dump(exclude=_ENGINE_RESOURCES | _NEWER_ROLLOUT)
    inputs |= rollout.model_dump(include=_NEWER_ROLLOUT, exclude_defaults=True)
    if rollout.is_fixed and rollout.prompts_per_chunk is None:  # a chunk is a share of the batch for each engine
        inputs["num_workers"] = rollout.num_workers
    return inputs | ({} if rollout.is_fixed else {"is_fixed": False})


def _writing(config: Config, spec: StageSpec, keys: Sequence[str]) -> dict[str, Any]:
    """Empty for a stage that neither writes problems nor uses written ones: it keeps the key it has always had."""
    inputs: dict[str, Any] = {"balance_levels": True} if spec.balance_levels else {}
    if spec.written_frac:
        inputs["written"] = {"frac": spec.written_frac, "sources": list(keys)}
    if spec.write:
        inputs["write"] = spec.write.model_dump()
    return inputs


def _evaluation(config: Config, eval_digest: str) -> dict[str, Any]:
    unset = set() if config.eval.every_steps else {"every_steps"}  # newer than the keys
    inputs = {
        "eval": config.eval.model_dump(exclude={"at_start", *unset}),
        "eval_problems": eval_digest,
        "max_prompt_length": config.rollout.max_prompt_length,  # longer ones are not evaluated
    }
    if config.data.write:  # problems are sampled, and scored with the rewards: here and at the end of stages
        inputs["rollout"] = _rollout(config)
        inputs["questions"] = config.questions.model_dump()
        inputs["reward"] = config.reward.model_dump(include={"normalize", "zscore"}) | {"functions": _terms(config)}
    return inputs


def _terms(config: Config) -> list[dict[str, Any]]:
    """The reward's terms. Those that are no gate are written as before there were gates."""
    return [term.model_dump(exclude=set() if term.gate else {"gate"}) for term in config.reward.functions]


def _digest(value: Any) -> str:
    """16 hex digits (64 bits) of the canonical JSON: enough for thousands of stages, and a short file name."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
