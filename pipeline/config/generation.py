"""The configuration of ``jobs/generate_problems.py``. docs/questions.md."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from pipeline.config.base import StrictModel
from pipeline.config.data import DataConfig
from pipeline.config.engines import check_shards
from pipeline.config.evaluation import EvalRolloutConfig, EvaluationConfig, LoadingConfig, PromptConfig
from pipeline.config.limits import LimitsConfig
from pipeline.config.output import OutputConfig
from pipeline.config.questions import KeepConfig
from pipeline.types import WritingKind


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Names = Annotated[list[str], BeforeValidator(_as_list)]


class WritingRolloutConfig(EvalRolloutConfig):
    """vLLM engines and their sampling."""

    temperature: float = Field(1.0, gt=0)
    """Sampling temperature. If it is not given, it is taken from the run, and so are ``top_p`` and ``top_k``."""
    num_samples: int = Field(4, ge=1)
    """Completions of each task. They form a group, which the reward ``diverse`` compares."""
    max_completion_length: int = Field(512, ge=1)
    """Maximum tokens of a completion, which has statement, worked solution and answer."""
    prompts_per_chunk: int = Field(16, ge=1)
    """Tasks that go to an engine together and are never mixed with others."""


class GenerationConfig(StrictModel):
    """The configuration of ``jobs/generate_problems.py``."""

    seed: int = Field(0, ge=0)
    """Seed of sampling and of the choice of originals."""
    run: str
    """A run that was trained to write problems, or one of its checkpoints. Its configuration supplies prompts, rewards
    and originals."""
    model: str | None = None
    """A model that writes instead of the run's, named as in ``jobs/evaluate.py``. None: the run's model."""
    num_problems: int = Field(100, ge=1)
    """Number of problems to keep, divided evenly among kinds, topics and levels."""
    topics: Names | None = None
    """None: the types of the run's training data."""
    levels: Names | None = None
    """None: the levels of the run's training data."""
    kinds: list[WritingKind] = Field(default=["new"], min_length=1)
    """Kinds of tasks. The original of a variation is a training problem of the run, of the same topic and level."""
    max_attempts: float = Field(10.0, ge=1)
    """Maximum completions per problem to keep. If they are not enough, the job ends with fewer problems and says so."""
    keep: KeepConfig | None = None
    """Rules for keeping a problem. None: ``questions.keep`` of the run."""
    against: Names = []
    """Data sets whose training split must not be written again: registered or embedded ones, files, or hub names.
    Registered test sets are always compared, and the run's own data if ``keep.compare_with_data`` is true."""
    data: DataConfig = DataConfig()
    """Columns and format of unregistered data sets in ``against``. ``name`` is not used."""
    allow_missing: Names = []
    """Registered test sets that are skipped if they cannot be read. Any other set that cannot be read stops the job."""
    data_root: str | None = None
    """Directory with local copies of the registered data sets. None: use the hub."""
    rollout: WritingRolloutConfig = WritingRolloutConfig()
    loading: LoadingConfig = LoadingConfig()
    limits: LimitsConfig = LimitsConfig()
    output: OutputConfig = OutputConfig()

    @model_validator(mode="after")
    def _check_across_sections(self) -> "GenerationConfig":
        check_shards(self.rollout)
        for name in ("topics", "levels", "kinds", "against", "allow_missing"):
            values = getattr(self, name)
            if values is not None and (
                len(set(values)) < len(values) or (not values and name not in ("against", "allow_missing"))
            ):
                raise ValueError(f"{name} must name at least one, and each once, got {values}")
        return self

    @property
    def writer(self) -> str:
        """The model that writes."""
        return self.model or self.run

    @property
    def max_written(self) -> int:
        """Maximum number of completions."""
        return int(self.num_problems * self.max_attempts)

    def reading(self) -> EvaluationConfig:
        """The settings that read data sets."""
        return EvaluationConfig(
            model={"writer": self.writer},
            dataset=["embedded:arithmetic"],
            data_root=self.data_root,
            data=self.data,
            prompt=PromptConfig(num_shots=0),
        )

    def results_key(self) -> dict[str, Any]:
        """The settings that the results depend on. A resumed job must have the same ones."""
        free = {"num_workers", "num_cpus", "memory_gib"}
        return self.model_dump(exclude={"rollout": free, "output": True, "limits": True, "data": {"revision"}})
