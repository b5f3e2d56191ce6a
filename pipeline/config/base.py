"""Shared by all sections of the configuration: strict checking, and error messages that name the key."""

import difflib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict
from pydantic_core import ErrorDetails

_TEXT = {str, type(None), str | None}


class StrictModel(BaseModel):
    """A section: immutable, with no unknown keys, no converted types and no infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False)


def describe_error(item: ErrorDetails, model: type[BaseModel]) -> str:
    """A pydantic error in one line: the key, the rule and the value; for an unknown key, the nearest valid one."""
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, [name for name, _ in _settings(model)], n=1, cutoff=0.5)
        return f"unknown setting {key}." + (f" Did you mean {near[0]}?" if near else "")
    message = item["msg"].removeprefix("Value error, ")
    if not key:
        return message
    if item["type"] == "missing":
        return f"{key} must be set: it has no default."
    return f"{key}: {message[0].lower()}{message[1:]}, got {item['input']!r}."


def is_text_setting(model: type[BaseModel], key: str) -> bool:
    """True for a dotted key whose value can only be a text, or null."""
    parts = key.replace("[", ".").replace("]", "").split(".")
    name = ".".join(part for part in parts if not part.isdecimal())
    return any(name == other and {annotation, *get_args(annotation)} <= _TEXT for other, annotation in _settings(model))


def _settings(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting's dotted key and type. Items of lists have no index."""
    for name, field in model.model_fields.items():
        yield prefix + name, field.annotation
        for candidate in (field.annotation, *get_args(field.annotation)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                yield from _settings(candidate, f"{prefix}{name}.")
