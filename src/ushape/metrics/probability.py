"""Ranking and calibration metrics of the probabilities of one class.

All functions take probabilities (*S) as floats from 0 to 1, the ground truth (*S) as booleans and
optionally a boolean mask (*S) of the pixels to evaluate. They raise ValueError for anything else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15
"""Number of probability bins of equal width, as in Guo et al. 2017."""


@dataclass(frozen=True, kw_only=True)
class ReliabilityPoint:
    """One bin of the reliability diagram; calibrated if both values are equal."""

    mean_probability: float
    positive_fraction: float
    """Fraction of these pixels that belong to the class."""

    pixels: int


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Sums over the pixels of each probability bin; sums of several cases can be added.

    They describe the probability of one class, not of the predicted class as in the paper.

    Source:
        Guo et al. 2017 (On Calibration of Modern Neural Networks), arXiv 1706.04599; Brier 1950.
    """

    pixels: tuple[int, ...]
    probability_sum: tuple[float, ...]
    positives: tuple[int, ...]
    """Number of pixels of the class in each bin."""

    squared_error: float
    """Sum of the squared errors over all pixels."""

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(
            pixels=tuple(a + b for a, b in zip(self.pixels, other.pixels, strict=True)),
            probability_sum=tuple(
                a + b for a, b in zip(self.probability_sum, other.probability_sum, strict=True)
            ),
            positives=tuple(a + b for a, b in zip(self.positives, other.positives, strict=True)),
            squared_error=self.squared_error + other.squared_error,
        )

    @property
    def expected_calibration_error(self) -> float | None:
        """Pixel-weighted mean gap between probability and frequency, 0 to 1; None if empty."""
        gaps = np.abs(np.subtract(self.probability_sum, self.positives))
        return float(gaps.sum() / sum(self.pixels)) if any(self.pixels) else None

    @property
    def brier(self) -> float | None:
        """Mean squared error of the probability, 0 to 1; None if there are no pixels."""
        return self.squared_error / sum(self.pixels) if any(self.pixels) else None

    @property
    def curve(self) -> tuple[ReliabilityPoint, ...]:
        """One point for each bin that contains pixels, by increasing probability."""
        bins = zip(self.probability_sum, self.positives, self.pixels, strict=True)
        return tuple(
            ReliabilityPoint(mean_probability=total / n, positive_fraction=positives / n, pixels=n)
            for total, positives, n in bins
            if n
        )


def measure_reliability(
    probability: np.ndarray, truth: np.ndarray, counted: np.ndarray | None = None
) -> Reliability:
    """Compute the sums of one case. Bins include their lower edge, the last one also 1."""
    shares, is_true = _pixels_that_count(probability, truth, counted)
    slot = np.minimum((shares * BINS).astype(np.intp), BINS - 1)
    return Reliability(
        pixels=tuple(np.bincount(slot, minlength=BINS).tolist()),
        probability_sum=tuple(np.bincount(slot, weights=shares, minlength=BINS).tolist()),
        positives=tuple(np.bincount(slot[is_true], minlength=BINS).tolist()),
        squared_error=float(np.square(shares - is_true).sum(dtype=np.float64)),
    )


def auroc(
    probability: np.ndarray, truth: np.ndarray, counted: np.ndarray | None = None
) -> float | None:
    """Compute the exact area under the ROC curve; None if only one of the two classes occurs.

    It is the probability that a pixel of the class has a higher probability than a pixel of
    another class; ties count one half.

    Source:
        Hanley and McNeil 1982; equal to scikit-learn's `roc_auc_score`.
    """
    called, found = _counts_by_threshold(*_pixels_that_count(probability, truth, counted))
    positives, negatives = int(found[-1]), int(called[-1] - found[-1])
    if not positives or not negatives:
        return None
    false_positives = called - found
    doubled_area = np.diff(false_positives) * (found[1:] + found[:-1])
    return int(doubled_area.sum()) / (2 * positives * negatives)


def average_precision(
    probability: np.ndarray, truth: np.ndarray, counted: np.ndarray | None = None
) -> float | None:
    """Compute the exact average precision; None if only one of the two classes occurs.

    It is the mean precision over all thresholds, weighted by the increase in recall, without
    interpolation.

    Source:
        Equal to scikit-learn's `average_precision_score`.
    """
    called, found = _counts_by_threshold(*_pixels_that_count(probability, truth, counted))
    positives = int(found[-1])
    if positives in (0, called[-1]):
        return None
    return float((np.diff(found) * (found[1:] / called[1:])).sum() / positives)


def _counts_by_threshold(
    probabilities: np.ndarray, is_true: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Count the positive pixels at each threshold, from the highest to the lowest.

    Shapes:
        probabilities, is_true: (N,).
        returns: (T + 1,) int64 each: predicted positives and true positives; the first is 0.
    """
    order = np.argsort(-probabilities)
    ranked, hits = probabilities[order], np.cumsum(is_true[order], dtype=np.int64)
    # Pixels of equal probability become positive together.
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], ranked.size > 0))
    return np.append(0, last + 1), np.append(0, hits[last])


def _pixels_that_count(
    probability: np.ndarray, truth: np.ndarray, counted: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return probability and truth of the evaluated pixels, (N,) each, after checking them.

    Raises:
        ValueError: if shapes or data types are wrong, or a probability is outside 0 to 1.
    """
    masks = [truth] if counted is None else [truth, counted]
    if any(mask.dtype != bool or mask.shape != probability.shape for mask in masks):
        found = ", ".join(f"{mask.dtype} {mask.shape}" for mask in masks)
        raise ValueError(f"Masks must be bool of shape {probability.shape}, not {found}.")
    if not np.issubdtype(probability.dtype, np.floating):
        raise ValueError(f"Probabilities must be floats from 0 to 1, not {probability.dtype}.")
    chosen = slice(None) if counted is None else counted.ravel()
    shares, is_true = probability.ravel()[chosen], truth.ravel()[chosen]
    # NaN is not at least 0 either.
    if shares.size and not (shares.min() >= 0 and shares.max() <= 1):
        raise ValueError(
            f"Probabilities must be from 0 to 1, but range from {shares.min()} to {shares.max()}."
        )
    return shares.astype(np.result_type(shares, np.float32), copy=False), is_true
