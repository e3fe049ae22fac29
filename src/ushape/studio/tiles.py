"""PNG tiles of images, masks and predictions at any level; each level has half the size."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import cast

import numpy as np
from PIL import Image

from ushape.errors import DataError
from ushape.studio.tile_grid import Plane, Window
from ushape.transforms.overlay import DISTINCT, Color

TILE_PX = 256
"""Largest height and width of a tile."""

UNKNOWN_COLOR = (128, 128, 128, 96)
"""Color and opacity of pixels that are not annotated."""

MISSED, INVENTED, CONFUSED = (0, 158, 255), (255, 140, 0), (230, 60, 200)
"""Colors of pixels that the prediction misses, adds, or gives another class."""


def level_count(shape: tuple[int, int]) -> int:
    """Return the number of levels; a single tile shows the last one."""
    levels = 1
    while max(shape) > TILE_PX << (levels - 1):
        levels += 1
    return levels


def tile_window(shape: tuple[int, int], level: int, x: int, y: int) -> Window:
    """Return the part of a plane that a tile shows, in pixels of level 0.

    Raises:
        DataError: if there is no such tile.
    """
    size = TILE_PX << min(max(level, 0), 40)
    top, left = y * size, x * size
    if not (0 <= level < level_count(shape) and 0 <= top < shape[0] and 0 <= left < shape[1]):
        raise DataError(
            f"There is no tile {x}, {y} at level {level}.",
            code="tile_out_of_range",
            hint="Tiles and levels are numbered from 0.",
        )
    return (top, min(top + size, shape[0])), (left, min(left + size, shape[1]))


def plane_shape(shape: Sequence[int], plane: Plane) -> tuple[int, int]:
    """Return the rows and columns of a plane of an image (y, x) or volume (z, y, x)."""
    whole = (1, *shape) if len(shape) == 2 else tuple(shape)
    axes = [size for axis, size in enumerate(whole) if axis != "zyx".index(plane)]
    return cast("tuple[int, int]", tuple(axes))


def check_plane(shape: Sequence[int], plane: str, index: int) -> Plane:
    """Return the plane if the image has it.

    Raises:
        DataError: if there is no such plane.
    """
    whole = (1, *shape) if len(shape) == 2 else tuple(shape)
    allowed = "z" if len(shape) == 2 else "zyx"
    if len(plane) != 1 or plane not in allowed or not 0 <= index < whole["zyx".index(plane)]:
        raise DataError(
            f"The image has no plane {plane[:10]} with the index {index}.",
            code="plane_out_of_range",
            hint=f"Planes: {', '.join(allowed)}; indices start at 0.",
        )
    return cast(Plane, plane)


def encode_png(pixels: np.ndarray) -> bytes:
    """Return gray values (y, x), colors (y, x, 3), or colors with opacity (y, x, 4) as PNG."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def class_colors(count: int) -> list[Color]:
    """Return a color for each class, background first."""
    rest = [object_color(np.array([number]))[0] for number in range(1, count)]
    known = [(0, 0, 0), *DISTINCT][:count]
    return [*known, *((int(r), int(g), int(b)) for r, g, b in rest[len(known) - 1 :])]


def object_color(numbers: np.ndarray) -> np.ndarray:
    """Return the color of object numbers (N), (N, 3) uint8; neighbors differ clearly."""
    hue = (numbers.astype(np.float64) * 0.61803398875) % 1 * 6
    light = 0.6 + 0.4 * ((numbers.astype(np.int64) * 7) % 5) / 4
    channels = [np.clip(np.abs((hue + turn) % 6 - 3) - 1, 0.1, 1) for turn in (0, 4, 2)]
    return np.asarray((np.stack(channels, axis=-1) * light[..., None] * 255).astype(np.uint8))


def mask_picture(labels: np.ndarray, colors: Sequence[Color], unknown: int) -> np.ndarray:
    """Return an annotation as opaque colors; the background is transparent.

    Args:
        colors: Color of each class; empty if the values are object numbers.
        unknown: Value of pixels that are not annotated.

    Shapes:
        labels: (y, x) class indices or object numbers.
        returns: (y, x, 4) uint8.
    """
    found = np.zeros((*labels.shape, 4), dtype=np.uint8)
    missing = labels == unknown
    shown = (labels != 0) & ~missing
    if colors:
        table = np.array([*colors, *class_colors(256)[len(colors) :]], dtype=np.uint8)
        found[shown, :3] = table[labels[shown]]
    elif shown.any():
        numbers, place = np.unique(labels[shown], return_inverse=True)
        found[shown, :3] = object_color(numbers)[place]
    found[shown, 3] = 255
    found[missing] = UNKNOWN_COLOR
    return found


def error_picture(truth: np.ndarray, predicted: np.ndarray, unknown: int) -> np.ndarray:
    """Return where a prediction differs from the annotation, (y, x, 4) uint8.

    Shapes:
        truth, predicted: (y, x) class indices.
    """
    found = np.zeros((*truth.shape, 4), dtype=np.uint8)
    differs = (truth != predicted) & (truth != unknown)
    for where, color in (
        (differs & (predicted == 0), MISSED),
        (differs & (truth == 0), INVENTED),
        (differs & (truth != 0) & (predicted != 0), CONFUSED),
    ):
        found[where] = (*color, 200)
    return found
