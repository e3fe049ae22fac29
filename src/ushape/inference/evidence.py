"""Evidence: the highest threshold at which a pixel belongs to a class, and counts by threshold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ushape.labels import LabelSpace
from ushape.metrics.overlap import Counts


def counts_on_grid(
    evidence: np.ndarray, in_truth: np.ndarray, grid: Sequence[float]
) -> Iterator[Counts]:
    """Yield the counts of one class in one case at each threshold of the grid.

    Args:
        evidence: Result of `evidence_of` for the class.
        grid: Increasing thresholds.

    Shapes:
        evidence, in_truth: (N,), the pixels that are counted.
    """
    # Thresholds have the type of the probabilities: 0.35 in float32 reaches 0.35.
    reached = np.searchsorted(np.asarray(grid, evidence.dtype), evidence, side="right")
    everywhere, inside = (
        np.bincount(own, minlength=len(grid) + 1)[::-1].cumsum()[::-1].tolist()
        for own in (reached, reached[in_truth])
    )
    for place in range(1, len(grid) + 1):
        yield Counts(
            overlap=inside[place],
            truth=inside[0],
            predicted=everywhere[place],
            pixels=len(evidence),
        )


def evidence_of(probabilities: np.ndarray, space: LabelSpace) -> Iterator[np.ndarray]:
    """Yield for each class (*S) the number that a pixel of the class has at least at its threshold.

    The thresholds of the other classes are 0.5. Exact at 0.5; at other thresholds of exclusive
    classes, exact up to rounding.
    """
    scored, likeliest = space.scored, space.decode(probabilities)
    if space.is_exclusive:
        most = probabilities.max(axis=0)
        second = _second_largest(probabilities, likeliest)
        below = np.nextafter(most.dtype.type(0.5), most.dtype.type(0))
    for place, region in enumerate(scored, 1):
        if space.is_exclusive:
            own, is_likeliest = probabilities[place], likeliest == place
            whole = own + np.where(is_likeliest, second, most)
            odds = np.divide(own, whole, out=np.zeros_like(own), where=whole > 0)
            yield np.where(is_likeliest, odds, np.minimum(odds, below))
            continue
        evidence = probabilities[place - 1].copy()
        # Later regions cover it, each with a class that belongs to this region or does not.
        for other, probability in zip(scored[place:], probabilities[place:], strict=True):
            evidence[probability >= 0.5] = 1 if other.classes[0] in region.classes else -1
        yield evidence


def _second_largest(probabilities: np.ndarray, likeliest: np.ndarray) -> np.ndarray:
    """Return the largest probability of all classes but the likeliest.

    Shapes:
        probabilities: (K, *S); likeliest: (*S) class indices -> (*S).
    """
    found = np.zeros(likeliest.shape, probabilities.dtype)
    for index, own in enumerate(probabilities):
        np.maximum(found, own, out=found, where=likeliest != index)
    return found
