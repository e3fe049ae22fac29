"""How sure a prediction is: maps for pixels, one number for an image, what Dice to expect."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import entr

from ushape.errors import ConfigError, DataError
from ushape.inference.decision_rule import as_fractions
from ushape.labels import LabelSpace

MIN_CASES = 3
"""Cases below which neither a rank correlation nor a calibration says anything."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How far the members of an ensemble differ, on the image's grid."""

    probabilities: np.ndarray
    """(K, *S), the mean over members: what the ensemble predicts."""

    deviation: np.ndarray
    """(*S), standard deviation over members, 0 to 0.5, of the channel where it is largest."""

    disagreement: np.ndarray
    """(*S), mutual information of prediction and member, 0 to 1: the part of the mean's
    entropy that is not in the members, high where each is sure of something else."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The Dice to expect for a confidence, fitted on validation cases."""

    confidence: tuple[float, ...]
    """Rising; between these the Dice is interpolated, outside it stays."""

    dice: tuple[float, ...]
    """At each of them, never falling."""

    cases: int
    rank_correlation: float | None
    """Spearman's, of confidence and Dice on the cases it was fitted on."""

    def __post_init__(self) -> None:
        if not 0 < len(self.confidence) == len(self.dice):
            raise ConfigError(
                f"{len(self.confidence)} confidences for {len(self.dice)} values of Dice.",
                hint="Let training choose them again.",
            )


def entropy_map(probabilities: np.ndarray, space: LabelSpace) -> np.ndarray:
    """How undecided each pixel is: entropy as a share of the greatest possible.

    0 where one class is certain, 1 where all are equally likely. Regions are judged one by one
    and averaged: 1 where each is as likely as not.

    Shapes:
        probabilities: (K, *S).
        returns: (*S) float32, 0 to 1.
    """
    shares = np.clip(as_fractions(probabilities), 0, 1)
    if space.is_exclusive:
        entropy = entr(shares).sum(axis=0) / math.log(space.channels)
    else:
        entropy = (entr(shares) + entr(1 - shares)).mean(axis=0) / math.log(2)
    return np.clip(entropy, 0, 1).astype(np.float32)


def spread_over(members: Iterable[np.ndarray], space: LabelSpace) -> Spread:
    """Mean and disagreement of several predictions of one image, one in memory at a time.

    Shapes:
        members: (K, *S) probabilities each.

    Raises:
        DataError: no member, or members of different shapes.

    Source:
        Depeweg et al. 2018 (arXiv 1710.07283): entropy of the mean less mean of the entropies;
        members as in Lakshminarayanan et al. 2017 (arXiv 1612.01474). Variance as in Welford 1962.
    """
    count, mean, squares, within = 0, np.zeros(0), np.zeros(0), np.zeros(0)
    for count, member in enumerate(members, 1):
        shares = as_fractions(member)
        if count == 1:
            mean, squares = np.zeros_like(shares), np.zeros_like(shares)
            within = np.zeros(shares.shape[1:], dtype=np.float32)
        elif shares.shape != mean.shape:
            raise DataError(
                f"Member {count} has probabilities of shape {shares.shape}, the first of "
                f"{mean.shape}.",
                hint="All members must predict the same image with the same classes.",
            )
        change = shares - mean
        mean += change / count
        squares += change * (shares - mean)
        within += entropy_map(shares, space)
    if not count:
        raise DataError(
            "There is no prediction to compare.",
            hint="Name the runs or folds whose disagreement is asked for.",
        )
    return Spread(
        probabilities=mean,
        deviation=np.sqrt(squares.max(axis=0).clip(min=0) / count).astype(np.float32),
        disagreement=(entropy_map(mean, space) - within / count).clip(0, 1),
    )


def confidence_of(
    probabilities: np.ndarray, classes: np.ndarray, space: LabelSpace, *, smooth: float = 1.0
) -> float:
    """One number that ranks images by the Dice to expect: the prediction's soft Dice with itself.

    For each class 2 sum(p m) / (sum(p) + sum(m)), m its predicted mask: close to the mean of the
    Dice were each pixel drawn with its probability. Averaged over the classes that are predicted.
    Where none is, over all: near 1 if the network is sure that nothing is there, near 0 if it
    suspects something that it does not show.

    Args:
        smooth: Pixels added above and below, as in the Dice loss.

    Shapes:
        probabilities: (K, *S).
        classes: (*S) class indices, decided from them.

    Returns:
        0 to 1. Optimiztic where the network is: `Calibration` says what Dice it stands for.

    Source:
        Borges, Pacheco, Silva 2024 (Soft Dice Confidence), arXiv 2402.10665; theirs is of one
        class and without smoothing.
    """
    found: list[float] = []
    absent: list[float] = []
    channels = probabilities[space.foreground]
    for region, channel in zip(space.scored, channels, strict=True):
        share, mask = as_fractions(channel), region.of(classes)
        overlap = float(share[mask].sum(dtype=np.float64))
        size = float(share.sum(dtype=np.float64)) + int(mask.sum())
        value = (2 * overlap + smooth) / (size + smooth)
        (found if mask.any() else absent).append(value)
    return min(1.0, float(np.mean(found or absent)))


def fit_calibration(
    confidence: Sequence[float], dice: Sequence[float | None]
) -> Calibration | None:
    """The never falling map from confidence to Dice that is nearest to the cases.

    Args:
        confidence: Of each validation case.
        dice: Its true Dice; 0 for a miss, None where there was nothing to find: left out.

    Returns:
        None for fewer than 3 cases: nothing to calibrate with.

    Source:
        Isotonic regression (Zadrozny, Elkan 2002), linear between the centers of its steps.
    """
    x, y = _pairs(confidence, dice)
    if len(x) < MIN_CASES:
        return None
    # Imported here: SciPy's optimizers cost a prediction's start-up, and it only reads the result.
    from scipy.optimize import isotonic_regression

    places, slot, counts = np.unique(x, return_inverse=True, return_counts=True)
    fit = isotonic_regression(np.bincount(slot, weights=y) / counts, weights=counts)
    steps = [slice(a, b) for a, b in zip(fit.blocks, fit.blocks[1:], strict=False)]
    return Calibration(
        confidence=tuple(float(np.average(places[s], weights=counts[s])) for s in steps),
        dice=tuple(float(fit.x[s][0]) for s in steps),
        cases=len(x),
        rank_correlation=rank_correlation(confidence, dice),
    )


def expected_dice(confidence: float, calibration: Calibration) -> float:
    """The Dice that validation cases of this confidence had, 0 to 1, if there is something."""
    return float(np.interp(confidence, calibration.confidence, calibration.dice))


def rank_correlation(confidence: Sequence[float], dice: Sequence[float | None]) -> float | None:
    """Spearman's rank correlation, -1 to 1; cases without a Dice are left out.

    Returns:
        None where it has no value: fewer than 3 cases, or all alike in one of the two.
    """
    x, y = _pairs(confidence, dice)
    if len(x) < MIN_CASES or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    # Imported here: SciPy's statistics cost a prediction's start-up.
    from scipy.stats import spearmanr

    return float(spearmanr(x, y).statistic)


def _pairs(
    confidence: Sequence[float], dice: Sequence[float | None]
) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays, without the cases that have no Dice."""
    pairs = [(x, y) for x, y in zip(confidence, dice, strict=True) if y is not None]
    x, y = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return x, y
