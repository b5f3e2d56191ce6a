"""Reads a configuration: defaults, a YAML file, its chosen preset, dotted overrides. Later ones win.

Nothing is repaired: a wrong setting is a ConfigError that names the key.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from yaml import YAMLError

from pipeline.config.base import StrictModel, describe_error
from pipeline.config.job import Config
from pipeline.errors import ConfigError, first_line

Settings = TypeVar("Settings", bound=StrictModel)


@overload
def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config: ...
@overload
def load_config(path: str | Path, overrides: Sequence[str], model: type[Settings]) -> Settings: ...
def load_config(path: str | Path, overrides: Sequence[str] = (), model: type[Any] = Config) -> Any:
    """Read a recipe, apply its preset and the overrides, and check the result.

    Args:
        path: a YAML file. It may have ``presets`` (name -> settings) and ``preset`` (the chosen name).
        overrides: ``dotted.key=value``, with values typed as in YAML. List items by index: ``stages.0.name=warmup``.
        model: the class of the configuration.

    Raises:
        ConfigError: the file cannot be read, or a setting is wrong. Names the key and, if it is unknown, the nearest
            valid one.
    """
    try:
        raw = OmegaConf.load(path)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"config file {path} cannot be read: {reason}. Recipes are in configs/.") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path} must be YAML: {' '.join(str(error).split())}") from None
    pairs = [_parse_override(item) for item in overrides]
    try:
        raw = _apply_preset(raw, pairs)
        for key, value in pairs:
            OmegaConf.update(raw, key, value, merge=True, force_add=True)
        settings = OmegaConf.to_container(raw, resolve=True)
    except (OmegaConfBaseException, AttributeError, IndexError, TypeError, ValueError) as error:
        raise ConfigError(f"config file {path}, {' '.join(overrides)}: {first_line(error)}") from None
    return _validated(settings, model)


def validate_config(settings: Any) -> Config:
    """A Config from plain dicts and lists. Raises ConfigError with one line per wrong setting."""
    return _validated(settings, Config)


def _validated(settings: Any, model: type[Settings]) -> Settings:
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        raise ConfigError("\n".join(describe_error(item, model) for item in error.errors())) from None


def with_settings(config: Config, settings: dict[str, Any]) -> Config:
    """A copy of the configuration with some settings changed, checked like any other.

    Args:
        settings: dotted key -> value, ``{"curriculum.replay_ratio": 0.1}``.

    Raises:
        ConfigError: a setting is wrong.
    """
    raw = OmegaConf.create(config.model_dump())
    try:
        for key, value in settings.items():
            OmegaConf.update(raw, key, value, merge=True, force_add=True)
    except (OmegaConfBaseException, AttributeError, IndexError, TypeError, ValueError) as error:
        raise ConfigError(f"{', '.join(settings)}: {first_line(error)}") from None
    return validate_config(OmegaConf.to_container(raw))


def _parse_override(item: str) -> tuple[str, Any]:
    key, separator, text = item.partition("=")
    if not separator or not key:
        raise ConfigError(f"override must be key=value, got {item!r}.")
    try:
        return key, OmegaConf.create(f"value: {text}" if text else "value: ''").value
    except (YAMLError, OmegaConfBaseException):
        return key, text


def _apply_preset(raw: Any, pairs: list[tuple[str, Any]]) -> Any:
    """Apply the chosen preset. ``preset`` and ``presets`` are not settings: both are removed from raw and pairs."""
    presets = raw.pop("presets", {}) or {}
    chosen = raw.pop("preset", None)
    for key, value in [pair for pair in pairs if pair[0] == "preset"]:
        chosen = value
        pairs.remove((key, value))
    if chosen is None:
        return raw
    if chosen not in presets:
        raise ConfigError(f"preset must be one of {sorted(map(str, presets)) or 'none in this file'}, got {chosen!r}.")
    return OmegaConf.merge(raw, presets[chosen])
