"""How an image's intensities become network input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """Clips and standardizes intensities, channel by channel. All numbers in file units."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def measure(
        cls, pixels: np.ndarray, percentiles: tuple[float, float] = (0.5, 99.5)
    ) -> Normalization:
        """From a sample of pixels: clips at two percentiles, then mean 0 and deviation 1.

        Args:
            percentiles: nnU-Net's by default.

        Shapes:
            pixels: (C, N). NaN and infinities are left out.
        """
        columns = []
        for channel in pixels.astype(np.float32):
            finite = channel[np.isfinite(channel)]
            if finite.size == 0:
                columns.append((0.0, 0.0, 0.0, 1.0))
                continue
            low, high = np.percentile(finite, percentiles)
            clipped = finite.clip(low, high)
            # A constant channel carries nothing: std 1 turns it into zeros.
            columns.append(
                (float(low), float(high), float(clipped.mean()), float(clipped.std()) or 1.0)
            )
        low_all, high_all, mean_all, std_all = zip(*columns, strict=True)
        return cls(low=low_all, high=high_all, mean=mean_all, std=std_all)

    @classmethod
    def min_max(cls, pixels: np.ndarray) -> Normalization:
        """The smallest value of each channel becomes 0, the largest 1.

        Shapes:
            pixels: (C, N). NaN and infinities are left out.
        """
        low, span = [], []
        for channel in pixels.astype(np.float32):
            finite = channel[np.isfinite(channel)]
            smallest = float(finite.min(initial=np.inf)) if finite.size else 0.0
            low.append(smallest)
            span.append((float(finite.max(initial=-np.inf)) - smallest if finite.size else 0) or 1)
        high = tuple(a + b for a, b in zip(low, span, strict=True))
        return cls(low=tuple(low), high=high, mean=tuple(low), std=tuple(map(float, span)))

    def apply(self, image: np.ndarray) -> np.ndarray:
        """(C, *S) in file units -> float32."""
        column = (-1, *[1] * (image.ndim - 1))
        low, high, mean, std = (
            np.asarray(values, dtype=np.float32).reshape(column)
            for values in (self.low, self.high, self.mean, self.std)
        )
        scaled = np.clip(image, low, high).astype(np.float32, copy=False)
        scaled -= mean
        scaled /= std
        return np.nan_to_num(scaled, copy=False)
