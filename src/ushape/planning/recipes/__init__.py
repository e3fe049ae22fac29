"""Named recipes: functions that return a Recipe and cite their paper."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from ushape import config
from ushape.config import is_custom
from ushape.errors import ConfigError
from ushape.formatting import reason
from ushape.planning.custom_code import load_custom_recipe, refuse_objects
from ushape.planning.recipe import Recipe
from ushape.planning.recipes.published import (
    carvana_1024,
    carvana_original,
    isbi2012,
    lgg_bce_dice,
    lgg_buda,
    lgg_onecycle,
    unet2015,
)


def auto() -> Recipe:
    """Planned from the data, the machine and the available time; not from a paper."""
    return Recipe(name="auto")


RECIPES: dict[str, Callable[[], Recipe]] = {
    "auto": auto,
    "unet2015": unet2015,
    "isbi2012": isbi2012,
    "lgg-onecycle": lgg_onecycle,
    "lgg-bce-dice": lgg_bce_dice,
    "lgg-buda": lgg_buda,
    "carvana-original": carvana_original,
    "carvana-1024": carvana_1024,
}


def load_recipe(recipe: Recipe | str) -> Recipe:
    """Return a recipe by its name, or read it from a file.

    Args:
        recipe: A recipe, which is returned as it is; a name; a YAML file that `ushape recipes NAME`
            wrote; or a function of a Python file, FILE.py:FUNCTION, see `load_custom_recipe`.

    Raises:
        ConfigError: if it is neither a name nor a file, or if the file has an unknown key or an
            impossible value.
    """
    if isinstance(recipe, Recipe):
        return refuse_objects(recipe)
    if recipe in RECIPES:
        return RECIPES[recipe]()
    if is_custom(recipe):
        return load_custom_recipe(recipe)
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{path} cannot be read: {reason(error)}.",
                code="unreadable_file",
                hint="Write a recipe with `ushape recipes auto > mine.yaml`, and edit it.",
            ) from None
        return config.parse(Recipe, text, source=str(path))
    near = difflib.get_close_matches(recipe, RECIPES, n=3, cutoff=0.4)
    raise ConfigError(
        f"{recipe} is neither the name of a recipe, nor a YAML file, nor FILE.py:FUNCTION.",
        code="unknown_recipe",
        hint=f"{'Similar' if near else 'Known'} names: {', '.join(near or RECIPES)}. "
        "`ushape recipes auto > mine.yaml` writes a file to edit.",
    )
