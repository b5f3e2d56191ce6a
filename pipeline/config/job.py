"""The configuration of a training job: all sections, and the checks that involve more than one of them."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from pydantic import Field, ValidationError, model_validator

from pipeline.config.base import StrictModel, describe_error
from pipeline.config.curriculum import CurriculumConfig, SearchConfig, StageConfig
from pipeline.config.data import DataConfig
from pipeline.config.engines import LearnerConfig, RewardConfig, RolloutConfig, check_shards
from pipeline.config.evaluation import HeldOutConfig
from pipeline.config.limits import LimitsConfig
from pipeline.config.memory import MemoryConfig
from pipeline.config.model import ModelConfig
from pipeline.config.output import CheckpointConfig, OutputConfig, TrackingConfig
from pipeline.config.questions import QuestionsConfig
from pipeline.config.training import (
    GRPOConfig,
    MemorySFTConfig,
    RouterConfig,
    SFTConfig,
    TrainerConfig,
    preset_settings,
)


class Config(StrictModel):
    """The configuration of a training or search job. Each section's class documents its settings.

    A recipe in ``configs/`` sets what differs from the defaults; only ``stages`` has none. The resolved configuration
    is saved as ``experiment_config.json`` in the run directory.
    """

    seed: int = Field(0, ge=0)
    """Seed of prompt order, sampling and dropout."""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    memory: MemoryConfig | None = None
    """An explicit memory. If it is set, nothing else trains. None: the model itself or its adapters train."""
    trainer: TrainerConfig = TrainerConfig()
    stages: list[StageConfig] = Field(min_length=1)
    """The chain of stages, in order."""
    curriculum: CurriculumConfig | None = None
    """Levels and replay. None: stages cannot have each_level, and nothing is replayed."""
    search: SearchConfig | None = None
    """Chains of a search job, which needs this section."""
    sft: SFTConfig = SFTConfig()
    """Defaults of SFT stages."""
    memory_sft: MemorySFTConfig = MemorySFTConfig()
    """Defaults of stages that train the memory's fusion."""
    router: RouterConfig = RouterConfig()
    """Defaults of stages that train the memory's router."""
    grpo: GRPOConfig = GRPOConfig()
    """Defaults of GRPO stages."""
    rollout: RolloutConfig = RolloutConfig()
    reward: RewardConfig = RewardConfig()
    questions: QuestionsConfig = QuestionsConfig()
    learner: LearnerConfig = LearnerConfig()
    limits: LimitsConfig = LimitsConfig()
    eval: HeldOutConfig = HeldOutConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    output: OutputConfig = OutputConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="before")
    @classmethod
    def _moved_settings(cls, values: Any) -> Any:
        """Runs from before there was an explicit memory have ``memory.release_above_frac``."""
        memory = values.get("memory") if isinstance(values, dict) else None
        if not isinstance(memory, dict) or memory.keys() != {"release_above_frac"}:
            return values
        learner = {**values.get("learner", {}), "release_memory_above_frac": memory["release_above_frac"]}
        return {**{key: value for key, value in values.items() if key != "memory"}, "learner": learner}

    @model_validator(mode="after")
    def _check_across_sections(self) -> "Config":
        _check_stage_names(self.stages)
        _check_curriculum(self.stages, self.curriculum, self.eval)
        _check_best_model(self.stages, self.curriculum, self.eval, self.data)
        self._check_stage_settings()
        _check_model(self.model, self.trainer, self.learner)
        check_shards(self.rollout)
        _check_replay(self.rollout, self.search)
        _check_tracking(self.tracking)
        _check_writing(self)
        _check_memory(self)
        return self

    def _check_stage_settings(self) -> None:
        for index, stage in enumerate(self.stages):
            try:
                settings = self.stage_settings(stage)
            except ValidationError as error:
                raise ValueError(f"stages.{index}.settings: {describe_error(error.errors()[0], Config)}") from None
            if isinstance(settings, GRPOConfig):
                _check_rollouts(settings, self.rollout, self.learner.num_workers)
                _check_sampler(settings, stage, self.rollout)

    @property
    def reward_wait_s(self) -> float:
        """Seconds that learners wait for a grader, which may wait for a solver's engine itself."""
        return self.limits.reward_s + (self.limits.engine_s if self.questions.solver else 0.0)

    @property
    def records_rollouts(self) -> bool:
        """True if the rollouts that GRPO steps learn from are stored."""
        return (self.output.record_rollouts or self.rollout.max_staleness > 0) and self.rollout.replay is None

    def batch_size(self, settings: SFTConfig | GRPOConfig) -> int:
        """Examples per optimizer step, or prompts per step, over all learner workers."""
        if isinstance(settings, GRPOConfig):
            return settings.batch_size
        per_worker = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
        return per_worker * self.learner.num_workers

    def stage_settings(self, stage: StageConfig) -> SFTConfig | GRPOConfig:
        """The section of the stage's kind, with the stage's own settings applied."""
        section: SFTConfig | GRPOConfig = getattr(self, stage.kind)
        presets = preset_settings(stage.settings) if stage.kind == "grpo" else {}
        return type(section).model_validate({**section.model_dump(), **presets, **stage.settings})


def _check_stage_names(stages: Sequence[StageConfig]) -> None:
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names):
        raise ValueError(f"stages must have different names, got {names}: files are named after them")


def _check_curriculum(
    stages: Sequence[StageConfig], curriculum: CurriculumConfig | None, held_out: HeldOutConfig
) -> None:
    if both := [stage.name for stage in stages if stage.each_level and stage.problems.levels is not None]:
        raise ValueError(f"stages with each_level must leave problems.levels to curriculum.levels, got {both}")
    if curriculum is None and (special := [stage.name for stage in stages if stage.each_level or stage.replay_ratio]):
        raise ValueError(f"curriculum must be set for each_level and replay_ratio of stages, got none: {special}")
    if curriculum and curriculum.promotion and not held_out.problems_per_level:
        raise ValueError("eval.problems_per_level must be above 0 for curriculum.promotion, got 0")


def _check_best_model(
    stages: Sequence[StageConfig], curriculum: CurriculumConfig | None, held_out: HeldOutConfig, data: DataConfig
) -> None:
    metric = held_out.metric_for_best_model
    if metric in ("loss", "perplexity", "token_accuracy"):
        if data.task_name is None:
            raise ValueError(f"data.task_name must be set for eval.metric_for_best_model={metric}, got none")
        if sampling := [stage.name for stage in stages if stage.kind == "grpo"]:
            raise ValueError(
                f"eval.metric_for_best_model must be answer_accuracy for grpo stages, got {metric}: {sampling}"
            )
    if held_out.early_stopping_patience and curriculum and curriculum.promotion:
        raise ValueError("eval.early_stopping_patience must be null beside curriculum.promotion, which has its own")


def _check_model(model: ModelConfig, trainer: TrainerConfig, learner: LearnerConfig) -> None:
    if trainer.name == "SpectralRefactor" and model.lora is None:
        raise ValueError("trainer.name=SpectralRefactor needs model.lora, got none: it refactors adapters")
    if trainer.name == "SpectralRefactor" and learner.shard_optimizer and learner.num_workers > 1:
        raise ValueError(
            "learner.shard_optimizer must be false beside trainer.name=SpectralRefactor, got true: each of several "
            "learners refactors the moments of all adapters"
        )
    if model.device_map and learner.num_workers > 1:
        raise ValueError("model.device_map must be null if learner.num_workers is above 1: each has the whole model")


def _check_rollouts(settings: GRPOConfig, rollout: RolloutConfig, num_learners: int) -> None:
    if settings.batch_size % num_learners:
        raise ValueError(
            f"grpo.batch_size must be a multiple of learner.num_workers, got {settings.batch_size} and "
            f"{num_learners}: every worker takes the same share"
        )
    share, chunk = settings.batch_size // num_learners, rollout.prompts_per_chunk
    if chunk and ((share % chunk and share > chunk) or (share < chunk and num_learners > 1)):
        raise ValueError(
            f"rollout.prompts_per_chunk must divide each learner's share of a batch, got {chunk} and {share}: "
            "chunks are never split or mixed"
        )
    if rollout.temperature == 0:
        raise ValueError("rollout.temperature must be above 0 for grpo, got 0: equal completions teach nothing")
    if rollout.top_p < 1 or rollout.top_k:
        raise ValueError(
            f"rollout.top_p must be 1 and rollout.top_k 0 for grpo, got {rollout.top_p:g} and {rollout.top_k}: the "
            "learner's log-probabilities are over the whole vocabulary, so ratios would be wrong"
        )


def _check_sampler(settings: GRPOConfig, stage: StageConfig, rollout: RolloutConfig) -> None:
    if settings.sampler is None:
        return
    if stage.balance_levels:
        raise ValueError(f"balance_levels of {stage.name} must be false with grpo.sampler, which chooses the problems")
    if settings.sampler.name == "dynamic" and settings.advantage_baseline == "batch":
        raise ValueError(
            "grpo.advantage_baseline must be group or leave_one_out with grpo.sampler.name=dynamic, got batch: a group "
            "of equal rewards then teaches, too, and would be dropped"
        )
    if settings.sampler.name == "dynamic" and rollout.replay:
        raise ValueError(
            f"rollout.replay must be null with grpo.sampler.name=dynamic, got {rollout.replay}: groups that were "
            "dropped are not recorded, and its choices depend on them"
        )


def _check_replay(rollout: RolloutConfig, search: SearchConfig | None) -> None:
    if rollout.replay is not None and not PurePath(rollout.replay).is_absolute():
        raise ValueError(f"rollout.replay must be an absolute path, got {rollout.replay}: learners run elsewhere")
    if rollout.replay is not None and search is not None:
        raise ValueError(f"rollout.replay must be null in a search, got {rollout.replay}: each stage samples its own")


def _check_writing(config: Config) -> None:
    """Stages that write problems need tasks; stages that train on them, something written."""
    has_written = False
    for stage in config.stages:
        if (stage.write or stage.written_frac) and config.data.write is None:
            raise ValueError(f"data.write must be set for stages that write problems, got none: {stage.name}")
        if stage.written_frac and not has_written:
            raise ValueError(f"written_frac of {stage.name} must be 0: no stage before it has write")
        if stage.written_frac and stage.kind != "sft":
            raise ValueError(f"written_frac of {stage.name} must be 0 in a grpo stage: its rewards need no examples")
        if stage.written_frac and _replays(config):
            raise ValueError(
                f"written_frac of {stage.name} must be 0 beside replay: written problems are not in the data that the "
                "replay buffer names. Set curriculum.replay_ratio to 0"
            )
        if stage.write and stage.write.by == "teacher" and config.questions.teacher is None:
            raise ValueError(f"questions.teacher must be set for write.by=teacher of {stage.name}, got none")
        has_written = has_written or stage.write is not None
    if config.eval.metric_for_best_model == "quality" and config.data.write is None:
        raise ValueError("data.write must be set for eval.metric_for_best_model=quality, got none")


def _check_memory(config: Config) -> None:
    """An explicit memory is trained by stages of its own, and by nothing else."""
    own = [stage.name for stage in config.stages if stage.kind in ("memory_sft", "router")]
    if config.memory is None:
        if own:
            raise ValueError(f"memory must be set for stages of kind memory_sft and router, got none: {own}")
        return
    if len(own) < len(config.stages):
        others = [stage.name for stage in config.stages if stage.name not in own]
        raise ValueError(
            f"stages must be of kind memory_sft or router beside memory, got {others}: the backbone is frozen, and "
            "engines cannot read the memory"
        )
    if config.model.lora:
        raise ValueError("model.lora must be null beside memory: the memory's modules are all that trains")
    if config.model.gradient_checkpointing and config.memory.positions == "answer":
        raise ValueError(
            "model.gradient_checkpointing must be false with memory.positions=answer: layers that are recomputed keep "
            "no cache of the prompts"
        )
    if config.model.device_map:
        raise ValueError(
            f"model.device_map must be null beside memory, got {config.model.device_map}: the memory's modules are on "
            "one device"
        )
    if _replays(config):
        raise ValueError(
            "curriculum.replay_ratio and replay_ratio of stages must be 0 beside memory: its stages know the entries "
            "and prompts of their own problems only"
        )
    if config.eval.problems_per_level:
        raise ValueError(
            f"eval.problems_per_level must be 0 beside memory, got {config.eval.problems_per_level}: engines cannot "
            "read the memory. jobs/evaluate_memory.py evaluates it"
        )
    _check_memory_stages(config, config.memory)


def _check_memory_stages(config: Config, memory: MemoryConfig) -> None:
    trained: tuple[str, set[str]] | None = None  # kind and parts of the stage before
    for stage in config.stages:
        settings = config.stage_settings(stage)
        assert isinstance(settings, MemorySFTConfig | RouterConfig)
        if memory.query == "pooled" and isinstance(settings, RouterConfig) and "product_keys" in settings.train:
            raise ValueError(
                f"router.train of {stage.name} must not hold product_keys with memory.query=pooled: its targets are "
                "computed from the keys once a stage"
            )
        if memory.selection == "given" and isinstance(settings, MemorySFTConfig):
            _check_given(stage, settings)
        before, trained = trained, (stage.kind, set(settings.train))
        if stage.carry.optimizer and before not in (None, trained):
            raise ValueError(
                f"carry.optimizer of {stage.name} must be false after a stage of another kind or train: moments belong "
                "to the parts that it trained"
            )


def _check_given(stage: StageConfig, settings: MemorySFTConfig) -> None:
    if settings.loss_on == "all":
        raise ValueError(
            f"memory_sft.loss_on of {stage.name} must be completion with memory.selection=given, got all: prompts do "
            "not read the memory"
        )
    if settings.too_long == "truncate":
        raise ValueError(
            f"memory_sft.too_long of {stage.name} must be drop with memory.selection=given, got truncate: the answer "
            "is what is learned, and must be whole"
        )


def _replays(config: Config) -> bool:
    ratios = [stage.replay_ratio for stage in config.stages]
    default = config.curriculum.replay_ratio if config.curriculum else 0.0
    return any(default if ratio is None else ratio for ratio in ratios)


def _check_tracking(tracking: TrackingConfig) -> None:
    """Checked here, not in the section: an error message about a section shows its value, here maybe a password."""
    uri = tracking.mlflow_uri or "sqlite:///"
    if "@" in uri or "?" in uri:
        raise ValueError(
            "tracking.mlflow_uri must hold no user, password or query: it is written to files. "
            "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
        )
    if not uri.startswith("sqlite:///") and not tracking.online:
        raise ValueError("tracking.online must be true for a tracking.mlflow_uri that is not sqlite:///FILE")
