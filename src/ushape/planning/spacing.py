"""Decision whether cases are resampled to a common spacing, before the fingerprint is taken."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from ushape.config import AUTO
from ushape.data.case_stats import CaseStats
from ushape.data.spacing import (
    MAX_FACTOR,
    choose_common,
    factors_to,
    is_common,
    spacing_text,
)
from ushape.errors import ConfigError, DataError
from ushape.formatting import pluralize
from ushape.planning.recipe import Recipe
from ushape.planning.rules.result import RuleResult, change

KEEP = "--set preprocessing.target_spacing_mm=null"

SOURCE = (
    "Objects have the same size in pixels in all images of one spacing, so that the network need "
    "not learn each size. The spacing is that of nnU-Net (Isensee et al. 2021, "
    "10.1038/s41592-020-01008-z)."
)


def choose_target_spacing(
    recipe: Recipe, case_stats: Sequence[CaseStats], training: Collection[str]
) -> tuple[Recipe, list[RuleResult]]:
    """Decide to which spacing cases are resampled; no decision is reported if nothing differs.

    Volumes that are processed slice by slice are resampled within their slices only.

    Args:
        case_stats: All cases. Those of validation and test must also have a known spacing.
        training: Ids of the training cases, which decide.

    Raises:
        ConfigError: if the target has another number of axes, or the spacing of the files is set.
        DataError: if a target is set, and a file does not contain its spacing or far exceeds it.
    """
    config, dims, what = recipe.preprocessing, len(case_stats[0].shape), "images"
    if isinstance(config.slices, int) and dims == 3:
        case_stats, dims, what = [_within_slices(one) for one in case_stats], 2, "slices"
    target = config.target_spacing_mm
    missing = [one for one in case_stats if one.spacing_mm is None]
    used = [one for one in case_stats if one.case.id in training]
    known_spacings = [one.spacing_mm for one in used if one.spacing_mm is not None]
    if isinstance(target, tuple):
        _refuse(target, config.spacing_mm, dims)
        refuse_unfit(case_stats, target)
        text = f"Spacing: {what} are resampled to {spacing_text(target)}, as set by the user."
        return recipe, [RuleResult(text=text, fact="set by the user", source=SOURCE)]
    kept = change(recipe, "preprocessing", target_spacing_mm=None)
    is_usual = recipe.name == AUTO and config.shape is None and config.spacing_mm == AUTO
    if target is None or not is_usual or not known_spacings or is_common(known_spacings):
        return kept, []
    lowest, highest = np.min(known_spacings, axis=0), np.max(known_spacings, axis=0)
    between = f"{spacing_text(lowest)} and {spacing_text(highest)}"
    chosen = choose_common(known_spacings, [one.shape[-dims:] for one in used if one.spacing_mm])
    reason = _reason_against(case_stats, missing, chosen)
    fact = f"spacings of the training images are between {between}"
    if reason:
        text = f"Spacing: {what} keep their own, between {between}, because {reason}."
        return kept, [RuleResult(text=text, fact=fact, source=SOURCE)]
    median = np.median(known_spacings, axis=0)
    rule = "the median of the training images"
    if chosen[0] < median[0] and dims == 3:
        rule += ", along the thick slices the 10th percentile"
    text = (
        f"Spacing: {what} are resampled to {spacing_text(chosen)}, {rule}, because theirs are "
        f"between {between}; predictions return to the grid of each image ({KEEP} keeps each grid)."
    )
    recipe = change(recipe, "preprocessing", target_spacing_mm=chosen)
    alternative = "the grid of each image, preprocessing.target_spacing_mm=null"
    return recipe, [RuleResult(text=text, fact=fact, alternative=alternative, source=SOURCE)]


def _reason_against(
    case_stats: Sequence[CaseStats], missing: Sequence[CaseStats], target: Sequence[float]
) -> str:
    """Return why the spacings of the files are not used; '' if they are."""
    if missing:
        return (
            f"{len(missing)} of {pluralize(len(case_stats), 'file')} "
            f"{'has' if len(missing) == 1 else 'have'} none, such as "
            f"{missing[0].case.id}"
        )
    factors = [_growth(one, target) for one in case_stats]
    worst = int(np.argmax(factors))
    if factors[worst] > MAX_FACTOR:
        name = case_stats[worst].case.id
        return f"{name} would be enlarged {factors[worst]:.0f} times along an axis"
    unit = [one for one in case_stats if set(one.spacing_mm or ()) == {1.0}]
    if unit and len(unit[0].shape) == 2:
        return f"{unit[0].case.id} has exactly 1 mm, which often stands for an unknown spacing"
    return ""


def _within_slices(one: CaseStats) -> CaseStats:
    """Return statistics of a volume with the spacing of its slices."""
    return replace(one, spacing_mm=None if one.spacing_mm is None else one.spacing_mm[1:])


def _growth(one: CaseStats, target: Sequence[float]) -> float:
    """Return the largest factor by which an image grows along an axis."""
    return 1 / min(factors_to(one.spacing_mm, target, len(target)))


def _refuse(target: tuple[float, ...], spacing: tuple[float, ...] | str | None, dims: int) -> None:
    """Reject a target that contradicts the dimensions or a spacing set by the user."""
    if len(target) != dims:
        raise ConfigError(
            f"preprocessing.target_spacing_mm is {list(target)}, but the images have {dims} axes.",
            code="axis_count_mismatch",
            hint="Set one length for each axis: y, x for images; z, y, x for volumes.",
        )
    if isinstance(spacing, tuple) and spacing != target:
        raise ConfigError(
            f"preprocessing.spacing_mm is {list(spacing)}, but images are resampled to "
            f"{spacing_text(target)} from the spacing in their files.",
            code="settings_conflict",
            hint="Omit preprocessing.spacing_mm, and set the spacing in the headers instead.",
        )


def refuse_unfit(case_stats: Sequence[CaseStats], target: Sequence[float]) -> None:
    """Reject data that cannot be resampled to a spacing.

    Raises:
        DataError: if a file does not contain its spacing, or would be enlarged too much.
    """
    missing = [one.case.id for one in case_stats if one.spacing_mm is None]
    if missing:
        raise DataError(
            f"{len(missing)} of {pluralize(len(case_stats), 'file')} "
            f"{'does not contain its' if len(missing) == 1 else 'do not contain their'} spacing, "
            f"such as {missing[0]}, but images are to be resampled to {spacing_text(target)}.",
            code="missing_spacing",
            hint=f"Set the spacing in the headers, or keep the grid of each image: {KEEP}.",
        )
    for one in case_stats:
        if _growth(one, target) > MAX_FACTOR:
            assert one.spacing_mm is not None
            raise DataError(
                f"{one.case.id}: resampling from {spacing_text(one.spacing_mm)} to "
                f"{spacing_text(target)} would enlarge it more than {MAX_FACTOR:g} times.",
                code="implausible_spacing",
                hint="Correct the spacing in the header, or set a coarser "
                "preprocessing.target_spacing_mm.",
            )
