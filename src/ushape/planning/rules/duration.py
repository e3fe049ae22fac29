"""Duration of the training: epochs, steps and validations that fit into the time."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ushape.config import AUTO, resolved
from ushape.formatting import pluralize
from ushape.planning.recipe import Recipe, TrainConfig
from ushape.planning.rules.result import RuleResult, Situation, TimeBudget, change
from ushape.planning.timing import FORWARD_SHARE, FROZEN_SHARE, predicted_pixels

STEP_OVERHEAD = 1.06
"""Duration of a step in training relative to one measured alone: averaging, logging, callbacks."""

VALIDATION_SHARE = 0.06
"""Share of the training time that is planned for validation."""

MOST_VALIDATION = 0.1
"""Share of the training time that validation takes at most, unless a single one takes longer."""

USUAL_EPOCHS = 10
"""Number of epochs if training has a time limit, each with a validation and a checkpoint."""

MIN_STEPS = 50
"""Number of steps below which a network hardly learns anything."""

MIN_EPOCH_STEPS = 10
"""Number of steps of an epoch, if at least three such epochs fit into the time."""

MIN_VALIDATION = 2
"""Smallest number of cases of a validation."""


@dataclass(frozen=True, kw_only=True)
class Division:
    """Epochs of a training run, each with some steps and a validation."""

    epochs: int
    steps: int
    """Number of steps of an epoch."""

    cases: int
    """Largest number of cases of a validation."""

    validation_s: float = 0.0
    """Expected seconds of a validation; 0: not needed, since the time is not limited."""


def choose_duration(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Choose the number of epochs and of steps per epoch, by the measured speed."""
    train, data = recipe.train, situation.data
    patches = resolved(train.batch_size) * train.accumulate_grad_batches
    batch_pixels = patches * math.prod(resolved(recipe.sampling.patch_shape))
    shape = recipe.preprocessing.working_shape(data.median_shape)
    working_pixels = data.pixels_per_epoch * math.prod(shape) / math.prod(data.median_shape)
    # Seconds for the validation of a case, in steps that wait for no batch.
    case_steps = FORWARD_SHARE * predicted_pixels(recipe, [shape]) / batch_pixels
    speed, fact, evaluation_s = "", "the number of epochs is set", 0.0
    shortage = untried = ""
    if train.epochs is not None:
        steps = max(1, math.ceil(working_pixels / batch_pixels))
        steps = steps if train.steps_per_epoch == AUTO else train.steps_per_epoch
        cases = train.max_validation_cases
        if cases == AUTO:
            cases = usual_cases(steps, case_steps)
        division = Division(epochs=train.epochs, steps=steps, cases=cases)
    else:
        budget = situation.measure_time(recipe)
        if recipe.predict.tta == AUTO and not budget.tries_mirroring:
            recipe = change(recipe, "predict", tta="none")
            untried = (
                " Mirrored versions are not tried, because they would take too long; to try them: "
                "--set predict.tta=validated."
            )
        frozen = train.encoder_freeze_fraction * recipe.network.is_pretrained
        spent_s = budget.step_s * (1 - frozen * (1 - FROZEN_SHARE)) * STEP_OVERHEAD
        spent_s += budget.waiting_s or 0.0
        division = divide_into_epochs(
            train, budget.training_s, spent_s, case_steps * budget.step_s, situation.split.validated
        )
        speed, fact = describe_speed(budget, patches)
        evaluation_s = budget.evaluation_s
        total = budget.training_s / (spent_s + division.validation_s / division.steps)
        shortage = describe_shortage(int(total), budget.training_s / max(total, 1e-9), budget)
    epochs, steps = division.epochs, division.steps
    recipe = change(
        recipe, "train", epochs=epochs, steps_per_epoch=steps, max_validation_cases=division.cases
    )
    if recipe.predict.tta == AUTO:
        recipe = change(recipe, "predict", tta="validated")
    learns_objects = recipe.labels.objects == "distance"
    best = "average precision of validation objects" if learns_objects else "validation Dice"
    passes = epochs * steps * batch_pixels / working_pixels
    return recipe, RuleResult(
        text=f"Training: {pluralize(epochs, 'epoch')} of {pluralize(steps, 'step')}{speed}; the "
        f"weights with the best {best} are kept.{untried}{shortage}",
        fact=f"{fact}; each pixel is seen {passes:.1f} times on average",
        alternative="more minutes or epochs",
        source="A given time is divided into about ten epochs of 5 s to 2 minutes, or three if it "
        f"is very short, so that validation takes about {VALIDATION_SHARE:.0%} of the time. If "
        f"three validations of {MIN_VALIDATION} cases would take more than {MOST_VALIDATION:.0%}, "
        "there are fewer epochs, or a single case. If the "
        "number of epochs is given, an epoch has as many pixels as the training cases.",
        evaluation_s=evaluation_s,
        validation_s=division.validation_s,
    )


def describe_speed(budget: TimeBudget, patches: int) -> tuple[str, str]:
    """Return the speed of the training, and the facts that the number of steps follows from.

    Args:
        patches: Number of patches of a step.
    """
    step_s = budget.step_s + (budget.waiting_s or 0.0)
    fact = f"{budget.training_s:.0f} s for training"
    if budget.waiting_s is None:
        fact += "; the loading of patches was not timed, because a training case cannot be read"
    elif budget.waiting_s > 0:
        fact += f"; a step waits {budget.waiting_s * 1000:.1f} ms for its patches"
    return f" at {step_s * 1000:.0f} ms per step ({patches / step_s:.1f} patches/s)", fact


def usual_cases(steps: float, case_steps: float) -> int:
    """Return the number of validation cases that take the usual share of an epoch.

    Args:
        steps: Steps of an epoch.
        case_steps: Seconds for the validation of a case, in steps.
    """
    return max(MIN_VALIDATION, round(VALIDATION_SHARE * steps / case_steps))


def divide_into_epochs(
    train: TrainConfig, training_s: float, step_s: float, case_s: float, validated: int
) -> Division:
    """Divide a given time into epochs whose validations take only a small share of it.

    Args:
        train: Settings, some of which may set the steps or the validation cases of an epoch.
        training_s: Seconds for steps and validations.
        step_s: Seconds of a step.
        case_s: Seconds for the validation of a case.
        validated: Number of validation cases that there are.
    """
    asked, cases = train.steps_per_epoch, train.max_validation_cases
    total = (1 - VALIDATION_SHARE) * training_s / step_s
    least = min(MIN_VALIDATION if cases == AUTO else cases, validated)
    if asked != AUTO:
        epochs = max(1, round(training_s / (asked * step_s + least * case_s)))
    else:
        epochs = _count_epochs(total, training_s, least * case_s / step_s)
        most = MOST_VALIDATION * training_s / case_s  # Validations of one case.
        if epochs * least > most:
            if cases == AUTO and 2 * least > most:
                least = cases = 1
            epochs = max(1, min(epochs, int(most / least)))
    if cases == AUTO:
        cases = usual_cases(total / epochs, case_s / step_s)
    validation_s = min(cases, validated) * case_s
    # Steps get half of the time even if a single validation takes longer than that.
    left_s = max(training_s / epochs - validation_s, 0.5 * training_s / epochs)
    steps = max(1, round(left_s / step_s)) if asked == AUTO else asked
    return Division(epochs=epochs, steps=steps, cases=cases, validation_s=validation_s)


def _count_epochs(total: float, training_s: float, validation: float) -> int:
    """Return the number of epochs for a given time.

    Args:
        total: Number of steps that fit.
        validation: Seconds of the smallest validation, in steps.
    """
    epoch_s = min(120.0, max(5.0, training_s / USUAL_EPOCHS), training_s / 3)
    # If the measurement was disturbed, epochs of very few steps would mostly be validation.
    longest = max(MIN_EPOCH_STEPS, validation / VALIDATION_SHARE)
    return max(1, min(round(training_s / epoch_s), max(3, int(total / longest))))


def describe_shortage(steps: int, step_s: float, budget: TimeBudget) -> str:
    """Return a warning if too few steps fit into the minutes, and how many minutes would do.

    Args:
        steps: Number of steps that fit.
        step_s: Seconds of a step, validation included.
    """
    if steps >= MIN_STEPS:
        return ""
    other_s = budget.before_s + budget.evaluation_s
    minutes = math.ceil((other_s + MIN_STEPS * step_s) / 6) / 10
    fit = f"only {pluralize(steps, 'step')} fit" if steps > 1 else "hardly one step fits"
    return (
        f" Warning: {fit} into the given time, of which reading the data and the evaluation take "
        f"about {other_s:.0f} s. A network needs at least about {MIN_STEPS} steps to learn "
        f"anything: allow at least --minutes {minutes:g} per training."
    )
