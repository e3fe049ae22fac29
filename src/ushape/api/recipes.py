"""List the recipes, or print one as an editable file."""

from __future__ import annotations

from ushape import config
from ushape.planning.recipe import RARE_KEYS
from ushape.planning.recipes import RECIPES, load_recipe


def recipes(name: str | None = None, *, all_keys: bool = False) -> str:
    """Return the names of all recipes with a line each, or one recipe as an editable YAML file.

    Args:
        all_keys: Whether to include keys that few users need and that have their defaults.
    """
    if name is not None:
        return config.explain(load_recipe(name), hidden=() if all_keys else RARE_KEYS)
    width = max(map(len, RECIPES))
    firsts = {key: (make.__doc__ or "").split("\n")[0] for key, make in RECIPES.items()}
    return "".join(f"{key:{width}}  {line}\n" for key, line in firsts.items())
