"""Rules for volumes whose axes differ: length of the voxels, strides and kernels of each level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ushape.config import AUTO
from ushape.errors import ConfigError
from ushape.formatting import size_text
from ushape.models.config import NetworkConfig, PerAxis
from ushape.planning.recipe import Recipe
from ushape.planning.rules.result import Situation, change

COARSE = 2.0
"""Length of a voxel along an axis, relative to the shortest one, from which the axis is neither
halved nor convolved together with the others."""

STILL = 3.0
"""The same, above which augmentation does not deform the axis (ANISO_THRESHOLD of nnU-Net)."""

MIN_CELLS = 4
"""Smallest number of pixels of an axis that is halved, after it is halved."""


def state_spacing(recipe: Recipe, situation: Situation) -> tuple[Recipe, str]:
    """Decide which spacing the plan is made for, and describe it in words; '' for 2D images.

    Raises:
        ConfigError: if the recipe sets spacing or downscaling for another number of axes.
    """
    given, data = recipe.preprocessing.spacing_mm, situation.data
    dims = len(data.median_shape)
    if isinstance(given, tuple) and len(given) != dims:
        raise ConfigError(
            f"preprocessing.spacing_mm is {list(given)}, but the images have {dims} axes.",
            code="axis_count_mismatch",
            hint="Set one length for each axis: y, x for images; z, y, x for volumes.",
        )
    factors = recipe.preprocessing.downscale
    if isinstance(factors, tuple) and len(factors) != dims:
        raise ConfigError(
            f"preprocessing.downscale is {list(factors)}, but the images have {dims} axes.",
            code="axis_count_mismatch",
            hint="Set one factor for each axis, or a single one for all.",
        )
    spacing = data.spacing_mm if given == AUTO and dims == 3 else given
    spacing = None if spacing == AUTO else spacing
    target = recipe.preprocessing.common_spacing_mm  # `choose_target_spacing` has decided it.
    recipe = change(recipe, "preprocessing", spacing_mm=spacing, target_spacing_mm=target)
    if dims == 2:
        return recipe, ""
    if spacing is None:
        text = (
            ", whose voxels are assumed to be cubes (not all files contain a spacing above 0 along "
            "each axis; --set preprocessing.spacing_mm=[Z,Y,X] sets one)"
        )
        return recipe, text if given == AUTO else ", whose voxels are assumed to be cubes"
    return recipe, f", voxels of {' × '.join(f'{length:.3g}' for length in spacing)} mm"


def voxel_lengths(recipe: Recipe, situation: Situation) -> tuple[float, ...]:
    """Return the length of a voxel of the network's input along each axis; the shortest is 1.

    All are 1 in images, and in volumes without a known spacing.
    """
    shape, preprocessing = situation.data.median_shape, recipe.preprocessing
    spacing = preprocessing.spacing_mm
    if spacing == AUTO:
        spacing = situation.data.spacing_mm
    if len(shape) == 2 or spacing is None:
        return (1.0,) * len(shape)
    factors: Sequence[float] = (1.0,) * len(shape)
    if preprocessing.shape is not None:
        factors = [old / new for old, new in zip(shape, preprocessing.shape, strict=True)]
    elif isinstance(preprocessing.downscale, tuple):
        factors = preprocessing.downscale
    lengths = [length * factor for length, factor in zip(spacing, factors, strict=True)]
    return tuple(length / min(lengths) for length in lengths)


def factors_along_axes(factor: float, lengths: Sequence[float]) -> tuple[float, ...]:
    """Return the factor of each axis that makes no voxel shorter than `factor` times the shortest.

    Voxels of 5 x 1 x 1 mm that are to be downscaled by 2 become 5 x 2 x 2 mm. Axes that do not
    differ clearly have the same factor.
    """
    if len(fine_axes(lengths)) == len(lengths):
        return (factor,) * len(lengths)
    return tuple(round(max(1.0, factor / length), 4) for length in lengths)


def fine_axes(lengths: Sequence[float]) -> list[int]:
    """Return the axes whose voxels are less than twice as long as the shortest side."""
    return [axis for axis, length in enumerate(lengths) if length < COARSE * min(lengths)]


def still_axes(lengths: Sequence[float]) -> tuple[int, ...]:
    """Return the axes whose voxels are too long to be rotated or deformed with the others."""
    return tuple(axis for axis, length in enumerate(lengths) if length > STILL * min(lengths))


def choose_strides(
    lengths: Sequence[float],
    shape: Sequence[int],
    steps: int,
    stated: Sequence[PerAxis] | None = None,
) -> tuple[tuple[PerAxis, ...], tuple[PerAxis, ...]]:
    """Return the strides between the levels of a network, and the kernels of all levels.

    An axis is halved while its voxels are less than twice as long as the shortest ones of the axes
    that are long enough to be halved. It is convolved with kernels of 3 as soon as its voxels are
    less than twice as long as the shortest ones or it was halved, and in the coarsest level in any
    case, unless it has a single slice.

    Args:
        lengths: Relative length of the voxels of the finest level along each axis.
        shape: Size of a patch in the finest level.
        steps: Number of levels after the finest one.
        stated: Strides to use instead, one for each step.

    Returns:
        The strides, one for each step, and the kernels, one for each level.

    Source:
        nnU-Net (get_pool_and_conv_props in network_topology.py), with a given number of levels:
        after the last axis is too short, axes are halved as if all were long enough.
    """
    current, sizes = list(lengths), list(shape)
    axes = range(len(sizes))
    kernel = [1] * len(sizes)
    strides, kernels = [], []
    for level in range(steps + 1):
        for axis in axes:
            is_near = current[axis] < COARSE * min(current) or level == steps
            was_halved = current[axis] > lengths[axis]
            if (is_near or was_halved) and shape[axis] > 1:
                kernel[axis] = 3
        kernels.append(tuple(kernel))
        if stated is not None:
            halved = [axis for axis in axes if level < steps and stated[level][axis] == 2]
        else:
            large = [axis for axis in axes if sizes[axis] >= 2 * MIN_CELLS] or list(axes)
            shortest = min(current[axis] for axis in large)
            halved = [axis for axis in large if current[axis] < COARSE * shortest]
        strides.append(tuple(2 if axis in halved else 1 for axis in axes))
        for axis in halved:
            current[axis] *= 2
            sizes[axis] = -(-sizes[axis] // 2)
    return tuple(strides[:-1]), tuple(kernels)


def with_axes(
    network: NetworkConfig, lengths: Sequence[float], window: Sequence[int]
) -> NetworkConfig:
    """Return a network with the strides and kernels that are still open.

    Args:
        network: Network with widths and a stem.
        lengths: Relative length of the voxels of the image along each axis.
        window: Size of a patch in pixels of the image.
    """
    is_open = network.dims == 3 and network.padding == "same" and not network.is_custom
    levels = len(network.level_strides) + 1
    stem = network.stem_factors
    strides, kernels = choose_strides(
        [length * factor for length, factor in zip(lengths, stem, strict=True)],
        [-(-size // factor) for size, factor in zip(window, stem, strict=True)],
        levels - 1,
        None if network.strides == AUTO else network.level_strides,
    )
    is_equal = {*sum(strides, ())} == {2} and {*sum(kernels, ())} == {3}
    is_taken = is_open and not is_equal
    if network.strides == AUTO:
        network = replace(network, strides=strides if is_taken else "equal")
    if network.kernels == AUTO:
        network = replace(network, kernels=kernels if is_taken else "equal")
    return network


def describe_axes(network: NetworkConfig) -> str:
    """Describe strides and kernels in words; '' if they are the same along all axes."""
    parts = []
    if isinstance(network.strides, tuple):
        parts.append(f"strides {', '.join(size_text(one) for one in network.strides)}")
    if isinstance(network.kernels, tuple):
        parts.append(f"kernels {', '.join(size_text(one) for one in network.kernels)}")
    return f"; {'; '.join(parts)}" if parts else ""
