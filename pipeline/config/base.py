"""Shared by all sections of the configuration: strict checking, and error messages that name the key."""

import difflib
from collections.abc import Iterator
from typing import get_args

from pydantic import BaseModel, ConfigDict
from pydantic_core import ErrorDetails


class StrictModel(BaseModel):
    """A section: immutable, with no unknown keys, no converted types and no infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False)


def describe_error(item: ErrorDetails, model: type[BaseModel]) -> str:
    """A pydantic error in one line: the key, the rule and the value; for an unknown key, the nearest valid one."""
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, list(_valid_keys(model)), n=1, cutoff=0.5)
        return f"unknown setting {key}." + (f" Did you mean {near[0]}?" if near else "")
    message = item["msg"].removeprefix("Value error, ")
    if not key:
        return message
    if item["type"] == "missing":
        return f"{key} must be set: it has no default."
    return f"{key}: {message[0].lower()}{message[1:]}, got {item['input']!r}."


def _valid_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        for candidate in (field.annotation, *get_args(field.annotation)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                yield from _valid_keys(candidate, f"{prefix}{name}.")
