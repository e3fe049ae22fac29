"""Distances between the surfaces of two masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ushape.errors import ConfigError, DataError
from ushape.types import spacing_or_ones


@dataclass(frozen=True, kw_only=True)
class SurfaceDistances:
    """Distances between the surfaces of two masks, in the unit of the spacing (default: pixels).

    Every metric is None if both masks are empty. If one mask is empty, all distances equal
    `diagonal` and the surface Dice is 0.
    """

    from_predicted: np.ndarray
    """(P,) float64, distance of each predicted surface pixel to the nearest true one."""

    from_truth: np.ndarray
    """(T,) float64, distance of each true surface pixel to the nearest predicted one."""

    diagonal: float
    """Diagonal of the image, the largest possible distance."""

    @property
    def hausdorff95(self) -> float | None:
        """Larger of the two directed 95th percentiles, interpolated linearly.

        Source:
            Huttenlocher et al. 1993, with a percentile instead of the maximum, as in MONAI. Other
            packages take one percentile of both directions together, which is smaller.
        """
        directed = [d for d in (self.from_predicted, self.from_truth) if d.size]
        return max((float(np.percentile(d, 95)) for d in directed), default=None)

    @property
    def average(self) -> float | None:
        """Average symmetric surface distance: mean over the pixels of both surfaces.

        Source:
            Heimann et al. 2009; it differs from the mean of the two directed means.
        """
        both = self._both
        return float(both.mean()) if both.size else None

    def surface_dice(self, tolerance: float) -> float | None:
        """Return the fraction of both surfaces that lies within `tolerance` of the other, 0 to 1.

        Args:
            tolerance: Largest accepted distance, at least 0, in the unit of the distances.

        Raises:
            ConfigError: if the tolerance is negative.

        Source:
            Nikolov et al. 2018, arXiv 1809.04430, with pixels instead of surface elements.
        """
        if not tolerance >= 0:
            raise ConfigError(
                f"The tolerance of the surface Dice is {tolerance}; it must be at least 0.",
                code="value_out_of_range",
                hint="Use the distance by which two annotators differ, e.g. 1 to 3 pixels.",
            )
        if not (self.from_predicted.size and self.from_truth.size):
            return 0.0 if self._both.size else None
        # Allow for rounding: three steps of 0.1 mm are 0.30000000000000004 mm.
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
    """Measure the distances from each surface to the other, between pixel centers.

    The surface of a mask consists of its pixels that share a side with a pixel outside; the area
    beyond the image is outside. All surface pixels have equal weight, as in MONAI. DeepMind's
    surface-distance weights surface elements by length or area instead; the two differ more the
    more anisotropic the spacing is.

    Args:
        spacing: Distance between pixels along each axis of S; None: 1, i.e. pixels.
        counted: Pixels to evaluate; None: all. The other pixels belong to neither mask.

    Shapes:
        predicted, truth, counted: (*S) bool.

    Raises:
        DataError: if the shapes or data types of the masks, or the spacing, do not match.
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
    """Return the bounding box of the union of two masks."""
    boxes = ndimage.find_objects((one | other).astype(np.uint8))
    return boxes[0] if boxes else (slice(0),) * one.ndim


def _surface(mask: np.ndarray) -> np.ndarray:
    """Return the surface pixels of a mask; (*S) bool -> (*S) bool."""
    return mask & ~ndimage.binary_erosion(mask)


def _distances(
    start: np.ndarray, end: np.ndarray, spacing: tuple[float, ...], diagonal: float
) -> np.ndarray:
    """Return the distance of each pixel of `start` to the nearest pixel of `end`, or `diagonal`.

    Shapes:
        start, end: (*S) bool -> (N,) float64.
    """
    places = np.argwhere(start)
    if not end.any():
        return np.full(len(places), diagonal)
    # Only the indices are computed: distances of all pixels take four times the memory.
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
                code="mask_size_mismatch",
                hint="Pass boolean masks of the shape of the image, e.g. `classes == 1`.",
            )
