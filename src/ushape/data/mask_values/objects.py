"""Objects in masks: values that number them, and annotations with one shape for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ushape.data.case_stats import MAX_PARTS, CaseStats
from ushape.data.mask_values.notes import ValueNote, note_overlap
from ushape.data.mask_values.reading import MaskReading
from ushape.labels import IGNORE, LabelSpace

MIN_OBJECTS = 4
"""Smallest number of objects in a mask from which its values are regarded as object ids."""

MIN_IDS = 16
"""Number of different values above which object ids may have gaps."""

MIN_SAME = 8
"""Number of different values above which they may be object ids although all masks have the same
ones."""

MIN_MASKS = 3
"""Smallest number of masks from which a few values are suspected to be object ids."""

MOSTLY = 0.9
"""Share of masks in which object ids count from 1 without gaps."""

MIN_NEW = 0.5
"""Share of the colors that are in a single mask from which colors may number objects. Classes have
the same colors in all masks."""

MIN_SPREAD = 0.5
"""Spread of the positions of one value over all masks, relative to that of all values, from which
values are not classes: regions of an atlas and wells of a plate are always at the same place."""

MIN_DRIFT = 0.15
"""The same as a share of the image: 0.29 for objects that are anywhere, and 0.19 for nuclei of an
embryo that fills the image. The centers of the layers of a retina are equal along one axis, so that
a comparison with all values is not enough."""


def are_object_ids(reading: MaskReading) -> bool:
    """Return whether each value is one connected object, with different numbers per image.

    Numbers from 1 without gaps are object ids in any case if there are more of them than there can
    be classes. Values that are the same in all masks are object ids if each of them is at another
    place in each mask.
    """
    if reading.are_colors:
        return False
    if min(reading.total, default=0) < min(0, reading.background):
        return False
    several = [stats for stats in reading.cases if stats.parts_per_value]
    if not several or len(several) < len(reading.cases) / 2:
        return False
    if np.median([stats.parts_per_value for stats in several]) > MAX_PARTS:
        return False
    numbers = _ids_of_several(reading)
    highest = {own[-1] for own in numbers}
    if max(map(len, numbers)) < MIN_OBJECTS:
        return False
    counted = np.mean([own == list(range(1, len(own) + 1)) for own in numbers])
    if counted >= MOSTLY and len(reading.total) > IGNORE:
        return True  # Also in a single mask, or in masks with equally many objects.
    if len(several) < 2:
        return False
    many = [one for one in several if len(set(one.value_counts) - {reading.ignore}) > MIN_SAME]
    if len(reading.total) > MIN_SAME and _are_anywhere(many):
        return True
    if counted >= MOSTLY:
        return len(highest) >= min(3, len(several))
    return len(highest) > max(2, len(several) // 4) and len(reading.total) > MIN_IDS


def may_be_object_ids(reading: MaskReading) -> bool:
    """Return whether a few values that are read as classes may be numbers of objects.

    In nearly every mask, values count from 1 without gaps and each of them is a single connected
    component, and its position varies. Organs, atlases and wells are always at the same place.
    Colors may number objects if each is a single connected component, and most are in one mask
    only.
    """
    several = [stats for stats in reading.cases if stats.parts_per_value]
    if len(several) < max(MIN_MASKS, MOSTLY * len(reading.cases)):
        return False
    if min(reading.total, default=0) < min(0, reading.background):
        return False
    numbers = _ids_of_several(reading)
    is_whole = [stats.parts_per_value <= MAX_PARTS for stats in several]
    if max(map(len, numbers)) < MIN_OBJECTS or np.mean(is_whole) < MOSTLY:
        return False
    if reading.are_colors:
        masks_of = Counter(color for own in numbers for color in own)
        return sum(count == 1 for count in masks_of.values()) >= MIN_NEW * len(masks_of)
    is_counted = [own == list(range(1, len(own) + 1)) for own in numbers]
    return bool(np.mean(is_counted) >= MOSTLY) and _are_anywhere(several)


def _ids_of_several(reading: MaskReading) -> list[list[int]]:
    """Return the possible object ids of the masks in which connected components were counted."""
    pairs = zip(reading.cases, reading.ids, strict=True)
    return [own for stats, own in pairs if stats.parts_per_value]


def _are_anywhere(cases: Sequence[CaseStats]) -> bool:
    """Return whether most values are at changing places along all axes but one.

    Objects may be numbered in the order of the remaining axis.
    """
    by_value: dict[int, list[tuple[float, ...]]] = {}
    for stats in cases:
        for value, center in stats.centers.items():
            by_value.setdefault(value, []).append(center)
    recurring = [own for own in by_value.values() if len(own) > 1]
    if len({len(center) for own in recurring for center in own}) != 1:
        return False  # Nothing recurs, or there are both images and volumes.
    # An estimate from few masks is too small by chance, hence the division by their number - 1.
    own = np.sqrt(np.mean([np.var(centers, axis=0, ddof=1) for centers in recurring], axis=0))
    of_all = np.concatenate(recurring).std(axis=0, ddof=1)
    is_free = (own >= MIN_DRIFT) & (own >= MIN_SPREAD * of_all)
    return int(is_free.sum()) >= max(1, len(is_free) - 1)


def state_objects(cases: Sequence[CaseStats], wanted: bool | None) -> bool:
    """Return whether the shapes of annotations are objects.

    They are if nearly all are connected, and some mask has several of one class. Shapes that each
    consist of many components, such as one annotation for all vessels of an image, are areas of a
    class.

    Args:
        wanted: Setting of the user, which takes precedence; None: as the shapes suggest.
    """
    known = [stats.instances for stats in cases if stats.instances is not None]
    if not known or wanted is not None:
        return bool(known and wanted)
    visible = sum(one.visible for one in known)
    is_whole = sum(one.parts for one in known) <= MAX_PARTS * visible
    return is_whole and any(one.recurring for one in known)


def number_objects(cases: Sequence[CaseStats], space: LabelSpace) -> bool:
    """Return whether the values of masks that are read as object ids number objects.

    They do if any mask has more than one of them. An id of several components is then one object in
    all masks. Masks of a single value mark the foreground; their objects are its connected
    components.
    """
    if space.threshold is None or not space.states_objects:
        return False
    counts = [one.value_counts for one in cases if one.instances is None]
    return any(sum(map(space.is_object_id, own)) > 1 for own in counts)


def find_overlaps(cases: Sequence[CaseStats]) -> list[ValueNote]:
    """Return a note if annotated objects overlap, or if one is completely covered."""
    known = [(stats, own) for stats in cases if (own := stats.instances) is not None]
    odd = [(stats, own) for stats, own in known if own.overlap_px or own.stated > own.visible]
    if not odd:
        return []
    hidden = sum(own.stated - own.visible for _, own in odd)
    pixels = sum(own.overlap_px for _, own in odd)
    return [note_overlap([stats.case.id for stats, _ in odd], pixels, hidden)]
