"""How long: epochs and steps, from the speed that was measured."""

from __future__ import annotations

import math

from ushape.planning.fingerprint import Fingerprint
from ushape.planning.recipe import AUTO, Recipe, settled
from ushape.planning.rules.decision import Decision, change, source_of
from ushape.words import counted

STEP_OVERHEAD = 1.12
"""A step in training takes so much longer than one measured alone: loading, average, logging."""

VALIDATION_SHARE = 0.4
"""Validation pixels per training pixel in an epoch. A training step costs about four times a
prediction of as many pixels (FACTS: 481 against 119 ms), so this is a tenth of the time."""


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
    recipe = change(recipe, "train", epochs=epochs, steps_per_epoch=steps, validation_cases=cases)
    text = (
        f"Training: {counted(epochs, 'epoch')} of {counted(steps, 'step')}{speed}; the weights "
        "of the best validation Dice are kept."
    )
    passes = epochs * steps * batch_pixels / working_pixels
    fact = f"{training_s:.0f} s for training" if speed else "epochs as set"
    return recipe, Decision(
        text,
        f"{fact}; each pixel is seen about {passes:.0f} times",
        "more minutes",
        source_of(plan_duration),
    )
