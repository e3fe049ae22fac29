"""Brightness, contrast, gamma, noise and blur of scaled images (mean about 0, std about 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from ushape.errors import ConfigError

ChangeName = Literal["blur", "noise", "speckle", "tone", "gamma"]


@dataclass(frozen=True, kw_only=True)
class IntensityConfig:
    """How gray values are changed; amounts in standard deviations of the data."""

    brightness: float = 0.3
    """Largest shift."""

    contrast: float = 0.3
    """Largest relative change about the mean: from 1 / (1 + contrast) to 1 + contrast."""

    gamma: float = 0.4
    """Largest relative change of the exponent on the values scaled to 0 .. 1."""

    noise: float = 0.15
    """Largest standard deviation of Gaussian noise."""

    speckle: float = 0.1
    """Largest relative change of a pixel by multiplicative noise: a factor for each, drawn
    evenly from 1 - speckle to 1 + speckle, on values counted from the patch's darkest."""

    blur_px: float = 1.0
    """Largest standard deviation of a Gaussian blur, pixels."""

    tone_probability: float = 0.5
    """Of changing brightness and contrast."""

    gamma_probability: float = 0.2
    noise_probability: float = 0.15
    speckle_probability: float = 0.0
    blur_probability: float = 0.1

    one_of: tuple[tuple[ChangeName, ...], ...] = ()
    """Groups of changes of which a patch gets one at most. The first one drawn keeps the others
    of its group away; which is asked first is drawn as well."""

    def __post_init__(self) -> None:
        for change in CHANGES:
            value = getattr(self, f"{change}_probability")
            if not 0 <= value <= 1:
                raise ConfigError(
                    f"augment.intensity.{change}_probability is {value}, outside [0, 1].",
                    hint="0 switches it off.",
                )
        for name in ("brightness", "contrast", "gamma", "noise", "speckle", "blur_px"):
            if not getattr(self, name) >= 0:
                raise ConfigError(
                    f"augment.intensity.{name} is {getattr(self, name)}, below 0.",
                    hint="It is the largest amount. 0 switches it off.",
                )


def change_intensity(
    image: np.ndarray, config: IntensityConfig, rng: np.random.Generator
) -> np.ndarray:
    """Draws and applies the changes, in the order of `CHANGES`.

    Shapes:
        image: (C, *S) float32 -> the same; may be changed in place.
    """
    drawn = draw_changes(config, rng)
    for name, change in CHANGES.items():
        own = np.random.default_rng(rng.integers(2**63))
        if name in drawn:
            image = change(image, config, own)
    return image


def draw_changes(config: IntensityConfig, rng: np.random.Generator) -> set[str]:
    """Names of the changes that a patch gets."""
    chance, order = rng.random(len(CHANGES)), rng.random(len(CHANGES))
    drawn = {
        name: place
        for name, value, place in zip(CHANGES, chance, order, strict=True)
        if value < getattr(config, f"{name}_probability")
    }
    for group in config.one_of:
        rivals = sorted((name for name in group if name in drawn), key=drawn.__getitem__)
        for name in rivals[1:]:
            del drawn[name]
    return set(drawn)


def _blur(image: np.ndarray, config: IntensityConfig, rng: np.random.Generator) -> np.ndarray:
    sigma = config.blur_px * rng.random()
    blurred = ndimage.gaussian_filter(image, [0, *[sigma] * (image.ndim - 1)], truncate=3)
    return np.asarray(blurred)


def _add_noise(image: np.ndarray, config: IntensityConfig, rng: np.random.Generator) -> np.ndarray:
    deviation = np.float32(config.noise * rng.random())
    image += deviation * rng.standard_normal(image.shape, dtype=np.float32)
    return image


def _speckle(image: np.ndarray, config: IntensityConfig, rng: np.random.Generator) -> np.ndarray:
    # Scaled images have values on both sides of 0: counted from there, 0 would have no noise.
    low = image.min()
    factor = 1 + np.float32(config.speckle) * (2 * rng.random(image.shape, dtype=np.float32) - 1)
    image -= low
    image *= factor
    image += low
    return image


def _change_tone(
    image: np.ndarray, config: IntensityConfig, rng: np.random.Generator
) -> np.ndarray:
    contrast, brightness = 2 * rng.random(2) - 1
    mean = image.mean()
    image -= mean
    image *= np.float32((1 + config.contrast) ** contrast)
    image += mean + np.float32(config.brightness * brightness)
    return image


def _change_gamma(
    image: np.ndarray, config: IntensityConfig, rng: np.random.Generator
) -> np.ndarray:
    return change_gamma(image, float((1 + config.gamma) ** (2 * rng.random() - 1)))


def change_gamma(image: np.ndarray, exponent: float) -> np.ndarray:
    """Raises the values, scaled to 0 .. 1 by their own range, to a power; the range stays."""
    low, high = float(image.min()), float(image.max())
    if high <= low:
        return image
    unit = (image - low) / (high - low)
    return (unit**exponent * (high - low) + low).astype(np.float32)


Change = Callable[[np.ndarray, IntensityConfig, np.random.Generator], np.ndarray]

CHANGES: dict[ChangeName, Change] = {
    "blur": _blur,
    "noise": _add_noise,
    "speckle": _speckle,
    "tone": _change_tone,
    "gamma": _change_gamma,
}
"""In the order in which they are applied."""
