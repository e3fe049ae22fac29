"""Intensity normalization."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """Clip and standardize the intensities of each channel: (clip(x, low, high) - mean) / std.

    All values are in the units of the image file, one per channel.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def measure(
        cls, pixels: np.ndarray, percentiles: tuple[float, float] = (0.5, 99.5)
    ) -> Normalization:
        """Derive the normalization from sampled pixels: clipped at percentiles, mean 0, std 1.

        Args:
            percentiles: Lower and upper percentile; by default those of nnU-Net.

        Shapes:
            pixels: (C, N). NaN and infinity are ignored.
        """
        columns = []
        for channel in pixels.astype(np.float32):
            finite = channel[np.isfinite(channel)]
            if finite.size == 0:
                columns.append((0.0, 0.0, 0.0, 1.0))
                continue
            low, high = np.percentile(finite, percentiles)
            mean, std = _mean_and_std(finite.clip(low, high))
            # A constant channel has no information: std 1 maps it to zeros.
            columns.append((float(low), float(high), mean, std or 1.0))
        low_all, high_all, mean_all, std_all = zip(*columns, strict=True)
        return cls(low=low_all, high=high_all, mean=mean_all, std=std_all)

    @classmethod
    def min_max(cls, pixels: np.ndarray) -> Normalization:
        """Derive the normalization that maps the minimum of each channel to 0 and the maximum to 1.

        Shapes:
            pixels: (C, N). NaN and infinity are ignored.
        """
        low, span = [], []
        for channel in pixels.astype(np.float32):
            finite = channel[np.isfinite(channel)]
            smallest = float(finite.min(initial=np.inf)) if finite.size else 0.0
            low.append(smallest)
            span.append((float(finite.max(initial=-np.inf)) - smallest if finite.size else 0) or 1)
        high = tuple(a + b for a, b in zip(low, span, strict=True))
        return cls(low=tuple(low), high=high, mean=tuple(low), std=tuple(map(float, span)))

    def repeated(self, count: int) -> Normalization:
        """Return the normalization of `count` images of these channels after each other."""
        return Normalization(
            low=self.low * count,
            high=self.high * count,
            mean=self.mean * count,
            std=self.std * count,
        )

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Normalize an image (C, *S) to float32; NaN becomes 0."""
        column = (-1, *[1] * (image.ndim - 1))
        low, high, mean, std = (
            np.asarray(values, dtype=np.float32).reshape(column)
            for values in (self.low, self.high, self.mean, self.std)
        )
        scaled = np.clip(image, low, high).astype(np.float32, copy=False)
        scaled -= mean
        scaled /= std
        return np.nan_to_num(scaled, copy=False)


def _mean_and_std(values: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation; of huge values with 64 bits, or sums would overflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = float(values.mean()), float(values.std())
    if math.isfinite(mean) and math.isfinite(std):
        return mean, std
    return float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
