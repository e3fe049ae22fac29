"""What a class looks like in other programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ushape.types import MaskEncoding

Color = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

DISTINCT: tuple[Color, ...] = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)),
    *((0, 114, 178), (213, 94, 0), (204, 121, 167)),
)
"""Told apart with every kind of color vision (Okabe and Ito 2008, without black)."""


@dataclass(frozen=True)
class Style:
    """Name and color of a class."""

    name: str
    color: Color


def class_styles(
    names: Sequence[str], values: Sequence[int], encoding: MaskEncoding
) -> tuple[Style, ...]:
    """By class index: in the colors of the user's masks where these have any.

    Args:
        names: Of each class, background first.
        values: Mask value, palette index or color code of each class.
        encoding: How the masks are written.
    """
    return tuple(
        Style(name, _color_of(index, value, encoding))
        for index, (name, value) in enumerate(zip(names, values, strict=True))
    )


def _color_of(index: int, value: int, encoding: MaskEncoding) -> Color:
    if encoding.kind == "colors":
        return (value >> 16 & 255, value >> 8 & 255, value & 255)
    if encoding.kind == "palette" and encoding.palette and 0 <= value < len(encoding.palette):
        return encoding.palette[value]
    return DISTINCT[(index - 1) % len(DISTINCT)]
