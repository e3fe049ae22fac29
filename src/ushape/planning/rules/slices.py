"""Rule that decides whether volumes are processed whole (3D) or by slice (2D and 2.5D)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ushape.config import AUTO, resolved
from ushape.data.slices import describe_missing, have_neighbors
from ushape.errors import ConfigError
from ushape.formatting import pluralize
from ushape.planning.fingerprint import ClassFacts, Fingerprint
from ushape.planning.recipe import Recipe
from ushape.planning.rules.axes import STILL
from ushape.planning.rules.result import RuleResult, change
from ushape.types import Case

FEW_SLICES = 16
"""Median number of slices below which volumes have few of them: a network in 3D can halve them at
most once or twice."""

COMPARED: tuple[int | None, ...] = (None, 1, 3)
"""Values of `preprocessing.slices` that are compared: 3D, 2D and 2.5D."""

FEW_STEPS = 2_000
"""Number of steps in 3D below which 2D and 2.5D may be better. On volumes of 48 slices, 399 steps
in 3D had a Dice of 0.872, and 1,761 steps in 2D, in the same time, 0.925 (benchmarks/README.md)."""

MIN_MINUTES = 5
"""Minutes from which 2D, 2.5D and 3D are compared in trials."""

SOURCE = (
    "A network in 3D sees the most, but its steps are slow, and across thick slices its kernels "
    f"learn little. Volumes of fewer than {FEW_SLICES} slices, or whose slices are at least "
    f"{STILL:g} times as far apart as their pixels, or for which there is time for fewer than "
    f"{FEW_STEPS:,} steps in 3D, are therefore also tried in 2D and 2.5D; a trial has an eighth of "
    "the training, in the same time, and the highest validation score decides. nnU-Net (Isensee et "
    "al. 2021, 10.1038/s41592-020-01008-z) chooses between 2D and 3D "
    "by cross-validation."
)


def name_slices(slices: int | None) -> str:
    """Return the name of a value of `preprocessing.slices` for volumes."""
    if slices is None:
        return "3D"
    return "2D" if slices == 1 else f"2.5D with {slices} slices"


def choose_slices(
    recipe: Recipe, data: Fingerprint, groups: Sequence[Sequence[Case]]
) -> tuple[Recipe, RuleResult | None, tuple[int | None, ...]]:
    """Choose 3D if the recipe leaves it open, and whether 2D and 2.5D are worth a comparison.

    Args:
        data: Properties of the training cases, with all their axes.
        groups: Cases of each group.

    Returns:
        The recipe, the decision (None for images by themselves), and the values of
        preprocessing.slices to compare, if any.

    Raises:
        ConfigError: if a setting for three axes contradicts preprocessing.slices, or if it is set
            although no image has a neighbor in its group.
    """
    given, is_volume = recipe.preprocessing.slices, len(data.median_shape) == 3
    if not is_volume:
        recipe = change(recipe, "preprocessing", slices=None if given in (AUTO, 1) else given)
        result = _describe_stack(resolved(given), groups) if given not in (AUTO, 1, None) else None
        return recipe, result, ()
    stated = recipe.preprocessing.spacing_mm
    if stated != AUTO and (stated is None or len(stated) == 3):
        data = replace(data, spacing_mm=stated)
    is_compared, reason = _is_compared(recipe, data)
    recipe = change(recipe, "preprocessing", slices=None if given == AUTO else given)
    chosen = recipe.preprocessing.slices
    result = RuleResult(
        text=f"Dimensions: {name_slices(resolved(chosen))}{reason}",
        fact=f"a median of {data.median_shape[0]} slices{_spacing_text(data)}",
        alternative=" or ".join(name_slices(one) for one in COMPARED if one != chosen),
        source=SOURCE,
    )
    compared = COMPARED if is_compared else ()
    return (_without_z(recipe) if chosen is not None else recipe), result, compared


def _is_compared(recipe: Recipe, data: Fingerprint) -> tuple[bool, str]:
    """Return whether 3D is compared with 2D and 2.5D, and the end of a sentence with the reason."""
    given, reason = recipe.preprocessing.slices, _reason_to_compare(data)
    if recipe.start_from is not None and given != AUTO:
        return False, ", as set or as in the run that the training starts from."
    if given is None:  # As set, or as `without_comparison` leaves it.
        return False, (
            ", without a comparison: preprocessing.slices is null, as in all runs of a "
            "cross-validation or learning curve for which it is not set."
        )
    if given != AUTO:
        return False, ", as set."
    if has_settings_of_volumes(recipe):
        why = ", because the recipe has settings for three axes, or starts from other weights."
        return False, why
    if not reason:
        return False, ": the slices are many and not thick (2D: --set preprocessing.slices=1)."
    if recipe.train.minutes is None or recipe.train.minutes < MIN_MINUTES:
        return False, (
            f". {reason}, so 2D or 2.5D may be better (--set preprocessing.slices=1 or 3); they "
            f"are compared from {MIN_MINUTES} minutes on (--minutes)."
        )
    return True, _comparison_text(reason)


def _comparison_text(reason: str) -> str:
    return (
        f". {reason}, so `ushape train` without --plan first compares 3D with 2D and 2.5D in "
        "short trials (to decide it: --set preprocessing.slices=null, 1 or 3)."
    )


def reconsider_slices(
    recipe: Recipe, planned: Recipe, decided: RuleResult
) -> tuple[RuleResult, tuple[int | None, ...]]:
    """Compare 3D with 2D and 2.5D if there is time for few steps in 3D, although slices are many.

    Args:
        recipe: Recipe before anything was decided.
        planned: Complete recipe for volumes in 3D.
        decided: Decision of `choose_slices`, without a comparison.

    Returns:
        The decision, and the values of preprocessing.slices to compare, if any.
    """
    assert planned.train.epochs is not None, "the number of epochs is planned"
    steps = planned.train.epochs * resolved(planned.train.steps_per_epoch)
    is_open = recipe.preprocessing.slices == AUTO and not has_settings_of_volumes(recipe)
    has_time = recipe.train.minutes is not None and recipe.train.minutes >= MIN_MINUTES
    if not (is_open and has_time and steps < FEW_STEPS):
        return decided, ()
    reason = _comparison_text(f"There is time for only {pluralize(steps, 'step')} in 3D")
    fact = f"{decided.fact}; {pluralize(steps, 'step')} in 3D"
    return replace(decided, text=f"Dimensions: 3D{reason}", fact=fact), COMPARED


def without_comparison(recipe: Recipe) -> Recipe:
    """Return a recipe that processes volumes in 3D if it leaves this open, for runs of a series."""
    if recipe.preprocessing.slices != AUTO:
        return recipe
    return change(recipe, "preprocessing", slices=None)


def see_slices(data: Fingerprint, recipe: Recipe) -> Fingerprint:
    """Return the properties of the images as the network receives them: volumes as slices.

    The number of objects in a slice is estimated from their size.
    """
    slices = resolved(recipe.preprocessing.slices)
    data = replace(data, channels=recipe.preprocessing.input_channels(data.channels))
    if slices is None or len(data.median_shape) == 2:
        return data
    depth, ratio = data.median_shape[0], _thickness(data) or 1.0

    def in_slice(objects: float, size: float) -> float:
        return objects * min(1.0, size / (ratio * depth))

    def as_seen(own: ClassFacts) -> ClassFacts:
        return replace(own, objects_per_case=in_slice(own.objects_per_case, own.object_size))

    return replace(
        data,
        median_shape=data.median_shape[1:],
        largest_shape=data.largest_shape[1:],
        spacing_mm=None if data.spacing_mm is None else data.spacing_mm[1:],
        mirror_axes=tuple(axis - 1 for axis in data.mirror_axes if axis > 0),
        objects_per_case=in_slice(data.objects_per_case, data.object_size),
        classes=tuple(map(as_seen, data.classes)),
        slices_per_case=depth,
    )


def has_settings_of_volumes(recipe: Recipe) -> bool:
    """Return whether the recipe has settings that only fit a network in 3D, or other weights."""
    network, preprocessing = recipe.network, recipe.preprocessing
    rows: list[object] = [network.stem, recipe.sampling.patch_shape, recipe.predict.tile_shape]
    rows += [preprocessing.shape, preprocessing.downscale]
    for one in (network.strides, network.kernels):
        rows += one if isinstance(one, tuple) else []
    has_rows = any(isinstance(row, tuple) and len(row) == 3 for row in rows)
    axes: list[int] = [] if recipe.predict.mirror_axes == AUTO else [*recipe.predict.mirror_axes]
    if recipe.augment != AUTO:
        geometry = recipe.augment.geometry
        axes += [*geometry.flip_axes, *geometry.still_axes]
    # Only -1 and -2 are the same axes in a slice.
    has_rows = has_rows or any(axis >= 0 or axis == -3 for axis in axes)
    return has_rows or network.dims == 3 or network.is_custom or recipe.start_from is not None


def _reason_to_compare(data: Fingerprint) -> str:
    """Return why networks in 2D and 3D may differ clearly; '' if slices are many and thin."""
    depth, thickness = data.median_shape[0], _thickness(data)
    if thickness is not None and thickness >= STILL:
        return f"The slices are {thickness:.3g} times as far apart as their pixels"
    if depth < FEW_SLICES:
        return f"The volumes have few slices ({depth}, median)"
    return ""


def _thickness(data: Fingerprint) -> float | None:
    """Return the distance of the slices in pixels of a slice; None if it is unknown."""
    return None if data.spacing_mm is None else data.spacing_mm[0] / min(data.spacing_mm[1:])


def _spacing_text(data: Fingerprint) -> str:
    if data.spacing_mm is None:
        return ", spacing unknown"
    return f", spacing {' × '.join(f'{length:.3g}' for length in data.spacing_mm)} mm"


def _describe_stack(slices: int | None, groups: Sequence[Sequence[Case]]) -> RuleResult:
    """Describe images that are slices of a stack, and how many lack a neighbor."""
    refuse_without_neighbors(groups)
    text = (
        f"Dimensions: 2.5D, as set: each image with its neighbors in the stack, {slices} slices in "
        "the order of the last number in their names."
    )
    return RuleResult(
        text=f"{text} {describe_missing(groups)}".strip(),
        fact=f"{pluralize(len(groups), 'group')} of images",
        alternative="preprocessing.slices=null",
        source="Neighbors show what is ambiguous in a single slice. An image whose neighbor is "
        "missing, or has another size, sees the nearest slice twice.",
    )


def refuse_without_neighbors(groups: Sequence[Sequence[Case]]) -> None:
    """Check that at least one image has a neighbor in the stack.

    Args:
        groups: Training cases of each group.

    Raises:
        ConfigError: if none has one, so that the network would learn nothing about neighbors.
    """
    if not have_neighbors(groups):
        raise ConfigError(
            "No training image has a neighbor in its group whose name differs only in the last "
            "number, so that networks in 2.5D would only see repeated images.",
            code="no_neighbors",
            hint="Define the stacks as groups, with --groups or the column group of a table, or "
            "use --set preprocessing.slices=null.",
        )


def _without_z(recipe: Recipe) -> Recipe:
    """Return a recipe whose settings of the resolution are those of the slices.

    Raises:
        ConfigError: if it resizes volumes along z.
    """
    values: dict[str, object] = {}
    for name in ("downscale", "shape", "spacing_mm", "target_spacing_mm"):
        value = getattr(recipe.preprocessing, name)
        if not isinstance(value, tuple) or len(value) != 3:
            continue
        if name == "shape" or (name == "downscale" and value[0] != 1):
            raise ConfigError(
                f"preprocessing.{name} is {list(value)}, but slices are not resampled along z.",
                code="axis_count_mismatch",
                hint=f"Set two numbers for y and x, as in preprocessing.{name}="
                f"{list(value[1:])}, or use --set preprocessing.slices=null.",
            )
        values[name] = value[1:]
    return change(recipe, "preprocessing", **values)


@dataclass(frozen=True)
class Trial:
    """Score of a trial with a value of `preprocessing.slices`."""

    slices: int | None
    dice: float
    """Validation Dice of the best weights."""

    precision: float | None = None
    """Average precision of the validation objects; None if they are not learned."""


def best_trial(trials: Sequence[Trial]) -> Trial:
    """Return the first of the trials with the best score.

    This is the average precision of the objects if all trials have it, otherwise the Dice.
    """
    has_all = all(one.precision is not None for one in trials)
    return max(trials, key=lambda one: (one.precision if has_all else 0, one.dice))


def describe_trials(trials: Sequence[Trial], seconds: float, fact: str) -> str:
    """Describe the decision by trials in words.

    Args:
        seconds: Duration of each trial.
        fact: Fact about the volumes because of which they were compared.
    """
    best = best_trial(trials)
    scores = ", ".join(f"{one.dice:.4f} in {name_slices(one.slices)}" for one in trials)
    text = (
        f"Dimensions: {name_slices(best.slices)}, by trials of {seconds:.0f} s each. Validation "
        f"Dice: {scores}"
    )
    if all(one.precision is not None for one in trials):
        known = ", ".join(
            f"{one.precision or 0:.4f} in {name_slices(one.slices)}" for one in trials
        )
        text += f"; average precision of the objects, which decides: {known}"
    return f"{text} ({fact}; to decide it: --set preprocessing.slices=null, 1 or 3)."
