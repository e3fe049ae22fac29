"""How whole images are predicted."""

from __future__ import annotations

from ushape.planning.recipe import AUTO, Recipe, settled
from ushape.planning.rules.decision import Decision, Situation, change, size_text


def choose_prediction(recipe: Recipe, situation: Situation) -> tuple[Recipe, Decision]:
    """Few large tiles: with batch norm or none, a larger tile only saves overlap.

    Instance and group norm see the tile's own statistics: tiles of the patch size.
    """
    predict = recipe.predict
    tile = predict.tile_shape
    patch = settled(recipe.sampling.patch_shape)
    if tile == AUTO:
        in_plane = 1024 if len(patch) == 2 else 160
        limit = in_plane if recipe.network.norm in ("none", "batch") else 0
        tile = tuple(max(size, limit) for size in patch)
    average = "none" if predict.average == AUTO else predict.average
    recipe = change(recipe, "predict", tile_shape=tile, average=average)
    versions = "each seen once" if average == "none" else f"averaged over versions ({average})"
    text = f"Prediction: tiles of up to {size_text(tile)} pixels, {versions}."
    fact = f"{recipe.network.norm} norm"
    return recipe, Decision(text, fact, "predict.average=mirrored, four times slower")
