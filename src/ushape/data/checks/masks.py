"""Checks of masks: the meaning of their values, and their alignment with the images."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ushape.data.checks.finding import Finding
from ushape.data.scan import DatasetStats
from ushape.formatting import pluralize
from ushape.labels.colors import color_text

RARE = 1e-4
"""Share of all pixels below which a class can hardly be learned."""

MIN_COMPARED_CASES = 8
"""Smallest number of cases for which the distribution over a dataset is meaningful."""

NEAR_PX = 3.0
"""Distance in pixels within which an outline counts as aligned with an edge."""

MOSTLY = 0.75
"""Share of aligned outlines above which the other outlines of a dataset are suspicious."""

WEAK = 0.5
"""Share of the edge strength nearby below which an outline counts as misaligned."""

MAD_TO_SIGMA = 1.4826
"""Ratio of standard deviation and median absolute deviation of a normal distribution."""


def find_empty(dataset: DatasetStats) -> Iterator[Finding]:
    """Find masks without foreground."""
    if dataset.label_space is None:
        return
    selected = dataset.readable
    empty = [stats.case.id for stats in selected if dataset.foreground_share(stats) == 0]
    if empty:
        yield Finding(
            check="empty",
            severity="note",
            text=f"In {pluralize(len(empty), 'mask')} ({len(empty) / len(selected):.0%}), no pixel "
            "is foreground.",
            fix="No action is needed if these images show no objects.",
            cases=tuple(empty),
        )


def find_odd_shapes(dataset: DatasetStats) -> Iterator[Finding]:
    """Find shapes of annotation tools that have no area or overlap themselves."""
    odd = [stats for stats in dataset.readable if stats.shape_remarks]
    if odd:
        yield Finding(
            check="odd_shapes",
            severity="warning",
            text=f"In {pluralize(len(odd), 'image')}, a shape may not be drawn as intended, e.g. "
            f"{odd[0].case.mask}: {odd[0].shape_remarks[0]}.",
            fix="Compare the outlines with the images in the report. Correct these shapes in the "
            "annotation tool, or remove them.",
            cases=tuple(stats.case.id for stats in odd),
        )


def find_value_notes(dataset: DatasetStats) -> Iterator[Finding]:
    """Report the decisions on mask values: soft edges, mixed encodings, object ids, and others."""
    for note in dataset.value_notes:
        yield Finding(
            check=note.check,
            severity=note.severity,
            text=note.text,
            fix=note.fix,
            cases=note.cases,
            in_copy="corrected" if note.is_corrected else "",
        )


def find_other_labels(dataset: DatasetStats) -> Iterator[Finding]:
    """Report additional labels of the same images, which are not used."""
    for other in dataset.other_labels:
        yield Finding(
            check="other_labels",
            severity="note",
            text=f"{other.text} It is not used.",
            fix=other.use,
        )


def find_stray_values(dataset: DatasetStats) -> Iterator[Finding]:
    """Find values or colors that are not a class, by the list of classes or by their rarity."""
    space = dataset.label_space
    if space is None:
        return
    strange: dict[str, dict[int, int]] = {}
    for stats in dataset.readable:
        own = set(space.unknown_values(stats.value_counts, stats.encoding))
        if space.values_are_colors and not space.nearest and dataset.labels.values is None:
            own |= _rare_colors(dataset) & stats.value_counts.keys()
        if own:
            strange[stats.case.id] = {value: stats.value_counts[value] for value in own}
    if not strange:
        return
    is_color = space.values_are_colors
    values = sorted({value for own in strange.values() for value in own})
    pixels = sum(sum(own.values()) for own in strange.values())
    shown = ", ".join(color_text(value) if is_color else str(value) for value in values[:5])
    yield Finding(
        check="stray_values",
        severity="error" if dataset.labels.values is not None else "warning",
        text=f"In {pluralize(len(strange), 'mask')}, some {'colors' if is_color else 'values'} "
        f"are not classes: {shown} ({pluralize(pixels, 'pixel')}).",
        fix="List all classes with --set labels.values=[...], or correct these pixels.",
        cases=tuple(strange),
    )


def _rare_colors(dataset: DatasetStats) -> set[int]:
    limit = RARE / 10 * dataset.value_counts.total()
    return {value for value, count in dataset.value_counts.items() if count < limit}


def find_class_problems(dataset: DatasetStats) -> Iterator[Finding]:
    """Find gaps in the class values, classes in only one group, and rare classes."""
    space = dataset.label_space
    if space is None or space.threshold is not None:
        return
    values = space.values
    if len(values) > 2 and max(values) < 256 and max(values) - min(values) + 1 != len(values):
        missing = sorted(set(range(min(values), max(values) + 1)) - set(values))
        yield Finding(
            check="class_gaps",
            severity="note",
            text=f"The mask values have gaps. Values missing between {min(values)} and "
            f"{max(values)}: {_shorten(missing)}.",
            fix="No action is needed, unless a class is missing.",
        )
    pixels = np.stack([dataset.class_pixels(stats) for stats in dataset.readable])
    groups = [dataset.inferred_groups[stats.case.id] for stats in dataset.readable]
    several = len(set(groups)) > 1
    for index in range(1, len(values)):
        owners = {groups[place] for place in np.flatnonzero(pixels[:, index])}
        share = pixels[:, index].sum() / max(1, pixels.sum())
        if several and len(owners) == 1:
            yield Finding(
                check="class_in_one_group",
                severity="warning",
                text=f"{_name(space.names[index])} occurs only in group {next(iter(owners))}, "
                "which can be used for training or for testing, but not for both.",
                fix="Annotate it in more groups, or remove the class.",
            )
        elif 0 < share < RARE:
            yield Finding(
                check="rare_class",
                severity="warning",
                text=f"{_name(space.names[index])} covers only {share:.4%} of all pixels.",
                fix="Annotate more of it, or increase the weight of its pixels with "
                "--set pixel_weights.class_weights=inverse_log.",
            )


def find_copies_of_images(dataset: DatasetStats) -> Iterator[Finding]:
    """Find masks that are copies of their image."""
    copies = [stats.case.id for stats in dataset.readable if stats.mask_is_image]
    if copies:
        yield Finding(
            check="mask_is_image",
            severity="error",
            text=f"In {pluralize(len(copies), 'pair')}, the mask is identical to the image.",
            fix="Export the mask again; apparently, the image was saved in its place.",
            cases=tuple(copies),
            in_copy="left out",
        )


def find_inverted(dataset: DatasetStats) -> Iterator[Finding]:
    """Find masks whose foreground share is unusual, but whose background share would not be."""
    space = dataset.label_space
    if space is None or len(space.values) != 2 or len(dataset.readable) < MIN_COMPARED_CASES:
        return
    selected, shares = [], []
    for stats in dataset.readable:
        background, foreground = dataset.class_pixels(stats)
        if background and foreground:
            selected.append(stats)
            shares.append(foreground / (background + foreground))
    if len(selected) < MIN_COMPARED_CASES:
        return
    logits = np.array([math.log(share / (1 - share)) for share in shares])
    middle = float(np.median(logits))
    spread = max(0.5, MAD_TO_SIGMA * float(np.median(np.abs(logits - middle))))
    framed = float(np.median([stats.border_share for stats in selected]))
    odd = [
        (abs(value - middle), stats)
        for value, stats in zip(logits, selected, strict=True)
        if abs(value - middle) > 3 * spread
        and abs(-value - middle) < 2 * spread
        and (stats.border_share > 0.5) != (framed > 0.5)
    ]
    if odd:
        odd.sort(key=lambda pair: -pair[0])
        yield Finding(
            check="inverted",
            severity="warning",
            text=f"{pluralize(len(odd), 'mask')} may be inverted: with foreground and background "
            "exchanged, the share of foreground would match the other masks.",
            fix="View them in check.html, and swap the two values if they are inverted.",
            cases=tuple(stats.case.id for _, stats in odd),
        )


def find_misplaced(dataset: DatasetStats) -> Iterator[Finding]:
    """Find outlines that miss the edges in the image, if those of the other cases lie on edges."""
    fitted = [stats for stats in dataset.fitting if stats.fit is not None]
    if len(fitted) < MIN_COMPARED_CASES:
        return
    # A random line through the image has an edge strength of 1; compare what exceeds it.
    kept = np.array([(e.fit.here - 1) / max(e.fit.best - 1, 1e-6) for e in fitted if e.fit])
    shifts = np.array([math.hypot(*stats.fit.shift) for stats in fitted if stats.fit])
    # A shift is only meaningful if most outlines of the dataset lie on edges. One in nine would be
    # this near by chance.
    if np.mean(shifts < NEAR_PX) < MOSTLY:
        return
    odd = [
        (value, stats)
        for value, shift, stats in zip(kept, shifts, fitted, strict=True)
        if value < WEAK and shift >= NEAR_PX
    ]
    if odd:
        odd.sort(key=lambda pair: pair[0])
        first = odd[0][1]
        assert first.fit is not None
        dy, dx = first.fit.shift
        yield Finding(
            check="misplaced",
            severity="warning",
            text=f"{pluralize(len(odd), 'mask')} may be shifted relative to the image, e.g. "
            f"{first.case.id} by about {dy} pixels in y and {dx} in x.",
            fix="View them in check.html, and align or annotate them again if necessary.",
            cases=tuple(stats.case.id for _, stats in odd),
        )


def _name(name: str) -> str:
    """Return the name of a class for the beginning of a sentence."""
    return name.capitalize() if name.startswith("class ") else f"Class {name}"


def _shorten(values: list[int], most: int = 6) -> str:
    shown = ", ".join(map(str, values[:most]))
    return shown + (f" and {len(values) - most} more" if len(values) > most else "")
