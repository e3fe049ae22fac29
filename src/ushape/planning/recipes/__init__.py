"""Named recipes: short functions that return a Recipe, with their paper cited."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from ushape import config
from ushape.errors import ConfigError
from ushape.formatting import reason
from ushape.planning.recipe import Recipe
from ushape.planning.recipes.cars import carvana_1024, carvana_original
from ushape.planning.recipes.em import isbi2012, unet2015
from ushape.planning.recipes.mri import lgg_bce_dice, lgg_buda, lgg_onecycle


def auto() -> Recipe:
    """Planned from the data, the machine and the minutes. No paper: ours."""
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


def load_recipe(name_or_file: str) -> Recipe:
    """A recipe by its name, or from a YAML file that `ushape recipes NAME` wrote.

    Raises:
        ConfigError: neither a name nor a file; a key or a value in the file that is none.
    """
    if name_or_file in RECIPES:
        return RECIPES[name_or_file]()
    path = Path(name_or_file)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{path}: not readable: {reason(error)}.",
                hint="A recipe is what `ushape recipes` prints.",
            ) from None
        return config.parse(Recipe, text, source=str(path))
    near = difflib.get_close_matches(name_or_file, RECIPES, n=3, cutoff=0.4)
    raise ConfigError(
        f"No recipe {name_or_file}: neither a name nor a YAML file.",
        hint=f"{'Near' if near else 'Known'} names: {', '.join(near or RECIPES)}. "
        "`ushape recipes auto > mine.yaml` makes a file to edit.",
    )
