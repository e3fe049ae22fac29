"""Fingerprint: properties of the training cases that the planner uses."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ushape.data.case_stats import CaseStats, at_spacing
from ushape.data.grouping.similarity import correlation_of_neighbors
from ushape.data.reading import RGB, find_true_objects, read_classes
from ushape.data.scan import DatasetStats
from ushape.instances.touching import MAX_COMPARED, touching_share
from ushape.labels import IGNORE, LabelSpace
from ushape.metrics.instance import MANY_OBJECTS
from ushape.normalization import Normalization
from ushape.transforms.growing import resample_probabilities
from ushape.transforms.resampling import resample_image

MIN_TO_COMPARE = 6
"""Smallest number of images for which the similarity of neighbors is meaningful."""

BLACK = 12
"""Highest value, of 255, of a pixel that counts as black."""

MIN_COLOR, MIN_COLORED = 4, 0.02
"""Difference of the channels, of 255, above which a pixel is colored, and the share of such pixels
in color images: the channels of gray images are copies, apart from JPEG artifacts."""

DOWNSCALES = (1.5, 2.0, 3.0, 4.0)
"""Downscaling factors that the planner considers."""


@dataclass(frozen=True, kw_only=True)
class ClassFacts:
    """Properties of one foreground class in the training cases."""

    name: str
    cases: float
    """Share of the cases that contain the class."""

    pixels: float
    """Share of all pixels that belong to the class."""

    object_size: float
    """Longer side of a typical connected component, in pixels of the files; the longer side of a
    case if it is unknown."""

    objects_per_case: float
    """Median number of connected components, over the cases that contain the class."""


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Properties of the training cases."""

    cases: int
    channels: int
    median_shape: tuple[int, ...]
    largest_shape: tuple[int, ...]
    pixels_per_epoch: int
    """Total number of pixels of all training cases, after resampling to a common spacing."""

    normalization: Normalization
    foreground_cases: float
    """Share of the cases with any foreground."""

    foreground_share: float
    """Mean share of the pixels of a case that belong to any foreground class."""

    object_size: float
    """Longer side of a typical connected component of the masks, in pixels of the files."""

    objects_per_case: float
    """Median number of connected components of a mask, over the cases that have any."""

    redundancy: float
    """Excess similarity of neighbors within a group over distant images, 0 to 1."""

    recordings: int
    """Number of independently recorded groups, such as patients or dishes; 1 for a stack."""

    mirror_axes: tuple[int, ...]
    """Axes of S along which the data may be mirrored."""

    rotates_freely: bool
    """Whether the data may be rotated by any angle, because no direction is special."""

    round_trip_dice: dict[float, float]
    """Dice that a perfect network could reach, by downscaling factor."""

    classes: tuple[ClassFacts, ...] = ()
    """Properties of each foreground class, in class order."""

    slices_per_case: int | None = None
    """Median number of slices of a volume if S are the axes of a slice, because the network
    processes volumes slice by slice; None otherwise."""

    spacing_mm: tuple[float, ...] | None = None
    """Median spacing along each axis of S, or the spacing to which cases are resampled; None unless
    all files contain it."""

    numbered_objects: float = 0.0
    """Median number of objects per case, if the masks number them; 0 for masks of classes."""

    joined_share: float = 1.0
    """Share of objects marked by shapes or files that touch another one of their class; 1 for
    values that number objects, where it is not measured."""

    touching_share: float = 0.0
    """Mean share of the connected components of a mask that touch, or nearly touch, another one of
    their class; 0 for masks with few components."""

    is_photographic: bool = False
    """Whether the images are color photographs: three different channels of 8 bits, and less than
    half of all pixels black, as they are around organs in MRI and around cells in fluorescence
    microscopy."""


def take_fingerprint(stats: DatasetStats, training: Collection[str]) -> Fingerprint:
    """Compute the fingerprint of the training cases, on the grids of their files.

    Args:
        training: Ids of the training cases.
    """
    chosen = [one for one in stats.case_stats if one.case.id in training]
    # Most parts of a large image may not be annotated.
    case_stats = [one for one in chosen if any(stats.class_pixels(one))] or chosen
    group_of = stats.group_of
    groups = [group_of[one.case.id] for one in case_stats]
    pixels = np.concatenate([one.pixels for one in case_stats], axis=1)
    thumbnails = np.stack([one.thumbnail for one in case_stats])
    mirror_axes, rotates_freely = find_symmetry(thumbnails, groups)
    shares = np.array([stats.foreground_share(one) for one in case_stats])
    offset = len(case_stats[0].shape) - 2  # Thumbnails show the last two axes.
    return Fingerprint(
        cases=len(case_stats),
        channels=case_stats[0].channels,
        normalization=Normalization.measure(pixels),
        foreground_cases=float(np.mean(shares > 0)),
        foreground_share=float(shares.mean()),
        is_photographic=are_photographs(case_stats, pixels),
        redundancy=_redundancy_of(case_stats, groups),
        recordings=1 if stats.grouping.kind == "stack" else len(set(groups)),
        mirror_axes=tuple(axis + offset for axis in mirror_axes),
        rotates_freely=rotates_freely,
        round_trip_dice=_measure_round_trips(case_stats, stats),
        numbered_objects=_count_numbers(case_stats, stats),
        joined_share=_joined_share(case_stats, stats.space),
        touching_share=_measure_touching(case_stats, stats),
        **_measure_sizes(case_stats, stats),
    )


def at_common_spacing(
    data: Fingerprint,
    stats: DatasetStats,
    training: Collection[str],
    target_mm: Sequence[float] | None,
) -> Fingerprint:
    """Return the fingerprint with the sizes after resampling to a spacing, if there is one."""
    if target_mm is None:
        return data
    used = [at_spacing(one, target_mm) for one in stats.case_stats if one.case.id in training]
    return replace(data, **_measure_sizes(used, stats))


def _measure_sizes(case_stats: Sequence[CaseStats], stats: DatasetStats) -> dict[str, Any]:
    """Return the properties that depend on the grid of the cases, by name."""
    shapes = np.asarray([one.shape for one in case_stats])
    objects = [_objects_of(one, stats.space) for one in case_stats]
    return {
        "median_shape": tuple(int(size) for size in np.median(shapes, axis=0)),
        "largest_shape": tuple(int(size) for size in shapes.max(axis=0)),
        "pixels_per_epoch": int(shapes.prod(axis=1).sum()),
        "object_size": _median([size for count, size in objects if count]),
        "objects_per_case": _median([count for count, _ in objects if count]),
        "classes": _measure_classes(case_stats, stats),
        "spacing_mm": _median_spacing(case_stats),
    }


def _median_spacing(case_stats: Sequence[CaseStats]) -> tuple[float, ...] | None:
    """Return the median spacing along each axis of S; None unless all files have one above 0."""
    spacings = [one.spacing_mm for one in case_stats if one.spacing_mm is not None]
    if len(spacings) < len(case_stats) or not all(0 < x < np.inf for one in spacings for x in one):
        return None
    return tuple(float(length) for length in np.median(spacings, axis=0))


def _count_numbers(case_stats: Sequence[CaseStats], stats: DatasetStats) -> float:
    """Return the median number of objects of masks that number them, over cases with any."""
    if not stats.space.states_objects:
        return 0.0
    visible_counts = [one.instances.visible for one in case_stats if one.instances is not None]
    if visible_counts:
        return _median([count for count in visible_counts if count])
    counts = [sum(map(stats.space.is_object_id, one.value_counts)) for one in case_stats]
    several = [count for count in counts if count]
    # A mask of classes, read with a threshold, has a single value.
    return _median(several) if max(counts, default=0) > 1 else 0.0


def _objects_of(case: CaseStats, space: LabelSpace) -> tuple[int, float]:
    """Return number and size of the objects of a case: marked ones, or connected components."""
    if case.instances is not None and space.states_objects:
        return case.instances.visible, case.instances.size
    return case.objects, case.object_size


def _joined_share(case_stats: Sequence[CaseStats], space: LabelSpace) -> float:
    """Return the share of marked objects that touch another one of their class, or 1."""
    if space.numbers_objects:
        return 1.0
    known = [one.instances for one in case_stats if one.instances is not None]
    visible = sum(one.visible for one in known)
    if not visible or not space.states_objects:
        return 1.0
    return sum(one.joined for one in known) / visible


def _measure_touching(case_stats: Sequence[CaseStats], stats: DatasetStats) -> float:
    """Return the mean share of touching components over some cases; 0 for only a few of them."""
    # Strokes in masks that are mostly not annotated are not the objects.
    annotated = [
        one
        for one in case_stats
        if one.objects and 2 * sum(stats.class_pixels(one)) > math.prod(one.mask_shape)
    ]
    is_united = stats.space.threshold == 1 or stats.space.numbers_objects
    if is_united or _median([one.objects for one in annotated]) <= MANY_OBJECTS:
        return 0.0
    step = -(-len(annotated) // MAX_COMPARED)
    shares = []
    for one in annotated[::step]:
        classes = read_classes(one.case, stats.space)
        assert classes is not None, "annotated"
        labels = find_true_objects(one.case, classes, stats.space)
        owners = np.zeros(int(labels.max(initial=0)) + 1, dtype=np.uint8)
        owners[labels] = classes
        shares.append(touching_share(labels, owners[1:]))
    return float(np.mean(shares))


def are_photographs(case_stats: Sequence[CaseStats], pixels: np.ndarray) -> bool:
    """Return whether images are color photographs, as far as their pixels can tell.

    Shapes:
        pixels: (C, N), pixels of all cases with their stored values.
    """
    if any(one.dtype != "uint8" or len(one.shape) != 2 for one in case_stats):
        return False
    if len(pixels) != RGB or not pixels.size:
        return False
    is_black = pixels.max(axis=0) <= BLACK
    is_colored = np.ptp(pixels, axis=0) > MIN_COLOR
    return bool(is_black.mean() < 0.5 and is_colored.mean() >= MIN_COLORED)


MIN_GROUPS_DIRECTED = 3
"""Number of groups from which on a direction can be detected."""

MIN_DIRECTED = 0.04
"""Smallest correlation that counts as a direction in many groups."""


def find_symmetry(thumbnails: np.ndarray, groups: Sequence[str]) -> tuple[tuple[int, ...], bool]:
    """Find the axes along which the data may be mirrored, and whether they may be rotated freely.

    If up and down were random in each of n independent groups, the energy of the difference
    between up and down would shrink to 1/n in the mean over the groups. If clearly more remains,
    the direction has a meaning (wheels are below, faces in front), and augmentation must preserve
    it. Relative to that chance level, the energy is 1 + (n - 1) r, where r is the mean correlation
    between the differences of two groups. A direction is detected if r is above 2/n.

    `benchmarks/scores/orientation.py` prints r for datasets, and for random subsets of their
    groups: without a direction, r of 3, 4, 6 and 8 groups is below 0.55, 0.34, 0.27 and 0.22 in 99%
    of the subsets; over all groups it is 0.33 for brain MRI and 0.64 for cars.

    Left and right may always be exchanged, as is usual; `augment.geometry.flip_axes` overrides it.

    Args:
        thumbnails: Array (cases, T, T).
        groups: Group of each case; with fewer than 3 groups no direction is detected.

    Returns:
        The axes, and whether any rotation is allowed.
    """
    means = mean_thumbnails(thumbnails, groups)
    least = max(MIN_DIRECTED, 2 / len(means)) if len(means) >= MIN_GROUPS_DIRECTED else math.inf
    if shared_direction(means, np.flip(means, 1)) > least:
        return (1,), False
    return (0, 1), shared_direction(means, means.transpose(0, 2, 1)) <= least


def mean_thumbnails(thumbnails: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """Return the mean thumbnail of each group with mean 0 and standard deviation 1.

    Shapes:
        thumbnails: (cases, T, T).
        returns: (groups, T, T).
    """
    names = np.asarray(groups)
    means = np.stack([thumbnails[names == name].mean(axis=0) for name in sorted(set(groups))])
    means -= means.mean(axis=(1, 2), keepdims=True)
    means /= np.maximum(means.std(axis=(1, 2), keepdims=True), 1e-6)
    return means


def shared_direction(means: np.ndarray, turned: np.ndarray) -> float:
    """Return the mean correlation between the differences that a turn makes to two groups.

    Args:
        means: Mean thumbnail of each group, at least two groups.
        turned: The same, mirrored or rotated.

    Returns:
        1 if the difference is the same in all groups, about 0 if it is random.
    """
    difference, count = means - turned, len(means)
    remaining = float((difference.mean(axis=0) ** 2).mean())
    by_chance = float((difference**2).mean()) / count
    return (remaining / by_chance - 1) / max(1, count - 1) if by_chance else 0.0


def _redundancy_of(case_stats: Sequence[CaseStats], groups: Sequence[str]) -> float:
    """Return 0 if all groups are single images, or if there are too few images to compare."""
    if len(case_stats) < MIN_TO_COMPARE or len(set(groups)) == len(groups):
        return 0.0
    near, far = correlation_of_neighbors(case_stats)
    return max(0.0, (near - far) / max(1e-6, 1 - far))


def _measure_classes(
    case_stats: Sequence[CaseStats], stats: DatasetStats
) -> tuple[ClassFacts, ...]:
    """Measure each foreground class, except in cases whose components were not measured."""
    pixels = np.array([stats.class_pixels(case) for case in case_stats])
    components: list[list[tuple[int, float]]] = [[] for _ in stats.space.values]
    for case in case_stats:
        for index, count_and_size in _components_of_classes(case, stats.space).items():
            components[index].append(count_and_size)
    longest = float(np.median([max(case.shape) for case in case_stats]))
    return tuple(
        ClassFacts(
            name=name,
            cases=float((pixels[:, index] > 0).mean()),
            pixels=float(pixels[:, index].sum() / max(1, pixels.sum())),
            object_size=_median([size for _, size in components[index]] or [longest]),
            objects_per_case=_median([count for count, _ in components[index]] or [1]),
        )
        for index, name in enumerate(stats.space.names)
        if index
    )


def _components_of_classes(case: CaseStats, space: LabelSpace) -> dict[int, tuple[int, float]]:
    """Return number and size of the connected components of each foreground class in a case.

    Values between classes, from soft edges or lossy compression, are left out.
    """
    exact = replace(space, nearest=False)
    unknown = set(exact.unknown_values(case.objects_by_value, case.encoding))
    values = [value for value in case.objects_by_value if value not in unknown]
    classes = exact.classes_of(np.array(values, dtype=np.int64), case.encoding)
    components: dict[int, tuple[int, float]] = {}
    for value, index in zip(values, classes.tolist(), strict=True):
        if index not in (0, IGNORE):
            count, size = components.get(index, (0, 0.0))
            value_count, value_size = case.objects_by_value[value]
            components[index] = count + value_count, max(size, value_size)
    return components


def _median(values: Sequence[float]) -> float:
    """Return the median, 0 for an empty sequence."""
    return float(np.median(values)) if values else 0.0


def _measure_round_trips(
    case_stats: Sequence[CaseStats], stats: DatasetStats, most: int = 12
) -> dict[float, float]:
    """Compare some masks with themselves after resampling to a coarser grid and back.

    They are read again, because the scan knows neither the classes nor the training cases.
    """
    with_foreground = [one for one in case_stats if stats.foreground_share(one) > 0]
    step = max(1, len(with_foreground) // most)
    chosen = with_foreground[::step][:most]
    found: dict[float, list[float]] = {factor: [] for factor in DOWNSCALES}
    for one in chosen:
        classes = read_classes(one.case, stats.space)
        assert classes is not None
        for factor in DOWNSCALES:
            found[factor].append(round_trip_dice(classes, factor, stats.space))
    return {factor: float(np.mean(values)) if values else 0.0 for factor, values in found.items()}


def round_trip_dice(classes: np.ndarray, factor: float, space: LabelSpace) -> float:
    """Return the mean Dice over the foreground classes present after down- and upsampling.

    Shapes:
        classes: (*S) class indices.
    """
    coarse = tuple(max(1, round(size / factor)) for size in classes.shape)
    soft = np.stack([(classes == index) for index in range(len(space.values))]).astype(np.float32)
    back = resample_probabilities(resample_image(soft, coarse), classes.shape).argmax(axis=0)
    valid = classes != IGNORE
    scores = []
    for index in range(1, len(space.values)):
        truth, predicted = (classes == index) & valid, (back == index) & valid
        if truth.any():
            scores.append(2 * (truth & predicted).sum() / (truth.sum() + predicted.sum()))
    return float(np.mean(scores)) if scores else 0.0
