"""Colors in masks: codes, the colors that encodings show, and names of colors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ushape.types import MaskEncoding


def colors_of(codes: np.ndarray, encoding: MaskEncoding) -> np.ndarray:
    """Return the color that each pixel of a mask file shows, as a code; -1 for none.

    Shapes:
        codes: (*S) mask values.
        returns: (*S) int64, red * 65536 + green * 256 + blue.
    """
    if encoding.kind == "colors":
        return codes
    if encoding.kind == "palette":
        table = np.full(65_536, -1, dtype=np.int64)
        palette = np.asarray(encoding.palette or (), dtype=np.int64).reshape(-1, 3)
        table[: len(palette)] = palette @ (65_536, 256, 1)
        return table[codes]
    gray = codes.astype(np.int64) * (255 if encoding.dtype == "bool" else 1)
    return np.where((gray >= 0) & (gray <= 255), gray * 0x010101, -1)


def channels_of(color: int | np.ndarray) -> np.ndarray:
    """Return red, green and blue of color codes (*S), as (*S, 3)."""
    return np.stack([np.asarray(color) >> shift & 255 for shift in (16, 8, 0)], axis=-1)


def distances(values: np.ndarray, others: np.ndarray, *, are_colors: bool) -> np.ndarray:
    """Return the distance of each value (N) from each other value (M), (N, M) float.

    Between colors it is the Euclidean distance in RGB.
    """
    if not are_colors:
        return np.abs(values[:, None] - others[None]).astype(np.float64)
    apart = channels_of(values)[:, None].astype(np.float64) - channels_of(others)[None]
    return np.asarray(np.linalg.norm(apart, axis=-1))


def color_text(code: int) -> str:
    """Return a color code as "#rrggbb"."""
    return f"#{code:06x}"


def rgb_text(color: tuple[int, int, int]) -> str:
    """Return red, green and blue, 0 to 255, as "#rrggbb"."""
    return "#{:02x}{:02x}{:02x}".format(*color)


BASIC_COLORS = {
    "black": 0x000000, "white": 0xFFFFFF, "gray": 0x808080, "red": 0xFF0000, "green": 0x00FF00,
    "blue": 0x0000FF, "yellow": 0xFFFF00, "cyan": 0x00FFFF, "magenta": 0xFF00FF,
    "orange": 0xFF8000, "purple": 0x800080, "brown": 0x804000, "pink": 0xFF80C0,
    "dark red": 0x800000, "dark green": 0x008000, "dark blue": 0x000080, "olive": 0x808000,
    "teal": 0x008080, "light gray": 0xC0C0C0,
}  # fmt: skip
SAME_COLOR = 8.0
"""Distance in RGB below which a color has the name of a basic color without its code."""


def name_color(code: int) -> str:
    """Return the name of the most similar basic color, with the code if it is not that color."""
    names, basic = zip(*BASIC_COLORS.items(), strict=True)
    apart = distances(np.array([code]), np.array(basic), are_colors=True)[0]
    name = names[int(apart.argmin())]
    return name if apart.min() < SAME_COLOR else f"{name} {color_text(code)}"
