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


def precision(counts: Counts) -> float | None:
    """Overlap / predicted; 0 also for a miss that predicts nothing, None if both are empty."""
    if counts.predicted:
        return counts.overlap / counts.predicted
    return 0.0 if counts.truth else None


def recall(counts: Counts) -> float | None:
    """Overlap / truth; 0 for a miss, None without truth."""
    return counts.overlap / counts.truth if counts.truth else None


def volume_difference(counts: Counts) -> float | None:
    """(predicted - truth) / truth; below 0 is too small, -1 nothing predicted; None without truth.

    Says nothing about the place, and in a mean too large and too small cancel.
    """
    return (counts.predicted - counts.truth) / counts.truth if counts.truth else None


def balanced_accuracy(counts: Counts) -> float | None:
    """Mean of recall and specificity; 0.5 for predicting nothing, None where truth is all or none.

    Source:
        Brodersen et al. 2010.
    """
    others = counts.pixels - counts.truth
    if not counts.truth or not others:
        return None
    invented = counts.predicted - counts.overlap
    return (counts.overlap / counts.truth + 1 - invented / others) / 2


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
