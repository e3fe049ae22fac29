"""How far the surfaces of two masks lie apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ushape.errors import ConfigError, DataError
from ushape.types import spacing_or_ones


@dataclass(frozen=True, kw_only=True)
class SurfaceDistances:
    """Distances between the surfaces of two masks; in mm, or in pixels if no spacing was given.

    Every score is None where both masks are empty. Where one is, all its distances are the
    `diagonal`, and no surface agrees.
    """

    from_predicted: np.ndarray
    """(P,) float64: from each surface pixel of the prediction to the nearest of the truth."""

    from_truth: np.ndarray
    """(T,) float64: from each surface pixel of the truth to the nearest of the prediction."""

    diagonal: float
    """Of the image, from corner to corner: no distance is larger."""

    @property
    def hausdorff95(self) -> float | None:
        """Symmetric: the larger of the two directed 95th percentiles, interpolated linearly.

        Source:
            Huttenlocher et al. 1993, with a percentile for the maximum. MONAI has the same;
            others take one percentile of both directions together, which is smaller.
        """
        directed = [d for d in (self.from_predicted, self.from_truth) if d.size]
        return max((float(np.percentile(d, 95)) for d in directed), default=None)

    @property
    def average(self) -> float | None:
        """Average symmetric surface distance: the mean over the pixels of both surfaces.

        Source:
            Heimann et al. 2009. Not the mean of the two directed means.
        """
        both = self._both
        return float(both.mean()) if both.size else None

    def surface_dice(self, tolerance: float) -> float | None:
        """Share of both surfaces that lies within `tolerance` of the other, 0 to 1.

        Args:
            tolerance: At least 0, in the unit of the distances; a distance equal to it is within.

        Raises:
            ConfigError: a tolerance below 0.

        Source:
            Nikolov et al. 2018, arXiv 1809.04430, with pixels for their surface elements.
        """
        if not tolerance >= 0:
            raise ConfigError(
                f"The tolerance of surface Dice is {tolerance}, not at least 0.",
                hint="As far as two careful annotators differ, e.g. one to three pixels.",
            )
        if not (self.from_predicted.size and self.from_truth.size):
            return 0.0 if self._both.size else None
        # Three steps of 0.1 mm are 0.30000000000000004 mm: rounding must not decide.
        return float((self._both <= tolerance * (1 + 1e-9)).mean())

    @property
    def _both(self) -> np.ndarray:
        return np.concatenate([self.from_predicted, self.from_truth])


def measure_surfaces(
    predicted: np.ndarray,
    truth: np.ndarray,
    spacing: Sequence[float] | None = None,
    *,
    counted: np.ndarray | None = None,
) -> SurfaceDistances:
    """Distances from each surface to the other, between pixel centers.

    A surface is the pixels of a mask that share a side with a pixel outside of it; beyond the
    image is outside. Each pixel counts the same. This is MONAI's definition. DeepMind's
    surface-distance instead weights pieces of a surface between the pixels by length or area;
    with a spacing that differs between axes the two drift apart.

    Args:
        spacing: Of each axis of S; None: 1, distances are in pixels.
        counted: Pixels that count; None: all. The others belong to neither mask: where both
            reach them, both end there, at distance 0.

    Shapes:
        predicted, truth, counted: (*S) bool.

    Raises:
        DataError: masks or spacing that do not fit.
    """
    _check_masks(predicted, truth, counted)
    steps = spacing_or_ones(spacing, truth.ndim)
    diagonal = float(np.linalg.norm(np.multiply(truth.shape, steps)))
    if counted is not None:
        predicted, truth = predicted & counted, truth & counted
    box = _joint_box(predicted, truth)
    ours, theirs = _surface(predicted[box]), _surface(truth[box])
    return SurfaceDistances(
        from_predicted=_distances(ours, theirs, steps, diagonal),
        from_truth=_distances(theirs, ours, steps, diagonal),
        diagonal=diagonal,
    )


def _joint_box(one: np.ndarray, other: np.ndarray) -> tuple[slice, ...]:
    """Around the pixels of both; nearest pixels are in it, and all outside is background."""
    boxes = ndimage.find_objects((one | other).astype(np.uint8))
    return boxes[0] if boxes else (slice(0),) * one.ndim


def _surface(mask: np.ndarray) -> np.ndarray:
    """(*S) bool -> (*S) bool."""
    return mask & ~ndimage.binary_erosion(mask)


def _distances(
    start: np.ndarray, end: np.ndarray, spacing: tuple[float, ...], diagonal: float
) -> np.ndarray:
    """From each pixel of `start` to the nearest of `end`; the diagonal if there is none.

    Shapes:
        start, end: (*S) bool -> (N,) float64.
    """
    places = np.argwhere(start)
    if not end.any():
        return np.full(len(places), diagonal)
    # Indices only: distances of all pixels would take four times the memory.
    nearest = ndimage.distance_transform_edt(
        ~end, spacing, return_distances=False, return_indices=True
    )
    steps = (places - nearest[:, start].T) * spacing
    return np.asarray(np.linalg.norm(steps, axis=1))


def _check_masks(predicted: np.ndarray, truth: np.ndarray, counted: np.ndarray | None) -> None:
    for name, mask in (("predicted", predicted), ("truth", truth), ("counted", counted)):
        if mask is not None and (mask.dtype != bool or mask.shape != truth.shape):
            raise DataError(
                f"{name} is {mask.dtype} of shape {mask.shape}, not bool of shape {truth.shape}.",
                hint="All lie on the image's grid; `classes == 1` makes a mask of class indices.",
            )
