"""Rules for the network and its input: intensities, sampling, augmentation, layers."""

from __future__ import annotations

import math
from dataclasses import replace

from ushape.config import AUTO, resolved
from ushape.errors import PlanError
from ushape.formatting import pluralize, size_text
from ushape.models import network_sizes
from ushape.models.pretrained import has_synthetic_weights
from ushape.planning.recipe import Recipe
from ushape.planning.rules.axes import (
    describe_axes,
    fine_axes,
    still_axes,
    voxel_lengths,
    with_axes,
)
from ushape.planning.rules.resolution import (
    choose_stem,
    expected_steps,
    patch_limit,
    window_shape,
)
from ushape.planning.rules.result import RuleResult, Situation, change
from ushape.transforms.augment import STRENGTHS, AugmentConfig

SEVERAL_RECORDINGS = 3
"""Number of training groups from which on they, and new ones, are expected to differ."""

MANY_STEPS = 5_000
"""Number of expected steps from which on a planned network is trained with deep supervision."""

NEW_HEAD_LR_FACTOR = 5.0
"""Learning rate of a random last layer behind pretrained ones, relative to theirs."""

EXTRA_OUTPUTS = 2
"""Number of additional outputs of deep supervision."""


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


def choose_augmentation(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Choose free rotation if no direction is special, otherwise small angles."""
    source = (
        "Images are rotated and mirrored freely unless a direction has a meaning in the data. An "
        "axis whose voxels are more than 3 times as long as the shortest is not deformed (nnU-Net)."
    )
    data = situation.data
    if recipe.augment != AUTO:
        fact = "set by the recipe"
        return recipe, RuleResult(text="Augmentation: as in the recipe.", fact=fact, source=source)
    still = still_axes(voxel_lengths(recipe, situation))
    # Rotation is tested on the last two axes, within slices along the first.
    is_tested = still in ((), (0,))
    rotates_freely = data.rotates_freely and is_tested
    chosen = STRENGTHS["full" if rotates_freely else "upright"]
    geometry = replace(chosen.geometry, flip_axes=data.mirror_axes, still_axes=still)
    chosen = AugmentConfig(geometry=geometry, intensity=chosen.intensity)
    within = ", all within the slices, whose distance is large" if still else ""
    turning = "any angle" if rotates_freely else "small angles (images have an orientation)"
    fact = f"groups look {'similar' if data.rotates_freely else 'different'} when rotated"
    if not is_tested:
        turning = "small angles"
        fact = "slices do not lie along z, and only rotation in the plane of y and x was tested"
    mirrored = "y and x" if len(data.mirror_axes) > 1 else "x" if data.mirror_axes else "no axis"
    return replace(recipe, augment=chosen), RuleResult(
        text=f"Augmentation: rotation by {turning}, mirroring along {mirrored}, scaling, shifts, "
        f"elastic deformation{within}, and changes of intensity.",
        fact=fact,
        alternative="small angles" if rotates_freely else "any angle",
        source=source,
    )


def choose_network(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Choose depth by the size of images and patches, width by the device.

    Raises:
        PlanError: if the recipe asks for more dimensions than the images have.
        ConfigError: if it has settings for another number of axes.
    """
    network, data = recipe.network, situation.data
    if network.dims > len(data.median_shape):
        raise PlanError(
            f"network.dims is {network.dims}, but the images have {len(data.median_shape)} axes.",
            code="dimensions_mismatch",
            hint="Omit network.dims; it is set to the number of axes of the images.",
        )
    network.check_dims(len(data.median_shape))
    widths, stem = network.widths, choose_stem(recipe, situation)
    lengths = voxel_lengths(recipe, situation)
    window = _choose_window(recipe, situation, lengths)
    is_planned = widths == AUTO
    if widths == AUTO:
        levels = _choose_levels(recipe, situation, window)
        base = 32 if situation.machine.device != "cpu" else 16
        widths = tuple(min(base * 2**level, 16 * base) for level in range(levels))
    recipe = change(recipe, "network", widths=widths, stem=stem, dims=len(data.median_shape))
    network = with_axes(recipe.network, lengths, window)
    if network.deep_supervision == AUTO:
        extra = _count_extra_outputs(recipe, situation, window, is_planned=is_planned)
        network = replace(network, deep_supervision=extra)
    recipe = replace(recipe, network=network)
    scale = recipe.preprocessing.working_shape(data.median_shape)[-1] / data.median_shape[-1]
    name = "U-Net" if network.architecture == "unet" else network.architecture
    field = network_sizes(recipe.network).receptive_field
    field_size = size_text(field) if isinstance(field, tuple) else field
    field_text = "" if field is None else f", receptive field of {field_size} pixels"
    levels_text = f", {len(widths)} levels of {', '.join(map(str, widths))} channels"
    if max(network.stem_factors) > 1:
        block = size_text(network.stem_factors)
        levels_text += f", the first of which combines blocks of {block} pixels"
    levels_text += describe_axes(network)
    if network.extra_outputs:
        levels_text += f", deep supervision by {pluralize(network.extra_outputs, 'coarser output')}"
    return recipe, RuleResult(
        # A custom network may ignore the widths.
        text=f"Network: {name}{'' if network.is_custom else levels_text}.",
        fact=f"{situation.machine.device}; objects of about {data.object_size * scale:.0f} pixels"
        f"{field_text}",
        alternative="half or twice the width, or one level more or less",
        source="Levels are added until the coarsest is 16 pixels wide (volumes: 8), up to 6. One "
        "more level did not improve the Dice on any dataset, even if objects were as large as the "
        "receptive field. On a CPU, a narrower network with more steps has a higher Dice in the "
        "same time (benchmarks/plan.md). Blocks of pixels make steps about three times as fast, "
        "which is worth more than the finest level in short training (benchmarks/speedrun.md). "
        "Along an axis whose voxels are at least twice as long as the shortest, kernels are 1 and "
        "nothing is halved, and no axis is halved to fewer than 4 pixels (nnU-Net). "
        "Coarser outputs are also trained in long training runs, as in nnU-Net (Isensee et al. "
        "2021, 10.1038/s41592-020-01008-z); this was not measured here.",
    )


def _choose_window(
    recipe: Recipe, situation: Situation, lengths: tuple[float, ...]
) -> tuple[int, ...]:
    """Return the size of a patch: the one that is set, or what the image and the device allow."""
    shape = recipe.preprocessing.working_shape(situation.data.median_shape)
    patch_shape = recipe.sampling.patch_shape
    if patch_shape != AUTO and len(patch_shape) == len(shape):
        return patch_shape
    return window_shape(shape, patch_limit(recipe, situation), lengths)


def _choose_levels(recipe: Recipe, situation: Situation, window: tuple[int, ...]) -> int:
    """Return the number of levels: that of the strides or kernels if set, or by the patch."""
    network, data = recipe.network, situation.data
    if isinstance(network.strides, tuple):
        return len(network.strides) + 1
    if isinstance(network.kernels, tuple):
        return len(network.kernels)
    fine = fine_axes(voxel_lengths(recipe, situation))
    if len(fine) == len(window):
        shape = recipe.preprocessing.working_shape(data.median_shape)
        smallest = min(*shape[-2:], patch_limit(recipe, situation))
    else:
        smallest = min(window[axis] for axis in fine)
    coarsest = 16 if len(window) == 2 else 8
    return max(2, min(6, 1 + int(math.log2(max(2.0, smallest / coarsest)))))


def _count_extra_outputs(
    recipe: Recipe, situation: Situation, window: tuple[int, ...], *, is_planned: bool
) -> int:
    """Return the number of coarser outputs: some for long training of a planned U-Net.

    Args:
        window: Size of a patch in pixels.
        is_planned: Whether the widths of the network are planned.
    """
    network = recipe.network
    is_plain = network.architecture == "unet" and network.padding == "same"
    has_stem = max(network.stem_factors) > 1 or network.has_encoder
    steps = expected_steps(recipe, situation, window)
    if is_planned and is_plain and not has_stem and steps >= MANY_STEPS:
        return min(EXTRA_OUTPUTS, len(resolved(network.widths)) - 2)
    return 0


def choose_norm(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Choose instance normalization for several recordings, batch normalization for one stack.

    The layers behind a pretrained encoder get batch normalization: its features do not depend on
    the brightness of an image.
    """
    norm, recordings = recipe.network.norm, situation.data.recordings
    if norm == AUTO:
        is_alike = recordings < SEVERAL_RECORDINGS or recipe.network.is_pretrained
        norm = "batch" if is_alike else "instance"
    recipe = change(recipe, "network", norm=norm)
    text = "Norm: none." if norm == "none" else f"Norm: {norm} norm after each convolution."
    if recipe.network.is_custom:
        text = f"Norm: as the network defines it (network.norm is {norm})."
    return recipe, RuleResult(
        text=text,
        fact=f"training images come from {pluralize(recordings, 'recording')}"
        f"{'; the encoder is pretrained' if recipe.network.is_pretrained else ''}",
        alternative=f"network.norm={'batch' if norm == 'instance' else 'instance'}",
        source="Recordings differ in more than brightness, so each image is normalized by itself. "
        "Within one stack, and behind a pretrained encoder, the statistics of a batch are better "
        "(benchmarks/README.md, Norm; benchmarks/speedrun.md).",
    )


def choose_initial_weights(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Choose the weights included in the package if they fit the network.

    Raises:
        PlanError: if the recipe requests them, but they do not fit the network.
    """
    chosen, fits = recipe.train.initial_weights, has_synthetic_weights(recipe.network)
    if chosen == "synthetic_pretrained" and not fits:
        raise PlanError(
            "There are no weights trained on synthetic images for this network.",
            code="no_weights_fit",
            hint="Omit train.initial_weights, or the settings of the network: the weights are "
            "those of a planned 2D network for short training on a CPU.",
        )
    if chosen == AUTO:
        chosen = "synthetic_pretrained" if fits else "random"
    factor = recipe.train.head_lr_factor
    if factor == AUTO:
        has_new_head = chosen == "synthetic_pretrained" and recipe.start_from is None
        factor = NEW_HEAD_LR_FACTOR if has_new_head else 1.0
    recipe = change(recipe, "train", initial_weights=chosen, head_lr_factor=factor)
    if chosen == "random":
        text, other = "Initial weights: random.", "synthetic_pretrained" if fits else "--from RUN"
        if recipe.network.is_pretrained:
            text = "Initial weights: random, except for those of the encoder."
    else:
        text = (
            "Initial weights: trained on synthetic images of cells, membranes, lines and figures."
        )
        other = "random"
    if factor != 1:
        text += f" The last layer is random, and has {factor:g} times the learning rate."
    return recipe, RuleResult(
        text=text,
        fact=f"such weights {'fit' if fits else 'do not fit'} the network",
        alternative=other if other.startswith("--") else f"train.initial_weights={other}",
        source="A network that already finds structures needs fewer steps on new images. No real "
        "image was used (pretraining/README.md, benchmarks/speedrun.md).",
    )
