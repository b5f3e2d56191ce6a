"""The source of problems, and the filter that a stage applies to them."""

from string import Formatter
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import StrictModel
from pipeline.templates import template_parts
from pipeline.types import WritingKind


class FieldNames(StrictModel):
    """Columns of a data set. A named column must exist; None means the data has no such column.

    ``a.b`` is the column of that name, or else the field ``b`` of the column ``a``.
    """

    question: str = "question"
    """A text, or a list of chat messages that ends with the user's. With ``layout: conversations``, a list that ends
    with the assistant's."""
    answer: str = "answer"
    solution: str | None = None
    """A worked solution. None: the one inside ``answer``, if its format has one (see answer_format)."""
    level: str | None = None
    """Difficulty, as a text or a number."""
    type: str | None = None
    """Subject, such as algebra."""
    source: str | None = None
    """Name of the data set that a row comes from, in a file that mixes several. None: ``data.name``."""
    id: str | None = None
    """None: ids are made from the split and a hash of the question."""


class EmbeddedSetsConfig(StrictModel):
    """Sizes of the embedded sets.

    ``embedded:arithmetic`` has five levels of chained sums, and ``embedded:operations`` has five operations, both on
    numbers from reasoning-gym. ``embedded:stories`` has three levels of word problems. In the last two every problem
    has a worked solution, in steps.
    """

    train_per_level: int = Field(600, ge=1)
    """Training problems per level. A level with fewer distinct problems has fewer."""
    eval_per_level: int = Field(200, ge=1)
    """Held-out problems per level, at most a quarter of its distinct problems."""
    worked_per_level: list[int] = Field(default=[400, 400, 40, 20, 10], min_length=5, max_length=5)
    """Training problems of each level that have a worked solution. Only for ``embedded:arithmetic``."""
    terse_frac: float = Field(0.5, ge=0, le=1)
    """Share of worked solutions that give the result in one line; the others write every partial sum, which works
    better. SFT teaches both habits, and GRPO finds out which one pays. Only for ``embedded:arithmetic``."""


SYSTEM_PROMPT = (
    "Solve the problem. Think inside <reasoning> and </reasoning>, "
    "then give only the final answer inside <answer> and </answer>."
)
_LAYOUTS = {
    "verl": {"question": "prompt", "answer": "reward_model.ground_truth"},
    "conversations": {"question": "conversations", "answer": "conversations"},
}


WRITING_PROMPT = (
    "Write the problem inside <problem> and </problem>, its worked solution inside <solution> and </solution>, "
    "then only the final answer inside <answer> and </answer>."
)
_WRITING_FIELDS = {"topic", "level", "original"}


class WritingConfig(StrictModel):
    """Tasks to write problems, made from the problems of a data set. docs/questions.md."""

    prompts: dict[WritingKind, str] = {
        "new": "Write a math problem about {topic}, {level}.",
        "parameters": "Write a variation of this problem with other numbers, {level}.\n\n{original}",
        "context": "Write a variation of this problem with other names and things, {level}.\n\n{original}",
        "practical": "Write a variation of this problem in a practical setting, {level}.\n\n{original}",
    }
    """The question of each kind of task that is made. {topic} is the problem's type, {level} its level, and {original}
    the problem that is to be varied. Without a level, {level} and a comma before it are left out, so words that belong
    to the level go into ``levels``."""
    levels: dict[str, str] = {}
    """Level -> the text that stands for it. A level that is not named stands for itself."""
    system_prompt: str = WRITING_PROMPT
    """First message of every chat; empty for none."""

    @field_validator("prompts")
    @classmethod
    def _known_fields(cls, prompts: dict[WritingKind, str]) -> dict[WritingKind, str]:
        if not prompts:
            raise ValueError("must have a prompt for one kind of task at least, got none")
        for kind, prompt in prompts.items():
            names = {name for _, name, _, _ in Formatter().parse(prompt) if name is not None}
            if unknown := sorted(names - _WRITING_FIELDS):
                raise ValueError(f"may hold {{topic}}, {{level}} and {{original}}, got {{{unknown[0]}}} in {kind}")
            if ("original" in names) == (kind == "new"):
                raise ValueError(f"must hold {{original}} in variations and only there, got {prompt!r} for {kind}")
        return prompts


class DataConfig(StrictModel):
    """The data set, and how its rows become problems. docs/data.md."""

    name: str = "embedded:arithmetic"
    """A hub data set or a clone of one, a parquet or JSONL file, a directory of ``<split>.parquet|jsonl``, or an
    embedded set."""
    hub: Literal["huggingface", "modelscope"] = "huggingface"
    """The hub where hub names are looked up."""
    revision: str | None = None
    """Branch, tag or commit of a hub data set. None: the default branch. A run keeps the commit that it starts with."""
    subset: str | None = None
    """Configuration of a hub data set, such as ``main`` of ``openai/gsm8k``. None: its default. Ignored for local data
    without subsets."""
    train_split: str = "train"
    """A split name, or an expression of the datasets library: ``train[:1000]``, ``train[10%:20%]``, sums of them."""
    eval_split: str = "test"
    """The split of held-out problems, named in the same way."""
    layout: Literal["verl", "conversations"] | None = None
    """How rows are laid out. ``verl``: ``fields.question`` is ``prompt`` and ``fields.answer`` is
    ``reward_model.ground_truth``, unless they are set. ``conversations``: ``fields.question``, by default
    ``conversations``, is a whole conversation. SFT learns all turns of the assistant; for GRPO and evaluations the last
    one is the gold answer."""
    fields: FieldNames = FieldNames()
    task_name: Literal["gsm8k", "metamathqa", "math"] | None = None
    """Sets answer_format. With it, evaluations during SFT also measure loss, perplexity and token accuracy on held-out
    solutions, besides the accuracy of answers. None: a task without these."""
    answer_format: Literal["plain", "hash", "boxed", "phrase"] | None = None
    """The part of ``fields.answer`` that is the gold answer: the whole text, the text after ``####`` (GSM8K), the last
    box (MATH), or the text after ``The answer is:`` (MetaMathQA). None: the format of task_name, else ``plain``."""
    prompt_template: str | None = None
    """Plain-text prompts: ``metamath``, ``gsm8k``, or a text with ``{field}`` for columns of the data, including the
    question. SFT trains on the field at the very end of the template, exactly as the data has it, without <reasoning>
    and <answer>. If the template ends in a text or in the question, SFT trains on ``fields.solution``, or else on
    ``fields.answer``. None: the model's chat template."""
    system_prompt: str = SYSTEM_PROMPT
    """First message of every chat; empty for none. Not used with prompt_template. Questions that are messages are used
    as they are: only a system prompt other than the default is put before them, and only if they have no system
    message."""
    arithmetic: EmbeddedSetsConfig = EmbeddedSetsConfig()
    """Sizes of the embedded sets."""
    write: WritingConfig | None = None
    """Make tasks to write problems. None: the problems are to be solved."""

    @property
    def gold_format(self) -> str:
        """``answer_format``, or the format of the task."""
        of_task = {"gsm8k": "hash", "metamathqa": "phrase", "math": "boxed", None: "plain"}
        return self.answer_format or of_task[self.task_name]

    @property
    def uses_chat_template(self) -> bool:
        """Prompts go through the model's chat template, not through ``prompt_template``."""
        return self.prompt_template is None

    @model_validator(mode="before")
    @classmethod
    def _named_fields(cls, values: Any) -> Any:
        """The fields of the layout, except those that are set."""
        layout = _LAYOUTS.get(str(values.get("layout"))) if isinstance(values, dict) else None
        if layout is None:
            return values
        fields = values.get("fields", {})
        named = fields.model_dump(exclude_unset=True) if isinstance(fields, FieldNames) else fields
        return {**values, "fields": {**layout, **named}} if isinstance(named, dict) else values

    @model_validator(mode="after")
    def _writing_is_asked_for_in_a_chat(self) -> "DataConfig":
        if self.write and self.prompt_template is not None:
            raise ValueError("prompt_template must be null beside write, whose prompts are chats")
        return self

    @model_validator(mode="after")
    def _conversations_are_whole(self) -> "DataConfig":
        if self.layout == "conversations":
            for name in ("prompt_template", "write"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} must be null with layout=conversations, whose rows are whole chats")
            if self.fields.solution is not None:
                raise ValueError("fields.solution must be null with layout=conversations: solutions are turns")
        return self

    @field_validator("prompt_template")
    @classmethod
    def _is_a_template(cls, template: str | None) -> str | None:
        if template is not None:
            template_parts(template)
        return template


class ProblemFilter(StrictModel):
    """The training problems that a stage uses. None: all."""

    levels: list[str] | None = None
    types: list[str] | None = None
    sources: list[str] | None = None
    max_per_level: int | None = Field(None, ge=1)
    """Maximum number of problems of each level, drawn at random."""
