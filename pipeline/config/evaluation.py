"""Held-out evaluation while a run trains, and the evaluation job."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from pipeline.config.base import StrictModel
from pipeline.config.data import DataConfig
from pipeline.config.engines import GradingConfig, RolloutConfig, check_shards
from pipeline.config.output import OutputConfig
from pipeline.templates import PromptTemplate


class HeldOutConfig(StrictModel):
    """Held-out problems: before the first stage, after every stage and, with total_eval_times, while stages train."""

    problems_per_level: int = Field(50, ge=0)
    """0 switches evaluation off. Data without levels counts as one level."""
    problems_per_level_at_end: Annotated[int, Field(ge=1)] | Literal["all"] | None = None
    """After the last stage of a run that is no search. None: problems_per_level."""
    at_start: bool = True
    max_completion_length: int = Field(256, ge=1)
    """Tokens, decoded greedily."""
    total_eval_times: int = Field(0, ge=0)
    """Evaluations while a stage trains, evenly spread, the last one at its last step. 0: none."""
    metric_for_best_model: Literal["loss", "perplexity", "token_accuracy", "answer_accuracy"] | None = None
    """Of those evaluations: the best checkpoint is kept. None: the mean reward of training (SFT: its loss)."""
    greater_is_better: bool | None = None
    """None: of an accuracy."""
    early_stopping_patience: int | None = Field(None, ge=1)
    """A stage ends after so many evaluations in a row without a new best. None: never."""
    load_best_model_at_end: bool = False
    """A stage ends with its best weights in place of its last."""

    @property
    def higher_wins(self) -> bool:
        """Whether more of metric_for_best_model is better."""
        if self.greater_is_better is None:
            return self.metric_for_best_model in ("token_accuracy", "answer_accuracy")
        return self.greater_is_better

    @model_validator(mode="after")
    def _best_needs_evaluations(self) -> "HeldOutConfig":
        if self.total_eval_times and not self.problems_per_level:
            raise ValueError("total_eval_times needs problems_per_level above 0, got 0: there is nothing to evaluate")
        if self.metric_for_best_model and not self.total_eval_times:
            raise ValueError("metric_for_best_model needs total_eval_times above 0, got 0")
        if not self.metric_for_best_model and (self.early_stopping_patience or self.load_best_model_at_end):
            raise ValueError("early_stopping_patience and load_best_model_at_end need metric_for_best_model, got none")
        return self


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _named(value: Any) -> Any:
    """One model, a list of them, or label -> model. Labels tell them apart in tables."""
    models = _listed(value)
    return {str(model): model for model in models} if isinstance(models, list) else models


class LoadingConfig(StrictModel):
    """How models are found and loaded."""

    hub: Literal["huggingface", "modelscope"] = "huggingface"
    revision: str | None = None
    """Of models that come from a hub."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """auto: bfloat16, but float32 where engines run on a CPU without bfloat16 products."""
    trust_remote_code: bool = False
    """Runs Python code that comes with the model. Leave it off for models you did not read."""
    base: str | None = None
    """What adapters are laid over. None: the model that the adapter names."""


class PromptConfig(StrictModel):
    """How problems are asked."""

    style: Literal["auto", "plain", "chat"] = "auto"
    """``plain``: the data set's registered text, or ``template``. ``chat``: the model's chat template. ``auto``: a
    run's model is asked as the run asked; others plainly."""
    template: str | None = None
    """A plain text with ``{question}`` in it, or ``gsm8k``. The model goes on where it ends."""
    system_prompt: str | None = None
    """Of chats. None: the one that training uses."""
    num_shots: int | None = Field(None, ge=0)
    """Solved problems of the training split before the question. None: as registered."""

    @field_validator("template")
    @classmethod
    def _can_be_read(cls, template: str | None) -> str | None:
        if template is not None and PromptTemplate.parse(template, "question").fields != ["question"]:
            raise ValueError("must hold {question}, and no other field but the answer's at its very end")
        return template


class ProblemsConfig(StrictModel):
    """Which problems of each data set are asked. None means all."""

    levels: list[str] | None = None
    types: list[str] | None = None
    sources: list[str] | None = None
    index_file: str | None = None
    """A JSON list of row numbers (from 0) of the split, or of problem ids: MATH-500 of MATH."""
    max_problems: int | None = Field(None, ge=1)
    """So many of each data set, drawn by ``seed``, in the data set's order."""


class GuardConfig(StrictModel):
    """Problems that are in the training data."""

    train_data: list[str] = []
    """Data sets to look in, named as ``dataset``, besides what the evaluated runs trained on."""
    leave_out: bool = False
    """Ask none of them. Otherwise they are asked, marked and counted."""


class EvalRolloutConfig(RolloutConfig):
    """Engines and sampling."""

    temperature: float = Field(0.0, ge=0)
    """0 is greedy."""
    num_samples: int = Field(1, ge=1)
    """Completions per problem: k of pass@k and maj@k."""
    stop: list[str] | None = None
    """Texts that end a completion. None: with a plain prompt the line before its question; none for chats."""
    max_prompt_length: int = Field(1536, ge=1)
    """Tokens. A longer prompt is not answered, and counts as cut off."""
    memory_gib: float = Field(3.5, gt=0)
    kv_cache_gib: float = Field(2.0, gt=0)
    prompts_per_chunk: int = Field(128, ge=1)
    """Prompts that go to one engine together, never mixed with others: what shares a batch changes the last bits, so
    fixed chunks make completions independent of the number of engines."""


class EvaluationConfig(StrictModel):
    seed: int = Field(0, ge=0)
    """Of sampling, and of drawing ``problems.max_problems``."""
    model: Annotated[dict[str, str], BeforeValidator(_named)] = Field(min_length=1)
    """What is evaluated: a hub name, a directory with a model or an adapter, a run directory, a checkpoint of a run
    (``RUN/checkpoints/checkpoint_last``), the embedded model. One, a list, or label -> model."""
    dataset: Annotated[list[str], BeforeValidator(_listed)] = Field(min_length=1)
    """Registered names (docs/evaluation.md), embedded sets, parquet or JSONL files, hub names. One or a list."""
    data_root: str | None = None
    """A directory with local copies of registered data sets. None: the hub."""
    data: DataConfig = DataConfig()
    """How data sets that are not registered are read: fields, answer_format, subset, splits. ``name`` is not used."""
    problems: ProblemsConfig = ProblemsConfig()
    prompt: PromptConfig = PromptConfig()
    rollout: EvalRolloutConfig = EvalRolloutConfig()
    loading: LoadingConfig = LoadingConfig()
    grading: GradingConfig = GradingConfig()
    guard: GuardConfig = GuardConfig()
    output: OutputConfig = OutputConfig()

    @model_validator(mode="after")
    def _check_across_sections(self) -> "EvaluationConfig":
        if len(set(self.dataset)) < len(self.dataset):
            raise ValueError(f"dataset must name each data set once, got {self.dataset}")
        if self.rollout.num_samples > 1 and self.rollout.temperature == 0:
            raise ValueError(
                f"rollout.temperature must be above 0 for rollout.num_samples={self.rollout.num_samples}, got 0: "
                "greedy completions of a problem are all the same"
            )
        if self.prompt.template is not None and self.prompt.style == "chat":
            raise ValueError("prompt.template must be null for prompt.style=chat, which has the model's own")
        check_shards(self.rollout)
        return self

    def results_key(self) -> dict[str, Any]:
        """The settings that results depend on: a resumed evaluation must have the same."""
        free = {"num_workers", "num_cpus", "memory_gib"}
        return self.model_dump(exclude={"rollout": free, "output": True, "grading": {"num_children"}})
