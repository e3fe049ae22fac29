"""Label the objects of a label map."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from scipy import ndimage, sparse
from skimage import measure, morphology, segmentation

from ushape.errors import ConfigError, DataError, check_range
from ushape.labels import IGNORE, LabelSpace
from ushape.transforms.morphology import find_holes
from ushape.types import Prediction, spacing_or_ones

Probabilities = Mapping[int, np.ndarray]
"""Probability (*S) of each foreground class, by class index."""


@dataclass(frozen=True, kw_only=True)
class ObjectConfig:
    """Division of the pixels of a class into objects."""

    RENAMED: ClassVar = {
        "split": "separation",
        "separation=distance": "distance_transform",
        "separation=learned": "learned_distance",
        "rise_px": "h_px",
        "rise_probability": "h_probability",
        "rise_learned": "h_distance",
        "smallest_px": "min_size_px",
        "largest_hole_px": "max_hole_size_px",
    }

    separation: Literal["none", "distance_transform", "probability", "learned_distance"] = "none"
    """Separation of connected components into objects. none: each component is one object;
    distance_transform: components are separated at constrictions, using the distance to the
    background; probability: components are separated where the probability of the class has a
    minimum between two peaks, for models that were trained to predict borders; learned_distance:
    components are separated where the distance to the border that the network predicts has such a
    minimum (labels.objects)."""

    h_px: float = 1.0
    """The h of the h-maxima of the distance to the background, in pixels of the finest axis, if
    separation is distance_transform: a peak is a separate object if it is at least h higher than
    the saddle to a higher peak."""

    h_probability: float = 0.1
    """The h of the h-maxima of the probability, if separation is probability."""

    h_distance: float = 0.2
    """The h of the h-maxima of the predicted distance, 0 to 1, if separation is
    learned_distance."""

    border_class: int | None = None
    """Class index of annotated borders, whose pixels are assigned to the objects that they
    touch."""

    corners_connect: bool = False
    """Whether pixels that touch only at a corner (in a volume, also only at an edge) are
    connected."""

    min_size_px: int = 0
    """Size in pixels below which objects are removed."""

    max_hole_size_px: int = 0
    """Size in pixels up to which holes are filled with the class that encloses them."""

    def __post_init__(self) -> None:
        for name in ("h_px", "h_probability", "h_distance"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(
                    f"objects.{name} is {getattr(self, name)}; it must be a finite number above 0.",
                    code="value_out_of_range",
                    hint="Usual values are 0.5 to 2 for distances in pixels, and 0.05 to 0.3 for "
                    "probabilities.",
                )
        for name in ("min_size_px", "max_hole_size_px"):
            check_range(f"objects.{name}", getattr(self, name), 0)
        if self.border_class is not None and not 0 < self.border_class < IGNORE:
            raise ConfigError(
                f"objects.border_class is {self.border_class}, which is not a foreground class.",
                code="unknown_class",
                hint="Pass the index of the class that was annotated as border; 1 is the first.",
            )


@dataclass(frozen=True, kw_only=True)
class Objects:
    """The objects of an image, numbered from 1 by their first pixel in raster order."""

    labels: np.ndarray
    """(*S) int32: number of the object of each pixel, 0 for background."""

    classes: np.ndarray
    """(N,) uint8: class index of object 1, 2, ..."""

    def __len__(self) -> int:
        return len(self.classes)


def by_class(probabilities: np.ndarray, space: LabelSpace) -> dict[int, np.ndarray]:
    """Return the probabilities of each foreground channel by class index.

    Shapes:
        probabilities: (K, *S) as predicted by the network -> (*S) each.
    """
    shown = probabilities[space.foreground]
    return {region.classes[0]: own for region, own in zip(space.scored, shown, strict=True)}


def annotated_objects(foreground: np.ndarray, numbers: np.ndarray | None) -> np.ndarray:
    """Return the annotated objects of a class: as numbered, or its connected components.

    Args:
        foreground: Whether each pixel belongs to the class.
        numbers: Number of the annotated object of each pixel; None if masks do not number objects.

    Shapes:
        foreground: (*S) booleans; numbers: (*S) integers.
        returns: (*S) integers, 0 outside of objects.
    """
    if numbers is None:
        return label_objects(foreground.astype(np.uint8)).labels
    return np.where(foreground, numbers, 0)


def label_objects(
    classes: np.ndarray,
    config: ObjectConfig | None = None,
    *,
    probabilities: Probabilities | None = None,
    distance: np.ndarray | None = None,
    spacing_mm: Sequence[float] | None = None,
) -> Objects:
    """Divide each foreground class into objects; objects of different classes never overlap.

    Args:
        config: How to divide; None: objects are pixels of a class that are connected by their
            sides.
        probabilities: Probabilities of all foreground classes; needed for
            separation=probability and for borders.
        distance: Predicted distance to the border of the object, 0 to 1, (*S); needed for
            separation=learned_distance.
        spacing_mm: Spacing along each axis of S, for distances; None: equal.

    Shapes:
        classes: (*S) class indices; IGNORE is treated as background.

    Raises:
        ConfigError: if probabilities or the distance are needed but missing.
        DataError: if shapes or spacing do not fit.
    """
    config = config or ObjectConfig()
    _check(classes, config, probabilities, spacing_mm)
    if config.separation == "learned_distance" and (
        distance is None or config.border_class is not None
    ):
        raise ConfigError(
            "Objects can be separated by a learned distance only if the network predicts it, and "
            "without a border class.",
            code="distance_required",
            hint="Train with labels.objects=distance, or use "
            "predict.objects.separation=distance_transform.",
        )
    classes = np.where(classes == IGNORE, 0, classes).astype(np.uint8)
    if config.max_hole_size_px:
        classes = fill_enclosed_holes(
            classes, config.max_hole_size_px, corners_connect=config.corners_connect
        )
    if config.separation == "none" and config.border_class is None:
        labels = measure.label(classes, background=0, connectivity=_reach(config, classes.ndim))
        return _number(labels, classes, config.min_size_px)
    known = probabilities or {}
    labels = np.zeros(classes.shape, dtype=np.int32)
    owners = np.zeros(classes.shape, dtype=np.uint8)
    for index, allowed in _allowed_pixels(classes, config, known).items():
        relief = distance if config.separation == "learned_distance" else known.get(index)
        found = _split(classes == index, allowed, config, relief, spacing_mm)
        inside = found > 0
        labels[inside] = found[inside] + labels.max()
        owners[inside] = index
    return _number(labels, owners, config.min_size_px)


def label_prediction(
    prediction: Prediction,
    space: LabelSpace,
    config: ObjectConfig | None = None,
    spacing_mm: Sequence[float] | None = None,
) -> Objects:
    """Return the objects of a prediction: those that the network separates, or as `label_objects`.

    Args:
        config: How to divide, unless the network has separated the objects.
        spacing_mm: Spacing along each axis of S; None: equal.
    """
    if prediction.labels is not None:
        # By object, because its filled holes have no class; 0 if it was removed from the classes.
        owners = np.zeros(int(prediction.labels.max(initial=0)) + 1, dtype=np.uint8)
        inside = prediction.classes > 0
        owners[prediction.labels[inside]] = prediction.classes[inside]
        known = owners[prediction.labels]
        return _number(np.where(known > 0, prediction.labels, 0), known, 0)
    shares = by_class(prediction.probabilities, space)
    return label_objects(prediction.classes, config, probabilities=shares, spacing_mm=spacing_mm)


def _split(
    inner: np.ndarray,
    allowed: np.ndarray,
    config: ObjectConfig,
    probability: np.ndarray | None,
    spacing_mm: Sequence[float] | None,
) -> np.ndarray:
    """Label the objects of a class within its pixels, then grow them over the assigned borders.

    Borders are flooded from the most likely pixel to the least likely one, so that two objects meet
    where their class is least likely.

    Shapes:
        all (*S); inner and allowed: bool, inner is part of allowed.
    """
    reach = _reach(config, inner.ndim)
    if config.separation == "none":
        labels = measure.label(inner, connectivity=reach)
    elif config.separation == "distance_transform":
        labels = split_by_peaks(_depth(inner, spacing_mm), inner, config.h_px, reach)
    elif config.separation == "learned_distance":
        assert probability is not None, "_check refuses this"
        labels = split_by_peaks(probability, inner, config.h_distance, reach)
    else:
        assert probability is not None, "_check refuses this"
        labels = split_by_peaks(probability, inner, config.h_probability, reach)
    if config.border_class is None:
        return np.asarray(labels)
    assert probability is not None, "_check refuses this"
    flood = segmentation.watershed(
        -probability.astype(np.float32), labels, connectivity=reach, mask=allowed
    )
    return np.asarray(flood)


def _depth(mask: np.ndarray, spacing_mm: Sequence[float] | None) -> np.ndarray:
    """Return the distance to the nearest pixel outside, in pixels of the finest axis.

    The edge of the image does not count as background, because objects may continue beyond it.
    """
    if mask.all():
        return np.zeros(mask.shape)
    finest = min(spacing_mm or (1.0,))
    sampling = [length / finest for length in spacing_mm or (1.0,) * mask.ndim]
    return np.asarray(ndimage.distance_transform_edt(mask, sampling))


def _allowed_pixels(
    classes: np.ndarray, config: ObjectConfig, probabilities: Probabilities
) -> dict[int, np.ndarray]:
    """Return where objects of each class may be: its pixels, and borders where it is likeliest."""
    found = [int(index) for index in np.unique(classes) if index not in (0, config.border_class)]
    own = {index: classes == index for index in found}
    if config.border_class is None or not found:
        return own
    is_border = classes == config.border_class
    likeliest = np.stack([probabilities[index][is_border] for index in found]).argmax(axis=0)
    for place, index in enumerate(found):
        own[index][is_border] = likeliest == place
    return own


def _number(labels: np.ndarray, owners: np.ndarray, min_size_px: int) -> Objects:
    """Remove small objects and number the others by their first pixel.

    Shapes:
        labels: (*S), 0 outside; owners: (*S) class index of each labeled pixel.
    """
    flat = labels.ravel()
    inside = np.flatnonzero(flat)
    first = np.full(int(flat.max(initial=0)) + 1, flat.size)
    # NumPy keeps the last of several values for an index: in reverse order, the first pixel.
    first[flat[inside[::-1]]] = inside[::-1]
    areas = np.bincount(flat[inside], minlength=len(first))
    kept = np.flatnonzero(areas >= max(1, min_size_px))
    kept = kept[np.argsort(first[kept])]
    numbers = np.zeros(len(first), dtype=np.int32)
    numbers[kept] = np.arange(1, len(kept) + 1)
    return Objects(labels=numbers[labels], classes=owners.ravel()[first[kept]].astype(np.uint8))


def _reach(config: ObjectConfig, dims: int) -> int:
    """Return the number of axes along which two neighbors may differ."""
    return dims if config.corners_connect else 1


def _check(
    classes: np.ndarray,
    config: ObjectConfig,
    probabilities: Probabilities | None,
    spacing_mm: Sequence[float] | None,
) -> None:
    if probabilities is None and (config.separation == "probability" or config.border_class):
        raise ConfigError(
            "objects.separation=probability and objects.border_class require probabilities, but "
            "there are none.",
            code="probabilities_required",
            hint="Pass the predicted probabilities, or use objects.separation=distance_transform "
            "without borders.",
        )
    for index, own in (probabilities or {}).items():
        if own.shape != classes.shape:
            raise DataError(
                f"Class {index}: the probabilities have shape {own.shape}, the label map "
                f"{classes.shape}.",
                code="shape_mismatch",
                hint="Pass the label map and the probabilities of the same prediction.",
            )
    if probabilities is not None and (config.separation == "probability" or config.border_class):
        present = set(np.unique(classes).tolist()) - {0, IGNORE, config.border_class}
        if missing := sorted(present - set(probabilities)):
            raise DataError(
                f"Class {missing[0]} is predicted but has no probabilities.",
                code="probabilities_missing",
                hint="Pass the probabilities of all foreground classes.",
            )
    spacing_or_ones(spacing_mm, classes.ndim)


def split_by_peaks(relief: np.ndarray, mask: np.ndarray, h: float, reach: int) -> np.ndarray:
    """Divide a mask into one region for each peak, and label the regions.

    A peak gets a separate label if it is at least `h` higher than the highest saddle to a higher
    peak. The highest peak of each connected component always has one, so no component is lost.
    These are the h-maxima of the relief. Instead of reconstructing it, which takes several times as
    long, all peaks are flooded and shallow ones are joined across their highest saddle.

    Args:
        h: Height in the units of the relief, above 0.
        reach: Number of axes along which two neighbors may differ.

    Shapes:
        relief: (*S); mask: (*S) bool.
        returns: (*S) integers, 0 outside the mask.

    Source:
        Vincent & Soille 1991 (watershed by flooding); Grimaud 1992 (dynamics of a peak).
    """
    if not mask.any():
        return np.zeros(mask.shape, dtype=np.int32)
    # Padded with the lowest value, so that peaks at the edge of the image are found.
    below_all = float(relief[mask].min()) - 1
    height = np.pad(np.where(mask, relief, below_all), 1, constant_values=below_all)
    structure = ndimage.generate_binary_structure(mask.ndim, reach)
    tops = morphology.local_maxima(height, footprint=structure)
    seeds = measure.label(tops, connectivity=reach)
    depth = -_without_equal_seeds(height, seeds)
    basins = segmentation.watershed(depth, seeds, connectivity=structure, mask=np.pad(mask, 1))
    peaks = np.zeros(int(seeds.max()) + 1)
    peaks[seeds[tops]] = height[tops]
    joined = _join_shallow(peaks, _find_passes(basins, height, structure), h)
    inner = (slice(1, -1),) * mask.ndim
    return np.asarray(joined[basins[inner]])


def _without_equal_seeds(height: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Return heights in which equal pixels of seeds follow each other in raster order.

    The queue of scikit-image takes equal seeds in an order that depends on all other seeds, so that
    the objects of a part of an image could differ from those of the whole image. The differences
    are of the size of rounding errors.

    Shapes:
        height: (*S) float -> (*S) float64; seeds: (*S) integers, 0 outside.
    """
    found = height.astype(np.float64)
    places = np.flatnonzero(seeds)
    tops = found.ravel()[places]
    order = np.lexsort((-places, tops))
    ranked, number = tops[order], np.arange(len(order))
    first = np.maximum.accumulate(np.where(np.diff(ranked, prepend=np.nan) != 0, number, 0))
    found.ravel()[places[order]] = ranked + (number - first) * np.spacing(np.abs(ranked))
    return found


def _find_passes(
    basins: np.ndarray, height: np.ndarray, structure: np.ndarray
) -> list[tuple[int, int, float]]:
    """Return pairs of touching basins with the height of their saddle, highest first."""
    lows, highs, heights = [], [], []
    for here, there in _neighbors(structure):
        one, other = basins[here], basins[there]
        touch = (one != other) & (one > 0) & (other > 0)
        lows.append(np.minimum(one[touch], other[touch]))
        highs.append(np.maximum(one[touch], other[touch]))
        heights.append(np.minimum(height[here][touch], height[there][touch]))
    low, high, top = (np.concatenate(values) for values in (lows, highs, heights))
    order = np.lexsort((high, low, -top))
    pairs = low.astype(np.int64) * (int(basins.max()) + 1) + high
    _, first = np.unique(pairs[order], return_index=True)
    kept = order[np.sort(first)]
    return list(zip(low[kept].tolist(), high[kept].tolist(), top[kept].tolist(), strict=True))


def _neighbors(structure: np.ndarray) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Yield for each direction once the pixels that have a neighbor there, and these neighbors."""
    steps = np.argwhere(structure) - 1
    for step in steps[len(steps) // 2 + 1 :].tolist():
        yield (
            tuple(slice(max(0, -one), -one if one > 0 else None) for one in step),
            tuple(slice(max(0, one), one if one < 0 else None) for one in step),
        )


def _join_shallow(peaks: np.ndarray, passes: list[tuple[int, int, float]], h: float) -> np.ndarray:
    """Return the label of each basin after joining shallow peaks from the highest saddle down.

    At each saddle two groups of basins are merged. If the lower of their peaks is less than `h`
    above the saddle, the basins on both sides belong to the same object.

    Shapes:
        peaks: (basins + 1,) heights -> labels, 0 for the first.
    """
    parent = list(range(len(peaks)))
    top = peaks.tolist()

    def find_root(basin: int) -> int:
        while parent[basin] != basin:
            parent[basin] = parent[parent[basin]]
            basin = parent[basin]
        return basin

    one_object = []
    for first, second, height in passes:
        lower, higher = sorted((find_root(first), find_root(second)), key=lambda one: top[one])
        if lower != higher:
            parent[lower] = higher
            if top[lower] - height < h:
                one_object.append((first, second))
    ends = np.array(one_object, dtype=np.int64).reshape(-1, 2).T
    graph = sparse.coo_array((np.ones(ends.shape[1]), tuple(ends)), shape=(len(peaks),) * 2)
    # Basin 0 is the outside; it touches no other and therefore keeps the label 0.
    return np.asarray(sparse.csgraph.connected_components(graph, directed=False)[1])


def fill_enclosed_holes(
    classes: np.ndarray, largest_px: int, *, corners_connect: bool = False
) -> np.ndarray:
    """Fill holes with the class around them.

    A hole is background that is not connected to the image's edge and touches pixels of a single
    class. Background that is enclosed by two classes is kept.

    Args:
        largest_px: Largest hole that is filled, in pixels.
        corners_connect: Whether foreground connects at corners; if so, background does not.

    Shapes:
        classes: (*S) uint8 class indices -> the same.
    """
    reach = 1 if corners_connect else classes.ndim
    return fill_with_class_around(classes, find_holes(classes == 0, largest_px, reach=reach))


def fill_with_class_around(classes: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Fill parts of the background whose sides touch pixels of a single class with this class.

    Args:
        parts: Number of the part of each pixel; 0 for pixels that are not filled.

    Shapes:
        classes: (*S) uint8 class indices -> the same; parts: (*S) integers.
    """
    pixels = parts > 0
    if not pixels.any():
        return classes
    lowest, highest = _classes_around(classes, parts, pixels)
    filled = classes.copy()
    filled[pixels] = np.where(lowest == highest, lowest, 0)[parts[pixels]]
    return filled


def _classes_around(
    classes: np.ndarray, parts: np.ndarray, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and highest foreground class that shares a side with each part.

    Args:
        pixels: Pixels of the parts.

    Shapes:
        all (*S) -> (parts + 1,) twice.
    """
    sides = ndimage.generate_binary_structure(classes.ndim, 1)
    highest = np.zeros(int(parts.max()) + 1, dtype=np.uint8)
    lowest = np.full_like(highest, 255)
    background_as_highest = np.where(classes == 0, 255, classes).astype(np.uint8)
    minimum = ndimage.minimum_filter(background_as_highest, footprint=sides, mode="nearest")
    maximum = ndimage.maximum_filter(classes, footprint=sides, mode="nearest")
    np.minimum.at(lowest, parts[pixels], minimum[pixels])
    np.maximum.at(highest, parts[pixels], maximum[pixels])
    return lowest, highest
