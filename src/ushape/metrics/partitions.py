"""Splits and merges: how well two partitions of the same pixels agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse


@dataclass(frozen=True, kw_only=True)
class Contingency:
    """Pixels of each predicted segment in each true one, as shares of all that count.

    The entries of each array are above 0 and add up to 1; no pixel counts: all are empty.
    """

    truth: np.ndarray
    """(T,), one share for each true segment."""

    predicted: np.ndarray
    """(P,), one share for each predicted segment."""

    joint: np.ndarray
    """(J,), one share for each pair of segments with common pixels."""


@dataclass(frozen=True, kw_only=True)
class SplitMerge:
    """1 is perfect, 0 the worst."""

    split: float
    """Lower, the more true segments are cut apart."""

    merge: float
    """Lower, the more true segments are run together."""

    @property
    def f_score(self) -> float:
        """Harmonic mean of the two."""
        total = self.split + self.merge
        return 2 * self.split * self.merge / total if total else 0.0


@dataclass(frozen=True, kw_only=True)
class Variation:
    """Bits per pixel; 0 is perfect."""

    split: float
    """H(predicted | truth): rises as true segments are cut apart."""

    merge: float
    """H(truth | predicted): rises as true segments are run together."""

    @property
    def total(self) -> float:
        return self.split + self.merge


def contingency_table(predicted: np.ndarray, truth: np.ndarray) -> Contingency:
    """Contingency where the truth has a segment (foreground-restricted).

    A predicted pixel without a segment (0) is a segment of its own: one-pixel borders cost
    little, broad ones much.

    Args:
        predicted, truth: Segments numbered from 1, 0 for none. Gaps in the numbers are
            allowed, but memory grows with the highest.

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
    """V_rand: of the pairs of pixels together in one partition, the share also so in the other.

    Its F-score is one minus the adapted Rand error. Pairs are drawn with replacement, as in the
    paper; scikit-image's `adapted_rand_error` draws pairs of different pixels, which differs by
    some 1 / pixels. 1 if no pixel counts.

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
    """V_info: mutual information over the entropy of the prediction (split), of the truth (merge).

    An entropy of 0 is one segment, which splits (merges) nothing: 1.

    Source:
        Arganda-Carreras et al. 2015, doi 10.3389/fnana.2015.00142.
    """
    truth, predicted = _entropy(overlaps.truth), _entropy(overlaps.predicted)
    mutual = max(0.0, truth + predicted - _entropy(overlaps.joint))
    return SplitMerge(split=_part(mutual, predicted), merge=_part(mutual, truth))


def variation_of_information(overlaps: Contingency) -> Variation:
    """What one partition leaves open about the other. 0 if no pixel counts.

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
    """Bits."""
    return float(-(shares * np.log2(shares)).sum())


def _part(part: float, whole: float) -> float:
    """Share of a whole; all of nothing is 1."""
    return min(1.0, part / whole) if whole else 1.0
