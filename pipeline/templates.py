"""Plain-text prompts with named fields, for what is not asked as a chat."""

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter

TEMPLATES = {
    "metamath": (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{query}\n\n### Response: Let's think step by step.{response}"
    ),
    "gsm8k": (
        "Solve the problem step by step, then give the final number after ####.\n\n"
        "### Question:\n{question}\n\n### Answer:\n{answer}"
    ),
}
"""``metamath`` is the prompt MetaMath is published with, where the field is called ``{instruction}``: README.MD and
eval_gsm8k.py of github.com/meta-math/MetaMath (commits 0014a7a and 913a0b2); arXiv:2309.12284. Nothing stands between
its prompt and the response."""


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """How a row of the data becomes a prompt, and which field follows it."""

    parts: tuple[tuple[str, str | None], ...]
    """Texts, each with the field after it; None after the last one."""
    completion: str | None
    """The field at the very end, which is no part of the prompt. None: the template does not name it."""

    @classmethod
    def parse(cls, setting: str, question: str) -> "PromptTemplate":
        """Read a registered name or a text.

        Args:
            question: the field of the question. Another field at the very end is the completion.

        Raises:
            ValueError: as template_parts.
        """
        parts = template_parts(setting)
        text, last = parts[-1]
        if last in (None, question):
            return cls(parts, None)
        return cls((*parts[:-1], (text, None)), last)

    @property
    def fields(self) -> list[str]:
        """Of the prompt, in order."""
        return [field for _, field in self.parts if field is not None]

    def render(self, values: Mapping[str, str]) -> str:
        """The prompt. Values are inserted as they are: their own braces mean nothing."""
        return "".join(text + (values[field] if field is not None else "") for text, field in self.parts)


def template_parts(setting: str) -> tuple[tuple[str, str | None], ...]:
    """Texts and fields of a registered template, or of a text with ``{field}`` in it.

    Raises:
        ValueError: it is neither.
    """
    names = " or ".join(TEMPLATES)
    try:
        parsed = list(Formatter().parse(TEMPLATES.get(setting, setting)))
    except ValueError as error:
        raise ValueError(f"must double the braces that are no {{field}}: {error}") from None
    if bad := [field for _, field, spec, conversion in parsed if field == "" or spec or conversion]:
        raise ValueError(f"must have names of fields alone in braces, not {{{bad[0]}...}}")
    if all(field is None for _, field, _, _ in parsed):
        raise ValueError(f"must be {names}, or a text with a {{field}} of the data")
    return tuple((text, field) for text, field, _, _ in parsed)
