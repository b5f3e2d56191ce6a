"""The registered data sets."""

from dataclasses import dataclass, field
from typing import Literal

from pipeline.config import FieldNames
from pipeline.templates import TEMPLATES

BOXED_TEMPLATE = (
    "Solve the problem step by step, then put the final answer in \\boxed{{}}.\n\n"
    "### Question:\n{question}\n\n### Answer:\n"
)
TAGS = ("level", "type", "source", "difficulty")
"""Properties of a problem that results are broken down by."""

_MATH = FieldNames(question="problem", answer="solution", level="level", type="type")
_PLAIN = FieldNames(question="problem", answer="answer")


@dataclass(frozen=True)
class Source:
    """The location of rows, and the meaning of their columns."""

    name: str
    """A hub name, or a path below ``data_root``."""
    fields: FieldNames
    answer_format: Literal["plain", "hash", "boxed"] = "plain"
    subset: str | None = None
    eval_split: str = "test"
    columns: dict[str, str] = field(default_factory=dict)
    """Tag (one of TAGS) -> column."""
    where: tuple[str, str] | None = None
    """(column, value): use only rows with this value."""


@dataclass(frozen=True)
class DataSet:
    """A registered data set."""

    licence: str
    size: int
    """Number of problems that can be scored."""
    answer_form: str
    hub: Source | None
    local: Source | None
    template: str = BOXED_TEMPLATE
    num_shots: int = 0
    lean_answers: bool = False
    """Some gold answers are Lean terms, which cannot be compared here: those problems are counted and not asked."""


def _olympiad(value: str | None) -> Source:
    columns = {"source": "dataset", "type": "subject", "difficulty": "difficulty"}
    where = ("dataset", value) if value else None
    return Source("olympiad", _PLAIN, columns=columns, where=where)


_LATEX = "LaTeX or a number"
DATA_SETS: dict[str, DataSet] = {
    "gsm8k": DataSet(
        "MIT", 1319, "an integer after ####",
        Source("openai/gsm8k", FieldNames(), "hash", "main"), Source("gsm8k", FieldNames(), "hash", "main"),
        template=TEMPLATES["gsm8k"],
    ),
    "math": DataSet(
        "MIT", 5000, "LaTeX, the last box of the solution",
        Source("DigitalLearningGmbH/MATH-lighteval", _MATH, "boxed"), Source("math", _MATH, "boxed"),
    ),
    "math500": DataSet(
        "MIT", 500, _LATEX,
        Source("HuggingFaceH4/MATH-500", _PLAIN.model_copy(update={"level": "level", "type": "subject"})),
        None,
    ),
    "combibench": DataSet(
        "MIT", 28, "a number; some are Lean terms", None,
        Source("combibench", FieldNames(question="problem", answer="answer", id="id"), columns={"source": "tag"}),
        lean_answers=True,
    ),
    "olympiad": DataSet("see its parts", 3621, _LATEX, None, _olympiad(None)),
    "omni_math": DataSet(
        "not stated", 2816, _LATEX,
        None, _olympiad("Omni-MATH-Rule"),
    ),
    "olympiadbench": DataSet("MIT", 675, _LATEX, None, _olympiad("OlympiadBench-OE_TO_maths_en_COMP")),
    "amc23": DataSet("not stated", 40, "an integer", None, _olympiad("AMC 2023")),
    "aime24": DataSet(
        "not stated", 30, "an integer",
        Source("HuggingFaceH4/aime_2024", _PLAIN, eval_split="train"), _olympiad("AIME 2024"),
    ),
    "aime25": DataSet("not stated", 30, "an integer", None, _olympiad("AIME 2025")),
    "hmmt25": DataSet(
        "not stated", 30, _LATEX,
        Source("MathArena/hmmt_feb_2025", _PLAIN, eval_split="train"), _olympiad("HMMT February 2025"),
    ),
    "embedded:arithmetic": DataSet("Apache-2.0 (reasoning-gym)", 1000, "an integer", None, None),
    "embedded:operations": DataSet("Apache-2.0 (reasoning-gym)", 892, "an integer", None, None),
    "embedded:stories": DataSet("Apache-2.0", 600, "an integer", None, None),
}  # fmt: skip
