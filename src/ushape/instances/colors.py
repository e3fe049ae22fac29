"""What a class looks like in other programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ushape.types import MaskEncoding

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

DISTINCT: tuple[Colour, ...] = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)),
    *((0, 114, 178), (213, 94, 0), (204, 121, 167)),
)
"""Told apart with every kind of colour vision (Okabe and Ito 2008, without black)."""


@dataclass(frozen=True)
class Style:
    """Name and colour of a class."""

    name: str
    colour: Colour


def class_styles(
    names: Sequence[str], values: Sequence[int], encoding: MaskEncoding
) -> tuple[Style, ...]:
    """By class index: in the colours of the user's masks where these have any.

    Args:
        names: Of each class, background first.
        values: Mask value, palette index or colour code of each class.
        encoding: How the masks are written.
    """
    return tuple(
        Style(name, _colour_of(index, value, encoding))
        for index, (name, value) in enumerate(zip(names, values, strict=True))
    )


def _colour_of(index: int, value: int, encoding: MaskEncoding) -> Colour:
    if encoding.kind == "colours":
        return (value >> 16 & 255, value >> 8 & 255, value & 255)
    if encoding.kind == "palette" and encoding.palette and 0 <= value < len(encoding.palette):
        return encoding.palette[value]
    return DISTINCT[(index - 1) % len(DISTINCT)]
