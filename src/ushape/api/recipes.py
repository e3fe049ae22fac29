"""List the recipes, or print one as an editable file."""

from __future__ import annotations

from ushape import config
from ushape.planning.recipes import RECIPES, load_recipe


def recipes(name: str | None = None) -> str:
    """The names of all recipes with their first line; or one recipe as an editable YAML file."""
    if name is not None:
        return config.explain(load_recipe(name))
    width = max(map(len, RECIPES))
    firsts = {key: (make.__doc__ or "").split("\n")[0] for key, make in RECIPES.items()}
    return "".join(f"{key:{width}}  {line}\n" for key, line in firsts.items())
