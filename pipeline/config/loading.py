"""Reads a configuration: defaults, a YAML file, its chosen preset, dotted overrides. Later ones win.

Nothing is repaired: a wrong setting is a ConfigError that names the key.
"""

import json
import re
from collections.abc import Mapping, Sequence
from json import JSONDecodeError
from pathlib import Path
from typing import Any, TypeVar, overload

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException
from pydantic import ValidationError
from yaml import YAMLError

from pipeline.config.base import StrictModel, describe_error, is_text_setting
from pipeline.config.job import Config
from pipeline.config.training import GRPOConfig, preset_settings
from pipeline.errors import ConfigError, first_line

Settings = TypeVar("Settings", bound=StrictModel)
_OLD_NUMBER = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")


@overload
def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config: ...
@overload
def load_config(path: str | Path, overrides: Sequence[str], model: type[Settings]) -> Settings: ...
def load_config(path: str | Path, overrides: Sequence[str] = (), model: type[Any] = Config) -> Any:
    """Read a recipe, apply its preset and the overrides, and check the result.

    Args:
        path: a YAML file, in which ``${key}`` stands for another setting and ``\\${text}`` for the text ``${text}``. It
            may have ``presets`` (name -> settings) and ``preset`` (the chosen name). A ``.json`` file, such as a run's
            ``experiment_config.json``, means exactly what it says.
        overrides: ``dotted.key=value``, with values typed as in YAML. A value that YAML would shorten or refuse is the
            text as given, and so is any value but null of a setting that is a text: ``007``, ``no``, ``[text]``.
            ``${text}`` is only that text. List items by index: ``stages.0.name=warmup``.
        model: the class of the configuration.

    Raises:
        ConfigError: the file cannot be read, or a setting is wrong. Names the key and, if it is unknown, the nearest
            valid one.
    """
    pairs = [_parse_override(item, model) for item in overrides]
    raw = _apply_preset(_read_file(Path(path)), pairs)
    pairs = _after_presets(pairs) if model is Config else pairs
    if Path(path).suffix == ".json":
        return _validated(_with(raw, pairs), model)
    return _validated(_interpolated(path, _with(raw, [(key, _literal(value)) for key, value in pairs])), model)


def load_saved_config(path: Path, overrides: Sequence[str], model: type[Settings]) -> Settings:
    """The configuration in a run's directory, with overrides. A directory may be another person's, so it cannot allow
    code to be run: only an override can.

    Raises:
        ConfigError: as ``load_config``, or the saved configuration allows code of the model, and no override does.
    """
    given = {item.partition("=")[0] for item in overrides}
    for section, values in _read_file(path).items():
        key = f"{section}.trust_remote_code"
        if isinstance(values, Mapping) and values.get("trust_remote_code") and key not in given:
            raise ConfigError(
                f"{key} must be given again for a saved configuration that has it, got none: {path.parent} may be "
                f"another person's, and it would run code. If you have read the model's code, add {key}=true."
            )
    return load_config(path, overrides, model)


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
    return validate_config(_with(config.model_dump(), _after_presets(list(settings.items()))))


def _read_file(path: Path) -> dict[Any, Any]:
    is_json = path.suffix == ".json"
    try:
        text = path.read_text("utf-8")
        settings = json.loads(text) if is_json else OmegaConf.to_container(OmegaConf.load(path))
        if not is_json:
            _refuse_old_numbers(text, f"config file {path}")
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"config file {path} cannot be read: {reason}. Recipes are in configs/.") from None
    except (YAMLError, UnicodeDecodeError, JSONDecodeError) as error:
        kind = "JSON" if is_json else "YAML"
        raise ConfigError(f"config file {path} must be {kind}: {' '.join(str(error).split())}") from None
    except OmegaConfBaseException as error:
        raise ConfigError(f"config file {path}: {first_line(error)}") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"config file {path} must hold settings by name, got a {type(settings).__name__}.")
    return settings


def _interpolated(path: str | Path, settings: dict[Any, Any]) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.create(settings), resolve=True)
    except InterpolationKeyError as error:
        raise ConfigError(
            f"config file {path}: {first_line(error)}. For the text itself, write a backslash before the dollar sign."
        ) from None
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"config file {path}: {first_line(error)}") from None


def _literal(value: Any) -> Any:
    """The value, in the form that interpolation turns back into it."""
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    if isinstance(value, list):
        return [_literal(item) for item in value]
    return {key: _literal(item) for key, item in value.items()} if isinstance(value, dict) else value


def _parse_override(item: str, model: type[StrictModel]) -> tuple[str, Any]:
    key, separator, text = item.partition("=")
    if not separator or not key:
        raise ConfigError(f"override must be key=value, got {item!r}.")
    try:
        value = _read_value(text, is_text=is_text_setting(model, key))
    except (YAMLError, OmegaConfBaseException):
        return key, text
    if not isinstance(value, str):
        _refuse_old_numbers(text.strip(), key)
    return key, value


def _refuse_old_numbers(text: str, place: object) -> None:
    """Raises ConfigError for numbers that YAML 1.1 reads to other bases than people do: 020 is 16, 1:20 is 80."""
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and _OLD_NUMBER.fullmatch(event.value):
            raise ConfigError(
                f"{place} must hold numbers without leading zeros and colons, got {event.value}: YAML reads it as "
                "octal, or to the base 60. Write the number in decimal, or a text in quotes."
            )


def _read_value(text: str, *, is_text: bool) -> Any:
    """A number, truth value, null, quoted text, list or mapping that is all of the text; otherwise the text itself.

    Raises:
        YAMLError, OmegaConfBaseException: it is not YAML.
    """
    whole = text.strip()
    node = yaml.compose(whole, Loader=yaml.SafeLoader)
    if node is None or node.end_mark.index < len(whole):
        return text
    if isinstance(node, yaml.ScalarNode):
        if node.style is None:
            value = OmegaConf.create(f"value: {whole}").value if node.value == whole else text
            return text if isinstance(value, str) or (is_text and value is not None) else value
        return node.value if node.style == whole[0] in "'\"" and "\n" not in whole else text
    if is_text or whole[0] not in "[{" or not (isinstance(node, yaml.CollectionNode) and node.flow_style):
        return text
    return OmegaConf.to_container(OmegaConf.create(whole))


SET_WHOLE = frozenset({"source_weights"})
"""Mappings that a later one replaces: a source that it leaves out has no weight."""


def _with(settings: dict[Any, Any], pairs: Sequence[tuple[str, Any]]) -> dict[Any, Any]:
    """The nested settings with dotted keys set in place. Sections that are missing are made."""
    for key, value in pairs:
        *sections, last = key.replace("[", ".").replace("]", "").split(".")
        place: Any = settings
        for section in sections:
            place = _child(place, section, key, make=True)
        old = _child(place, last, key)
        both = isinstance(old, dict) and isinstance(value, dict) and last not in SET_WHOLE
        place[int(last) if isinstance(place, list) else last] = _merged(old, value) if both else value
    return settings


def _after_presets(pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The pairs, behind everything that presets among them set: a preset that is set later than a setting wins."""
    given = _with({}, pairs).get(GRPOConfig.KIND)
    presets = preset_settings(given) if isinstance(given, dict) else {}
    return [*((f"{GRPOConfig.KIND}.{name}", value) for name, value in presets.items()), *pairs]


def _child(place: Any, name: str, key: str, *, make: bool = False) -> Any:
    """The value under one name of a dotted key. ``make`` adds an empty section if there is none."""
    if isinstance(place, dict):
        if make and place.get(name) is None:
            place[name] = {}
        return place.get(name)
    if isinstance(place, list) and name.isdecimal() and int(name) < len(place):
        return place[int(name)]
    what = f"a list of {len(place)}, counted from 0" if isinstance(place, list) else repr(place)
    raise ConfigError(f"{key} must name a setting that can be there, got {name} of {what}.")


def _merged(old: Mapping[Any, Any], new: Mapping[Any, Any]) -> dict[Any, Any]:
    """Nested settings laid over others."""
    both = {key for key in new if isinstance(new[key], dict) and isinstance(old.get(key), dict)} - SET_WHOLE
    return {**old, **new, **{key: _merged(old[key], new[key]) for key in both}}


def _apply_preset(raw: dict[Any, Any], pairs: list[tuple[str, Any]]) -> dict[Any, Any]:
    """Apply the chosen preset. ``preset`` and ``presets`` are not settings: both are removed from raw and pairs."""
    presets = raw.pop("presets", {}) or {}
    if not isinstance(presets, dict) or not all(isinstance(item, dict | None) for item in presets.values()):
        raise ConfigError(f"presets must hold settings by name for each preset, got {presets!r:.100}.")
    chosen = raw.pop("preset", None)
    for key, value in [pair for pair in pairs if pair[0] == "preset"]:
        chosen = value
        pairs.remove((key, value))
    if chosen is None:
        return raw
    if chosen not in list(presets):
        raise ConfigError(f"preset must be one of {sorted(map(str, presets)) or 'none in this file'}, got {chosen!r}.")
    return _merged(raw, presets[chosen] or {})
