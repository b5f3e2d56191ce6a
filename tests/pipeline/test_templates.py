import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import validate_config
from pipeline.errors import ConfigError
from pipeline.templates import TEMPLATES, PromptTemplate, template_parts
from tests.support.properties import examples

NAMES = st.text("abc .", min_size=1, max_size=4).filter(lambda name: name not in TEMPLATES)
TEXTS = st.text("ab{}: \n²", max_size=6)
PARTS = st.tuples(st.lists(st.tuples(TEXTS, NAMES), min_size=1, max_size=4), TEXTS)


def written(parts: list[tuple[str, str]], end: str) -> str:
    """The template as a person writes it: braces of a text are doubled."""

    def escaped(text: str) -> str:
        return text.replace("{", "{{").replace("}", "}}")

    return "".join(f"{escaped(text)}{{{name}}}" for text, name in parts) + escaped(end)


@given(template=PARTS)
@examples()
def test_fields_and_braces_are_read_as_they_were_written(template):
    parts, end = template
    read = template_parts(written(parts, end))
    assert [name for _, name in read if name is not None] == [name for _, name in parts]
    filled = "".join(text + (f"<{name}>" if name is not None else "") for text, name in read)
    assert filled == "".join(f"{text}<{name}>" for text, name in parts) + end


@given(template=PARTS, value=TEXTS)
@examples()
def test_a_filled_template_holds_the_values_as_they_are(template, value):
    parts, end = template
    names = {name for _, name in parts}
    values = {name: f"{value}{{{name}}}" for name in names}
    prompt = PromptTemplate.parse(written(parts, end), question=parts[-1][1])
    assert prompt.completion is None and set(prompt.fields) == names
    assert prompt.render(values) == "".join(text + values[name] for text, name in parts) + end


@pytest.mark.parametrize(
    ("template", "question", "fields", "completion"),
    [
        ("Q: {q}\nA: {a}", "q", ["q"], "a"),
        ("Q: {q}\nA: {a}.", "q", ["q", "a"], None),  # a text ends it
        ("{hint} Q: {q}", "q", ["hint", "q"], None),  # the question ends it
        ("gsm8k", "question", ["question"], "answer"),
        ("metamath", "query", ["query"], "response"),
    ],
)
def test_another_field_at_the_very_end_is_the_completion(template, question, fields, completion):
    parsed = PromptTemplate.parse(template, question)
    assert (parsed.fields, parsed.completion) == (fields, completion)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("metmath", r"must be metamath or gsm8k, or a text with a \{field\} of the data, got 'metmath'"),
        ("{q", r"must double braces that do not mark a \{field\}"),
        ("{}", r"only names of fields"),
        ("{q:>9}", r"only names of fields in braces, not \{q\.\.\.\}"),
        ("{q!r}", r"only names of fields"),
    ],
)
def test_a_text_that_is_no_template_is_refused_with_the_configuration(template, message):
    settings = {"data": {"prompt_template": template}, "stages": [{"name": "s", "kind": "sft"}]}
    with pytest.raises(ConfigError, match=rf"data\.prompt_template: .*{message}"):
        validate_config(settings)
