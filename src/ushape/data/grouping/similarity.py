"""Similarity of images within groups and between neighbors, by their thumbnails."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ushape.data.case_stats import CaseStats
from ushape.formatting import natural_order

COMPARED_PAIRS = 1000
"""Approximate number of pairs of images by which groups are tested for similarity."""

ORDERS = 200
"""Number of random orders with which the order of images is compared."""


def centered_pictures(thumbnails: Sequence[np.ndarray]) -> np.ndarray:
    """Return the deviation of each thumbnail from their mean, with norm 1.

    Shapes:
        thumbnails: (T, T) each.
        returns: (N, T * T).
    """
    pictures = np.stack([thumbnail.ravel() for thumbnail in thumbnails]).astype(np.float64)
    pictures /= max(np.abs(pictures).max(), 1e-9)  # The norm of huge values would overflow.
    pictures -= pictures.mean(axis=0)  # Only differences between images matter.
    norms = np.linalg.norm(pictures, axis=1, keepdims=True)
    return np.asarray(pictures / np.maximum(norms, 1e-12))


def are_alike(keys: Sequence[str], pictures: np.ndarray, margin: float = 0.1) -> bool:
    """Return whether images with an equal key are clearly more similar than others.

    Random pairs are compared, because neighbors can be similar within any group.

    Args:
        keys: Key of each picture.
        pictures: Result of `centered_pictures`.
    """
    rng = np.random.default_rng(0)
    members: dict[str, list[int]] = {}
    for place, key in enumerate(keys):
        members.setdefault(key, []).append(place)
    large = [own for own in members.values() if len(own) > 1]
    if not large or len(members) < 2:
        return False
    each = max(1, COMPARED_PAIRS // len(large))
    inside = np.array(
        [rng.choice(own, 2, replace=False) for own in large for _ in range(min(each, len(own)))]
    )
    own = float(np.median(_correlate(pictures, inside)))
    drawn = rng.integers(len(keys), size=(ORDERS // 10, len(inside), 2))
    others = [pairs[pairs[:, 0] != pairs[:, 1]] for pairs in drawn]
    medians = [float(np.median(_correlate(pictures, pairs))) for pairs in others if len(pairs)]
    return bool(medians) and own > max(*medians, float(np.median(medians)) + margin)


def _correlate(pictures: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    return np.asarray((pictures[pairs[:, 0]] * pictures[pairs[:, 1]]).sum(axis=1))


def correlation_of_neighbors(case_stats: Sequence[CaseStats]) -> tuple[float, float]:
    """Return the median correlation of neighbors by name, and of images that are far apart."""
    ordered = sorted(case_stats, key=lambda stats: natural_order(stats.case.id))
    pictures = centered_pictures([stats.thumbnail for stats in ordered])
    half = len(pictures) // 2
    near = (pictures[1:] * pictures[:-1]).sum(axis=1)
    far = (pictures[half:] * pictures[: len(pictures) - half]).sum(axis=1)
    return float(np.median(near)), float(np.median(far))


def are_neighbors_alike(pictures: np.ndarray, margin: float = 0.1) -> bool:
    """Return whether neighbors in the order of the pictures are clearly more similar than others.

    Args:
        pictures: Result of `centered_pictures`, in their order.
    """
    similarity = pictures @ pictures.T
    neighbors = float(np.median(np.diag(similarity, 1)))
    far = np.triu(np.ones_like(similarity, dtype=bool), k=max(3, len(pictures) // 4))
    rng = np.random.default_rng(0)
    orders = (rng.permutation(len(similarity)) for _ in range(ORDERS))
    by_chance = np.quantile([np.median(similarity[o[1:], o[:-1]]) for o in orders], 0.97)
    return neighbors > max(float(np.median(similarity[far])) + margin, float(by_chance))
