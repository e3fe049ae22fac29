"""Augmentation: random changes of patches, each drawn from a given generator."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from ushape.transforms.augment.geometry import GeometryConfig
from ushape.transforms.augment.intensity import IntensityConfig


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes of patches."""

    RENAMED: ClassVar = {"space": "geometry"}

    geometry: GeometryConfig = field(default_factory=GeometryConfig)
    intensity: IntensityConfig = field(default_factory=IntensityConfig)


STRENGTHS = {
    # Microscopy: no direction is special.
    "full": AugmentConfig(),
    # Photographs, scans: things have an upright.
    "upright": AugmentConfig(geometry=GeometryConfig(rotation_degrees=15.0)),
    # Much data, or an object whose shape must not be bent.
    "light": AugmentConfig(
        geometry=GeometryConfig(rotation_degrees=10.0, scale=0.1, elastic_probability=0),
        intensity=IntensityConfig(brightness=0.1, contrast=0.1, gamma=0.1, noise=0.05, blur_px=0.5),
    ),
    "none": AugmentConfig(
        geometry=GeometryConfig(rotation_probability=0, scale_probability=0, elastic_probability=0),
        intensity=IntensityConfig(
            tone_probability=0, gamma_probability=0, noise_probability=0, blur_probability=0
        ),
    ),
}
"""How much is changed, by name. None mirrors: which axes may be is known of the data alone."""


def exaggerate(config: AugmentConfig, strength: float) -> AugmentConfig:
    """All amounts times the strength, as far as they make sense; probabilities stay."""
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
