"""The network: depth, width, norm."""

from __future__ import annotations

import math

from ushape.config import AUTO
from ushape.errors import PlanError
from ushape.formatting import pluralize
from ushape.models import network_sizes
from ushape.models.config import NetworkConfig
from ushape.planning.recipe import Recipe
from ushape.planning.rules.patches import patch_limit
from ushape.planning.rules.result import RuleResult, Situation, change

SEVERAL_RECORDINGS = 3
"""Training groups from which on they are expected to differ, and new ones to differ again."""


def choose_network(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Depth: until the coarsest level is 16 pixels wide (volumes: 8), at most 6 levels. One level
    more was no better on any data, though objects were as large as what a pixel sees. Width by the
    machine: on a CPU, more steps of a narrower network learn more in the time (benchmarks/plan.md).

    Raises:
        PlanError: more dimensions than the images have.
    """
    network, data = recipe.network, situation.data
    if network.dims > len(data.median_shape):
        raise PlanError(
            f"network.dims is {network.dims}, the images have {len(data.median_shape)} axes.",
            hint="Leave network.dims out: it follows the data.",
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
    listed = ", ".join(map(str, widths))
    name = "U-Net" if network.architecture == "unet" else network.architecture
    text = f"Network: {name}, {len(widths)} levels of {listed} channels."
    if network.is_custom:  # It may use widths or not.
        text = f"Network: {name}."
    scale = recipe.preprocessing.working_shape(data.median_shape)[-1] / data.median_shape[-1]
    fact = (
        f"{situation.machine.device}; objects of about {data.object_size * scale:.0f} pixels"
        f"{_receptive_field_text(recipe.network)}"
    )
    return recipe, RuleResult(text, fact, "half or twice the width, a level more or less")


def _receptive_field_text(network: NetworkConfig) -> str:
    pixels = network_sizes(network).receptive_field
    return "" if pixels is None else f", a pixel of the answer sees {pixels}"


def choose_norm(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Of each image by itself where the data come from several recordings, which differ in more
    than brightness; of the batch where all is one stack (benchmarks/README.md, Norm)."""
    norm, recordings = recipe.network.norm, situation.data.recordings
    if norm == AUTO:
        norm = "instance" if recordings >= SEVERAL_RECORDINGS else "batch"
    recipe = change(recipe, "network", norm=norm)
    fact = f"training images come from {pluralize(recordings, 'recording')}"
    other = "batch" if norm == "instance" else "instance"
    text = "Norm: none." if norm == "none" else f"Norm: {norm} norm after each convolution."
    if recipe.network.is_custom:
        text = f"Norm: as the network defines it (network.norm is {norm})."
    return recipe, RuleResult(text, fact, f"network.norm={other}")
