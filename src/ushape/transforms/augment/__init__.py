"""Augmentation: random changes of geometry and intensity, drawn with a given random generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np
from scipy import ndimage

from ushape.errors import check_range
from ushape.transforms.augment.geometry import GeometryConfig

ChangeName = Literal["blur", "noise", "speckle", "brightness_contrast", "gamma"]
"""Names of the intensity changes."""


@dataclass(frozen=True, kw_only=True)
class IntensityConfig:
    """How intensities are changed; amounts are in standard deviations of the normalized image."""

    RENAMED: ClassVar = {
        "tone_probability": "brightness_contrast_probability",
        "one_of=tone": "brightness_contrast",
    }

    brightness: float = 0.3
    """Largest shift of the intensities."""

    contrast: float = 0.3
    """Largest relative change of contrast: factors from 1 / (1 + contrast) to 1 + contrast."""

    gamma: float = 0.4
    """Largest relative change of the exponent, applied to values scaled to 0 to 1."""

    noise: float = 0.15
    """Largest standard deviation of Gaussian noise."""

    speckle: float = 0.1
    """Largest relative change of a pixel by multiplicative noise: factors are drawn uniformly
    from 1 - speckle to 1 + speckle and applied to the difference from the patch's minimum."""

    blur_px: float = 1.0
    """Largest standard deviation of a Gaussian blur, in pixels."""

    brightness_contrast_probability: float = 0.5
    """Probability of changing brightness and contrast."""

    gamma_probability: float = 0.2
    """Probability of gamma correction."""

    noise_probability: float = 0.15
    """Probability of additive noise."""

    speckle_probability: float = 0.0
    """Probability of multiplicative noise."""

    blur_probability: float = 0.1
    """Probability of blurring."""

    one_of: tuple[tuple[ChangeName, ...], ...] = ()
    """Groups of changes of which at most one is applied to a patch; if several are drawn, one of
    them is chosen at random."""

    def __post_init__(self) -> None:
        for change in CHANGES:
            name = f"{change}_probability"
            check_range(f"augment.intensity.{name}", getattr(self, name), 0, 1)
        for name in ("brightness", "contrast", "gamma", "noise", "speckle", "blur_px"):
            hint = "The value is the largest amount of the change; 0 disables it."
            check_range(f"augment.intensity.{name}", getattr(self, name), 0, hint=hint)


def change_intensity(
    image: np.ndarray, config: IntensityConfig, rng: np.random.Generator
) -> np.ndarray:
    """Draw changes and apply them in the order of `CHANGES`.

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
    """Draw the names of the changes to apply to a patch."""
    chance, order = rng.random(len(CHANGES)), rng.random(len(CHANGES))
    drawn = {
        name: place
        for name, value, place in zip(CHANGES, chance, order, strict=True)
        if value < getattr(config, f"{name}_probability")
    }
    for group in config.one_of:
        in_group = sorted((name for name in group if name in drawn), key=drawn.__getitem__)
        for name in in_group[1:]:
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
    # Normalized values have both signs: relative to 0, values near 0 would get no noise.
    low = image.min()
    factor = 1 + np.float32(config.speckle) * (2 * rng.random(image.shape, dtype=np.float32) - 1)
    image -= low
    image *= factor
    image += low
    return image


def _change_brightness_contrast(
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
    """Apply an exponent to the values with their range rescaled to [0, 1]; the range is kept."""
    low, high = float(image.min()), float(image.max())
    if high <= low:
        return image
    unit = (image - low) / (high - low)
    return (unit**exponent * (high - low) + low).astype(np.float32)


IntensityChange = Callable[[np.ndarray, IntensityConfig, np.random.Generator], np.ndarray]

CHANGES: dict[ChangeName, IntensityChange] = {
    "blur": _blur,
    "noise": _add_noise,
    "speckle": _speckle,
    "brightness_contrast": _change_brightness_contrast,
    "gamma": _change_gamma,
}
"""Intensity changes by name, in the order in which they are applied."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes of patches."""

    RENAMED: ClassVar = {"space": "geometry"}

    geometry: GeometryConfig = field(default_factory=GeometryConfig)
    intensity: IntensityConfig = field(default_factory=IntensityConfig)


STRENGTHS = {
    # Microscopy: all orientations occur.
    "full": AugmentConfig(),
    # Photographs and scans: objects have a natural orientation.
    "upright": AugmentConfig(geometry=GeometryConfig(rotation_degrees=15.0)),
    # Large datasets, or objects whose shape must not be deformed.
    "light": AugmentConfig(
        geometry=GeometryConfig(rotation_degrees=10.0, scale=0.1, elastic_probability=0),
        intensity=IntensityConfig(brightness=0.1, contrast=0.1, gamma=0.1, noise=0.05, blur_px=0.5),
    ),
    "none": AugmentConfig(
        geometry=GeometryConfig(rotation_probability=0, scale_probability=0, elastic_probability=0),
        intensity=IntensityConfig(
            brightness_contrast_probability=0,
            gamma_probability=0,
            noise_probability=0,
            blur_probability=0,
        ),
    ),
}
"""Augmentation by strength. None of them mirrors axes, which is decided from the data."""


def exaggerate(config: AugmentConfig, strength: float) -> AugmentConfig:
    """Multiply all amounts by the strength, up to their limits; probabilities are unchanged."""
    geometry, intensity = config.geometry, config.intensity
    return AugmentConfig(
        geometry=replace(
            geometry,
            rotation_degrees=min(180.0, strength * geometry.rotation_degrees),
            scale=strength * geometry.scale,
            shift_fraction=strength * geometry.shift_fraction,
            elastic_px=strength * geometry.elastic_px,
        ),
        intensity=replace(
            intensity,
            brightness=strength * intensity.brightness,
            contrast=strength * intensity.contrast,
            gamma=strength * intensity.gamma,
            noise=strength * intensity.noise,
            speckle=min(1.0, strength * intensity.speckle),
            blur_px=strength * intensity.blur_px,
        ),
    )
