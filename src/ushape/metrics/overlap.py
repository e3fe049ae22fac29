"""Counts of pixels, and the scores made of them. Never NaN: what has no value is None."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ushape.labels import IGNORE, Region

Kind = Literal["both present", "missed", "false alarm", "both empty"]
KINDS: tuple[Kind, ...] = ("both present", "missed", "false alarm", "both empty")


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Pixels of one class in one case; the sum over slices is the count of the volume."""

    overlap: int
    truth: int
    predicted: int
    pixels: int
    """All that count, of whatever class."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            overlap=self.overlap + other.overlap,
            truth=self.truth + other.truth,
            predicted=self.predicted + other.predicted,
            pixels=self.pixels + other.pixels,
        )


def count_overlap(predicted: np.ndarray, truth: np.ndarray, region: Region) -> Counts:
    """Counts of one class or region; pixels that the annotator left open count nowhere.

    Shapes:
        predicted, truth: (*S) class indices.
    """
    counted = truth != IGNORE
    in_truth = region.of(truth)
    in_guess = region.of(predicted) & counted
    return Counts(
        overlap=int((in_truth & in_guess).sum()),
        truth=int(in_truth.sum()),
        predicted=int(in_guess.sum()),
        pixels=int(counted.sum()),
    )


def dice(counts: Counts) -> float | None:
    """2 overlap / (truth + predicted); 0 for a miss and a false alarm, None if both are empty."""
    size = counts.truth + counts.predicted
    return 2 * counts.overlap / size if size else None


def iou(counts: Counts) -> float | None:
    """Overlap / union; 0 for a miss and a false alarm, None if both are empty."""
    union = counts.truth + counts.predicted - counts.overlap
    return counts.overlap / union if union else None


def kind_of(counts: Counts) -> Kind:
    """Whether the class is in the truth, in the prediction, in both or in neither.

    A prediction that nowhere meets the truth is a miss, wherever it lies.
    """
    if counts.truth:
        return "both present" if counts.overlap else "missed"
    return "false alarm" if counts.predicted else "both empty"


def pixel_error(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Share of the pixels with a wrong class, 0 to 1; 0 where no pixel counts."""
    counted = truth != IGNORE
    return float((predicted != truth)[counted].mean()) if counted.any() else 0.0
