"""Agreement of two partitions of the same pixels: Rand score and information scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse


@dataclass(frozen=True, kw_only=True)
class Contingency:
    """Joint distribution of true and predicted segments over the evaluated pixels.

    The entries of each array are positive and sum to 1; all are empty if no pixel is evaluated.
    """

    truth: np.ndarray
    """(T,) fraction of the pixels in each true segment."""

    predicted: np.ndarray
    """(P,) fraction of the pixels in each predicted segment."""

    joint: np.ndarray
    """(J,) fraction of the pixels in each pair of overlapping segments."""


@dataclass(frozen=True, kw_only=True)
class SplitMerge:
    """Split and merge scores; 1 is best, 0 is worst."""

    split: float
    """Score that decreases as true segments are split."""

    merge: float
    """Score that decreases as true segments are merged."""

    @property
    def f_score(self) -> float:
        """Harmonic mean of the two scores."""
        total = self.split + self.merge
        return 2 * self.split * self.merge / total if total else 0.0


@dataclass(frozen=True, kw_only=True)
class Variation:
    """Variation of information in bits; 0 is best."""

    split: float
    """H(predicted | truth), which increases as true segments are split."""

    merge: float
    """H(truth | predicted), which increases as true segments are merged."""

    @property
    def total(self) -> float:
        """Sum of the two conditional entropies."""
        return self.split + self.merge


def contingency_table(predicted: np.ndarray, truth: np.ndarray) -> Contingency:
    """Compute the contingency table of the pixels that have a segment in the truth.

    Each predicted pixel without a segment (0) is treated as a segment of its own, so that
    one-pixel borders cost little and broad borders cost much.

    Args:
        predicted, truth: Segments labeled from 1, 0 for none. Labels may have gaps, but memory
            grows with the largest label.

    Shapes:
        predicted, truth: (*S) integers.

    Source:
        Arganda-Carreras et al. 2015, doi 10.3389/fnana.2015.00142; single pixels as in Fiji's
        Trainable Segmentation (RandError, VariationOfInformation).
    """
    assert predicted.shape == truth.shape, (predicted.shape, truth.shape)
    counted = truth > 0
    rows, columns = truth[counted].astype(np.int64), predicted[counted].astype(np.int64)
    alone = columns == 0
    columns[alone] = columns.max(initial=0) + 1 + np.arange(alone.sum())
    shape = rows.max(initial=0) + 1, columns.max(initial=0) + 1
    table = sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=shape).tocsr()
    return Contingency(
        truth=_shares(np.bincount(rows)),
        predicted=_shares(np.bincount(columns)),
        joint=_shares(table.data),
    )


def rand_score(overlaps: Contingency) -> SplitMerge:
    """Compute V_rand; its F-score is one minus the adapted Rand error. 1 if no pixel is evaluated.

    The score is the fraction of the pixel pairs in one segment of one partition that are also in
    one segment of the other. Pairs are drawn with replacement, as in the paper; scikit-image's
    `adapted_rand_error` draws without replacement, which differs by about 1 / pixels.

    Source:
        Arganda-Carreras et al. 2015, doi 10.3389/fnana.2015.00142: alpha = 0 is the split
        score, 1 the merge score, 1/2 the F-score.
    """
    together = float((overlaps.joint**2).sum())
    return SplitMerge(
        split=_part(together, float((overlaps.truth**2).sum())),
        merge=_part(together, float((overlaps.predicted**2).sum())),
    )


def information_score(overlaps: Contingency) -> SplitMerge:
    """Compute V_info: mutual information divided by the entropy of the prediction (split) and of
    the truth (merge). The score is 1 where that entropy is 0, i.e. for a single segment.

    Source:
        Arganda-Carreras et al. 2015, doi 10.3389/fnana.2015.00142.
    """
    truth, predicted = _entropy(overlaps.truth), _entropy(overlaps.predicted)
    mutual = max(0.0, truth + predicted - _entropy(overlaps.joint))
    return SplitMerge(split=_part(mutual, predicted), merge=_part(mutual, truth))


def variation_of_information(overlaps: Contingency) -> Variation:
    """Compute the conditional entropies of the two partitions; 0 if no pixel is evaluated.

    Source:
        Meila 2007, doi 10.1016/j.jmva.2006.11.013; split and merge as in scikit-image.
    """
    joint = _entropy(overlaps.joint)
    return Variation(
        split=max(0.0, joint - _entropy(overlaps.truth)),
        merge=max(0.0, joint - _entropy(overlaps.predicted)),
    )


def _shares(counts: np.ndarray) -> np.ndarray:
    present = counts[counts > 0]
    return present / present.sum()


def _entropy(shares: np.ndarray) -> float:
    """Return the entropy in bits."""
    return float(-(shares * np.log2(shares)).sum())


def _part(part: float, whole: float) -> float:
    """Return part / whole, clipped to at most 1; 1 if the whole is 0."""
    return min(1.0, part / whole) if whole else 1.0
