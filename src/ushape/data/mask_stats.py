"""Statistics of a mask: its values, objects, soft edges, and the values at its borders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage import measure

from ushape.instances.properties import object_boxes
from ushape.labels import MAX_CLASSES
from ushape.labels.colors import channels_of
from ushape.types import Instances, MaskEncoding

MAX_IDS = 1_000_000
"""Masks with more values are not tested for object ids."""

COMPRESSION_NOISE = 12
"""Difference of neighboring pixels, 0 to 255, that lossy compression adds to areas of one value."""

MIDDLE = 0.3
"""Lower end of the middle of the range of mask values, 0 to 0.5."""

VOID = 255
"""Mask value of the band around objects in PASCAL VOC."""

VOID_REACH = 9
"""Largest width of such a band in pixels."""


def count_values(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of a mask in ascending order and the number of pixels of each."""
    if codes.size and codes.min() >= 0 and codes.max() < 65_536:
        counts = np.bincount(codes.ravel())  # About 100 times faster than sorting.
        values = np.flatnonzero(counts)
        return values, counts[values]
    return np.unique(codes, return_counts=True)


def parts_per_value(codes: np.ndarray, values: np.ndarray, most: int = 24) -> float:
    """Return the mean number of connected components as in `CaseStats`; 0 if not counted."""
    if not 3 <= len(values) <= MAX_IDS:
        return 0.0
    codes, values, _ = _from_zero(codes, values)
    shown = values[1:][values[1:] > 0][:: max(1, len(values) // most)]
    # Few of the values are located: a list of the boxes of all ids up to a million is slow.
    if values[-1] <= MAX_IDS:
        rank = np.zeros(int(values[-1]) + 1, dtype=np.int32)
        rank[shown] = np.arange(1, len(shown) + 1)
        chosen = rank[codes]
    else:  # Slower, but without a table of all numbers up to the largest one.
        place = np.searchsorted(shown, codes).clip(max=len(shown) - 1)
        chosen = np.where(shown[place] == codes, place + 1, 0).astype(np.int32)
    boxes = ndimage.find_objects(chosen)
    parts = [ndimage.label(chosen[box] == place)[1] for place, box in enumerate(boxes, start=1)]
    return sum(parts) / max(1, len(parts))


def _from_zero(codes: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return a mask and its values with the lowest one at 0 if it is negative, and that value."""
    lowest = min(0, int(values[0]))
    if lowest == 0:
        return codes, values, 0
    return codes.astype(np.int64) - lowest, values.astype(np.int64) - lowest, lowest


@dataclass(frozen=True, kw_only=True)
class InstanceStats:
    """Statistics of the annotated objects of a mask that contains them in addition to classes."""

    stated: int
    """Number of annotated objects."""

    visible: int
    """Number of them that later ones do not cover completely."""

    parts: int
    """Number of their connected components, where objects meet at sides, edges or corners."""

    size: float
    """Longer side of the bounding box of an object in pixels: the area-weighted median."""

    recurring: int
    """Number of objects that have another one of their class in the same mask."""

    joined: int
    """Number of objects that share a side with another one of their class."""

    overlap_px: int
    """Number of pixels of an object that a later one covers."""


@dataclass(frozen=True)
class ObjectSizes:
    """Connected components of one mask value each, (N,) arrays."""

    values: np.ndarray
    areas: np.ndarray
    """Number of pixels."""

    sides: np.ndarray
    """Longer side of the bounding box in pixels."""

    @property
    def summary(self) -> tuple[int, float]:
        """Number and size of the components, as in `CaseStats`."""
        if not len(self.sides):
            return 0, 0.0
        order = np.argsort(self.sides)
        below = np.cumsum(self.areas[order])
        half = int(np.searchsorted(below, below[-1] / 2))
        return len(self.sides), float(self.sides[order][half])

    @property
    def by_value(self) -> dict[int, tuple[int, float]]:
        """Number and size of the components of each mask value."""
        return {
            value: ObjectSizes(self.values[own], self.areas[own], self.sides[own]).summary
            for value in np.unique(self.values).tolist()
            for own in [self.values == value]
        }


def measure_objects(codes: np.ndarray, background: int) -> ObjectSizes:
    """Measure the connected components of all values but the background.

    Shapes:
        codes: (*S) mask values.
    """
    labels = measure.label(codes, background=background, connectivity=1)
    boxes = object_boxes(labels, int(labels.max(initial=0)))
    values = np.zeros(len(boxes) + 1, dtype=codes.dtype)
    values[labels.ravel()] = codes.ravel()
    return ObjectSizes(
        values=values[1:],
        areas=np.bincount(labels.ravel(), minlength=len(values))[1:],
        sides=(boxes[..., 1] - boxes[..., 0]).max(axis=1),
    )


def measure_instances(codes: np.ndarray, instances: Instances) -> InstanceStats:
    """Measure the annotated objects of a mask.

    Shapes:
        codes: (*S) mask values, the classes of the objects.
    """
    numbers = instances.numbers
    inside = np.flatnonzero(numbers)
    ids, first, ranks = np.unique(numbers.ravel()[inside], return_index=True, return_inverse=True)
    dense = np.zeros(numbers.shape, dtype=np.int32)
    dense.ravel()[inside] = ranks + 1
    owners = codes.ravel()[inside[first]]
    kinds, counts = np.unique(owners, return_counts=True)
    recurring = np.isin(owners, kinds[counts > 1])
    joined = np.zeros(len(ids) + 1, dtype=bool)
    for axis in range(codes.ndim):
        before = (slice(None),) * axis + (slice(None, -1),)
        after = (slice(None),) * axis + (slice(1, None),)
        meets = (dense[before] != dense[after]) & (codes[before] == codes[after])
        meets &= (dense[before] > 0) & (dense[after] > 0)
        joined[dense[before][meets]] = joined[dense[after][meets]] = True
    boxes = object_boxes(dense, len(ids))
    sides = (boxes[..., 1] - boxes[..., 0]).max(axis=1)
    sizes = ObjectSizes(owners, np.bincount(ranks, minlength=len(ids)), sides)
    return InstanceStats(
        stated=instances.stated,
        visible=len(ids),
        parts=int(measure.label(dense, background=0).max(initial=0)),
        size=sizes.summary[1],
        recurring=int(recurring.sum()),
        joined=int(joined.sum()),
        overlap_px=instances.overlap_px,
    )


def centers_of_values(codes: np.ndarray, values: np.ndarray) -> dict[int, tuple[float, ...]]:
    """Return the center of each value above 0, or above a negative lowest one, as in `CaseStats`.

    Shapes:
        codes: (*S) mask values; values: all of them in ascending order.
    """
    codes, values, lowest = _from_zero(codes, values)
    inside = np.flatnonzero(codes > 0)
    ranks = np.searchsorted(values, codes.ravel()[inside])
    pixels = np.maximum(1, np.bincount(ranks, minlength=len(values)))
    places = np.unravel_index(inside, codes.shape)
    centers = [
        np.bincount(ranks, place, minlength=len(values)) / pixels / size
        for place, size in zip(places, codes.shape, strict=True)
    ]
    rows = np.stack(centers, axis=1).tolist()
    return {
        value + lowest: tuple(row)
        for value, row in zip(values.tolist(), rows, strict=True)
        if value > 0
    }


def count_inner(codes: np.ndarray, values: np.ndarray, encoding: MaskEncoding) -> dict[int, int]:
    """Return the number of pixels of each value in areas of one value, as in `CaseStats`."""
    levels, noise = codes[None], 0
    if encoding.kind == "colors" and len(values) > MAX_CLASSES:
        levels, noise = np.moveaxis(channels_of(codes), -1, 0), COMPRESSION_NOISE
    elif encoding.kind == "values" and _is_photographic(values):
        levels, noise = codes[None].astype(np.int64), COMPRESSION_NOISE
    differs = np.zeros(codes.shape, dtype=bool)
    for axis in range(codes.ndim):
        before = (slice(None),) * axis + (slice(None, -1),)
        after = (slice(None),) * axis + (slice(1, None),)
        if noise:
            steps = np.abs(levels[(slice(None), *before)] - levels[(slice(None), *after)])
            change = steps.max(axis=0) > noise
        else:
            change = codes[before] != codes[after]
        differs[before] |= change
        differs[after] |= change
    inner, counts = count_values(codes[~differs])
    return dict(zip(inner.tolist(), counts.tolist(), strict=True))


def _is_photographic(values: np.ndarray) -> bool:
    """Return whether gray values may come from lossy compression."""
    return len(values) > 16 and 128 <= values[-1] - values[0] <= 255


def blurred_share(codes: np.ndarray, values: np.ndarray, encoding: MaskEncoding) -> float:
    """Return the share of blurred pixels as in `CaseStats`, of gray masks or of two colors."""
    if len(values) < 4 or encoding.kind == "palette":
        return 0.0
    level = codes.astype(np.float32)
    if encoding.kind == "colors":
        inside, counts = count_values(codes)
        first = channels_of(int(inside[counts.argmax()])).astype(np.float32)
        level = np.linalg.norm(channels_of(codes) - first, axis=-1).astype(np.float32)
    level = (level - level.min()) / max(float(np.ptp(level)), 1e-6)
    is_middle = (level > MIDDLE) & (level < 1 - MIDDLE)
    if not is_middle.any():
        return 0.0
    is_steep = (ndimage.minimum_filter(level, size=5) <= MIDDLE) & (
        ndimage.maximum_filter(level, size=5) >= 1 - MIDDLE
    )
    return float((is_middle & ~is_steep).sum() / is_middle.sum())


def void_share(codes: np.ndarray, values: np.ndarray) -> float:
    """Return the share of pixels of 255 in thin bands around objects, as in `CaseStats`."""
    if len(values) < 3 or values[-1] != VOID:
        return 0.0
    void = codes == VOID
    is_object = (codes > 0) & ~void
    is_near = ndimage.maximum_filter(is_object, size=2 * VOID_REACH + 1)
    is_thick = ndimage.minimum_filter(void, size=VOID_REACH, mode="nearest")
    is_thick = ndimage.maximum_filter(is_thick, size=VOID_REACH)
    return float((is_near & ~is_thick)[void].mean())


def frame_value(codes: np.ndarray) -> int:
    """Return the most common value of the outermost pixels, as in `CaseStats`."""
    values, counts = np.unique(_frame_of(codes), return_counts=True)
    return int(values[counts.argmax()])


def _frame_of(codes: np.ndarray) -> np.ndarray:
    """Return the outermost pixels; of a volume, those of the middle plane."""
    plane = codes if codes.ndim == 2 else codes[codes.shape[0] // 2]
    return np.concatenate([plane[0], plane[-1], plane[:, 0], plane[:, -1]])


def border_share(codes: np.ndarray, values: np.ndarray) -> float:
    """Return the share of the outermost pixels with another value than the lowest."""
    return float((_frame_of(codes) != values[0]).mean())
