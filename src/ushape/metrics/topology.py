"""Topology metrics of cells separated by membranes (ISBI 2012): partitions and warping error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from scipy import ndimage, sparse
from skimage.segmentation import watershed


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

    Each predicted pixel without a segment (0) is treated as a separate segment, so that one-pixel
    borders cost little and broad borders cost much.

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


ScoreName = Literal["rand", "information", "variation", "warping_error"]
"""Name of a metric that is reported at its optimal threshold."""

MIN_CELL_FRACTION = 0.5
"""Fraction of foreground pixels from which cells are assumed to fill the image."""

MAX_TOPOLOGY_PX = 8_000_000
"""Maximum number of pixels evaluated at all thresholds (30 sections of 512 x 512, about 30 s)."""

CELL_THRESHOLDS = tuple(tenths / 10 for tenths in range(10))
"""Probability thresholds of the challenge, without the last one (1.0)."""


@dataclass(frozen=True, kw_only=True)
class TopologyScores:
    """Metrics of one section, or means over sections.

    All but the warping error are computed with thinned membranes.
    """

    rand: float
    """F-score of V_rand, 1 is best; the leaderboard of the challenge is sorted by it."""

    information: float
    """F-score of V_info, 1 is best."""

    variation: float
    """Variation of information in bits, 0 is best."""

    warping_error: float
    """Fraction of pixels, 0 is best."""


def score_section(predicted: np.ndarray, truth: np.ndarray) -> TopologyScores:
    """Compute all metrics of one section.

    For V_rand, V_info and the variation of information, the predicted membranes are thinned and
    the membrane pixels of the truth are excluded. The width of membranes therefore has no
    influence; a predicted membrane is penalized only where it lies inside a true cell.

    Shapes:
        predicted, truth: (y, x) bool, true inside cells.

    Source:
        Arganda-Carreras et al. 2015, doi 10.3389/fnana.2015.00142, and Fiji's script
        "Segmentation evaluation after border thinning".
    """
    overlaps = contingency_table(thin_membranes(predicted), label_cells(truth))
    return TopologyScores(
        rand=rand_score(overlaps).f_score,
        information=information_score(overlaps).f_score,
        variation=variation_of_information(overlaps).total,
        warping_error=warping_error(predicted, truth),
    )


def score_thresholds(
    probabilities: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    thresholds: Sequence[float] = CELL_THRESHOLDS,
) -> dict[float, TopologyScores]:
    """Compute the mean metrics over all sections at each threshold.

    Args:
        probabilities: Probability of being inside a cell, float from 0 to 1 or uint8 from 0 to
            255. Pixels above the threshold are cells.
        truths: Ground truth, true inside cells.
        thresholds: Probability thresholds, 0 to 1.

    Shapes:
        probabilities: (y, x) each; truths: (y, x) bool each.
    """
    return {
        threshold: mean_scores(
            [
                score_section(_above(probability, threshold), truth)
                for probability, truth in zip(probabilities, truths, strict=True)
            ]
        )
        for threshold in thresholds
    }


def best_threshold(
    found: Mapping[float, TopologyScores],
    name: ScoreName,
) -> float:
    """Return the threshold with the best value of a metric, the first if there are several.

    As in the challenge, all sections share one threshold and each metric has its own. It is
    chosen on the test data, so the value is slightly optimistic.
    """
    choose = max if name in ("rand", "information") else min
    return choose(found, key=lambda threshold: getattr(found[threshold], name))


def mean_scores(scores: Sequence[TopologyScores]) -> TopologyScores:
    """Return the mean of each metric; all sections have equal weight."""
    rows = [asdict(score) for score in scores]
    return TopologyScores(**{name: float(np.mean([row[name] for row in rows])) for name in rows[0]})


def label_cells(cells: np.ndarray) -> np.ndarray:
    """Label the 4-connected cells from 1; (y, x) bool, true inside cells -> (y, x) labels."""
    labels, _ = ndimage.label(cells)
    return labels


def thin_membranes(cells: np.ndarray) -> np.ndarray:
    """Grow the cells until the membranes between them are one pixel wide.

    Membranes inside a single cell, such as those of organelles and loose ends, are filled. An
    image without cells becomes one segment.

    Shapes:
        cells: (y, x) bool, true inside cells.
        returns: (y, x) cells labeled from 1, 0 on the membranes.

    Source:
        Watershed of the binary image with 4 neighbors, as in Fiji's Trainable Segmentation.
    """
    if not cells.any():
        return np.ones(cells.shape, dtype=np.int32)
    flat = np.zeros(cells.shape, dtype=np.uint8)
    return watershed(flat, label_cells(cells), connectivity=1, watershed_line=True)


def _above(probability: np.ndarray, threshold: float) -> np.ndarray:
    top = 255 if probability.dtype == np.uint8 else 1
    return np.asarray(probability > threshold * top)


SUBLATTICES = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Sublattices of rows and columns modulo 2; no two pixels of one sublattice are neighbors."""


def warping_error(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Compute the fraction of pixels that differ after warping the truth towards the prediction.

    Do not select models by this metric alone: borders may move any distance, so a prediction of
    membrane everywhere costs only one pixel per cell. The ISBI 2012 leaderboard counts regions
    that split or merge cells instead of pixels.

    Shapes:
        predicted, truth: (y, x) bool, true inside cells.

    Source:
        Jain et al. 2010 (CVPR), doi 10.1109/CVPR.2010.5539950.
    """
    return float((warp(predicted, truth) != predicted).mean())


def warp(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Deform the truth towards the prediction without changing its topology.

    Flips differing pixels as long as one of them is simple, i.e. flipping it changes neither the
    number of cells (4-connected) nor that of membranes (8-connected). The area outside the image
    is membrane. All simple pixels of one sublattice are flipped at once, because they are not
    neighbors. Fiji flips them one by one, the most confident prediction first; the few remaining
    pixels depend on the order.

    Shapes:
        predicted, truth: (y, x) bool, true inside cells.
        returns: (y, x) bool.
    """
    assert predicted.shape == truth.shape, (predicted.shape, truth.shape)
    goal, warped = np.pad(predicted, 1), np.pad(truth, 1)
    step = warped.shape[1]
    around = np.array([-step, 1 - step, 1, step + 1, step, step - 1, -1, -step - 1])
    wrong = np.flatnonzero(goal != warped)
    flat = warped.reshape(-1)
    while True:
        for row, column in SUBLATTICES:
            own = wrong[(wrong // step % 2 == row) & (wrong % step % 2 == column)]
            neighbors = np.packbits(flat[own[:, None] + around], axis=1, bitorder="little")
            flat[own[SIMPLE[neighbors[:, 0]]]] ^= True
        left = wrong[flat[wrong] != goal.reshape(-1)[wrong]]
        if len(left) == len(wrong):
            return warped[1:-1, 1:-1]
        wrong = left


def _find_simple() -> np.ndarray:
    """Tabulate for each neighborhood whether its center pixel is simple.

    Shapes:
        returns: (256,) bool; bit 0 of the index is the neighbor above, the others follow
            clockwise; bits are 1 inside cells.

    Source:
        Yokoi, Toriwaki and Fukumura 1975: a pixel is simple if its 4-connectivity number is 1.
    """
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    side, corner = bits[:, 0::2], bits[:, 1::2]
    following = np.roll(side, -1, axis=1)
    return (side * (1 - corner * following)).sum(axis=1) == 1


SIMPLE = _find_simple()
