"""How whole images are predicted."""

from __future__ import annotations

from dataclasses import replace

from ushape.planning.recipe import AUTO, Recipe, settled
from ushape.planning.rules.decision import Decision, Situation, change
from ushape.words import size_text

OVERLAP_PX = 64
"""Of neighbouring tiles: half of it is how far the edge of a tile lies from what it counts for."""


def choose_prediction(recipe: Recipe, situation: Situation) -> tuple[Recipe, Decision]:
    """Few large tiles, which overlap by 64 pixels: most of the time of a large image goes into
    what is computed twice (benchmarks/README.md, Prediction speed).

    Instance and group norm see the tile's own statistics: tiles of about the patch size.
    """
    predict = recipe.predict
    tile = predict.tile_shape
    patch = settled(recipe.sampling.patch_shape)
    if tile == AUTO:
        in_plane = 1024 if len(patch) == 2 else 160
        limit = in_plane if recipe.network.norm in ("none", "batch") else 0
        tile = tuple(max(size, limit) for size in patch)
    overlap = predict.tiling.overlap_fraction
    if overlap == AUTO:
        overlap = round(min(0.25, OVERLAP_PX / min(tile)), 4)
    average = "none" if predict.average == AUTO else predict.average
    tiling = replace(predict.tiling, overlap_fraction=overlap)
    recipe = change(recipe, "predict", tile_shape=tile, average=average, tiling=tiling)
    versions = "each seen once" if average == "none" else f"averaged over versions ({average})"
    text = (
        f"Prediction: tiles of about {size_text(tile)} pixels that overlap by {overlap:.0%}, "
        f"{versions}."
    )
    fact = f"{recipe.network.norm} norm"
    return recipe, Decision(text, fact, "predict.average=mirrored, four times slower")
