"""Weights of the pixels in the cross-entropy, by class and between objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ushape.errors import ConfigError, check_range
from ushape.labels import IGNORE
from ushape.transforms.border_weights import border_weights, find_objects


@dataclass(frozen=True, kw_only=True)
class PixelWeightConfig:
    """Weights of the pixels in the cross-entropy."""

    RENAMED: ClassVar = {
        "balance": "class_weights",
        "class_weights=True": "inverse",
        "class_weights=False": "none",
    }

    border_w0: float = 0.0
    """Largest additional weight of background pixels between objects; 0: none, 10 in the paper."""

    border_sigma_px: float = 5.0
    """Distance over which the additional weight decays, in pixels; preprocessing.distances
    determines the unit if pixels are longer along one axis."""

    class_weights: Literal["none", "inverse", "inverse_log"] | tuple[float, ...] = "none"
    """Weight of the pixels of each class. inverse: inversely proportional to the number of its
    pixels in the training cases, 1 for the most common class; inverse_log: 1 / ln(1.02 + fraction
    of its pixels) as in ENet, scaled so that the mean over all pixels is 1; or a number for each
    class, background first."""

    def __post_init__(self) -> None:
        hint = "0 disables the border weights."
        check_range("pixel_weights.border_w0", self.border_w0, 0, hint=hint)
        if not isinstance(self.class_weights, str):
            for weight in self.class_weights:
                hint = "Use 1 for the usual weight; 0 excludes the class from the loss."
                check_range("pixel_weights.class_weights", weight, 0, 1e12, hint=hint)
        if not self.border_sigma_px > 0:
            raise ConfigError(
                f"pixel_weights.border_sigma_px is {self.border_sigma_px}, not above 0.",
                code="value_out_of_range",
                hint="The paper uses 5 pixels.",
            )


def weigh_classes(
    how: Literal["none", "inverse", "inverse_log"] | Sequence[float], counts: np.ndarray
) -> np.ndarray:
    """Return the weight of each class.

    A class without pixels in the training cases has the weight 0, since it never occurs, unless all
    weights are 1 or specified by the user.

    Args:
        how: Value of `PixelWeightConfig.class_weights`.
        counts: (classes,) pixels of each class in the training cases.

    Raises:
        ConfigError: if the number of weights differs from the number of classes.

    Source:
        inverse_log: Paszke et al. 2016 (ENet), arXiv 1606.02147, divided by the mean over all
        pixels, so that the cross-entropy keeps its size relative to other losses.
    """
    if how == "none":
        return np.ones(len(counts))
    if how == "inverse":
        return np.where(counts > 0, counts.max() / np.maximum(counts, 1), 0.0)
    if how == "inverse_log":
        shares = counts / max(1, counts.sum())
        weights = np.where(counts > 0, 1 / np.log(1.02 + shares), 0.0)
        return np.asarray(weights / max((weights * shares).sum(), np.finfo(float).tiny))
    if len(how) != len(counts):
        raise ConfigError(
            f"pixel_weights.class_weights has {len(how)} weights, but there are {len(counts)} "
            "classes.",
            code="class_count_mismatch",
            hint="Specify one weight per class, background first, or use inverse_log.",
        )
    return np.asarray(how, dtype=float)


class PixelWeights:
    """Computes w = wc + w0 exp(-(d1 + d2)^2 / (2 sigma^2)), and 0 for ignored pixels.

    d1 and d2 are the distances to the two nearest objects.

    Args:
        class_pixels: (cases, classes) pixels of each class in the training cases.
        lengths: Relative length of a pixel along each axis, for the distances; None: 1.

    Source:
        Ronneberger, Fischer, Brox 2015, arXiv 1505.04597, equation 2.
    """

    def __init__(
        self,
        config: PixelWeightConfig,
        class_pixels: np.ndarray,
        lengths: Sequence[float] | None = None,
    ):
        self.config, self.lengths = config, lengths
        counts = class_pixels.sum(axis=0)
        self._by_class = np.zeros(IGNORE + 1, dtype=np.float32)
        self._by_class[: len(counts)] = weigh_classes(config.class_weights, counts)

    def of(self, classes: np.ndarray) -> np.ndarray:
        """Return the weights of a patch; objects are connected components of the foreground.

        Shapes:
            classes: (*S) uint8 class indices.
            returns: (*S) float32.
        """
        weights = self._by_class[classes]
        if self.config.border_w0:
            border = border_weights(
                find_objects(classes),
                w0=self.config.border_w0,
                sigma=self.config.border_sigma_px,
                lengths=self.lengths,
            )
            weights += np.where(classes == IGNORE, 0, border)
        return weights
