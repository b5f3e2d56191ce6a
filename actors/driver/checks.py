"""Checks of everything that would otherwise stop a job after its actors have started. Jobs and --dry-run run them.

Reads files of the model, but no weights, and downloads nothing.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import chain as chained
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from actors.driver.actor_plan import engine_limits, frozen_models, plan_actors
from actors.driver.memory_checks import check_ids, check_memory_files, check_targets
from actors.driver.plan import PlannedChain, RunPlan, StagePlan
from actors.driver.written import tasks_of
from actors.solver import frozen_model, solving_prompt
from pipeline.config import Config, GRPOConfig, SFTConfig
from pipeline.curriculum.examples import sft_sequence, shortened
from pipeline.data.arrow_files import ArrowRows, list_lengths
from pipeline.data.problems import question_alone
from pipeline.data.table import ProblemTable
from pipeline.data.tokens import as_tokens, encode_problems
from pipeline.errors import ConfigError, DataError, ModelError
from pipeline.models.context import context_length, read_model_config
from pipeline.models.hub import check_weights, local_files
from pipeline.models.memory.attach import attach_memory
from pipeline.models.policy import empty_policy
from pipeline.models.tokenizer import Tokenizer, batch_token_ids, check_prompt, end_of_turn_id, load_tokenizer
from pipeline.models.weight_names import check_weight_names
from pipeline.rewards.built_in import TAGS, check_tags
from pipeline.rewards.registry import RewardContext
from pipeline.rewards.scoring import try_rewards
from pipeline.training.batching import TokenSequence
from pipeline.training.spectral import AdapterPair, select_pairs
from pipeline.types import Completion, Problem
from pipeline.verifier import Verdict
from pipeline.verifier.judge import begin

logger = logging.getLogger(__name__)

ROWS_AT_ONCE = 16
"""Problems that are encoded together to find one that fits."""
EXAMPLES = 128
"""Examples of SFT whose lengths are compared with the model's, and problems whose prompts are."""
GOLDS = 50
"""Gold answers of a stage that are tried."""


def check_plan(plan: RunPlan, model: Path | None) -> None:
    """Rewards, model, tokenizer and prompts of all chains.

    Args:
        model: directory of the model; None if it is not on this machine yet, and cannot be checked.

    Raises:
        GradusError: the job would fail.
    """
    _warn_of_format(plan.config)
    settings = [stage.spec.settings for chain in plan.chains for stage in chain.stages]
    _warn_of_cancelled(plan.config, settings)
    _warn_of_sampler_noise(plan.config, settings)
    _try_rewards(plan)
    for chain in plan.chains:
        for stage in chain.stages:
            tasks_of(stage.spec, chain)
    check_ids(plan.config)
    check_targets(plan.config)
    _check_frozen(plan.config)
    if model is None:
        return
    check_weights(model, plan.config.model.name)
    described = read_model_config(model, trust_remote_code=plan.config.model.trust_remote_code)
    configs = [chain.spec.config for chain in plan.chains]
    for config in {f"{config.model!r} {config.trainer!r}": config for config in configs}.values():
        check_policy(config, model, described)
    load = cache(partial(load_tokenizer, model, plan.config.model))
    known: set[str] = set()  # chains of a search share most stages
    for chain in plan.chains:
        tokenizer: Tokenizer = load(chat=chain.spec.config.data.uses_chat_template)
        keys = chain.keys or [stage.spec.name for stage in chain.stages]
        for stage, key in zip(chain.stages, keys, strict=True):
            if key not in known:
                _check_stage(stage, chain.spec.config, described, tokenizer)
        known.update(keys)
        _check_held_out(chain, tokenizer)
        if wanted_by := _wants_tags(chain):
            check_tags(tokenizer, wanted_by)


def _try_rewards(plan: RunPlan) -> None:
    """On a group of the first GRPO stage. Without one, stages and evaluations may score problems that are written."""
    if not _num_actors(plan.config, "reward"):
        return
    stages = [stage for chain in plan.chains for stage in chain.stages]
    stage = next((stage for stage in stages if stage.spec.kind == "grpo"), stages[0])
    settings = stage.spec.settings
    size = settings.num_generations if isinstance(settings, GRPOConfig) else 1
    context = _trial_context(plan.config, stage.problems)
    try_rewards(plan.config.reward.functions, stage.problems[0], size, context)


def _trial_context(config: Config, problems: Sequence[Problem]) -> RewardContext:
    """The context that rewards are tried with. Its solver knows nothing."""
    solver = config.questions.solver
    unsolved = Completion.of((1,), (-0.5,), "I do not know.", "stop")
    answers = (unsolved,) * solver.num_samples if solver else ()
    solve = (lambda group, statements: [answers for _ in statements]) if solver else None
    return RewardContext(config, lambda: problems, solve)


def check_without_data(config: Config, model: Path | None) -> None:
    """Like ``check_plan``, for a job whose data is not on this machine yet: everything that a made-up problem can show.

    Raises:
        GradusError: the job would fail.
    """
    _warn_of_format(config)
    _warn_of_cancelled(config, [config.stage_settings(stage) for stage in config.stages])
    check_ids(config)
    _check_frozen(config)
    asks_alone = config.data.prompt_template is None
    problem = replace(question_alone("What is 1 + 1?", config.data), gold="2") if asks_alone else None
    if problem and any(stage.kind == "grpo" for stage in config.stages):
        context = _trial_context(config, [problem])
        try_rewards(config.reward.functions, problem, config.grpo.num_generations, context)
    if model is None:
        return
    check_weights(model, config.model.name)
    check_policy(config, model, read_model_config(model, trust_remote_code=config.model.trust_remote_code))
    tokenizer = load_tokenizer(model, config.model, chat=config.data.uses_chat_template)
    if problem:
        check_prompt(tokenizer, problem, config.model.name)


def _check_frozen(config: Config) -> None:
    """Those of the solver and the teacher that are on this machine."""
    for name in frozen_models(config):
        settings = frozen_model(config, name)
        if path := local_files(settings):
            check_weights(path, name)
            described = read_model_config(path, trust_remote_code=settings.trust_remote_code)
            _check_engines(config, described, name)
            tokenizer = load_tokenizer(path, settings, chat=True)
            check_prompt(tokenizer, solving_prompt("What is 1 + 1?", config.data), name)


def check_policy(config: Config, model: Path, described: Any) -> None:
    """Check that everything the configuration asks of the model is there.

    Args:
        described: its configuration, from ``read_model_config``.

    Raises:
        GradusError: adapters, attention, shards or lengths do not fit the model, or its weights do not fit its
            configuration.
    """
    asks = config.model.lora or config.model.attn_implementation != "sdpa"
    if asks or not config.model.trust_remote_code:  # code of one's own may need real weights
        policy = empty_policy(model, config.model)
        check_weight_names(policy, model, config.model.name)
        if config.memory:
            attach_memory(policy, config.memory, config.seed)
        if config.trainer.name == "SpectralRefactor" and config.model.lora:
            select_pairs(list(_future_pairs(policy, config.model.lora.target_modules)), config.trainer)
    if config.memory:
        check_memory_files(config, config.memory, model, described.get_text_config().num_hidden_layers)
    if _num_actors(config, "rollout"):
        _check_engines(config, described, config.model.name)


def _num_actors(config: Config, kind: str) -> int:
    return {actor.name: actor.count for actor in plan_actors(config)}[kind]


def _check_engines(config: Config, described: Any, model: str) -> None:
    longest, limit = engine_limits(config)[0], context_length(described)
    if limit is not None and longest > limit:
        raise ConfigError(
            "rollout.max_prompt_length and the longer of rollout.max_completion_length and eval.max_completion_length "
            f"must fit the {limit} tokens of {model} together, got {longest}. Lower one."
        )
    check_heads(described, config.rollout.tensor_parallel_size, model)


def check_heads(described: Any, shards: int, model: str) -> None:
    """Raises ConfigError if an engine cannot divide the model's attention heads among its shards."""
    num_heads = getattr(described.get_text_config(), "num_attention_heads", None)
    if isinstance(num_heads, int) and num_heads % shards:
        raise ConfigError(
            f"rollout.tensor_parallel_size must divide the {num_heads} attention heads of {model}, got "
            f"{shards}: every shard gets equally many."
        )


def _future_pairs(policy: nn.Module, targets: Sequence[str]) -> Iterator[AdapterPair]:
    """The adapters of the model, of rank 1 and without memory."""
    for name, module in policy.named_modules():
        if isinstance(module, nn.Linear) and name.rsplit(".", 1)[-1] in targets:
            d_out, d_in = module.weight.shape
            yield AdapterPair(name, torch.empty(d_out, 1, device="meta"), torch.empty(1, d_in, device="meta"))


def _check_stage(stage: StagePlan[ProblemTable], config: Config, described: Any, tokenizer: Tokenizer) -> None:
    for problem in _one_of_each(stage.problems):
        check_prompt(tokenizer, problem, config.model.name)
    _check_vocabulary(described, tokenizer, stage.problems[0], config)
    _check_lengths(stage, tokenizer, config, context_length(described))


def _one_of_each(problems: ProblemTable) -> Iterator[Problem]:
    """The first problem of every sequence of roles, which is what chat templates are particular about."""
    first: dict[tuple[str, ...], int] = {}
    row = 0
    for batch in ArrowRows(problems.path).batches(problems.rows, ["prompt"]):
        roles = iter(batch["prompt"].flatten().field("role").to_pylist())
        for num_messages in list_lengths(batch["prompt"]).tolist():
            first.setdefault(tuple(islice(roles, num_messages)), row)
            row += 1
    return (problems[row] for row in first.values())


def _roles(problem: Problem) -> tuple[str, ...]:
    return tuple(message["role"] for message in problem.prompt)


def _wants_tags(chain: PlannedChain) -> str | None:
    """The part of the job that needs tags in completions, as an error message names it; None if there is none."""
    config = chain.spec.config
    if _counts_tags(config):
        return "reward 'format'"
    if config.curriculum and config.curriculum.promotion:
        return "curriculum.promotion"
    return "the score of a search" if chain.keys else None


def _counts_tags(config: Config) -> bool:
    samples = any(stage.kind == "grpo" for stage in config.stages)
    return samples and any(term.name == "format" for term in config.reward.functions)


def _check_vocabulary(described: Any, tokenizer: Tokenizer, problem: Problem, config: Config) -> None:
    num_rows = described.get_text_config().vocab_size
    highest = max(*batch_token_ids(tokenizer, [problem])[0], end_of_turn_id(tokenizer), tokenizer.eos_token_id)
    if highest >= num_rows:
        raise ModelError(
            f"model {config.model.name} must have an embedding of every token, got token {highest} for {num_rows} "
            "embeddings: its tokenizer has more tokens than the model. Use the model's own tokenizer."
        )


def _check_lengths(stage: StagePlan[ProblemTable], tokenizer: Tokenizer, config: Config, context: int | None) -> None:
    name, settings = stage.spec.name, stage.spec.settings
    if not isinstance(settings, SFTConfig):
        _check_golds(stage, config)
        if not any(_fitting(stage.problems, tokenizer, config.rollout.max_prompt_length)):
            raise DataError(
                f"stage {name} must have problems that fit into rollout.max_prompt_length="
                f"{config.rollout.max_prompt_length}, got none. Raise it."
            )
        fits = list(_fitting(_spread(stage.problems, EXAMPLES), tokenizer, config.rollout.max_prompt_length))
        return _warn_of_long(name, fits.count(False), len(fits), "rollout.max_prompt_length")
    examples = (shortened(example, settings) for example in _examples(stage.problems, tokenizer) if example.completion)
    sample = [shortened(e, settings) for e in _examples(_spread(stage.problems, EXAMPLES), tokenizer) if e.completion]
    _warn_of_long(name, sample.count(None), len(sample), f"{settings.KIND}.max_length")
    lengths = [len(example.prompt) + len(example.completion) for example in islice(filter(None, examples), EXAMPLES)]
    if not lengths:
        raise DataError(
            f"stage {name} must have a worked solution that fits into {settings.KIND}.max_length="
            f"{settings.max_length} with its prompt, got none. Raise it, or set {settings.KIND}.too_long=truncate."
        )
    if context is not None and max(lengths) > context:
        raise ConfigError(
            f"{settings.KIND}.max_length must be at most the {context} tokens of {config.model.name}, got "
            f"{settings.max_length} and an example of {max(lengths)} tokens. Lower it."
        )


def _check_golds(stage: StagePlan[ProblemTable], config: Config) -> None:
    if all(term.name != "correctness" for term in config.reward.functions):
        return
    golds = [problem.gold for problem in _spread(stage.problems, GOLDS)]
    if all(_is_bad(gold) for gold in golds):
        raise DataError(
            f"stage {stage.spec.name} must have gold answers that can be compared, got none in {len(golds)} problems, "
            f"such as {golds[0]!r:.80}: no completion would be correct. "
            "Check data.fields.answer and data.answer_format."
        )


def _is_bad(gold: str) -> bool:
    """True if the gold answer itself would not be graded as an answer."""
    verdict = begin(f"<answer>{gold}</answer>", gold)
    return isinstance(verdict, Verdict) and verdict.outcome in ("bad_gold", "unparsed")


def _warn_of_long(stage: str, num_long: int, num_tried: int, setting: str) -> None:
    if 2 * num_long > num_tried:
        text = "stage %s: %d of %d problems are too long and would be left out: raise %s"
        logger.warning(text, stage, num_long, num_tried, setting)


def _warn_of_format(config: Config) -> None:
    template = config.data.prompt_template
    if template and _counts_tags(config) and any(tag not in template for tag in TAGS):
        text = (
            "reward 'format' counts %s, but data.prompt_template does not ask for them: name them there, or drop this "
            "reward"
        )
        logger.warning(text, ", ".join(TAGS))


def _warn_of_cancelled(config: Config, settings: Sequence[SFTConfig | GRPOConfig]) -> None:
    parts = [term.name for term in config.reward.functions if not term.gate]
    divides = any(isinstance(each, GRPOConfig) and each.normalize_std for each in settings)
    if config.reward.normalize and len(parts) == 1 and divides:
        text = (
            "reward.normalize=zscore changes little with the one part %s: grpo.normalize_std divides advantages by the "
            "spread of their group, and z-scores cancel. Set grpo.normalize_std=false, or reward.normalize=null"
        )
        logger.warning(text, parts[0])


def _warn_of_sampler_noise(config: Config, settings: Sequence[SFTConfig | GRPOConfig]) -> None:
    """Rounding makes the ratio of a whole completion leave a narrow range though the weights are the same."""
    staleness = config.rollout.max_staleness
    for each in settings:
        if not isinstance(each, GRPOConfig) or each.old_policy_for(staleness) != "sampler":
            continue
        if each.policy_loss in ("sequence_clip", "product_clip"):
            text = (
                "grpo.policy_loss=%s clips the ratio of whole completions to the sampler's log-probabilities: in "
                "bfloat16 their noise alone takes about 40 %% of completions out of its range. Set "
                "grpo.sampler_correction=sequence_truncate, or rollout.max_staleness=0"
            )
            logger.warning(text, each.policy_loss)
            return


def _spread(problems: ProblemTable, count: int) -> ProblemTable:
    """At most so many problems, from the whole table."""
    return problems[:: -(-len(problems) // count)]


def _check_held_out(chain: PlannedChain, tokenizer: Tokenizer) -> None:
    config, limit = chain.spec.config, chain.spec.config.rollout.max_prompt_length
    if not chain.held_out:
        return
    for problem in {_roles(problem): problem for problem in chain.held_out}.values():
        check_prompt(tokenizer, problem, config.model.name)
    groups: dict[str | None, list[Problem]] = {}
    promoted = config.curriculum and config.curriculum.promotion
    for problem in chain.held_out:
        groups.setdefault(problem.level if promoted else None, []).append(problem)
    for level, problems in groups.items():
        if not any(_fitting(problems, tokenizer, limit)):
            of_level = f" of level {level}" if level is not None else ""
            raise DataError(
                f"held-out problems{of_level} must fit into rollout.max_prompt_length={limit}, got none that does. "
                "Raise it."
            )


def _fitting(problems: Sequence[Problem], tokenizer: Tokenizer, limit: int) -> Iterator[bool]:
    """For each problem, whether its prompt fits."""
    for part in _parts(problems):
        yield from (len(prompt) <= limit for prompt in batch_token_ids(tokenizer, part))


def _examples(problems: ProblemTable, tokenizer: Tokenizer) -> Iterator[TokenSequence]:
    encoded = (encode_problems(tokenizer, part).to_pylist() for part in _parts(problems))
    return (sft_sequence(as_tokens(row)) for row in chained.from_iterable(encoded))


def _parts(problems: Sequence[Problem]) -> Iterable[list[Problem]]:
    return (list(problems[start : start + ROWS_AT_ONCE]) for start in range(0, len(problems), ROWS_AT_ONCE))
