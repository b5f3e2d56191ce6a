"""Held-out evaluation while a run trains, and the evaluation job."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from pipeline.config.base import StrictModel
from pipeline.config.data import DataConfig
from pipeline.config.engines import EngineConfig, GradingConfig, check_shards
from pipeline.config.limits import LimitsConfig
from pipeline.config.output import OutputConfig
from pipeline.templates import PromptTemplate


class HeldOutConfig(StrictModel):
    """Evaluations on held-out problems: before the first stage, after every stage and, with total_eval_times, during
    stages."""

    problems_per_level: int = Field(50, ge=0)
    """Problems of each level. 0 turns evaluation off. Data without levels counts as one level."""
    problems_per_level_at_end: Annotated[int, Field(ge=1)] | Literal["all"] | None = None
    """Problems of each level after the last stage, except in a search. None: problems_per_level."""
    at_start: bool = True
    """Evaluate before the first stage."""
    max_completion_length: int = Field(256, ge=1)
    """Maximum tokens of a completion. Decoding is greedy. Tasks to write problems are sampled as ``rollout`` says."""
    total_eval_times: int = Field(0, ge=0)
    """Evaluations during each stage, evenly spread, the last one at its last step. 0: none."""
    every_steps: int | None = Field(None, ge=1)
    """Evaluate after this many steps of a stage, and after its last one, instead of total_eval_times times."""
    metric_for_best_model: Literal["loss", "perplexity", "token_accuracy", "answer_accuracy", "quality"] | None = None
    """Metric of the evaluations during a stage by which the best checkpoint is chosen and kept. None: the mean training
    reward or, for SFT, the training loss. ``quality`` is that of written problems."""
    greater_is_better: bool | None = None
    """Direction of metric_for_best_model. None: true for accuracies."""
    early_stopping_patience: int | None = Field(None, ge=1)
    """A stage ends after this many evaluations in a row without a new best. None: never."""
    load_best_model_at_end: bool = False
    """A stage ends with its best weights instead of its last ones."""

    @property
    def evaluates_during_stages(self) -> bool:
        return bool(self.total_eval_times or self.every_steps)

    @property
    def higher_wins(self) -> bool:
        """True if a higher metric_for_best_model is better."""
        if self.greater_is_better is None:
            return self.metric_for_best_model in ("token_accuracy", "answer_accuracy", "quality")
        return self.greater_is_better

    @model_validator(mode="after")
    def _best_needs_evaluations(self) -> "HeldOutConfig":
        if self.total_eval_times and self.every_steps:
            raise ValueError(f"every_steps must be null beside total_eval_times, got {self.every_steps}")
        if self.evaluates_during_stages and not self.problems_per_level:
            name = "every_steps" if self.every_steps else "total_eval_times"
            raise ValueError(f"{name} needs problems_per_level above 0, got 0: there is nothing to evaluate")
        if self.metric_for_best_model and not self.evaluates_during_stages:
            raise ValueError("metric_for_best_model needs total_eval_times above 0 or every_steps, got neither")
        if not self.metric_for_best_model and (self.early_stopping_patience or self.load_best_model_at_end):
            raise ValueError("early_stopping_patience and load_best_model_at_end need metric_for_best_model, got none")
        return self


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _by_label(value: Any) -> Any:
    """One model, a list of models, or label -> model. Without labels, a model's name is its label."""
    models = _as_list(value)
    return {str(model): model for model in models} if isinstance(models, list) else models


class LoadingConfig(StrictModel):
    """Lookup and loading of models."""

    hub: Literal["huggingface", "modelscope"] = "huggingface"
    """The hub where names are looked up."""
    revision: str | None = None
    """Branch, tag or commit of models from a hub. None: the default branch."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Precision of engines. ``auto``: bfloat16, or float32 if they run on a CPU without native bfloat16 matmul."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Leave it off unless you have read that code."""
    base: str | None = None
    """Base model for adapters. None: the one that the adapter names."""


class PromptConfig(StrictModel):
    """The prompts that problems are asked with."""

    style: Literal["auto", "plain", "chat"] = "auto"
    """``plain``: the data set's registered text, or ``template``. ``chat``: the model's chat template. ``auto``: models
    that come from a run are asked as in that run, others plainly."""
    template: str | None = None
    """A plain text with ``{question}`` in it, or ``gsm8k``. The model continues where the text ends. None: as
    registered."""
    system_prompt: str | None = None
    """First message of chats. None: the one that training uses."""
    num_shots: int | None = Field(None, ge=0)
    """Solved problems of the training split shown before the question. None: as registered."""

    @field_validator("template")
    @classmethod
    def _asks_the_question(cls, template: str | None) -> str | None:
        if template is not None and PromptTemplate.parse(template, "question").fields != ["question"]:
            raise ValueError("must hold {question}, and no other field but the answer's at its very end")
        return template


class ProblemsConfig(StrictModel):
    """The problems of each data set that are asked. None: all."""

    levels: list[str] | None = None
    types: list[str] | None = None
    sources: list[str] | None = None
    index_file: str | None = None
    """File with a JSON list of row numbers of the split (from 0), or of problem ids: for example MATH-500 of MATH."""
    max_problems: int | None = Field(None, ge=1)
    """Maximum number of problems of each data set, drawn with ``seed``, in the data set's order."""


class GuardConfig(StrictModel):
    """Finds problems that are also in the training data."""

    train_data: list[str] = []
    """Data sets to search, named as in ``dataset``, besides the training data of the evaluated runs."""
    leave_out: bool = False
    """Do not ask these problems. False: they are asked, marked and counted."""


class EvalRolloutConfig(EngineConfig):
    """vLLM engines, and how they sample."""

    temperature: float = Field(0.0, ge=0)
    """Sampling temperature. 0 is greedy."""
    num_samples: int = Field(1, ge=1)
    """Completions per problem: k of pass@k and maj@k."""
    stop: list[str] | None = None
    """Texts that end a completion. None: with a plain prompt, the line before its question; with a chat, none."""
    max_prompt_length: int = Field(1536, ge=1)
    """Maximum tokens of a prompt. A longer prompt is not answered and counts as cut off."""
    memory_gib: float = Field(3.5, gt=0)
    """Memory that each worker is expected to need, in GiB. Reserved in Ray and shown by --dry-run."""
    kv_cache_gib: float = Field(2.0, gt=0)
    """Largest key-value cache of a CPU engine, in GiB. It is never larger than all completions at their longest
    need."""
    batching: Literal["continuous", "fixed"] = "fixed"
    """``fixed``: a chunk of prompts is never mixed with others, so that the same problems get the same completions
    again. ``continuous``: an engine takes up prompts as it gets room for them."""
    prompts_per_chunk: int = Field(128, ge=1)
    """Prompts that go to an engine together and are never mixed with others. The rest of a batch changes the last bits
    of a result, so fixed chunks make completions independent of the number of engines."""


class EvaluationConfig(StrictModel):
    """The configuration of ``jobs/evaluate.py``. docs/evaluation.md."""

    seed: int = Field(0, ge=0)
    """Seed of sampling, and of the draw of ``problems.max_problems``."""
    model: Annotated[dict[str, str], BeforeValidator(_by_label)] = Field(min_length=1)
    """Models to evaluate: a hub name, a directory with a model or an adapter, a run directory, a checkpoint of a run
    (``RUN/checkpoints/checkpoint_last``), or the embedded model. One, a list, or label -> model."""
    dataset: Annotated[list[str], BeforeValidator(_as_list)] = Field(min_length=1)
    """Data sets to ask: registered names (docs/evaluation.md), embedded sets, parquet or JSONL files, or hub names. One
    or a list."""
    data_root: str | None = None
    """Directory with local copies of registered data sets. None: they come from the hub."""
    data: DataConfig = DataConfig()
    """Columns and format of unregistered data sets: fields, answer_format, subset, splits. ``name`` is not used."""
    problems: ProblemsConfig = ProblemsConfig()
    prompt: PromptConfig = PromptConfig()
    rollout: EvalRolloutConfig = EvalRolloutConfig()
    loading: LoadingConfig = LoadingConfig()
    grading: GradingConfig = GradingConfig()
    guard: GuardConfig = GuardConfig()
    limits: LimitsConfig = LimitsConfig()
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
        """The settings that results depend on. A resumed evaluation must have the same ones."""
        free = {"num_workers", "num_cpus", "memory_gib"}
        return self.model_dump(
            exclude={"rollout": free, "output": True, "grading": {"num_children"}, "data": {"revision"}}
        )
