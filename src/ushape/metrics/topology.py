"""Scores of electron microscopy: cells and the membranes between them, as in ISBI 2012."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from ushape.metrics.partitions import (
    contingency_table,
    information_score,
    rand_score,
    variation_of_information,
)
from ushape.metrics.warping import warping_error

ScoreName = Literal["rand", "information", "variation", "warping_error"]
"""Scores that have a best threshold."""

FULL = 0.5
"""Share of an image from which its cells fill it."""

MAX_PX = 8_000_000
"""Pixels that are scored for all thresholds: 30 sections of 512 x 512, half a minute."""

THRESHOLDS = tuple(tenths / 10 for tenths in range(10))
"""Those of the challenge but for the last, 1.0."""


@dataclass(frozen=True, kw_only=True)
class TopologyScores:
    """Of one section, or means over sections. V_rand and V_info are after thinning."""

    rand: float
    """V_rand: 1 is perfect. The table of the challenge is sorted by it."""

    rand_split: float
    rand_merge: float

    information: float
    """V_info: 1 is perfect."""

    information_split: float
    information_merge: float

    variation_split: float
    """Bits; 0 is perfect."""

    variation_merge: float

    warping_error: float
    """Share of pixels; 0 is perfect."""

    @property
    def variation(self) -> float:
        """Variation of information in bits; 0 is perfect."""
        return self.variation_split + self.variation_merge


def score_section(predicted: np.ndarray, truth: np.ndarray) -> TopologyScores:
    """All scores of one section.

    For V_rand, V_info and the variation only the predicted membranes are thinned. The truth is
    labeled as it is, and its membrane pixels do not count. So neither width matters: a line of
    the prediction costs only where it runs inside a true cell.

    Shapes:
        predicted, truth: (y, x) bool, true inside cells.

    Source:
        Arganda-Carreras et al. 2015, doi 10.3389/fnana.2015.00142, and Fiji's script
        "Segmentation evaluation after border thinning".
    """
    overlaps = contingency_table(thin_membranes(predicted), label_cells(truth))
    rand, information = rand_score(overlaps), information_score(overlaps)
    variation = variation_of_information(overlaps)
    return TopologyScores(
        rand=rand.f_score,
        rand_split=rand.split,
        rand_merge=rand.merge,
        information=information.f_score,
        information_split=information.split,
        information_merge=information.merge,
        variation_split=variation.split,
        variation_merge=variation.merge,
        warping_error=warping_error(predicted, truth),
    )


def score_thresholds(
    probabilities: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[float, TopologyScores]:
    """Scores at each threshold, each the mean over all sections.

    Args:
        probabilities: Of being inside a cell: floats from 0 to 1, or uint8 up to 255. Cells are
            what lies above the threshold.

    Shapes:
        probabilities, truths: (y, x) each, truths bool; a stack (z, y, x) is z of them.
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
    """The threshold with the best value of a score, the first of several.

    As in the challenge all sections share one threshold, and each score has its own. It is
    chosen on the truth itself, so the value is a little better than a new image would get.
    """
    choose = max if name in ("rand", "information") else min
    return choose(found, key=lambda threshold: getattr(found[threshold], name))


def mean_scores(scores: Sequence[TopologyScores]) -> TopologyScores:
    """Each section counts the same, whatever its number of pixels."""
    rows = [asdict(score) for score in scores]
    return TopologyScores(**{name: float(np.mean([row[name] for row in rows])) for name in rows[0]})


def label_cells(cells: np.ndarray) -> np.ndarray:
    """(y, x) bool, true inside cells -> (y, x) cells numbered from 1, corners do not connect."""
    labels, _ = ndimage.label(cells)
    return labels


def thin_membranes(cells: np.ndarray) -> np.ndarray:
    """Cells grown at equal speed until lines one pixel wide are left between them.

    What lies within one cell, such as the membrane of an organelle or an end of a broken line,
    is filled. An image without cells is one segment.

    Shapes:
        cells: (y, x) bool, true inside cells.
        returns: (y, x) cells numbered from 1, 0 on the lines.

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
