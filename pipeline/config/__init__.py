"""The configuration of every job, one file per consumer.

``job.py`` puts the sections of a training job together; ``loading.py`` reads a recipe.
"""

from pipeline.config.base import StrictModel
from pipeline.config.curriculum import (
    CarryConfig,
    CurriculumConfig,
    HalvingConfig,
    PromotionConfig,
    RangeConfig,
    SearchConfig,
    StageConfig,
    StageKind,
    WriteConfig,
)
from pipeline.config.data import DataConfig, EmbeddedSetsConfig, FieldNames, ProblemFilter, WritingConfig
from pipeline.config.engines import (
    EngineConfig,
    GradingConfig,
    LearnerConfig,
    RewardConfig,
    RewardTerm,
    RolloutConfig,
    ZScoreConfig,
)
from pipeline.config.evaluation import EvaluationConfig, HeldOutConfig, LoadingConfig, ProblemsConfig
from pipeline.config.job import Config
from pipeline.config.loading import SET_WHOLE, load_config, load_saved_config, validate_config, with_settings
from pipeline.config.memory import MemoryConfig
from pipeline.config.model import LoraConfig, ModelConfig
from pipeline.config.output import CheckpointConfig, OutputConfig, TrackingConfig
from pipeline.config.questions import QuestionsConfig
from pipeline.config.training import (
    GRPOConfig,
    MemorySFTConfig,
    OptimizerConfig,
    RouterConfig,
    SFTConfig,
    TrainerConfig,
)

__all__ = [
    "SET_WHOLE",
    "CarryConfig",
    "CheckpointConfig",
    "Config",
    "CurriculumConfig",
    "DataConfig",
    "EmbeddedSetsConfig",
    "EngineConfig",
    "EvaluationConfig",
    "FieldNames",
    "GRPOConfig",
    "GradingConfig",
    "HalvingConfig",
    "HeldOutConfig",
    "LearnerConfig",
    "LoadingConfig",
    "LoraConfig",
    "MemoryConfig",
    "MemorySFTConfig",
    "ModelConfig",
    "OptimizerConfig",
    "OutputConfig",
    "ProblemFilter",
    "ProblemsConfig",
    "PromotionConfig",
    "QuestionsConfig",
    "RangeConfig",
    "RewardConfig",
    "RewardTerm",
    "RolloutConfig",
    "RouterConfig",
    "SFTConfig",
    "SearchConfig",
    "StageConfig",
    "StageKind",
    "StrictModel",
    "TrackingConfig",
    "TrainerConfig",
    "WriteConfig",
    "WritingConfig",
    "ZScoreConfig",
    "load_config",
    "load_saved_config",
    "validate_config",
    "with_settings",
]
