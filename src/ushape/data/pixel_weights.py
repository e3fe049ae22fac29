"""Loss weights of the pixels of a patch: class balance, and borders between objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ushape.errors import ConfigError, check_range
from ushape.labels import IGNORE
from ushape.transforms.border_weights import border_weights, find_objects


@dataclass(frozen=True, kw_only=True)
class PixelWeightConfig:
    """Weights of the pixels in the cross-entropy."""

    border_w0: float = 0.0
    """Largest additional weight of background between two objects; 10 in the paper, 0 for none."""

    border_sigma_px: float = 5.0
    """Distance over which the additional weight decays, in pixels."""

    balance: bool = False
    """Weight classes by largest pixel count / pixel count, over the training cases."""

    def __post_init__(self) -> None:
        hint = "0 disables the border weights."
        check_range("pixel_weights.border_w0", self.border_w0, 0, hint=hint)
        if not self.border_sigma_px > 0:
            raise ConfigError(
                f"pixel_weights.border_sigma_px is {self.border_sigma_px}, not above 0.",
                code="value_out_of_range",
                hint="The paper uses 5 pixels.",
            )


class PixelWeights:
    """Computes w = wc + w0 exp(-(d1 + d2)^2 / (2 sigma^2)), and 0 for ignored pixels.

    d1 and d2 are the distances to the two nearest objects.

    Args:
        class_pixels: (cases, classes) pixels of each class in the training cases.

    Source:
        Ronneberger, Fischer, Brox 2015, arXiv 1505.04597, equation 2.
    """

    def __init__(self, config: PixelWeightConfig, class_pixels: np.ndarray):
        self.config = config
        counts = class_pixels.sum(axis=0)
        # A class without pixels in the training cases has weight 0: it is never seen.
        balanced = np.where(counts > 0, counts.max() / np.maximum(counts, 1), 0.0)
        self._by_class = np.zeros(IGNORE + 1, dtype=np.float32)
        self._by_class[: len(counts)] = balanced if config.balance else 1.0

    def of(self, classes: np.ndarray) -> np.ndarray:
        """Return the weights of a patch; objects are connected parts of the foreground.

        Shapes:
            classes: (*S) uint8 class indices.
            returns: (*S) float32.
        """
        weights = self._by_class[classes]
        if self.config.border_w0:
            border = border_weights(
                find_objects(classes), w0=self.config.border_w0, sigma=self.config.border_sigma_px
            )
            weights += np.where(classes == IGNORE, 0, border)
        return weights
