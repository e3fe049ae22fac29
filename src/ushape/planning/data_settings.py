"""Settings in a file `ushape.yaml` in the data folder, applied by all commands that read data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ushape import config
from ushape.errors import ConfigError
from ushape.formatting import reason
from ushape.planning.recipe import Recipe

SETTINGS_FILE = "ushape.yaml"


def apply_data_settings(recipe: Recipe, data: Path) -> tuple[Recipe, str]:
    """Complete a recipe with the settings in `ushape.yaml` in the data folder.

    Settings in which the recipe differs from the defaults are kept. The file has the keys of a
    recipe, nested or with dots (`labels.values: [0, 255]`).

    Args:
        data: Data folder, or a table or COCO file in it.

    Returns:
        The recipe and a sentence about the settings that were applied; '' if there are none.

    Raises:
        ConfigError: if the file cannot be read, if a key is unknown, or if a value is impossible.
    """
    path = (data if data.is_dir() else data.parent) / SETTINGS_FILE
    if not path.exists():
        return recipe, ""
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read: {reason(error)}.",
            code="unreadable_file",
            hint="Save it as UTF-8, with a key and its value in each line, such as groups: none.",
        ) from None
    mark = f"{SETTINGS_FILE} {hashlib.sha256(content).hexdigest()[:12]}"
    if recipe.settings_file == mark:
        return recipe, ""
    default, from_file = config.to_dict(Recipe()), config.to_dict(_parse(text, path))
    values = _complete(config.to_dict(recipe), from_file, default)
    applied = [f"{key}={value}" for key, value in _differences(from_file, default, "")]
    completed = config.from_dict(Recipe, {**values, "settings_file": mark}, source=str(path))
    return completed, f"Settings in {path}: {', '.join(applied) or 'none'}."


def _parse(text: str, path: Path) -> Recipe:
    """Return the settings of the file; errors name it."""
    values = _nested(config.parse_mapping(text, source=str(path)))
    try:
        return config.from_dict(Recipe, values, source=str(path))
    except ConfigError as error:
        if str(path) in error.message:
            raise
        message = f"{path}: {error.message}"
        raise ConfigError(message, code=error.code, hint=error.hint) from None


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with each key such as `labels.values` as a key of a section."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        *sections, last = str(key).split(".")
        target = found
        for section in sections:
            inner = target.setdefault(section, {})
            target = inner if isinstance(inner, dict) else target
        if isinstance(value, Mapping) and isinstance(target.get(last), dict):
            target[last].update(value)
        else:
            target[last] = dict(value) if isinstance(value, Mapping) else value
    return found


def _complete(recipe: Any, from_file: Any, default: Any) -> Any:
    """Return the recipe's values; where they are the default, those of the file."""
    if isinstance(recipe, dict) and isinstance(from_file, dict) and isinstance(default, dict):
        return {key: _complete(recipe[key], from_file[key], default[key]) for key in recipe}
    return from_file if recipe == default else recipe


def _differences(values: Any, default: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(values, dict) and isinstance(default, dict):
        for key in values:
            yield from _differences(values[key], default[key], f"{path}.{key}".lstrip("."))
    elif values != default:
        shown = yaml.safe_dump(values, default_flow_style=True, width=1000)
        yield path, shown.strip().removesuffix("...").strip()
