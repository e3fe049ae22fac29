"""The network: depth, width and normalization layers."""

from __future__ import annotations

import math

from ushape.config import AUTO
from ushape.errors import PlanError
from ushape.formatting import pluralize
from ushape.models import network_sizes
from ushape.models.config import NetworkConfig
from ushape.planning.recipe import Recipe
from ushape.planning.rules.images import patch_limit
from ushape.planning.rules.result import RuleResult, Situation, change

SEVERAL_RECORDINGS = 3
"""Number of training groups from which on they, and new ones, are expected to differ."""


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
            hint="Omit network.dims; it follows the data.",
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
    levels_text = f", {len(widths)} levels of {', '.join(map(str, widths))} channels"
    return recipe, RuleResult(
        # A custom network may ignore the widths.
        text=f"Network: {name}{'' if network.is_custom else levels_text}.",
        fact=f"{situation.machine.device}; objects of about {data.object_size * scale:.0f} pixels"
        f"{_receptive_field_text(recipe.network)}",
        alternative="half or twice the width, a level more or less",
        source="Levels are added until the coarsest is 16 pixels wide (volumes: 8), at most 6. One "
        "more level was no better on any data set, even if objects were as large as the receptive "
        "field. On a CPU, more steps of a narrower network learn more in the same time "
        "(benchmarks/plan.md).",
    )


def _receptive_field_text(network: NetworkConfig) -> str:
    pixels = network_sizes(network).receptive_field
    return "" if pixels is None else f", receptive field of {pixels} pixels"


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
        source="Recordings differ in more than brightness, so that each image is normalized by "
        "itself; within one stack the statistics of a batch are better (benchmarks/README.md, "
        "Norm).",
    )
