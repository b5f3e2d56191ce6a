"""Plain-text prompts with named fields, for problems that are not asked as a chat."""

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
"""``metamath`` is MetaMath's published prompt, which calls the field ``{instruction}``: README.MD and eval_gsm8k.py of
github.com/meta-math/MetaMath (commits 0014a7a and 913a0b2); arXiv:2309.12284. The response follows it directly."""


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """Turns a row of the data into a prompt, and names the field that follows it."""

    parts: tuple[tuple[str, str | None], ...]
    """Texts, each with the field after it. The field after the last text is None, or the question."""
    completion: str | None
    """The field at the very end, which is not part of the prompt. None: the template does not name one."""

    @classmethod
    def parse(cls, setting: str, question: str) -> "PromptTemplate":
        """Read a registered name or a text.

        Args:
            question: the field of the question. Any other field at the very end is the completion.

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
        """Fields of the prompt, in order."""
        return [field for _, field in self.parts if field is not None]

    def render(self, values: Mapping[str, str]) -> str:
        """The prompt. Values are inserted as they are; braces in them have no meaning."""
        return "".join(text + (values[field] if field is not None else "") for text, field in self.parts)


def template_parts(setting: str) -> tuple[tuple[str, str | None], ...]:
    """Texts of a registered template, or of a text with ``{field}`` in it, each with the field after it or None.

    Raises:
        ValueError: it is neither.
    """
    names = " or ".join(TEMPLATES)
    try:
        parsed = list(Formatter().parse(TEMPLATES.get(setting, setting)))
    except ValueError as error:
        raise ValueError(f"must double braces that do not mark a {{field}}: {error}") from None
    if bad := [field for _, field, spec, conversion in parsed if field == "" or spec or conversion]:
        raise ValueError(f"must have only names of fields in braces, not {{{bad[0]}...}}")
    if all(field is None for _, field, _, _ in parsed):
        raise ValueError(f"must be {names}, or a text with a {{field}} of the data")
    return tuple((text, field) for text, field, _, _ in parsed)
