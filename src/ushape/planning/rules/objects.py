"""Objects: connected components, or objects that the network learns to separate."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from ushape.config import AUTO
from ushape.errors import ConfigError
from ushape.instances.label import ObjectConfig
from ushape.instances.touching import MOSTLY_TOUCHING
from ushape.metrics.instance import MANY_OBJECTS
from ushape.planning.fingerprint import Fingerprint
from ushape.planning.recipe import Recipe
from ushape.planning.rules.result import RuleResult, Situation, change

MIN_DISTANCE_PX = 3.0
"""Smallest distance to the border that is learned: below it, borders are hardly visible."""

DISTANCE_SHARE = 0.25
"""Largest distance that is learned, as a share of the longer side of a typical object."""


MIN_JOINED = 0.05
"""Share of the objects marked by shapes or files that touch another one of their class, from which
the network learns to separate them."""


def choose_objects(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Decide whether the network learns to separate objects, and describe what an object is.

    Raises:
        ConfigError: if predict.objects contradicts labels.objects.
    """
    data, labels, objects = situation.data, recipe.labels, recipe.predict.objects
    chosen = settle_objects(recipe, data)
    _refuse_conflict(chosen, objects)
    most_px = labels.max_distance_px
    if chosen == "distance":
        size = data.object_size / max(
            recipe.preprocessing.downscale_factors(len(data.median_shape))
        )
        most_px = most_px or max(MIN_DISTANCE_PX, round(DISTANCE_SHARE * size, 1))
        if objects.separation == "none":
            recipe = change(
                recipe, "predict", objects=replace(objects, separation="learned_distance")
            )
    recipe = change(recipe, "labels", objects=chosen, max_distance_px=most_px)
    if data.numbered_objects > 1:
        fact = f"the masks number about {data.numbered_objects:.0f} objects per image"
        if data.joined_share < 1:
            fact += f", of which {data.joined_share:.0%} touch another one of their class"
    else:
        fact = (
            f"about {data.objects_per_case:.0f} components per mask, of which "
            f"{data.touching_share:.0%} nearly touch another one"
        )
    if chosen == "distance":
        text = (
            "Objects: the network also learns the distance to the border of the object, up to "
            f"{most_px:g} pixels{_unit_text(recipe, len(data.median_shape))}, to separate objects "
            f"({fact}). To count connected components instead: --set labels.objects=connected."
        )
        if data.slices_per_case is not None:
            text += (
                " The distance is measured within each slice, so objects that touch one in the "
                "next slice may be joined; networks in 3D separate them as well "
                "(--set preprocessing.slices=null)."
            )
    else:
        text = "Objects: connected components of a class."
        if not labels.regions:  # Regions overlap, so that their pixels have several objects.
            text += " If objects touch: --set labels.objects=distance."
    other = "connected" if chosen == "distance" else "distance"
    return recipe, RuleResult(
        text=text,
        fact=fact,
        alternative="" if labels.regions else f"labels.objects={other}",
        source="Connected components are correct only if objects do not touch: one gap in a "
        "membrane joins two cells. A learned distance to the border separates them "
        "(benchmarks/objects.md).",
    )


def _unit_text(recipe: Recipe, dims: int) -> str:
    """Return which pixels are the unit of distances; '' if they have the same length in all axes.

    Args:
        dims: Number of axes of the images.
    """
    lengths = recipe.preprocessing.relative_lengths(dims)
    if max(lengths) == 1:
        return ""
    relative = ", ".join(f"{length:.3g}" for length in lengths)
    return (
        f" of the finest axis (voxels have the relative lengths {relative}; "
        "--set preprocessing.distances=pixels counts steps along all axes alike)"
    )


def settle_objects(recipe: Recipe, data: Fingerprint) -> Literal["connected", "distance"]:
    """Return what an object is: as set in the recipe, otherwise as the masks suggest."""
    labels = recipe.labels
    if labels.objects != AUTO:
        return labels.objects
    are_numbered = data.numbered_objects > 1 and data.joined_share >= MIN_JOINED
    are_many = data.objects_per_case > MANY_OBJECTS and data.touching_share >= MOSTLY_TOUCHING
    is_usual = recipe.name == AUTO and not labels.regions and not _is_stated(recipe.predict.objects)
    return "distance" if is_usual and (are_numbered or are_many) else "connected"


def _is_stated(objects: ObjectConfig) -> bool:
    """Return whether the recipe separates objects without a learned distance."""
    return objects.border_class is not None or objects.separation in (
        "distance_transform",
        "probability",
    )


def _refuse_conflict(chosen: str, objects: ObjectConfig) -> None:
    if chosen == "connected" and objects.separation == "learned_distance":
        raise ConfigError(
            "predict.objects.separation is learned_distance, but labels.objects is connected.",
            code="settings_conflict",
            hint="Train with --set labels.objects=distance.",
        )
    if chosen == "distance" and objects.border_class is not None:
        raise ConfigError(
            "labels.objects is distance, but predict.objects.border_class is set as well.",
            code="settings_conflict",
            hint="Use one of them: each separates objects that touch.",
        )
