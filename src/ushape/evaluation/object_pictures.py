"""Pictures of missed, merged and split objects, and of false positives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from ushape.evaluation.picture_files import (
    decode_webp,
    encode_webp,
    read_picture_files,
    write_picture_files,
)
from ushape.instances.touching import MAX_COMPARED, MOSTLY_TOUCHING, touching_share
from ushape.metrics.instance import MANY_OBJECTS, ObjectMatches
from ushape.transforms.overlay import Color, as_rgb

OUTCOME_COLORS: tuple[Color, ...] = ((86, 180, 233), (213, 94, 0), (204, 121, 167), (240, 228, 66))
"""Colors of FOUND, WRONG, MERGED and SPLIT (Okabe and Ito 2008)."""

FOUND, WRONG, MERGED, SPLIT = 1, 2, 3, 4
"""Outcomes of objects in the comparison. WRONG: it is missed, or a false positive."""

KINDS = ("missed", "merged", "split", "false_positives")

PER_KIND = 2
"""Number of pictures of each kind of error, those with the most errors."""

OBJECTS_ACROSS = 14
"""Side of a picture in diameters of the median object."""

SIDES_PX = (64, 384)
"""Smallest and largest side of a picture in pixels of the image."""

DRAWN_PX = 384
"""Side in pixels up to which a picture is enlarged by a whole factor."""

EDGE_PX = 2
"""Width of the outlines in a picture."""

TINT = 0.3
"""Opacity of the color inside of objects with errors."""

MAX_TOUCHING_PX = 16_000_000
"""Largest image in which gaps between objects are measured."""

QUALITY = 90
"""WebP quality of a stored picture."""


@dataclass(frozen=True, kw_only=True)
class ObjectPicture:
    """Part of a case, twice: with the annotated and with the predicted objects."""

    case: str
    class_name: str
    part: str
    """Part that is shown, e.g. "rows 1 to 256, columns 257 to 512 of slice 3"; '' for all."""

    missed: int
    """Number of missed objects of the class in the whole case; likewise for the other numbers."""

    merged: int
    split: int
    false_positives: int
    annotated: np.ndarray
    """(h, w, 3) uint8, outlined in the colors of the outcomes."""

    predicted: np.ndarray
    """(h, w, 3) uint8."""


@dataclass
class ObjectSelection:
    """Selects the cases with the most missed, merged and split objects and false positives."""

    _best: dict[str, list[tuple[int, ObjectPicture]]] = field(default_factory=dict)
    _numbers: list[int] = field(default_factory=list)
    _touching: list[float] = field(default_factory=list)

    def add(
        self,
        case_id: str,
        image: np.ndarray,
        class_name: str,
        predicted: np.ndarray,
        truth: np.ndarray,
        matches: ObjectMatches,
    ) -> None:
        """Add the objects of one class in a case.

        Shapes:
            image: (C, *S), any type; predicted, truth: (*S) object labels, 0 for background.
        """
        if len(matches.truth):
            self._numbers.append(len(matches.truth))
            is_many = len(matches.truth) > MANY_OBJECTS and truth.size <= MAX_TOUCHING_PX
            if is_many and len(self._touching) < MAX_COMPARED:
                self._touching.append(touching_share(truth))
        counts = _count(matches)
        if any(self._is_wanted(kind, counts[kind]) for kind in KINDS):
            part, annotated, own = _draw(image, predicted, truth, matches)
            self.insert(
                ObjectPicture(
                    case=case_id,
                    class_name=class_name,
                    part=part,
                    **counts,
                    annotated=annotated,
                    predicted=own,
                )
            )

    def insert(self, picture: ObjectPicture) -> None:
        """Add a picture, if it has more errors of a kind than one that is kept."""
        for kind in KINDS:
            number = getattr(picture, kind)
            if self._is_wanted(kind, number):
                kept = [*self._best.get(kind, []), (number, picture)]
                self._best[kind] = sorted(kept, key=lambda one: -one[0])[:PER_KIND]

    @property
    def pictures(self) -> list[ObjectPicture]:
        """Selected pictures, each once, by decreasing number of errors."""
        kept = {(p.case, p.class_name): p for own in self._best.values() for _, p in own}
        return sorted(kept.values(), key=lambda one: -sum(getattr(one, kind) for kind in KINDS))

    @property
    def are_many_touching(self) -> bool:
        """Whether the annotated objects are many, and most of them nearly touch another one."""
        if not self._touching or np.mean(self._numbers) <= MANY_OBJECTS:
            return False
        return bool(np.mean(self._touching) >= MOSTLY_TOUCHING)

    def _is_wanted(self, kind: str, number: int) -> bool:
        kept = self._best.get(kind, [])
        return number > 0 and (len(kept) < PER_KIND or number > kept[-1][0])


def _count(matches: ObjectMatches) -> dict[str, int]:
    return {
        "missed": int(matches.is_missed.sum()),
        "merged": int(matches.is_merged.sum()),
        "split": int(matches.is_split.sum()),
        "false_positives": int(matches.is_false_positive.sum()),
    }


def _draw(
    image: np.ndarray, predicted: np.ndarray, truth: np.ndarray, matches: ObjectMatches
) -> tuple[str, np.ndarray, np.ndarray]:
    """Draw the part of a case with the most errors.

    Returns:
        The fields `part`, `annotated` and `predicted` of a picture.
    """
    outcomes = np.full(len(matches.truth), FOUND, np.uint8)
    outcomes[matches.is_missed], outcomes[matches.is_split] = WRONG, SPLIT
    outcomes[matches.is_merged] = MERGED
    own_outcomes = np.full(len(matches.predicted), FOUND, np.uint8)
    own_outcomes[matches.is_false_positive], own_outcomes[matches.is_part] = WRONG, SPLIT
    own_outcomes[matches.is_merger] = MERGED
    side = _side_of(truth if len(matches.truth) else predicted)
    sides = ((truth, matches.truth, outcomes), (predicted, matches.predicted, own_outcomes))
    planes = [(labels, _map_values(labels, known, own)) for labels, known, own in sides]
    errors = np.add(*(_error_weights(labels, own) for labels, own in planes))
    part = ""
    if truth.ndim == 3:
        plane = int(errors.sum(axis=(1, 2)).argmax())
        image, errors = image[:, plane], errors[plane]
        planes = [(labels[plane], own[plane]) for labels, own in planes]
        part = f"slice {plane + 1} of {len(truth)}"
    window = _fullest_window(errors, side)
    if errors[window].shape != errors.shape:
        rows, columns = (f"{axis.start + 1} to {axis.stop}" for axis in window)
        part = f"rows {rows}, columns {columns}" + (f", {part}" if part else "")
    picture = as_rgb(image)[window]
    (true_labels, true_outcomes), (own_labels, predicted_outcomes) = planes
    return (
        part,
        _paint(picture, true_labels[window], true_outcomes[window]),
        _paint(picture, own_labels[window], predicted_outcomes[window]),
    )


def _side_of(labels: np.ndarray) -> int:
    """Return the side of the part that is shown, in pixels."""
    _, sizes = np.unique(labels[labels > 0], return_counts=True)
    diameter = float(np.median(sizes)) ** (1 / labels.ndim)
    return int(np.clip(OBJECTS_ACROSS * diameter, *SIDES_PX))


def _map_values(labels: np.ndarray, known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Replace the sorted known labels by their values, and all others by 0."""
    found = np.zeros(labels.shape, dtype=np.uint8)
    if len(known):
        own = labels[labels > 0]
        places = np.searchsorted(known, own).clip(max=len(known) - 1)
        found[labels > 0] = np.where(known[places] == own, values[places], 0)
    return found


def _error_weights(labels: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """Return a map whose sum over an object with an error is 1."""
    weights, wrong = np.zeros(labels.shape, dtype=np.float32), outcomes > FOUND
    _, places, sizes = np.unique(labels[wrong], return_inverse=True, return_counts=True)
    weights[wrong] = 1 / sizes[places]
    return weights


def _fullest_window(errors: np.ndarray, side: int) -> tuple[slice, slice]:
    """Return the window (y, x) of at most this side with the largest sum of errors."""
    sums = np.pad(errors.astype(np.float64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    starts = []
    for length in errors.shape:
        last = max(0, length - side)
        starts.append(np.unique([*range(0, last, max(1, side // 4)), last]))
    top, left = np.ix_(*starts)
    bottom, right = np.minimum(top + side, len(errors)), np.minimum(left + side, errors.shape[1])
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    row, column = np.unravel_index(inside.argmax(), inside.shape)
    y, x = int(starts[0][row]), int(starts[1][column])
    return slice(y, int(bottom[row, 0])), slice(x, int(right[0, column]))


def _paint(picture: np.ndarray, labels: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """Outline each object in the color of its outcome, and tint those with errors."""
    factor = max(1, DRAWN_PX // max(labels.shape))
    picture, labels, outcomes = (
        one.repeat(factor, axis=0).repeat(factor, axis=1) for one in (picture, labels, outcomes)
    )
    colors = np.array([(0, 0, 0), *OUTCOME_COLORS], dtype=np.float32)[outcomes]
    wrong = outcomes > FOUND
    picture[wrong] = ((1 - TINT) * picture[wrong] + TINT * colors[wrong]).astype(np.uint8)
    size = 2 * min(EDGE_PX, factor) + 1  # The border of small objects would hide them.
    lowest = ndimage.minimum_filter(labels, size=size, mode="nearest")
    edge = (lowest != ndimage.maximum_filter(labels, size=size, mode="nearest")) & (outcomes > 0)
    picture[edge] = colors[edge].astype(np.uint8)
    return picture


def save_object_pictures(folder: Path, pictures: Iterable[ObjectPicture]) -> None:
    """Write one file for each picture, replacing those of an earlier call."""
    write_picture_files(folder, (_encode(picture) for picture in pictures))


def load_object_pictures(folder: Path) -> Sequence[ObjectPicture]:
    """Load the pictures of `save_object_pictures`; none if the folder does not exist.

    Raises:
        RunError: if a file is damaged or not such a picture.
    """
    return read_picture_files(folder, _decode)


def _encode(picture: ObjectPicture) -> dict[str, Any]:
    images = {
        name: encode_webp(getattr(picture, name), quality=QUALITY)
        for name in ("annotated", "predicted")
    }
    return {**vars(picture), **images}


def _decode(stored: Mapping[str, Any]) -> ObjectPicture:
    return ObjectPicture(
        case=str(stored["case"]),
        class_name=str(stored["class_name"]),
        part=str(stored["part"]),
        missed=int(stored["missed"]),
        merged=int(stored["merged"]),
        split=int(stored["split"]),
        false_positives=int(stored["false_positives"]),
        annotated=decode_webp(stored["annotated"]),
        predicted=decode_webp(stored["predicted"]),
    )
