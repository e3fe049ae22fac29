"""Classes of masks with soft edges, from antialiasing or lossy compression such as JPEG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ushape.data.mask_stats import COMPRESSION_NOISE
from ushape.data.mask_values.reading import MaskReading
from ushape.errors import DataError
from ushape.labels import MAX_CLASSES, state_all_classes, value_histogram
from ushape.labels.colors import channels_of, distances

MIN_BETWEEN = 3
"""Smallest number of thin values between the classes that are soft edges."""

THIN = 0.05
"""Share of inner pixels below which a value occurs only in thin lines."""

NOISE = float(COMPRESSION_NOISE)
"""Distance of values, 0 to 255, up to which they are the same one with compression noise."""

MIN_CLASS = 5e-4
"""Share of the pixels below which a value is not a class in masks with compression noise."""

MAX_BLURRED = 0.2
"""Largest share of pixels halfway between two classes that are not adjacent to both of them."""

APART = 40.0
"""Smallest distance of two classes in masks with soft edges."""

DISTINCT = 22.0
"""Distance of values above which they may be two classes in spite of compression noise."""

PEAK = 6.0
"""Distance from the most common value of a class within which most of its pixels lie."""

SECOND_PEAK = 0.2
"""Share of these pixels from which a similar value may be another class, not noise."""

UNSURE = 0.3
"""Relative position between two classes, 0 to 0.5, from which a pixel may belong to either."""

MAX_UNSURE = 0.04
"""Largest share of such pixels among all pixels."""

MAX_UNSURE_OF_CLASS = 0.75
"""Largest share of such pixels, relative to those of the smallest class."""

NEGLIGIBLE = 1e-3
"""Share of such pixels below which it does not matter to which class they are assigned."""

BETWEEN = 0.25
"""Distance of a color from the line between two others, relative to its length, below which the
edge between the two cannot be distinguished from the color."""


@dataclass(frozen=True)
class SoftClasses:
    """Classes of masks with soft edges."""

    values: tuple[int, ...]
    """Value or color of each class, in increasing order."""

    cases: tuple[str, ...]
    """Ids of the cases whose masks have other values as well."""

    moved_share: float
    """Share of all pixels that have another value, and belong to the class with the nearest
    value."""

    unsure_share: float
    """Share of all pixels that lie halfway between two classes."""


def find_soft_classes(
    reading: MaskReading, known: Sequence[int] | None = None
) -> SoftClasses | None:
    """Find the classes of masks with soft edges; None if all values are classes.

    Args:
        known: Values of the classes, if the dataset defines them.

    Raises:
        DataError: if the masks have soft edges, and the class of a pixel is ambiguous.
    """
    total, inner = reading.total, reading.inner
    if not total:
        return None
    thin = [
        value
        for value in total
        if inner[value] < THIN * total[value] and value not in (known or ())
    ]
    extremes = () if reading.are_colors else _noisy_extremes(total)
    if not extremes and not _are_edges(thin, total, are_colors=reading.are_colors):
        return None
    if known is not None and not _are_noise(reading, set(total) - {*thin, *known}, known):
        return None
    centers = known if known is not None else extremes or _find_centers(reading, set(thin))
    values = np.array(sorted(centers))
    others = np.fromiter(total, dtype=np.int64)
    counts = np.fromiter(total.values(), dtype=np.int64)
    if len(values) < 2:
        raise _ambiguous(reading, values, "no two values cover areas")
    apart = np.sort(distances(others, values, are_colors=reading.are_colors), axis=1)
    is_unsure = apart[:, 0] > UNSURE * (apart[:, 0] + apart[:, 1])
    unsure = counts[is_unsure].sum() / counts.sum()
    nearest = distances(others, values, are_colors=reading.are_colors).argmin(axis=1)
    sizes = np.bincount(nearest, weights=counts, minlength=len(values)) / counts.sum()
    if len(values) == 2 and unsure > MAX_UNSURE_OF_CLASS * sizes.min():
        # Steep edges are cut at the right place, however many of them there are.
        blurred = [stats.blurred_share for stats in reading.cases if stats.blurred_share]
        if not blurred or np.mean(blurred) > MAX_BLURRED:
            raise _ambiguous(reading, values, "classes merge gradually")
    elif unsure > min(MAX_UNSURE, MAX_UNSURE_OF_CLASS * sizes[sizes > 0].min()):
        raise _ambiguous(reading, values, f"{unsure:.1%} of all pixels lie halfway between classes")
    if (reason := _overlap(reading, values, float(unsure))) is not None:
        raise _ambiguous(reading, values, reason)
    moved = counts[~np.isin(others, values)].sum() / counts.sum()
    soft = [
        stats.case.id
        for stats, own in zip(reading.cases, reading.counts, strict=True)
        if not set(own) <= set(values.tolist())
    ]
    return SoftClasses(tuple(values.tolist()), tuple(soft), float(moved), float(unsure))


def _noisy_extremes(total: Mapping[int, int]) -> tuple[int, ...]:
    """Return black and white if all values are one of them with compression noise, else ().

    White must have noise: 255 together with a few small values may mark ignored pixels among
    classes.
    """
    white = 255
    ends = [[value for value in total if abs(value - end) <= 2 * NOISE] for end in (0, white)]
    if sum(map(len, ends)) < len(total) or min(map(len, ends)) < 2 or len(total) < 2 + MIN_BETWEEN:
        return ()
    return tuple(max(own, key=total.__getitem__) for own in ends)


def _are_edges(thin: Sequence[int], total: Mapping[int, int], *, are_colors: bool) -> bool:
    """Return whether values that occur only in thin lines are soft edges, not classes."""
    if are_colors:
        return len(thin) >= MIN_BETWEEN
    few = MIN_CLASS * sum(total.values())
    rare = sum(count < few for count in total.values())
    is_noisy = max(total) - min(total) >= 128 and rare > max(8, len(total) // 3)
    if len(thin) < MIN_BETWEEN and len(total) <= MAX_CLASSES and not is_noisy:
        return False
    # Numbered classes have no values between them; more of them than usual cover areas.
    is_complete = max(total) - min(total) + 1 == len(total)
    is_numbered = is_complete and (max(total) < MAX_CLASSES or len(thin) < MIN_BETWEEN)
    wide = sorted(set(total) - set(thin)) or [0]
    is_between = all(min(wide) - NOISE <= value <= max(wide) + NOISE for value in thin)
    return is_between and not is_numbered


def _are_noise(reading: MaskReading, values: set[int], known: Sequence[int]) -> bool:
    """Return whether values with areas are those of known classes with compression noise."""
    if not values:
        return True
    others = np.array(sorted(values))
    apart = distances(others, np.array(known), are_colors=reading.are_colors)
    return bool((apart.min(axis=1) <= NOISE).all())


def _find_centers(reading: MaskReading, thin: set[int]) -> list[int]:
    """Return the most common values, without those that differ from a more common one by noise.

    Raises:
        DataError: if two values are too similar to be classes, and too common to be noise.
    """
    total = reading.total
    centers: list[int] = []
    for value in sorted(total, key=lambda value: (-total[value], value)):
        if value in thin:
            continue
        if not centers:
            centers.append(value)
            continue
        known = np.array(centers)
        apart = distances(np.array([value]), known, are_colors=reading.are_colors)[0]
        place = int(apart.argmin())
        if apart[place] >= APART:
            if _mass_near(reading, value, 2 * NOISE) >= MIN_CLASS:
                centers.append(value)
        elif apart[place] > DISTINCT and _mass_near(reading, value, PEAK) > max(
            MIN_CLASS, SECOND_PEAK * _mass_near(reading, centers[place], PEAK)
        ):
            raise _ambiguous(
                reading,
                np.array([*centers, value]),
                f"{reading.show(value)} and {reading.show(centers[place])} are similar",
            )
    return centers


def _mass_near(reading: MaskReading, value: int, reach: float) -> float:
    """Return the share of all pixels that lie in areas of about one value."""
    inner = reading.inner
    values = np.fromiter(inner, dtype=np.int64)
    apart = distances(values, np.array([value]), are_colors=reading.are_colors)[:, 0]
    counts = np.fromiter(inner.values(), dtype=np.int64)
    return float(counts[apart <= reach].sum() / reading.total.total())


def _overlap(reading: MaskReading, values: np.ndarray, unsure: float) -> str | None:
    """Return why values cannot be assigned to the nearest class; None if they can."""
    for stats, own in zip(reading.cases, reading.counts, strict=True):
        codes = np.fromiter(own, dtype=np.int64)
        nearest = distances(codes, values, are_colors=reading.are_colors).argmin(axis=1)
        if len(codes) <= 3 and len(set(nearest.tolist())) < len(codes):
            listed = ", ".join(reading.show(code) for code in sorted(own))
            return f"the mask of {stats.case.id} has the values {listed} without soft edges"
    if len(values) < 3 or unsure < NEGLIGIBLE:
        return None
    if not reading.are_colors:
        return "an edge between two classes has the values of a third"
    places = channels_of(values).astype(np.float64)
    for first, last in combinations(range(len(values)), 2):
        line = places[last] - places[first]
        length = float(np.linalg.norm(line))
        for other in set(range(len(values))) - {first, last}:
            along = float((places[other] - places[first]) @ line) / length**2
            beside = np.linalg.norm(places[other] - places[first] - along * line)
            if 0.1 < along < 0.9 and beside < BETWEEN * length:
                return (
                    f"an edge between {reading.show(int(values[first]))} and "
                    f"{reading.show(int(values[last]))} has the color of "
                    f"{reading.show(int(values[other]))}"
                )
    return None


def _ambiguous(reading: MaskReading, values: np.ndarray, reason: str) -> DataError:
    if not reading.are_colors and len(values) <= 2:
        how = "--set labels.threshold=128 makes the values from 128 on foreground"
    else:
        how = (
            f"{reading.setting(values.tolist())} --set labels.nearest=true assigns each pixel to "
            "the nearest of these values"
        )
    return DataError(
        "The masks have values between those of the classes, due to soft edges or lossy "
        "compression such as JPEG, so the class of a pixel is ambiguous: "
        f"{reason}.\n{value_histogram(reading.total, show=reading.show)}",
        code="ambiguous_soft_edges",
        hint="Export the masks again, without antialiasing and not as JPEG. If that is "
        f"impossible: {how}.{state_all_classes(len(reading.total))}",
    )
