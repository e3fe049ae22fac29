"""List the recipes, or show one as an editable file."""

from __future__ import annotations

from ushape import config
from ushape.planning.recipe import RARE_KEYS
from ushape.planning.recipes import RECIPES, load_recipe


def recipes(name: str | None = None, *, all_keys: bool = False) -> str:
    """List the recipes, or show one as a YAML file to edit.

    Args:
        name: Recipe to show; without it, all recipes are listed.
        all_keys: Also show rarely used keys that have their default value.

    Returns:
        The text that the command prints.
    """
    if name is not None:
        return config.explain(load_recipe(name), hidden=() if all_keys else RARE_KEYS)
    width = max(map(len, RECIPES))
    firsts = {key: (make.__doc__ or "").split("\n")[0] for key, make in RECIPES.items()}
    return "".join(f"{key:{width}}  {line}\n" for key, line in firsts.items())
