"""How long: epochs and steps, from the speed that was measured."""

from __future__ import annotations

import math
from dataclasses import replace

from ushape.config import AUTO, resolved
from ushape.data.grouping import Grouping
from ushape.data.splits import Splits
from ushape.formatting import pluralize, size_text
from ushape.planning.fingerprint import Fingerprint
from ushape.planning.recipe import Recipe
from ushape.planning.rules.result import RuleResult, Situation, change, source_of

STEP_OVERHEAD = 1.12
"""A step in training takes so much longer than one measured alone: loading, average, logging."""

VALIDATION_SHARE = 0.4
"""Validation pixels per training pixel in an epoch. A training step costs about four times a
prediction of as many pixels (FACTS: 481 against 119 ms), so this is a tenth of the time."""


def plan_duration(
    recipe: Recipe, data: Fingerprint, training_s: float, step_s: float
) -> tuple[Recipe, RuleResult]:
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
    train, patch = recipe.train, resolved(recipe.sampling.patch_shape)
    batch_size = resolved(train.batch_size)
    patches = batch_size * train.accumulate_grad_batches
    batch_pixels = patches * math.prod(patch)
    shape = recipe.preprocessing.working_shape(data.median_shape)
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
    recipe = change(recipe, "train", epochs=epochs, steps_per_epoch=steps, validation_cases=cases)
    text = (
        f"Training: {pluralize(epochs, 'epoch')} of {pluralize(steps, 'step')}{speed}; the weights "
        "of the best validation Dice are kept."
    )
    passes = epochs * steps * batch_pixels / working_pixels
    fact = f"{training_s:.0f} s for training" if speed else "epochs as set"
    return recipe, RuleResult(
        text,
        f"{fact}; each pixel is seen about {passes:.0f} times",
        "more minutes",
        source_of(plan_duration),
    )


OVERLAP_PX = 64
"""Of neighboring tiles: half of it is how far the edge of a tile lies from what it counts for."""


def choose_prediction(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Few large tiles, which overlap by 64 pixels: most of the time of a large image goes into
    what is computed twice (benchmarks/README.md, Prediction speed).

    Instance and group norm see the tile's own statistics: tiles of about the patch size.
    """
    predict = recipe.predict
    tile = predict.tile_shape
    patch = resolved(recipe.sampling.patch_shape)
    if tile == AUTO:
        in_plane = 1024 if len(patch) == 2 else 160
        limit = in_plane if recipe.network.norm in ("none", "batch") else 0
        tile = tuple(max(size, limit) for size in patch)
    overlap = predict.tiling.overlap_fraction
    if overlap == AUTO:
        overlap = round(min(0.25, OVERLAP_PX / min(tile)), 4)
    average = "none" if predict.tta == AUTO else predict.tta
    tiling = replace(predict.tiling, overlap_fraction=overlap)
    recipe = change(recipe, "predict", tile_shape=tile, tta=average, tiling=tiling)
    versions = "each seen once" if average == "none" else f"averaged over versions ({average})"
    text = (
        f"Prediction: tiles of about {size_text(tile)} pixels that overlap by {overlap:.0%}, "
        f"{versions}."
    )
    fact = f"{recipe.network.norm} norm"
    return recipe, RuleResult(text, fact, "predict.tta=mirrored, four times slower")


FEW_GROUPS = 10
"""Fewer test groups give an interval that is not to be relied on."""

USUAL_FOLDS = 5


def judge_split(
    recipe: Recipe, data: Fingerprint, grouping: Grouping, splits: Splits
) -> RuleResult:
    """One training in the user's time. Folds test on every group, for as many times the time: the
    user decides. Slices that look like their neighbors tell little more than one of them, so that
    groups count, not images.
    """
    group_of = {case.id: case.group for case in grouping.cases}
    tested = len({group_of[case_id] for case_id in splits.test})
    total = len(set(group_of.values()))
    folds = recipe.split.folds
    alike = f", in which neighbors are {data.redundancy:.0%} alike" if data.redundancy else ""
    fact = f"{len(group_of)} images in {pluralize(total, 'group')}{alike}"
    if folds is not None:
        text = f"Scores: fold {recipe.split.fold + 1} of {folds}, on {pluralize(tested, 'group')}."
        return RuleResult(text, fact, "one split", source_of(judge_split))
    rests = f"Scores: one split, on {pluralize(tested, 'group')}"
    more = min(USUAL_FOLDS, total)
    advice = f"; --folds {more} would test on all {total}, in {more} times the time"
    few = tested < FEW_GROUPS and grouping.kind != "stack"
    text = f"{rests}{advice if few else ''}."
    return RuleResult(text, fact, f"--folds {more}", source_of(judge_split))
