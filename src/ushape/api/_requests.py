"""Requests stored in the file of a series, including those stored by earlier versions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ushape import config
from ushape.api.plan import optional_path
from ushape.console import Console
from ushape.errors import ConfigError
from ushape.io.files import real_path
from ushape.planning.recipe import Recipe

BEFORE: Mapping[str, Any] = {
    "network.deep_supervision": 0,
    "network.kernels": "equal",
    "network.strides": "equal",
    "predict.mirror_axes": [-2, -1],
    "predict.slide_mpp": None,
    "preprocessing.distances": "pixels",
    "preprocessing.divide_above_px": None,
    "preprocessing.slices": None,
    "preprocessing.slide_mpp": None,
    "preprocessing.spacing_mm": None,
    "preprocessing.target_spacing_mm": None,
    "split.stratify_classes": False,
    "train.monitor": "validation_dice",
    "train.head_lr_factor": 1.0,
    "train.patch_source": "auto",
    "train.threads": "auto",
}
"""Defaults of earlier versions for settings that have changed since or were not stored yet."""


def describe_request(
    data: Path | str, masks: Path | str | None, recipe: Recipe, **more: Any
) -> dict[str, Any]:
    """Return the request as it is stored in the JSON file of a series."""
    masks_path = optional_path(masks)
    return {
        "data": str(real_path(Path(data))),
        "masks": str(real_path(masks_path)) if masks_path else None,
        **more,
        "recipe": config.to_dict(recipe),
    }


def complete_recipe(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the recipe with which a series continues, or None if a different one is requested.

    A series of an earlier version continues with the defaults of that version, so that all its runs
    have the same settings.

    Args:
        stored: Recipe as stored by `describe_request`, possibly in an earlier version.
        wanted: Recipe of the call that continues the series, as `describe_request` returns it.
    """
    stored = config.with_current_names(Recipe, stored)
    if stored == wanted:
        return dict(wanted)
    missing = BEFORE.keys() - _flat(stored).keys()
    if not missing:
        return None
    try:
        completed = config.to_dict(config.from_dict(Recipe, stored, source="recipe"))
    except ConfigError:
        return None  # Settings that this version does not know.
    for key in missing:
        section, name = key.split(".")
        completed[section][name] = BEFORE[key]
    old, new, defaults = _flat(completed), _flat(wanted), _flat(config.to_dict(Recipe()))
    changed_keys = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
    is_same = all(
        key in BEFORE and old[key] == BEFORE[key] and new[key] == defaults[key]
        for key in changed_keys
    )
    return completed if is_same else None


def continue_recipe(stored: Mapping[str, Any], recipe: Recipe, console: Console) -> Recipe:
    """Return the recipe completed by `Series.find`, and print how it differs from a recipe."""
    old, new = _flat(stored), _flat(config.to_dict(recipe))
    if old == new:
        return recipe
    changed = [f"{key}={old[key]}" for key in BEFORE if old[key] != new[key]]
    console.say(f"Settings of an earlier version, as in the first run: {', '.join(changed)}.")
    return config.from_dict(Recipe, stored, source="recipe")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by the dotted path of their key."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
