"""The nouns that every room shares. Images are (C, *S), masks (*S), S = (y, x) or (z, y, x)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from ushape.scaling import Scaling

Palette = tuple[tuple[int, int, int], ...]
"""Colour (red, green, blue), 0 to 255, of each palette index."""


Box = tuple[tuple[int, int], ...]
"""First pixel, and the one after the last, along each axis of S."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """The files of one examination: one image and, where annotated, its mask."""

    id: str
    """Unique name: the image's path below the data folder, without suffix, with '/'."""

    image: Path
    mask: Path | None = None
    group: str = ""
    """What this case belongs to (patient, car); '' until groups were inferred."""


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """What an image file holds. A palette image holds indices: array (1, *S) and its palette."""

    array: np.ndarray
    """(C, *S), unsigned integers, integers, floats or bool, as stored."""

    palette: Palette | None = None
    spacing_mm: tuple[float, ...] | None = None
    """Distance between pixel centres along each axis of S, where the file says so."""


@dataclass(frozen=True, kw_only=True)
class MaskEncoding:
    """How the user's mask files are written, so that predictions are written likewise."""

    kind: Literal["values", "palette", "colours"] = "values"
    """Plain grey values; palette indices; or red, green, blue."""

    dtype: str = "uint8"
    """NumPy name of the stored values."""

    palette: Palette | None = None
    suffix: str = ".png"
    """File suffix with dot, a lossless format."""


@dataclass(frozen=True, kw_only=True)
class MaskPixels:
    """A mask file as one integer code per pixel.

    Grey values and palette indices are their own code; the colour (r, g, b) has the code
    r * 65536 + g * 256 + b.
    """

    codes: np.ndarray
    """(*S), integer."""

    encoding: MaskEncoding = field(default_factory=MaskEncoding)


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How a prepared sample lies on its file's grid; enough to go back."""

    file_shape: tuple[int, ...]
    """S of the file, in pixels."""

    box: Box
    """The part of the file that the network sees."""

    padded_shape: tuple[int, ...]
    """S of that part with zeros around it."""

    working_shape: tuple[int, ...]
    """S on which the network works: the padded one, or smaller by the plan's downscaling."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A loaded case on the network's grid. Intensities are still those of the file."""

    case: Case
    image: np.ndarray
    """(C, *S), stored dtype or float32."""

    scaling: Scaling
    """Brings its intensities, or those of a part of it, to what the network sees."""

    classes: np.ndarray | None
    """(*S) uint8 class indices, labels.IGNORE where the annotator left it open."""

    geometry: Geometry


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the network says about one image, on the image file's own grid."""

    probabilities: np.ndarray
    """(K, *S) float32."""

    classes: np.ndarray
    """(*S) uint8 class indices."""
