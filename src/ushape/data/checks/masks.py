"""Checks of masks: what their values mean, and whether they lie where the image shows it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from ushape.data.checks.finding import Finding
from ushape.data.scan import DatasetStats
from ushape.formatting import pluralize
from ushape.labels import MAX_CLASSES

SOFT = 0.9
"""Share of thin pixels among the odd ones from which they are soft edges and not classes."""

RARE = 1e-4
"""A class with a smaller share of all pixels will hardly be learned."""

MIN_CASES = 8
"""A data set's own distribution needs so many cases."""

NEAR_PX = 3.0
"""An outline within this distance lies on its edge."""

MOSTLY = 0.75
"""Share of outlines on their edges from which a data set's others are suspects."""

WEAK = 0.5
"""Of the edge strength nearby; outlines with less under them lie beside their edges."""

MAD_TO_SIGMA = 1.4826
"""Of a normal distribution."""


def find_empty(dataset: DatasetStats) -> Iterator[Finding]:
    if dataset.label_space is None:
        return
    selected = dataset.readable
    empty = [stats.case.id for stats in selected if dataset.foreground_share(stats) == 0]
    if empty:
        yield Finding(
            check="empty",
            severity="note",
            text=f"{pluralize(len(empty), 'mask')} without foreground "
            f"({len(empty) / len(selected):.0%}).",
            fix="Nothing where nothing is to be seen: sampling and scores take care of it.",
            cases=tuple(empty),
        )


def find_soft_edges(dataset: DatasetStats) -> Iterator[Finding]:
    """Two values, and between them what antialiasing or JPEG made of their border."""
    if dataset.meaning_is_stated:
        return
    soft = [e for e in dataset.readable if e.thin_share >= SOFT and not e.mask_is_image]
    if not soft or len(dataset.value_counts) < 4:
        return
    low, high = sharp_values(dataset.value_counts)
    odd = sum(
        count
        for stats in soft
        for value, count in stats.value_counts.items()
        if value not in (low, high)
    )
    colors = any(stats.encoding.kind == "colors" for stats in soft)
    yield Finding(
        check="soft_edges",
        severity="error",
        text=f"{pluralize(len(soft), 'mask')} with soft edges: {odd} pixels are neither "
        f"{_value(low, colors)} nor {_value(high, colors)}, which they most likely mean.",
        fix="Save masks without antialiasing and not as JPEG; "
        + (
            "map the colors back to the two that are meant (--fix does)."
            if colors
            else f"--set labels.threshold={threshold_between(low, high)} cuts in the middle."
        ),
        cases=tuple(stats.case.id for stats in soft),
        in_copy="corrected",
    )


def sharp_values(counts: Mapping[int, int]) -> tuple[int, int]:
    """The two commonest mask values, rising."""
    first, second = sorted(counts, key=lambda value: counts[value])[-2:]
    return min(first, second), max(first, second)


def threshold_between(low: int, high: int) -> int:
    """Values from this on are nearer to the higher one."""
    return (low + high + 1) // 2


def find_mixed_encodings(dataset: DatasetStats) -> Iterator[Finding]:
    """Gray values in some masks, colors or a palette in others: their codes do not agree."""
    kinds = Counter(stats.encoding.kind for stats in dataset.readable)
    if len(kinds) < 2:
        return
    common = kinds.most_common(1)[0][0]
    rare = [stats for stats in dataset.readable if stats.encoding.kind != common]
    listed = ", ".join(f"{count} as {kind}" for kind, count in kinds.most_common())
    yield Finding(
        check="encoding",
        severity="warning",
        text=f"Masks are written in different ways: {listed}.",
        fix="Save all masks in one way; gray values are safest.",
        cases=tuple(stats.case.id for stats in rare),
    )


def find_stray_values(dataset: DatasetStats) -> Iterator[Finding]:
    """Values, or colors, that are no class: by the user's own list, or by their rarity."""
    total = sum(dataset.value_counts.values())
    named = dataset.labels.values
    if named is not None:
        strange = set(dataset.value_counts) - {*named, dataset.labels.ignore}
    else:
        sharp = [stats for stats in dataset.readable if stats.thin_share < SOFT]
        is_color = any(stats.encoding.kind == "colors" for stats in sharp)
        limit = RARE / 10 * total
        counts = dataset.value_counts
        strange = {value for value, n in counts.items() if n < limit} if is_color else set()
    holders = [stats for stats in dataset.readable if strange & stats.value_counts.keys()]
    if not strange or not holders:
        return
    is_color = any(stats.encoding.kind == "colors" for stats in holders)
    pixels = sum(dataset.value_counts[value] for value in strange)
    shown = ", ".join(_value(value, is_color) for value in sorted(strange)[:5])
    yield Finding(
        check="stray_values",
        severity="error" if named is not None else "warning",
        text=f"{pluralize(len(holders), 'mask')} with {'colors' if is_color else 'values'} that "
        f"are no class: {shown} ({pixels} pixels).",
        fix="Name all classes with --set labels.values=[...], or repaint these pixels.",
        cases=tuple(stats.case.id for stats in holders),
    )


def find_class_trouble(dataset: DatasetStats) -> Iterator[Finding]:
    """Gaps in the numbering; classes in one group only; classes with almost no pixels."""
    space = dataset.label_space
    if space is None or space.threshold is not None or _are_ids(dataset):
        return
    values = space.values
    if len(values) > 2 and max(values) < 256 and max(values) - min(values) + 1 != len(values):
        missing = sorted(set(range(min(values), max(values) + 1)) - set(values))
        yield Finding(
            check="class_gaps",
            severity="note",
            text=f"Mask values leave gaps: {_shorten(missing)} of {min(values)} to "
            f"{max(values)} are in no mask.",
            fix="Nothing, unless a class should be there.",
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
                text=f"{_name(space.names[index])} is in group {next(iter(owners))} only: it can "
                "be learned or tested, not both.",
                fix="Annotate it in more groups, or leave the class out.",
            )
        elif 0 < share < RARE:
            yield Finding(
                check="rare_class",
                severity="warning",
                text=f"{_name(space.names[index])} has {share:.4%} of all pixels.",
                fix="Annotate more of it; "
                "--set pixel_weights.balance=true makes its pixels count more.",
            )


def find_object_ids(dataset: DatasetStats) -> Iterator[Finding]:
    if dataset.meaning_is_stated or not _are_ids(dataset):
        return
    most = max(len(stats.value_counts) - 1 for stats in dataset.readable)
    yield Finding(
        check="object_ids",
        severity="error" if len(dataset.value_counts) > MAX_CLASSES else "warning",
        text=f"The masks hold object ids rather than classes: up to {most} values in a mask, one "
        "connected object each, others in every image.",
        fix="--set labels.threshold=1 takes every object as foreground.",
        cases=tuple(stats.case.id for stats in dataset.readable if stats.parts_per_value),
    )


def _are_ids(dataset: DatasetStats) -> bool:
    """Each value is one connected object, and each image has its own number of them."""
    several = [stats for stats in dataset.readable if stats.parts_per_value]
    if len(several) < 2 or len(several) < len(dataset.readable) / 2:
        return False
    highest = {max(stats.value_counts) for stats in several}
    parts = float(np.median([stats.parts_per_value for stats in several]))
    most = max(len(stats.value_counts) for stats in several)
    return most >= 4 and parts <= 1.25 and len(highest) > max(2, len(several) // 4)


def find_copies_of_images(dataset: DatasetStats) -> Iterator[Finding]:
    copies = [stats.case.id for stats in dataset.readable if stats.mask_is_image]
    if copies:
        yield Finding(
            check="mask_is_image",
            severity="error",
            text=f"{pluralize(len(copies), 'mask')} identical to the image.",
            fix="The image was saved in the mask's place: export the mask again.",
            cases=tuple(copies),
            in_copy="left out",
        )


def find_inverted(dataset: DatasetStats) -> Iterator[Finding]:
    """Masks whose foreground share is far from all others', and whose background's is not."""
    space = dataset.label_space
    if space is None or len(space.values) != 2 or len(dataset.readable) < MIN_CASES:
        return
    selected, shares = [], []
    for stats in dataset.readable:
        background, foreground = dataset.class_pixels(stats)
        if background and foreground:
            selected.append(stats)
            shares.append(foreground / (background + foreground))
    if len(selected) < MIN_CASES:
        return
    logits = np.array([_logit(share) for share in shares])
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
            text=f"{pluralize(len(odd), 'mask')} that may be inverted: foreground and background "
            "would fit the other masks if they were exchanged.",
            fix="Look at them; exchange the two values where it is so.",
            cases=tuple(stats.case.id for _, stats in odd),
        )


def find_misplaced(dataset: DatasetStats) -> Iterator[Finding]:
    """Outlines that lie beside the image's edges, where those of the others lie on them."""
    fitted = [stats for stats in dataset.fitting if stats.fit is not None]
    if len(fitted) < MIN_CASES:
        return
    # 1 is what any line through the image would find: how much of the rest is under the outline?
    kept = np.array([(e.fit.here - 1) / max(e.fit.best - 1, 1e-6) for e in fitted if e.fit])
    shifts = np.array([math.hypot(*stats.fit.shift) for stats in fitted if stats.fit])
    # The data set must show that its outlines lie on edges, else a shift says nothing. Without
    # such a rule one in nine would be that near by chance.
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
            text=f"{pluralize(len(odd), 'mask')} that may be shifted against the image, e.g. "
            f"{first.case.id} by about {dy} pixels in y and {dx} in x.",
            fix="Look at them in check.html; register or annotate them again.",
            cases=tuple(stats.case.id for _, stats in odd),
        )


def _logit(share: float) -> float:
    return math.log(share / (1 - share))


def _name(name: str) -> str:
    """A class without a name of its own is called "class 3" already."""
    return name.capitalize() if name.startswith("class ") else f"Class {name}"


def _value(code: int, is_color: bool) -> str:
    return f"#{code:06x}" if is_color else str(code)


def _shorten(values: list[int], most: int = 6) -> str:
    shown = ", ".join(map(str, values[:most]))
    return shown + (f" and {len(values) - most} more" if len(values) > most else "")
