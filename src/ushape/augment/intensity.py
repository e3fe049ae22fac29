"""Brightness, contrast, gamma, noise and blur of scaled images (mean about 0, std about 1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ushape.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class IntensityConfig:
    """How grey values are changed; amounts in standard deviations of the data."""

    brightness: float = 0.3
    """Largest shift."""

    contrast: float = 0.3
    """Largest relative change about the mean: from 1 / (1 + contrast) to 1 + contrast."""

    gamma: float = 0.4
    """Largest relative change of the exponent on the values scaled to 0 .. 1."""

    noise: float = 0.15
    """Largest standard deviation of Gaussian noise."""

    blur_px: float = 1.0
    """Largest standard deviation of a Gaussian blur, pixels."""

    tone_probability: float = 0.5
    """Of changing brightness and contrast."""

    gamma_probability: float = 0.2
    noise_probability: float = 0.15
    blur_probability: float = 0.1

    def __post_init__(self) -> None:
        for name in ("tone", "gamma", "noise", "blur"):
            value = getattr(self, f"{name}_probability")
            if not 0 <= value <= 1:
                raise ConfigError(
                    f"augment.intensity.{name}_probability is {value}, outside [0, 1].",
                    hint="0 switches it off.",
                )
        for name in ("brightness", "contrast", "gamma", "noise", "blur_px"):
            if not getattr(self, name) >= 0:
                raise ConfigError(
                    f"augment.intensity.{name} is {getattr(self, name)}, below 0.",
                    hint="It is the largest amount. 0 switches it off.",
                )


def change_intensity(
    image: np.ndarray, config: IntensityConfig, rng: np.random.Generator
) -> np.ndarray:
    """Draws and applies the changes: blur, noise, brightness and contrast, gamma.

    Shapes:
        image: (C, *S) float32 -> the same; may be changed in place.
    """
    chance, amount = rng.random(4), rng.random(5)
    noise_rng = np.random.default_rng(rng.integers(2**63))
    if chance[0] < config.blur_probability:
        sigma = config.blur_px * amount[0]
        image = ndimage.gaussian_filter(image, [0, *[sigma] * (image.ndim - 1)], truncate=3)
    if chance[1] < config.noise_probability:
        noise = noise_rng.standard_normal(image.shape, dtype=np.float32)
        image += np.float32(config.noise * amount[1]) * noise
    if chance[2] < config.tone_probability:
        factor = (1 + config.contrast) ** (2 * amount[2] - 1)
        mean = image.mean()
        image -= mean
        image *= np.float32(factor)
        image += mean + np.float32(config.brightness * (2 * amount[3] - 1))
    if chance[3] < config.gamma_probability:
        image = change_gamma(image, float((1 + config.gamma) ** (2 * amount[4] - 1)))
    return image


def change_gamma(image: np.ndarray, exponent: float) -> np.ndarray:
    """Raises the values, scaled to 0 .. 1 by their own range, to a power; the range stays."""
    low, high = float(image.min()), float(image.max())
    if high <= low:
        return image
    unit = (image - low) / (high - low)
    return (unit**exponent * (high - low) + low).astype(np.float32)
