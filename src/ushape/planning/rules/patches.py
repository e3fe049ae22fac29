"""What the network is shown: size, choice and variation of patches."""

from __future__ import annotations

import math
from dataclasses import replace

from ushape.config import AUTO, resolved
from ushape.formatting import size_text
from ushape.models import network_sizes
from ushape.planning.fingerprint import Fingerprint
from ushape.planning.recipe import Recipe
from ushape.planning.rules.result import RuleResult, Situation, change
from ushape.transforms.augment import STRENGTHS, AugmentConfig


def choose_patch(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """The whole image where it is small enough, else a window; legal for the network."""
    sampling, data = recipe.sampling, situation.data
    patch = sampling.patch_shape
    if patch == AUTO:
        limit = patch_limit(situation)
        shape = recipe.preprocessing.working_shape(data.median_shape)
        sizes = [min(size, limit) for size in shape]
        # The output of a network without padding is smaller than its input.
        network = network_sizes(recipe.network)
        patch = tuple(network.legal_size(size + 2 * network.margin) for size in sizes)
    recipe = change(recipe, "sampling", patch_shape=patch)
    fact = f"at most {patch_limit(situation)} pixels along a side on this device"
    text = f"Patches: {size_text(patch)} pixels."
    return recipe, RuleResult(text, fact, "half the size, twice the number")


def choose_sampling(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Half of the patches shall show foreground; where patches anywhere do, none is sought.

    nnU-Net centers a third of them on foreground in any case: no gain where it is not rare
    (benchmarks/plan.md).
    """
    share = recipe.sampling.foreground_fraction
    if recipe.sampling.draw != "foreground":
        recipe = change(recipe, "sampling", foreground_fraction=0.0)
        text = f"Sampling: {recipe.sampling.draw.replace('_', ', then ')}."
        return recipe, RuleResult(text, "as set")
    present = situation.data.foreground_cases
    seen = present * _chance_of_hit(recipe, situation.data)
    if share == AUTO:
        share = round(max(0.0, (0.5 - seen) / max(1e-6, 1 - seen)), 2)
    recipe = change(recipe, "sampling", foreground_fraction=share)
    text = (
        f"Sampling: {share:.0%} of the patches centered on foreground, which {present:.0%} of the "
        "training cases hold."
    )
    fact = f"about {seen:.0%} of the patches anywhere show foreground"
    return recipe, RuleResult(text, fact, "sampling.foreground_fraction=0.33")


def _chance_of_hit(recipe: Recipe, data: Fingerprint) -> float:
    """That a patch anywhere in a case with foreground shows some of it, about: objects are taken
    for boxes that lie by chance."""
    patch = resolved(recipe.sampling.patch_shape)
    shape = recipe.preprocessing.working_shape(data.median_shape)
    scale = shape[-1] / data.median_shape[-1]
    reach = [
        min(1.0, (p + data.object_size * scale) / s) for p, s in zip(patch, shape, strict=True)
    ]
    return min(1.0, data.objects_per_case * math.prod(reach))


def choose_augmentation(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Turned at will where no direction is special, else small angles; mirrored likewise."""
    data = situation.data
    if recipe.augment != AUTO:
        return recipe, RuleResult("Augmentation: as set.", "the recipe")
    chosen = STRENGTHS["full" if data.turns_freely else "upright"]
    chosen = AugmentConfig(
        geometry=replace(chosen.geometry, flip_axes=data.mirror_axes), intensity=chosen.intensity
    )
    turning = "any angle" if data.turns_freely else "small angles (the data have an upright)"
    mirrored = "y and x" if len(data.mirror_axes) > 1 else "x" if data.mirror_axes else "none"
    text = (
        f"Augmentation: {turning}; mirrored along {mirrored}; scale, shift, elastic, gray values."
    )
    fact = "groups look " + ("alike" if data.turns_freely else "different") + " when turned"
    other = "small angles" if data.turns_freely else "any angle"
    return replace(recipe, augment=chosen), RuleResult(text, fact, other)


def patch_limit(situation: Situation) -> int:
    """Longest side of a patch, pixels."""
    if len(situation.data.median_shape) == 3:
        return 96
    return 256 if situation.machine.device == "cpu" else 512
