"""Scores of probabilities of one class against the truth: order, and honesty of the numbers.

All take probabilities as floats from 0 to 1, the truth as booleans, and optionally which pixels
count, of one shape (*S). They raise ValueError for anything else; what does not count may be NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15
"""Of equal width, as in Guo et al. 2017."""


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Pixels of similar probability; honest where both shares are the same."""

    mean_probability: float
    truth_share: float
    pixels: int


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Sums over pixels in bins of probability; those of several cases add up to their pool.

    Of the probability of one class, not of the likeliest as in the paper.

    Source:
        Guo et al. 2017 (On Calibration of Modern Neural Networks), arXiv 1706.04599; Brier 1950.
    """

    pixels: tuple[int, ...]
    """Of each bin, as the next two."""

    probability_sum: tuple[float, ...]
    positives: tuple[int, ...]
    squared_error: float
    """Sum over all pixels."""

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
        """Mean gap between probability and truth over bins, by their pixels; 0 is best, 1 worst.

        None without pixels.
        """
        gaps = np.abs(np.subtract(self.probability_sum, self.positives))
        return float(gaps.sum() / sum(self.pixels)) if any(self.pixels) else None

    @property
    def brier(self) -> float | None:
        """Mean squared error of the probability, 0 to 1; None without pixels."""
        return self.squared_error / sum(self.pixels) if any(self.pixels) else None

    @property
    def curve(self) -> tuple[CurvePoint, ...]:
        """A point for each bin that holds any pixel, by rising probability."""
        bins = zip(self.probability_sum, self.positives, self.pixels, strict=True)
        return tuple(
            CurvePoint(mean_probability=total / n, truth_share=positives / n, pixels=n)
            for total, positives, n in bins
            if n
        )


def measure_reliability(
    probability: np.ndarray, truth: np.ndarray, counted: np.ndarray | None = None
) -> Reliability:
    """The sums of one case. A bin holds its lower edge, the last one also 1."""
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
    """The chance that a pixel of the class has a higher probability than one of another.

    Exact: by sorting, equals count half. None where only one of the two occurs.

    Source:
        Hanley, McNeil 1982; as scikit-learn's roc_auc_score.
    """
    called, found = _sweep(*_pixels_that_count(probability, truth, counted))
    positives, negatives = int(found[-1]), int(called[-1] - found[-1])
    if not positives or not negatives:
        return None
    invented = called - found
    doubled_area = np.diff(invented) * (found[1:] + found[:-1])
    return int(doubled_area.sum()) / (2 * positives * negatives)


def average_precision(
    probability: np.ndarray, truth: np.ndarray, counted: np.ndarray | None = None
) -> float | None:
    """Mean precision over all thresholds, each by the recall that it adds.

    Exact: by sorting, without interpolation. None where only one of the two classes occurs.

    Source:
        As scikit-learn's average_precision_score.
    """
    called, found = _sweep(*_pixels_that_count(probability, truth, counted))
    positives = int(found[-1])
    if positives in (0, called[-1]):
        return None
    return float((np.diff(found) * (found[1:] / called[1:])).sum() / positives)


def _sweep(shares: np.ndarray, is_true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels called positive as the threshold sinks from one probability to the next.

    Shapes:
        shares, is_true: (N,).
        returns: (T + 1,) int64, all called and those rightly; at first none, at last N pixels.
    """
    order = np.argsort(-shares)
    ranked, hits = shares[order], np.cumsum(is_true[order], dtype=np.int64)
    # Equal probabilities are called together.
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], ranked.size > 0))
    return np.append(0, last + 1), np.append(0, hits[last])


def _pixels_that_count(
    probability: np.ndarray, truth: np.ndarray, counted: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Probability and truth of the pixels that count, (N,) each, the first at least float32."""
    masks = [truth] if counted is None else [truth, counted]
    if any(mask.dtype != bool or mask.shape != probability.shape for mask in masks):
        found = ", ".join(f"{mask.dtype} {mask.shape}" for mask in masks)
        raise ValueError(f"Masks must be bool {probability.shape}, not {found}.")
    if not np.issubdtype(probability.dtype, np.floating):
        raise ValueError(f"Probabilities must be floats from 0 to 1, not {probability.dtype}.")
    chosen = slice(None) if counted is None else counted.ravel()
    shares, is_true = probability.ravel()[chosen], truth.ravel()[chosen]
    # NaN is not at least 0 either.
    if shares.size and not (shares.min() >= 0 and shares.max() <= 1):
        raise ValueError(f"Probabilities reach from {shares.min()} to {shares.max()}, not 0 to 1.")
    return shares.astype(np.result_type(shares, np.float32), copy=False), is_true
