"""Stored predictions of images, of which the page shows parts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from ushape.labels import LabelSpace
from ushape.studio.tile_grid import Plane, Window, plane_box

PROBABILITIES, CLASSES, OBJECTS = "probabilities.npy", "classes.npy", "objects.npy"
SUMMARY = "summary.json"
"""Written last: a folder without it is incomplete."""

MAX_VALUES = 1 << 24
"""Largest number of values that are read to show a tile."""


@dataclass(frozen=True)
class StoredPrediction:
    """Prediction of one image in a folder; parts are read from the files."""

    folder: Path
    facts: dict[str, Any]
    """Content of the summary: shape, channels, is_exclusive, foreground, values of ImageSummary."""

    @classmethod
    def open(cls, folder: Path) -> Self | None:
        """Return the prediction in a folder; None if there is none, or if it is incomplete."""
        try:
            facts = json.loads((folder / SUMMARY).read_bytes())
        except (OSError, ValueError):
            return None
        return cls(folder, facts)

    @property
    def shape(self) -> tuple[int, ...]:
        """(*S) of the image."""
        return tuple(self.facts["shape"])

    @property
    def stamp(self) -> str:
        """Text that differs between predictions."""
        return f"{self.folder} {(self.folder / SUMMARY).stat().st_mtime_ns}"

    def share_of(self, shares: np.ndarray, class_index: int | None) -> np.ndarray:
        """Return the probability of a class, or of any foreground, (y, x).

        Shapes:
            shares: (K, y, x).
        """
        channels = self.facts["classes"]
        if class_index in channels:
            return np.asarray(shares[channels.index(class_index)])
        if class_index == 0:
            return 1 - self.share_of(shares, None)
        return 1 - shares[0] if self.facts["is_exclusive"] else np.asarray(shares.max(axis=0))

    @property
    def has_objects(self) -> bool:
        """Whether objects are separated."""
        return (self.folder / OBJECTS).exists()

    def classes(
        self, plane: Plane, index: int, window: Window, step: int, threshold: float | None
    ) -> np.ndarray:
        """Return class indices in a window of a plane, every `step`-th pixel, (y, x) uint8.

        Args:
            threshold: Probability from which pixels are foreground; None: as validation chose.
        """
        if threshold is None:
            return np.asarray(self._part(CLASSES, plane, index, window, step))
        shares = self.probabilities(plane, index, window, step)
        return classes_at(shares, threshold, self.facts)

    def probabilities(self, plane: Plane, index: int, window: Window, step: int) -> np.ndarray:
        """Return the probabilities in a window of a plane, every `step`-th pixel, (K, y, x)
        float32."""
        stored = self._part(PROBABILITIES, plane, index, window, step)
        return stored.astype(np.float32) / np.float32(255)

    def objects(self, plane: Plane, index: int, window: Window, step: int) -> np.ndarray:
        """Return object numbers in a window of a plane, every `step`-th pixel, (y, x)."""
        return np.asarray(self._part(OBJECTS, plane, index, window, step))

    def _part(self, name: str, plane: Plane, index: int, window: Window, step: int) -> np.ndarray:
        whole = np.load(self.folder / name, mmap_mode="r")
        lead = whole.ndim - len(self.shape)
        if len(self.shape) == 2:
            rows, columns = (slice(first, last, step) for first, last in window)
            return np.array(whole[(slice(None),) * lead + (rows, columns)])
        box = plane_box(plane, index, window)
        places = [slice(first, last, step) for first, last in box]
        found = np.array(whole[(slice(None),) * lead + tuple(places)])
        return found.squeeze(axis=lead + "zyx".index(plane))


def classes_at(shares: np.ndarray, threshold: float, facts: dict[str, Any]) -> np.ndarray:
    """Return the classes of probabilities at a threshold of the foreground.

    Args:
        facts: Values `is_exclusive` (softmax) and `classes` (class index of each channel).

    Shapes:
        shares: (K, y, x).
        returns: (y, x) uint8.
    """
    classes = np.zeros(shares.shape[1:], dtype=np.uint8)
    if facts["is_exclusive"]:
        best = np.asarray(facts["classes"], dtype=np.uint8)[shares[1:].argmax(axis=0) + 1]
        is_foreground = 1 - shares[0] >= threshold
        classes[is_foreground] = best[is_foreground]
        return classes
    for index, share in zip(facts["classes"], shares, strict=True):
        classes[share >= threshold] = index
    return classes


def class_table(space: LabelSpace, values: Sequence[int]) -> np.ndarray:
    """Return the class of a project for each class of a model, in increasing order.

    The indices differ if a class of the project was removed, since models do not know it. Where
    values do not tell, the indices are the same.

    Args:
        values: Mask value, or color, of each class of the project.
    """
    places = [values.index(own) for own in space.colors or space.values if own in values]
    if len(places) < len(space.values) or places != sorted(places):
        places = list(range(len(space.values)))
    return np.array(places, dtype=np.uint8)


def facts_of(space: LabelSpace, shape: tuple[int, ...], table: np.ndarray) -> dict[str, Any]:
    """Return what is stored about the channels of a prediction.

    Args:
        table: Class of the project for each class of the model.
    """
    indices = [int(table[region.classes[0]]) for region in space.scored]
    return {
        "shape": list(shape),
        "is_exclusive": space.is_exclusive,
        "classes": [0, *indices] if space.is_exclusive else indices,
        "names": list(space.channel_names),
    }
