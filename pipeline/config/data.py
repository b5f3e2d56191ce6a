"""Where problems come from and which of them a stage uses."""

from typing import Literal

from pydantic import Field, field_validator

from pipeline.config.base import StrictModel
from pipeline.templates import template_parts


class FieldNames(StrictModel):
    """Columns of a data set. A name that is set must exist; None means the data has none."""

    question: str = "question"
    answer: str = "answer"
    solution: str | None = None
    """A worked solution. None takes it from ``answer`` where that holds one (see answer_format)."""
    level: str | None = None
    type: str | None = None
    id: str | None = None
    """None makes ids from the split and a hash of the question."""


class EmbeddedSetsConfig(StrictModel):
    """The embedded sets, by reasoning-gym: ``embedded:arithmetic``, five levels of chained sums, and
    ``embedded:operations``, five operations. Of the latter every problem is worked out, in steps."""

    train_per_level: int = Field(600, ge=1)
    eval_per_level: int = Field(200, ge=1)
    worked_per_level: list[int] = Field(default=[400, 400, 40, 20, 10], min_length=5, max_length=5)
    """How many training problems of each level come with a worked solution. ``embedded:arithmetic`` alone."""
    terse_frac: float = Field(0.5, ge=0, le=1)
    """Share of the worked solutions that give the result in one line. The others work from partial sum to partial sum,
    which is what pays; SFT learns both habits, and GRPO finds out which one to keep. ``embedded:arithmetic`` alone."""


class DataConfig(StrictModel):
    name: str = "embedded:arithmetic"
    """A hub data set, a parquet or JSONL file, a directory of ``<split>.parquet|jsonl``, or embedded."""
    hub: Literal["huggingface", "modelscope"] = "huggingface"
    subset: str | None = None
    """The hub data set's configuration, such as ``main`` of ``openai/gsm8k``."""
    train_split: str = "train"
    """A split name, or an expression of the datasets library: ``train[:1000]``, ``train[10%:20%]``, sums of them."""
    eval_split: str = "test"
    fields: FieldNames = FieldNames()
    task_name: Literal["gsm8k", "metamathqa", "math"] | None = None
    """Sets answer_format, and evaluations while SFT trains then have loss, perplexity and token accuracy on held-out
    solutions besides the accuracy of answers."""
    answer_format: Literal["plain", "hash", "boxed", "phrase"] | None = None
    """How the gold answer is read from ``fields.answer``: the whole text, what follows ``####``
    (GSM8K), the last box (MATH), or what follows ``The answer is:`` (MetaMathQA). None: as task_name has it, else the
    whole text."""
    prompt_template: str | None = None
    """Plain-text prompts: ``metamath``, ``gsm8k``, or a text with ``{field}`` for columns of the data, which must
    hold the question. What SFT trains on follows the prompt as it stands in the data, without <reasoning> and <answer>:
    the field at the very end, or, where the text or the question ends it, ``fields.solution``, else ``fields.answer``.
    None: the model's chat template."""
    system_prompt: str = (
        "Solve the problem. Think inside <reasoning> and </reasoning>, "
        "then give only the final answer inside <answer> and </answer>."
    )
    """First message of every prompt; empty for none. A prompt_template goes without."""
    arithmetic: EmbeddedSetsConfig = EmbeddedSetsConfig()

    @property
    def gold_format(self) -> str:
        """``answer_format``, or that of the task."""
        of_task = {"gsm8k": "hash", "metamathqa": "phrase", "math": "boxed", None: "plain"}
        return self.answer_format or of_task[self.task_name]

    @field_validator("prompt_template")
    @classmethod
    def _can_be_read(cls, template: str | None) -> str | None:
        if template is not None:
            template_parts(template)
        return template


class ProblemFilter(StrictModel):
    """Which training problems a stage uses. None means all."""

    levels: list[str] | None = None
    types: list[str] | None = None
    sources: list[str] | None = None
    max_per_level: int | None = Field(None, ge=1)
