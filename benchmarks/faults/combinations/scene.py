"""Images of random scenes, and what is right for a folder of them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

SIDE = 64
"""Smallest side of an image in pixels."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One image with its true classes."""

    subject: int
    number: int
    """Number of the image among those of its subject."""

    stem: str
    """Path below the image folder, without suffix."""

    gray: np.ndarray
    """(y, x) or (z, y, x) uint8."""

    classes: np.ndarray
    """Class indices of the same shape, uint8; 0 is the background."""


@dataclass(kw_only=True)
class Truth:
    """What is right for a folder."""

    data: Path
    """Path to pass to ushape."""

    pairs: int
    groups: frozenset[frozenset[str]] | None
    """Names of the images of each group; None if each image may be a group of its own or if
    neighbors may be joined."""

    shares: tuple[float, ...]
    """Share of each class over all readable masks, background first."""

    names: tuple[str, ...] = ()
    """Names of the classes, background first, if the data state them."""

    classes: dict[str, np.ndarray] = field(default_factory=dict)
    """True classes of each usable image, by the path of the image."""

    parts: dict[str, str] = field(default_factory=dict)
    """Part of the split of each image by its path, if the data state a split."""

    finding: str = ""
    """A check that must report a problem; '' if there is none."""

    refusal: str = ""
    """Code of the error that refuses the data; '' if they must be read."""

    culprit: str = ""
    """Name of the damaged file's case, which that finding must mention."""


def draw_scene(
    subject: int, number: int, stem: str, classes: int, is_volume: bool, rng: random.Random
) -> Scene:
    """Draw ellipses of each class on a background that is unlike that of any other scene."""
    noise = np.random.default_rng(rng.getrandbits(32))
    sides = [SIDE + rng.randrange(0, 40) for _ in range(2)]
    shape = (rng.randrange(6, 12), *sides) if is_volume else tuple(sides)
    axes = np.indices(shape).astype(np.float32)
    truth = np.zeros(shape, dtype=np.uint8)
    for index in range(1, classes):
        for _ in range(rng.randint(1, 3)):
            distance = np.zeros(shape, dtype=np.float32)
            for place, side in zip(axes, shape, strict=True):
                margin = min(12, side // 3)
                center = rng.uniform(margin, side - margin)
                distance += ((place - center) / rng.uniform(margin / 2.4, margin)) ** 2
            truth[distance < 1] = index
    y, x = axes[-2:]
    angle, wave = rng.uniform(0, 3), rng.uniform(0.05, 0.3)
    ground = 60 + 25 * np.sin(wave * (x * np.cos(angle) + y * np.sin(angle)) + rng.uniform(0, 6))
    gray = ground + 50 * truth + noise.normal(0, 6, shape)
    return Scene(
        subject=subject,
        number=number,
        stem=stem,
        gray=gray.clip(0, 255).astype(np.uint8),
        classes=truth,
    )
