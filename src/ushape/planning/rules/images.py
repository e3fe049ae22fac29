"""On which grid, and with which intensities, the network works."""

from __future__ import annotations

from ushape.config import AUTO
from ushape.planning.recipe import Recipe
from ushape.planning.rules.result import RuleResult, Situation, change

ENOUGH_PASSES = 30
"""How often training should see each pixel before finer images are preferred to more passes."""

PIXELS_PER_S = {"cpu": 0.7e6, "mps": 5e6, "cuda": 40e6}
"""Training speed to reckon with before it is measured: per core on a CPU (21 patches of 256 x 256
pixels a second on two cores), per device else (a guess)."""


def choose_downscale(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Full size where the time allows; else as coarse as the masks allow.

    Coarser images are seen more often in the same time, with more context in each patch. But
    few images that are seen hundreds of times anyway only lose detail: ISBI 2012 at half size
    gave a pixel error of 0.095 (benchmarks/README.md). A round trip of the masks must keep 0.995 of
    the Dice, and the shorter side 256 pixels.
    """
    data = situation.data
    if recipe.preprocessing.shape is not None:
        recipe = change(recipe, "preprocessing", downscale=1)
        size = " × ".join(map(str, recipe.preprocessing.working_shape(data.median_shape)))
        return recipe, RuleResult(f"Images: all brought to {size} pixels.", "the recipe's shape")
    given = recipe.preprocessing.downscale
    factor = 1 if given == AUTO else int(given)
    if given == AUTO:
        for candidate, dice in sorted(data.round_trip_dice.items()):
            is_seen_enough = expected_passes(recipe, situation, factor) >= ENOUGH_PASSES
            is_kept = dice >= 0.995 and min(data.median_shape[-2:]) >= 256 * candidate
            if is_kept and not is_seen_enough:
                factor = candidate
    recipe = change(recipe, "preprocessing", downscale=factor)
    size = " × ".join(str(round(size / factor)) for size in data.median_shape)
    passes = expected_passes(recipe, situation, 1)
    fact = (
        "as set" if given != AUTO else f"each pixel is seen about {passes:.0f} times at full size"
    )
    trips = ", ".join(f"{dice:.4f} at 1/{f}" for f, dice in sorted(data.round_trip_dice.items()))
    otherwise = f"smaller images; masks brought there and back keep a Dice of {trips or '-'}"
    if factor == 1:
        text = f"Images: at full size, {size} pixels (median)."
        return recipe, RuleResult(text, fact, otherwise)
    lost = data.round_trip_dice.get(factor)
    kept = f"; masks brought there and back keep Dice {lost:.4f}" if lost else ""
    text = f"Images: {factor} times smaller, {size} pixels{kept}."
    return recipe, RuleResult(text, fact, f"full size, or another factor: {trips or '-'}")


def choose_intensity(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Each image by its own numbers, as nnU-Net does for all but CT.

    Scanners, staining and light differ between groups: on brain MRI of unseen patients this
    gave 0.79 instead of 0.42 (docs/results/intensities.md). Values that go below zero are
    on an absolute scale (Hounsfield units), which is kept.
    """
    chosen = recipe.preprocessing.intensity
    if chosen == AUTO:
        chosen = "data" if min(situation.data.normalization.low) < 0 else "image"
    recipe = change(recipe, "preprocessing", intensity=chosen)
    lowest = min(situation.data.normalization.low)
    fact = f"the lowest values of the training data are {lowest:.4g}"
    if chosen == "min_max":
        return recipe, RuleResult("Intensities: each image's own brought to 0 .. 1.", "as set")
    basis = {"data": "the training data's", "image": "each image's own", "group": "its group's"}
    text = f"Intensities: clipped and standardized by {basis[chosen]} numbers."
    other = "image" if chosen == "data" else "data"
    return recipe, RuleResult(text, fact, f"preprocessing.intensity={other}")


def expected_passes(recipe: Recipe, situation: Situation, factor: int) -> float:
    """How often training will see each pixel of images that are so many times smaller."""
    train, machine, data = recipe.train, situation.machine, situation.data
    if train.epochs is not None:
        return train.epochs
    speed = PIXELS_PER_S[machine.device] * (machine.cores if machine.device == "cpu" else 1)
    pixels = data.pixels_per_epoch / factor ** len(data.median_shape)
    return 60 * (train.minutes or 0.0) * speed / pixels
