"""Rules for the network and its input: image size, intensities, patches, augmentation, layers."""

from __future__ import annotations

import math
from dataclasses import replace

from ushape.config import AUTO
from ushape.errors import PlanError
from ushape.formatting import pluralize, size_text
from ushape.models import network_sizes
from ushape.planning.recipe import Recipe
from ushape.planning.rules.result import RuleResult, Situation, change
from ushape.transforms.augment import STRENGTHS, AugmentConfig

ENOUGH_PASSES = 30
"""Number of passes over each pixel below which coarser images are preferred."""

PIXELS_PER_S = {"cpu": 0.7e6, "mps": 5e6, "cuda": 40e6}
"""Assumed training speed before it is measured: per core on a CPU (21 patches of 256 x 256 pixels
per second on two cores), per device otherwise (an estimate)."""

SEVERAL_RECORDINGS = 3
"""Number of training groups from which on they, and new ones, are expected to differ."""


def choose_downscale(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Choose full size if the time allows it, otherwise the coarsest size that the masks allow."""
    source = (
        "Downscaled images are seen more often in the same time, with more context in each patch. "
        "A small data set, whose images are seen hundreds of times in any case, only loses detail: "
        "ISBI 2012 at half size has a pixel error of 0.095 (benchmarks/README.md). Masks that are "
        "downscaled and restored must have a Dice of at least 0.995, and the shorter side must "
        "have at least 256 pixels."
    )
    data = situation.data
    if recipe.preprocessing.shape is not None:
        recipe = change(recipe, "preprocessing", downscale=1)
        size = size_text(recipe.preprocessing.working_shape(data.median_shape))
        text = f"Images: resized to {size} pixels."
        return recipe, RuleResult(text=text, fact="preprocessing.shape is set", source=source)
    given = recipe.preprocessing.downscale
    factor = 1 if given == AUTO else int(given)
    if given == AUTO:
        for candidate, dice in sorted(data.round_trip_dice.items()):
            is_seen_enough = expected_passes(recipe, situation, factor) >= ENOUGH_PASSES
            is_kept = dice >= 0.995 and min(data.median_shape[-2:]) >= 256 * candidate
            if is_kept and not is_seen_enough:
                factor = candidate
    recipe = change(recipe, "preprocessing", downscale=factor)
    size = size_text([round(size / factor) for size in data.median_shape])
    passes = expected_passes(recipe, situation, 1)
    fact = (
        "set by the user"
        if given != AUTO
        else f"each pixel would be seen {passes:.1f} times on average at full size"
    )
    trips = ", ".join(f"{dice:.4f} at 1/{f}" for f, dice in sorted(data.round_trip_dice.items()))
    trips = f"; downscaled and restored masks have a Dice of {trips}" if trips else ""
    if factor == 1:
        text = f"Images: at full size, {size} pixels (median)."
        alternative = f"smaller images{trips}"
    else:
        lost = data.round_trip_dice.get(factor)
        kept = f"; downscaled and restored masks have a Dice of {lost:.4f}" if lost else ""
        text = f"Images: downscaled by a factor of {factor} to {size} pixels (median){kept}."
        alternative = f"full size, or another factor{trips}"
    return recipe, RuleResult(text=text, fact=fact, alternative=alternative, source=source)


def choose_intensity(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Choose statistics of each image, or of the training data if the scale is absolute."""
    source = (
        "Scanners, staining and illumination differ between groups, so each image is normalized "
        "by its own statistics, as nnU-Net does except for CT: on brain MRI of unseen patients the "
        "Dice is 0.79 instead of 0.42 (docs/explanation/decisions/intensities.md). Values below "
        "zero indicate an absolute scale (Hounsfield units), which is preserved."
    )
    lowest = min(situation.data.normalization.low)
    chosen = recipe.preprocessing.intensity
    if chosen == AUTO:
        chosen = "data" if lowest < 0 else "image"
    recipe = change(recipe, "preprocessing", intensity=chosen)
    if chosen == "min_max":
        text = "Intensities: each image is rescaled from its own range to [0, 1]."
        return recipe, RuleResult(text=text, fact="set by the user", source=source)
    basis = {"data": "the training data", "image": "each image", "group": "each group"}
    text = f"Intensities: clipped and standardized with the statistics of {basis[chosen]}."
    fact = f"the intensities of the training data begin at {lowest:.4g}"
    alternative = f"preprocessing.intensity={'image' if chosen == 'data' else 'data'}"
    return recipe, RuleResult(text=text, fact=fact, alternative=alternative, source=source)


def expected_passes(recipe: Recipe, situation: Situation, factor: int) -> float:
    """Return how often training is expected to see each pixel of images downscaled by a factor."""
    train, machine, data = recipe.train, situation.machine, situation.data
    if train.epochs is not None:
        return train.epochs
    speed = PIXELS_PER_S[machine.device] * (machine.cores if machine.device == "cpu" else 1)
    pixels = data.pixels_per_epoch / factor ** len(data.median_shape)
    return 60 * (train.minutes or 0.0) * speed / pixels


def choose_patch(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Choose the whole image if it is small enough, otherwise a window."""
    sampling, data = recipe.sampling, situation.data
    limit, patch = patch_limit(situation), sampling.patch_shape
    if patch == AUTO:
        shape = recipe.preprocessing.working_shape(data.median_shape)
        sizes = [min(size, limit) for size in shape]
        # The output of a network without padding is smaller than its input.
        network = network_sizes(recipe.network)
        patch = tuple(network.legal_size(size + 2 * network.margin) for size in sizes)
    recipe = change(recipe, "sampling", patch_shape=patch)
    return recipe, RuleResult(
        text=f"Patches: {size_text(patch)} pixels.",
        fact=f"at most {limit} pixels along a side on this device",
        alternative="half the size and twice the number of patches",
        source="A patch is the whole image if it is small enough, otherwise a part of it, in a "
        "size that the network accepts.",
    )


def choose_augmentation(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Choose free rotation if no direction is special, otherwise small angles."""
    source = "Images are rotated and mirrored freely unless a direction has a meaning in the data."
    data = situation.data
    if recipe.augment != AUTO:
        fact = "set by the recipe"
        return recipe, RuleResult(text="Augmentation: as in the recipe.", fact=fact, source=source)
    chosen = STRENGTHS["full" if data.rotates_freely else "upright"]
    chosen = AugmentConfig(
        geometry=replace(chosen.geometry, flip_axes=data.mirror_axes), intensity=chosen.intensity
    )
    turning = "any angle" if data.rotates_freely else "small angles (images have an orientation)"
    mirrored = "y and x" if len(data.mirror_axes) > 1 else "x" if data.mirror_axes else "no axis"
    return replace(recipe, augment=chosen), RuleResult(
        text=f"Augmentation: rotation by {turning}, mirroring along {mirrored}, scaling, shifts, "
        "elastic deformation, and changes of intensity.",
        fact=f"groups look {'similar' if data.rotates_freely else 'different'} when rotated",
        alternative="small angles" if data.rotates_freely else "any angle",
        source=source,
    )


def patch_limit(situation: Situation) -> int:
    """Return the longest side of a patch in pixels."""
    if len(situation.data.median_shape) == 3:
        return 96
    return 256 if situation.machine.device == "cpu" else 512


def choose_network(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Choose depth by the size of images and patches, width by the device.

    Raises:
        PlanError: if the recipe asks for more dimensions than the images have.
    """
    network, data = recipe.network, situation.data
    if network.dims > len(data.median_shape):
        raise PlanError(
            f"network.dims is {network.dims}, but the images have {len(data.median_shape)} axes.",
            code="dimensions_mismatch",
            hint="Omit network.dims; it is set to the number of axes of the images.",
        )
    widths = network.widths
    if widths == AUTO:
        shape = recipe.preprocessing.working_shape(data.median_shape)
        smallest = min(*shape[-2:], patch_limit(situation))
        coarsest = 16 if len(shape) == 2 else 8
        levels = max(2, min(6, 1 + int(math.log2(max(2.0, smallest / coarsest)))))
        base = 32 if situation.machine.device != "cpu" else 16
        widths = tuple(min(base * 2**level, 16 * base) for level in range(levels))
    recipe = change(recipe, "network", widths=widths, dims=len(data.median_shape))
    scale = recipe.preprocessing.working_shape(data.median_shape)[-1] / data.median_shape[-1]
    name = "U-Net" if network.architecture == "unet" else network.architecture
    field = network_sizes(recipe.network).receptive_field
    field_text = "" if field is None else f", receptive field of {field} pixels"
    levels_text = f", {len(widths)} levels of {', '.join(map(str, widths))} channels"
    return recipe, RuleResult(
        # A custom network may ignore the widths.
        text=f"Network: {name}{'' if network.is_custom else levels_text}.",
        fact=f"{situation.machine.device}; objects of about {data.object_size * scale:.0f} pixels"
        f"{field_text}",
        alternative="half or twice the width, or one level more or less",
        source="Levels are added until the coarsest is 16 pixels wide (volumes: 8), up to 6. One "
        "more level did not improve the Dice on any data set, even if objects were as large as the "
        "receptive field. On a CPU, a narrower network with more steps has a higher Dice in the "
        "same time (benchmarks/plan.md).",
    )


def choose_norm(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Choose instance normalization for several recordings, batch normalization for one stack."""
    norm, recordings = recipe.network.norm, situation.data.recordings
    if norm == AUTO:
        norm = "instance" if recordings >= SEVERAL_RECORDINGS else "batch"
    recipe = change(recipe, "network", norm=norm)
    text = "Norm: none." if norm == "none" else f"Norm: {norm} norm after each convolution."
    if recipe.network.is_custom:
        text = f"Norm: as the network defines it (network.norm is {norm})."
    return recipe, RuleResult(
        text=text,
        fact=f"training images come from {pluralize(recordings, 'recording')}",
        alternative=f"network.norm={'batch' if norm == 'instance' else 'instance'}",
        source="Recordings differ in more than brightness, so each image is normalized by itself. "
        "Within one stack the statistics of a batch are better (benchmarks/README.md, Norm).",
    )
