"""The rules that turn a recipe, the data, the machine and the minutes into a plan.

Each rule fills in the settings that are still "auto" and says why in one line.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from ushape.augment import STRENGTHS, AugmentConfig
from ushape.errors import PlanError
from ushape.models.shapes import memory_estimate, next_legal_size, valid_margin
from ushape.plan.fingerprint import Fingerprint
from ushape.plan.machine import Machine
from ushape.plan.recipe import AUTO, Recipe, settled
from ushape.words import counted

STEP_OVERHEAD = 1.12
"""A step in training takes so much longer than one measured alone: loading, average, logging."""

VALIDATION_SHARE = 0.4
"""Validation pixels per training pixel in an epoch. A training step costs about four times a
prediction of as many pixels (FACTS: 481 against 119 ms), so this is a tenth of the time."""

MEMORY_SHARE = 0.7
"""Of the memory that a step may be expected to need; the estimate is no upper bound."""

ENOUGH_PASSES = 30
"""How often training should see each pixel before finer images are preferred to more passes."""

SEVERAL_RECORDINGS = 3
"""Training groups from which on they are expected to differ, and new ones to differ again."""

PIXELS_PER_S = {"cpu": 0.7e6, "mps": 5e6, "cuda": 40e6}
"""Training speed to reckon with before it is measured: per core on a CPU (21 patches of 256 x 256
pixels a second on two cores), per device else (a guess)."""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What the rules look at."""

    data: Fingerprint
    machine: Machine


@dataclass(frozen=True)
class Decision:
    """What a rule decided, in words."""

    text: str
    """What was decided, a line for the plan."""

    fact: str = ""
    """What it follows from."""

    otherwise: str = ""
    """What would have been next."""

    source: str = ""
    """Why the rule is so: its own docstring."""


Rule = Callable[[Recipe, Situation], tuple[Recipe, Decision]]


def plan_recipe(recipe: Recipe, situation: Situation) -> tuple[Recipe, list[Decision]]:
    """Applies all rules but the last, `plan_duration`, which needs the measured speed."""
    decisions = []
    for rule in RULES:
        recipe, decision = rule(recipe, situation)
        decisions.append(replace(decision, source=_source_of(rule)))
    return recipe, decisions


def choose_downscale(recipe: Recipe, situation: Situation) -> tuple[Recipe, Decision]:
    """Full size where the time allows; else as coarse as the masks allow.

    Coarser images are seen more often in the same time, with more context in each patch. But
    few images that are seen hundreds of times anyway only lose detail: ISBI 2012 at half size
    gave a pixel error of 0.095 (benchmarks/README.md). A round trip of the masks must keep 0.995 of
    the Dice, and the shorter side 256 pixels.
    """
    data = situation.data
    if recipe.preparation.shape is not None:
        recipe = _change(recipe, "preparation", downscale=1)
        size = " × ".join(map(str, recipe.preparation.working_shape(data.median_shape)))
        return recipe, Decision(f"Images: all brought to {size} pixels.", "the recipe's shape")
    given = recipe.preparation.downscale
    factor = 1 if given == AUTO else int(given)
    if given == AUTO:
        for candidate, dice in sorted(data.round_trip_dice.items()):
            is_seen_enough = _expected_passes(recipe, situation, factor) >= ENOUGH_PASSES
            is_kept = dice >= 0.995 and min(data.median_shape[-2:]) >= 256 * candidate
            if is_kept and not is_seen_enough:
                factor = candidate
    recipe = _change(recipe, "preparation", downscale=factor)
    size = " × ".join(str(round(size / factor)) for size in data.median_shape)
    passes = _expected_passes(recipe, situation, 1)
    fact = (
        "as set" if given != AUTO else f"each pixel is seen about {passes:.0f} times at full size"
    )
    trips = ", ".join(f"{dice:.4f} at 1/{f}" for f, dice in sorted(data.round_trip_dice.items()))
    otherwise = f"smaller images; masks brought there and back keep a Dice of {trips or '-'}"
    if factor == 1:
        text = f"Images: at full size, {size} pixels (median)."
        return recipe, Decision(text, fact, otherwise)
    lost = data.round_trip_dice.get(factor)
    kept = f"; masks brought there and back keep Dice {lost:.4f}" if lost else ""
    text = f"Images: {factor} times smaller, {size} pixels{kept}."
    return recipe, Decision(text, fact, f"full size, or another factor: {trips or '-'}")


def choose_intensity(recipe: Recipe, situation: Situation) -> tuple[Recipe, Decision]:
    """Each image by its own numbers, as nnU-Net does for all but CT.

    Scanners, staining and light differ between groups: on brain MRI of unseen patients this
    gave 0.79 instead of 0.42 (docs/decisions/intensities.md). Values that go below zero are
    on an absolute scale (Hounsfield units), which is kept.
    """
    chosen = recipe.preparation.intensity
    if chosen == AUTO:
        chosen = "data" if min(situation.data.scaling.low) < 0 else "image"
    recipe = _change(recipe, "preparation", intensity=chosen)
    lowest = min(situation.data.scaling.low)
    fact = f"the lowest values of the training data are {lowest:.4g}"
    if chosen == "min_max":
        return recipe, Decision("Intensities: each image's own brought to 0 .. 1.", "as set")
    basis = {"data": "the training data's", "image": "each image's own", "group": "its group's"}
    text = f"Intensities: clipped and standardised by {basis[chosen]} numbers."
    other = "image" if chosen == "data" else "data"
    return recipe, Decision(text, fact, f"preparation.intensity={other}")


def choose_network(recipe: Recipe, situation: Situation) -> tuple[Recipe, Decision]:
    """Width by the machine: on a CPU, more steps of a narrower network learn more in the time.

    Depth: until the coarsest level is 8 pixels wide, at most 6 levels.

    Norm: of each image by itself where the data come from several recordings, which differ in
    more than brightness; of the batch where all is one stack (benchmarks/README.md, Norm).
    """
    network, data = recipe.network, situation.data
    if network.dims > len(data.median_shape):
        raise PlanError(
            f"network.dims is {network.dims}, the images have {len(data.median_shape)} axes.",
            hint="Leave network.dims out: it follows the data.",
        )
    widths = network.widths
    if widths == AUTO:
        shape = recipe.preparation.working_shape(data.median_shape)
        smallest = min(*shape[-2:], _patch_limit(situation))
        levels = max(2, min(6, 1 + int(math.log2(max(2.0, smallest / 8)))))
        base = 32 if situation.machine.device != "cpu" else 16
        widths = tuple(min(base * 2**level, 16 * base) for level in range(levels))
    norm = network.norm
    if norm == AUTO:
        norm = "instance" if data.recordings >= SEVERAL_RECORDINGS else "batch"
    recipe = _change(recipe, "network", widths=widths, norm=norm, dims=len(data.median_shape))
    text = (
        f"Network: U-Net, {len(widths)} levels of {', '.join(map(str, widths))} channels, "
        f"{norm} norm."
    )
    fact = (
        f"{situation.machine.device}; training images of {_size(data.median_shape)} pixels, from "
        f"{counted(data.recordings, 'recording')}"
    )
    other = "batch" if norm == "instance" else "instance"
    return recipe, Decision(text, fact, f"network.norm={other}; half or twice the width")


def choose_patch(recipe: Recipe, situation: Situation) -> tuple[Recipe, Decision]:
    """The whole image where it is small enough, else a window; legal for the network."""
    sampling, data = recipe.sampling, situation.data
    patch = sampling.patch_shape
    if patch == AUTO:
        limit = _patch_limit(situation)
        shape = recipe.preparation.working_shape(data.median_shape)
        sizes = [min(size, limit) for size in shape]
        # A network without padding answers for less than it is shown.
        margin = valid_margin(recipe.network)
        patch = tuple(next_legal_size(recipe.network, size + 2 * margin) for size in sizes)
    recipe = _change(recipe, "sampling", patch_shape=patch)
    fact = f"at most {_patch_limit(situation)} pixels along a side on this device"
    text = f"Patches: {_size(patch)} pixels."
    return recipe, Decision(text, fact, "half the size, twice the number")


def choose_sampling(recipe: Recipe, situation: Situation) -> tuple[Recipe, Decision]:
    """At least half of the patches shall show foreground; a third is centred on it (nnU-Net)."""
    share = recipe.sampling.foreground_fraction
    if recipe.sampling.draw != "foreground":
        recipe = _change(recipe, "sampling", foreground_fraction=0.0)
        text = f"Sampling: {recipe.sampling.draw.replace('_', ', then ')}."
        return recipe, Decision(text, "as set")
    present = situation.data.foreground_cases
    if share == AUTO:
        share = round(max(1 / 3, (0.5 - present) / max(1e-6, 1 - present)), 2)
    recipe = _change(recipe, "sampling", foreground_fraction=share)
    text = (
        f"Sampling: {share:.0%} of the patches centred on foreground, which {present:.0%} of the "
        "training cases hold."
    )
    return recipe, Decision(text, f"{present:.0%} of the cases hold any", "sampling.draw=uniform")


def choose_augmentation(recipe: Recipe, situation: Situation) -> tuple[Recipe, Decision]:
    """Turned at will where no direction is special, else small angles; mirrored likewise."""
    data = situation.data
    if recipe.augment != AUTO:
        return recipe, Decision("Augmentation: as set.", "the recipe")
    chosen = STRENGTHS["full" if data.turns_freely else "upright"]
    chosen = AugmentConfig(
        space=replace(chosen.space, flip_axes=data.mirror_axes), intensity=chosen.intensity
    )
    turning = "any angle" if data.turns_freely else "small angles (the data have an upright)"
    mirrored = "y and x" if len(data.mirror_axes) > 1 else "x" if data.mirror_axes else "none"
    text = (
        f"Augmentation: {turning}; mirrored along {mirrored}; scale, shift, elastic, grey values."
    )
    fact = "groups look " + ("alike" if data.turns_freely else "different") + " when turned"
    other = "small angles" if data.turns_freely else "any angle"
    return replace(recipe, augment=chosen), Decision(text, fact, other)


def choose_prediction(recipe: Recipe, situation: Situation) -> tuple[Recipe, Decision]:
    """Few large tiles: with batch norm or none, a larger tile only saves overlap.

    Instance and group norm see the tile's own statistics: tiles of the patch size.
    """
    predict = recipe.predict
    tile = predict.tile_shape
    patch = settled(recipe.sampling.patch_shape)
    if tile == AUTO:
        in_plane = 1024 if len(patch) == 2 else 160
        limit = in_plane if recipe.network.norm in ("none", "batch") else 0
        tile = tuple(max(size, limit) for size in patch)
    average = "none" if predict.average == AUTO else predict.average
    recipe = _change(recipe, "predict", tile_shape=tile, average=average)
    versions = "each seen once" if average == "none" else f"averaged over versions ({average})"
    text = f"Prediction: tiles of up to {_size(tile)} pixels, {versions}."
    fact = f"{recipe.network.norm} norm"
    return recipe, Decision(text, fact, "predict.average=mirrored, four times slower")


def choose_hardware(recipe: Recipe, situation: Situation) -> tuple[Recipe, Decision]:
    """bf16 where the processor has it; loading processes where there are cores to spare.

    A patch costs about 2 ms. On two cores that all work for the network, a second process takes
    more time from it than it saves (benchmarks/README.md, Loading).
    """
    machine, train = situation.machine, recipe.train
    precision = train.precision
    if precision == AUTO:
        precision = "bf16" if machine.has_bf16 else "fp32"
    spare = machine.cores - 1 if machine.device != "cpu" else machine.cores // 4
    workers = min(spare, 8) if train.workers == AUTO else train.workers
    recipe = _change(recipe, "train", precision=precision, workers=workers)
    text = (
        f"Machine: {machine.name}, {machine.cores} cores; {precision}"
        f"{', channels last' if train.channels_last and recipe.network.dims == 2 else ''}, "
        f"{counted(workers, 'loading process')}."
    )
    fact = f"bf16 in hardware: {'yes' if machine.has_bf16 else 'no'}; {machine.cores} cores"
    return recipe, Decision(text, fact, "train.precision=fp32")


def choose_batch(recipe: Recipe, situation: Situation) -> tuple[Recipe, Decision]:
    """4 patches on a CPU, 16 elsewhere; fewer where they would not fit into memory.

    Raises:
        PlanError: a batch that was asked for, or a single patch, does not fit.
    """
    machine, asked = situation.machine, recipe.train.batch_size
    dtype = {"bf16": torch.bfloat16, "fp64": torch.float64}.get(recipe.train.precision)
    limit = MEMORY_SHARE * machine.memory_bytes

    def needed(batch: int) -> int:
        return memory_estimate(
            recipe.network,
            situation.data.channels,
            batch,
            settled(recipe.sampling.patch_shape),
            dtype=dtype or torch.float32,
        )

    first = (4 if machine.device == "cpu" else 16) if asked == AUTO else asked
    batch = first
    while batch > 1 and needed(batch) > limit:
        batch //= 2
    fits = needed(batch) <= limit
    if not fits or (asked != AUTO and batch < asked):
        fewer = f"--set train.batch_size={batch} --set train.accumulate={first // batch}"
        raise PlanError(
            f"{first} patches in a step need about {needed(first) / 1e9:.1f} GB, the machine has "
            f"{machine.memory_bytes / 1e9:.1f}.",
            hint=f"{batch} fit: {fewer}."
            if fits
            else "Not even one fits: a smaller sampling.patch_shape, or narrower network.widths.",
        )
    recipe = _change(recipe, "train", batch_size=batch)
    effective = batch * recipe.train.accumulate
    more = f", {effective} with accumulation" if effective > batch else ""
    text = f"Step: {batch} patches{more}, about {needed(batch) / 1e9:.1f} GB."
    fact = f"{machine.memory_bytes / 1e9:.1f} GB of memory on {machine.device}"
    return recipe, Decision(text, fact, f"{2 * batch} patches: {needed(2 * batch) / 1e9:.1f} GB")


RULES: tuple[Rule, ...] = (
    choose_downscale,
    choose_intensity,
    choose_network,
    choose_patch,
    choose_sampling,
    choose_augmentation,
    choose_prediction,
    choose_hardware,
    choose_batch,
)


def plan_duration(
    recipe: Recipe, data: Fingerprint, training_s: float, step_s: float
) -> tuple[Recipe, Decision]:
    """How many epochs of how many steps.

    By time: about twenty epochs, none shorter than 5 s or longer than 2 minutes; in a very short
    training three, so that there is a choice of weights and a place to resume from. With epochs
    given: an epoch sees as many pixels as the training cases have.

    Args:
        training_s: Seconds left for training, validation included. Not used when the recipe
            gives epochs.
        step_s: Measured seconds of one step alone, all of its batches. Not used when the recipe
            gives epochs.
    """
    train, patch = recipe.train, settled(recipe.sampling.patch_shape)
    batch_size = settled(train.batch_size)
    patches = batch_size * train.accumulate
    batch_pixels = patches * math.prod(patch)
    shape = recipe.preparation.working_shape(data.median_shape)
    working_pixels = data.pixels_per_epoch * math.prod(shape) / math.prod(data.median_shape)
    epochs, speed = train.epochs, ""
    if epochs is not None:
        steps = max(1, math.ceil(working_pixels / batch_pixels))
    else:
        total = training_s / (step_s * STEP_OVERHEAD / 0.9)  # A tenth is for validation.
        epoch_s = min(120.0, max(5.0, training_s / 20), training_s / 3)
        epochs = max(1, round(training_s / epoch_s))
        steps = max(1, round(total / epochs))
        speed = f" at {step_s * 1000:.0f} ms a step ({patches / step_s:.1f} patches/s)"
        if train.steps_per_epoch != AUTO:
            epochs = max(1, round(total / train.steps_per_epoch))
    steps = steps if train.steps_per_epoch == AUTO else train.steps_per_epoch
    cases = train.validation_cases
    if cases == AUTO:
        case_pixels = working_pixels / data.cases
        cases = max(2, round(VALIDATION_SHARE * steps * batch_pixels / case_pixels))
    recipe = _change(recipe, "train", epochs=epochs, steps_per_epoch=steps, validation_cases=cases)
    text = (
        f"Training: {counted(epochs, 'epoch')} of {counted(steps, 'step')}{speed}, "
        f"{train.optimizer}, learning rate "
        f"{train.learning_rate} ({train.schedule.replace('_', ' ')}), "
        f"{'average of weights, ' if train.ema_decay else ''}best validation Dice kept."
    )
    passes = epochs * steps * batch_pixels / working_pixels
    fact = f"{training_s:.0f} s for training" if speed else "epochs as set"
    return recipe, Decision(
        text,
        f"{fact}; each pixel is seen about {passes:.0f} times",
        "more minutes",
        _source_of(plan_duration),
    )


def _expected_passes(recipe: Recipe, situation: Situation, factor: int) -> float:
    """How often training will see each pixel of images that are so many times smaller."""
    train, machine, data = recipe.train, situation.machine, situation.data
    if train.epochs is not None:
        return train.epochs
    speed = PIXELS_PER_S[machine.device] * (machine.cores if machine.device == "cpu" else 1)
    pixels = data.pixels_per_epoch / factor ** len(data.median_shape)
    return 60 * (train.minutes or 0.0) * speed / pixels


def _patch_limit(situation: Situation) -> int:
    """Longest side of a patch, pixels."""
    if len(situation.data.median_shape) == 3:
        return 96
    return 256 if situation.machine.device == "cpu" else 512


def _source_of(rule: Callable[..., object]) -> str:
    """A rule's docstring without its formal part, in one line."""
    text = inspect.getdoc(rule) or ""
    for part in ("Args:", "Raises:"):
        text = text.partition(part)[0]
    return " ".join(text.split())


def _size(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _change(recipe: Recipe, section: str, **values: object) -> Recipe:
    """A copy with some values of one section changed."""
    return replace(recipe, **{section: replace(getattr(recipe, section), **values)})
