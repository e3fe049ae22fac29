"""Rules for the resolution of the images in the network: stem, image size and patches."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ushape.config import AUTO
from ushape.formatting import pluralize, size_text
from ushape.models import network_sizes
from ushape.models.config import PerAxis
from ushape.planning.fingerprint import Fingerprint
from ushape.planning.recipe import Recipe
from ushape.planning.rules.axes import (
    factors_along_axes,
    fine_axes,
    state_spacing,
    voxel_lengths,
)
from ushape.planning.rules.result import RuleResult, Situation, change
from ushape.planning.rules.training import usual_batch

PIXELS_PER_S = {"cpu": 0.7e6, "mps": 5e6, "cuda": 40e6}
"""Assumed training speed before it is measured: per core on a CPU (21 patches of 256 x 256 pixels
per second on two cores), per device otherwise (an estimate)."""

STEM_SPEEDUP = 3.0
"""Pixels per second with a stem of factor 2, relative to those without (benchmarks/speedrun.md)."""

SHORT_STEPS = 20_000
"""Number of steps, of 4 patches of 256 x 256 pixels without a stem, below which training is planned
as short."""

ENOUGH_PASSES = 30
"""Number of passes over each pixel below which coarser images are preferred."""

FEW_OBJECTS = 4
"""Number of objects per image up to which each is expected to need the whole image as context,
unless they are thin."""

THIN_PX = 5
"""Thickness below which objects, such as vessels and cracks, are recognized by what is near."""

WIDE_PX = 64
"""Thickness from which a window shows too little around the objects."""

SCENE_CLASSES = 3
"""Number of foreground classes from which on they are expected to depend on the whole scene."""

MIN_CELLS = 3
"""Thickness of objects in the finest cells of the network, which are blocks of pixels if it has a
stem, below which images are not downscaled."""

LOST_SHARE = 0.15
"""Share of the expected error that smaller images may add to it."""

MIN_SIDE = 128
"""Shortest side of a downscaled image in pixels."""


def choose_stem(recipe: Recipe, situation: Situation) -> int | PerAxis:
    """Return the factor of the stem: 2 for short training of a planned U-Net on a CPU.

    It is 1 along an axis whose voxels are clearly longer than the others.
    """
    network, shape = recipe.network, situation.data.median_shape
    if network.stem != AUTO:
        return network.stem
    fine = fine_axes(voxel_lengths(recipe, situation))
    is_planned = network.widths == AUTO and network.architecture == "unet"
    # Halving leaves enough pixels or slices.
    fits = network.padding == "same" and min(shape[axis] for axis in fine) >= 32
    is_cpu = situation.machine.device == "cpu"
    if not (is_planned and fits and is_cpu and _is_short(recipe, situation)):
        return 1
    is_equal = len(fine) == len(shape)
    return 2 if is_equal else tuple(2 if axis in fine else 1 for axis in range(len(shape)))


def largest_stem(recipe: Recipe, situation: Situation) -> int:
    """Return the largest factor of the stem along any axis."""
    stem = choose_stem(recipe, situation)
    return max(stem) if isinstance(stem, tuple) else stem


def _is_short(recipe: Recipe, situation: Situation) -> bool:
    """Return whether fewer than SHORT_STEPS steps are expected."""
    return _pixels_of_training(recipe, situation, stem=1) < SHORT_STEPS * 4 * 256**2


def _pixels_of_training(recipe: Recipe, situation: Situation, stem: int) -> float:
    """Return the number of pixels that the training is expected to see, at full size."""
    train, machine = recipe.train, situation.machine
    if train.epochs is not None:
        return float(train.epochs * situation.data.pixels_per_epoch)
    speed = PIXELS_PER_S[machine.device] * (machine.cores if machine.device == "cpu" else 1)
    return 60 * (train.minutes or 0.0) * speed * (STEM_SPEEDUP if stem > 1 else 1)


def expected_steps(recipe: Recipe, situation: Situation, patch: tuple[int, ...]) -> float:
    """Return about how many steps training will have, with batches of the usual size.

    Args:
        patch: Size of a patch in pixels.
    """
    batch = recipe.train.batch_size
    if batch == AUTO:
        batch = usual_batch(situation.machine.device, patch)
    pixels = _pixels_of_training(recipe, situation, largest_stem(recipe, situation))
    return pixels / (batch * recipe.train.accumulate_grad_batches * math.prod(patch))


def expected_passes(recipe: Recipe, situation: Situation, shrinking: float) -> float:
    """Return how often training is expected to see each pixel of smaller images.

    Args:
        shrinking: Pixels of the files for each pixel of the smaller images.
    """
    data = situation.data
    if recipe.train.epochs is not None:
        return recipe.train.epochs
    seen = _pixels_of_training(recipe, situation, largest_stem(recipe, situation))
    return seen / (data.pixels_per_epoch / shrinking)


def expected_error(pixels: float) -> float:
    """Return 1 - Dice that is usual after training on a number of pixels, 0.03 to 0.2.

    It falls by about a fifth with each doubling (benchmarks/plan.md).
    """
    return min(0.2, max(0.03, 0.1 * (max(pixels, 1.0) / 1e9) ** -0.3))


def object_thickness(data: Fingerprint) -> float:
    """Estimate the thickness of typical objects in pixels from what downscaled masks lose.

    A disk of diameter t that is downscaled by a factor f and restored loses about f / (12 t) of its
    Dice, for t of at least 8 f; long objects lose half as much as disks of their thickness.
    """
    factor = max(data.round_trip_dice, default=0)
    lost = 1 - data.round_trip_dice[factor] if factor else 1.0
    return factor / (12 * max(lost, 1e-4))


def choose_downscale(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Choose the largest size at which patches show enough context and pixels are seen enough."""
    source = (
        "A patch of a smaller image shows more of its surroundings, which counts if objects are "
        "large or single, as lesions and cars are, and its pixels are seen more often. Detail is "
        f"lost: at most {LOST_SHARE:.0%} of the error that is expected after the given time. "
        "Images of many small or of thin objects keep their size (benchmarks/speedrun.md)."
    )
    data = situation.data
    recipe, voxels = state_spacing(recipe, situation)
    if recipe.preprocessing.shape is not None:
        recipe = change(recipe, "preprocessing", downscale=1.0)
        size = size_text(recipe.preprocessing.working_shape(data.median_shape))
        text = f"Images: resized to {size} pixels."
        return recipe, RuleResult(text=text, fact="preprocessing.shape is set", source=source)
    given = recipe.preprocessing.downscale
    is_stated = given == AUTO and recipe.preprocessing.slide_mpp is not None
    chosen = 1.0 if is_stated else _find_factors(recipe, situation) if given == AUTO else given
    recipe = change(recipe, "preprocessing", downscale=chosen)
    size = size_text(recipe.preprocessing.working_shape(data.median_shape))
    passes = expected_passes(recipe, situation, 1)
    fact = (
        "set by the user"
        if given != AUTO
        else "preprocessing.slide_mpp sets the resolution"
        if is_stated
        else f"about {pluralize(round(data.objects_per_case), 'object')} per image, about "
        f"{object_thickness(data):.0f} pixels thick; each pixel would be seen {passes:.1f} times "
        "at full size"
    )
    trips = ", ".join(f"{dice:.4f} at 1/{f:g}" for f, dice in sorted(data.round_trip_dice.items()))
    trips = f"; downscaled and restored masks have a Dice of {trips}" if trips else ""
    if chosen == 1:
        text = f"Images: at full size, {size} pixels (median){voxels}."
        alternative = f"smaller images{trips}"
    else:
        lost = None if isinstance(chosen, tuple) else data.round_trip_dice.get(chosen)
        kept = f"; downscaled and restored masks have a Dice of {lost:.4f}" if lost else ""
        if isinstance(chosen, tuple):
            by = f"factors of {' × '.join(f'{one:g}' for one in chosen)}"
        else:
            by = f"a factor of {chosen:g}"
        text = f"Images: downscaled by {by} to {size} pixels (median){kept}"
        text += f"{voxels}."
        alternative = f"full size, or another factor{trips}"
    return recipe, RuleResult(text=text, fact=fact, alternative=alternative, source=source)


def needs_context(data: Fingerprint) -> bool:
    """Return whether the network should see whole images, even if they have to be smaller."""
    thickness = object_thickness(data)
    is_single = data.objects_per_case <= FEW_OBJECTS and thickness >= THIN_PX
    return is_single or thickness >= WIDE_PX or len(data.classes) >= SCENE_CLASSES


def _find_factors(recipe: Recipe, situation: Situation) -> float | tuple[float, ...]:
    """Return the factor of `_find_factor`, or one for each axis if voxels differ in length."""
    factor = _find_factor(recipe, situation)
    factors = factors_along_axes(factor, voxel_lengths(recipe, situation))
    return factor if len(set(factors)) == 1 else factors


def _find_factor(recipe: Recipe, situation: Situation) -> float:
    """Return the smallest factor that suffices, or else the largest one that is allowed."""
    data, limit = situation.data, patch_limit(recipe, situation)
    stem, thickness = largest_stem(recipe, situation), object_thickness(situation.data)
    lost = LOST_SHARE * expected_error(_pixels_of_training(recipe, situation, stem))
    best = 1.0
    lengths = voxel_lengths(recipe, situation)
    for factor in (1.0, *sorted(data.round_trip_dice)):
        factors = factors_along_axes(factor, lengths)
        shape = [size / own for size, own in zip(data.median_shape, factors, strict=True)]
        if factor > 1 and (
            1 - data.round_trip_dice[factor] > lost
            or thickness < MIN_CELLS * stem * factor
            or min(shape[-2:]) < MIN_SIDE
        ):
            break
        best = factor
        is_whole = math.prod(shape) <= limit ** len(shape)
        is_seen = expected_passes(recipe, situation, math.prod(factors)) >= ENOUGH_PASSES
        if is_seen and (is_whole or not needs_context(data)):
            break
    return best


def patch_limit(recipe: Recipe, situation: Situation) -> int:
    """Return the side of the square (cube) with as many pixels as a patch may have."""
    dims, is_cpu = len(situation.data.median_shape), situation.machine.device == "cpu"
    is_short = is_cpu and _is_short(recipe, situation)
    if dims == 3:
        if not is_short:
            return 96
        return 64 if largest_stem(recipe, situation) > 1 else 48
    if is_short and not needs_context(situation.data):
        return 128
    return 256 if is_cpu else 512


def choose_patch(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Choose the whole image if it is small enough, otherwise a window."""
    sampling, data = recipe.sampling, situation.data
    limit, patch = patch_limit(recipe, situation), sampling.patch_shape
    if patch == AUTO:
        shape = recipe.preprocessing.working_shape(data.median_shape)
        # The output of a network without padding is smaller than its input.
        network = network_sizes(recipe.network)
        window = window_shape(shape, limit, voxel_lengths(recipe, situation))
        patch = network.legal_shape([size + 2 * network.margin for size in window])
    recipe = change(recipe, "sampling", patch_shape=patch)
    context = "need" if needs_context(data) else "do not need"
    growth = ", smaller in the first half of the steps" if sampling.growing_patches else ""
    return recipe, RuleResult(
        text=f"Patches: {size_text(patch)} pixels{growth}.",
        fact=f"about {limit ** len(patch):,} pixels on this device; the objects {context} much "
        "context",
        alternative="half the size and twice the number of patches",
        source="A patch is the whole image if it is small enough, otherwise a region of it, in a "
        "size that the network accepts. In short training, patches of many or thin objects are "
        "small, because more steps are worth more than larger ones (benchmarks/speedrun.md). A "
        "patch of a volume is about as long in mm along all axes, as in nnU-Net.",
    )


def window_shape(
    shape: tuple[int, ...], side: int, lengths: Sequence[float] | None = None
) -> tuple[int, ...]:
    """Return the largest window in an image that has at most side^dims pixels.

    It is as close to a square (cube) as the image allows: (100, 900) with a side of 256 becomes
    (100, 655).

    Args:
        lengths: Relative length of a pixel along each axis; None: pixels are squares.
    """
    lengths = lengths or (1.0,) * len(shape)
    window, left = list(shape), float(side ** len(shape))
    order = sorted(range(len(shape)), key=lambda axis: shape[axis] * lengths[axis])
    for done, axis in enumerate(order):
        # Volume that is left, in units of cubes with the length of a pixel along this axis.
        cubes = left * math.prod(lengths[other] / lengths[axis] for other in order[done:])
        window[axis] = max(1, min(shape[axis], int(cubes ** (1 / (len(shape) - done)) + 1e-6)))
        left /= window[axis]
    return tuple(window)
