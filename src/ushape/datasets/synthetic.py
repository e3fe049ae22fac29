"""Generate microscopy-like images of cells with exact masks, for examples and tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from ushape import io
from ushape.errors import DataError, check_range
from ushape.types import MaskEncoding


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """Appearance of the images; lengths are in pixels."""

    size: int = 256
    """Height and width of an image."""

    groups: int = 8
    """Number of dishes, which differ in staining, illumination and membranes."""

    spacing_px: float = 34.0
    """Distance between the centers of neighboring cells."""

    presence: float = 0.75
    """Share of the positions that contain a cell; the others are background."""

    membrane_px: float = 3.0
    """Thickness of the membranes, which are background in the mask."""

    blur_px: float = 1.0
    """Standard deviation of the Gaussian blur."""

    photons: float = 100.0
    """Mean photon count of a bright pixel; fewer photons give more shot noise."""


def make_cells(
    config: SyntheticConfig, dish: np.random.Generator, field: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Generate one field of view.

    Args:
        dish: Random generator for what all fields of a dish have in common.
        field: Random generator for everything else.

    Shapes:
        returns: image (y, x) uint8; mask (y, x) uint8, 255 inside cells.
    """
    has_bright_membranes = bool(dish.random() < 0.5)
    contrast = dish.uniform(0.7, 1.0)
    owner, other, border = _grow_cells(config, field)
    cells = int(max(owner.max(), other.max())) + 1
    is_cell = field.random(cells) < config.presence * (1 if field.random() > 0.1 else 0.15)
    inside = is_cell[owner] & (border > config.membrane_px / 2)
    membrane = (is_cell[owner] | is_cell[other]) & (border <= config.membrane_px / 2)

    body = 0.56 + 0.08 * field.standard_normal(cells)[owner]
    texture = 0.07 * _smooth_noise(config.size, 2.5, field)
    ground = 0.24 + 0.05 * _smooth_noise(config.size, 12, field)
    edge = 0.85 if has_bright_membranes else 0.08
    light = np.where(inside, body + texture, ground)
    light = np.where(membrane, edge, light)
    light = ndimage.gaussian_filter(light, config.blur_px)
    uneven = np.exp(0.25 * _smooth_noise(config.size, config.size / 4, field))
    light = (0.5 + contrast * (light - 0.5)) * uneven
    counts = field.poisson(config.photons * light.clip(0.01, None))
    image = (counts / config.photons * 180).clip(0, 255)
    return image.astype(np.uint8), np.where(inside, 255, 0).astype(np.uint8)


def write_data_set(folder: Path, count: int, config: SyntheticConfig, seed: int) -> None:
    """Write images/ and masks/ with file names such as dish03_01.png.

    Raises:
        ConfigError: if the seed is negative.
        DataError: if the folder is not empty.
    """
    check_range("The seed", seed, 0, hint="Choose an integer of at least 0.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            f"{folder} is not empty.", code="folder_not_empty", hint="Specify a new folder."
        )
    for index in range(count):
        dish, number = index % config.groups, index // config.groups
        image, mask = make_cells(
            config,
            np.random.default_rng([seed, dish]),
            np.random.default_rng([seed, dish, number + 1]),
        )
        name = f"dish{dish + 1:02d}_{number + 1:02d}.png"
        encoding = MaskEncoding()
        io.write_mask(folder / "images" / name, image, encoding)
        io.write_mask(folder / "masks" / name, mask, encoding)


def _grow_cells(
    config: SyntheticConfig, field: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Generate touching cells with irregular outlines.

    Shapes:
        returns: owner (y, x), index of the cell; other (y, x), index of the nearest other cell;
            border (y, x), approximate distance to the border between them in pixels.
    """
    axis = np.arange(-config.spacing_px, config.size + config.spacing_px, config.spacing_px)
    y, x = (grid.ravel() for grid in np.meshgrid(axis, axis, indexing="ij"))
    jitter = field.uniform(-0.42, 0.42, (2, len(y))) * config.spacing_px
    centers = np.stack([y, x]) + jitter
    places = np.indices((config.size, config.size)).astype(np.float64)
    places += 3.0 * np.stack([_smooth_noise(config.size, 5, field) for _ in range(2)])

    weights = field.uniform(0, (0.35 * config.spacing_px) ** 2, len(y))
    # The two cells at a border are among the six with the nearest centers.
    distances, nearest = KDTree(centers.T).query(np.moveaxis(places, 0, -1), k=6)
    power = distances**2 + weights[nearest]
    order = np.argsort(power, axis=-1)[..., :2]
    first, second = np.moveaxis(np.take_along_axis(power, order, axis=-1), -1, 0)
    owner, other = np.moveaxis(np.take_along_axis(nearest, order, axis=-1), -1, 0)
    # Distance to the straight border between two centers of a power diagram.
    apart = np.linalg.norm(centers[:, owner] - centers[:, other], axis=0)
    return owner, other, np.abs(second - first) / (2 * np.maximum(apart, 1.0))


def _smooth_noise(size: int, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Return Gaussian noise of mean 0 and standard deviation 1, smoothed over sigma pixels."""
    noise = ndimage.gaussian_filter(rng.standard_normal((size, size)), sigma, mode="wrap")
    return (noise - noise.mean()) / noise.std()
