"""The nouns that every room shares. Images are (C, *S), masks (*S), S = (y, x) or (z, y, x)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from ushape.errors import DataError
from ushape.normalization import Normalization

Palette = tuple[tuple[int, int, int], ...]
"""Color (red, green, blue), 0 to 255, of each palette index."""


Box = tuple[tuple[int, int], ...]
"""First pixel, and the one after the last, along each axis of S."""


@dataclass(frozen=True)
class MaskParts:
    """A mask in several files of one image: one file for each class, or for each object."""

    paths: tuple[Path, ...]
    """At least one. What is not 0 in a file is its class or object; a later file covers an
    earlier one."""

    values: tuple[int, ...]
    """The code of each file's pixels, from 1. Pixels in no file are 0."""

    def __str__(self) -> str:
        rest = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        return f"{self.paths[0]}{rest}"


@dataclass(frozen=True)
class CocoMask:
    """The polygons and run lengths of one image in a COCO JSON file.

    The first category of the file has the code 1, the next 2; pixels of no annotation are 0.
    """

    path: Path
    image_id: int | str

    def __str__(self) -> str:
        return f"{self.path}, image {self.image_id}"


Mask = Path | MaskParts | CocoMask
"""Where a mask lies; `io.annotations.read_annotation` reads each kind."""

Split = Literal["", "train", "validation", "test"]
"""The part of a case that the data state by themselves; '' where they say nothing."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """The files of one examination: one image and, where annotated, its mask."""

    id: str
    """Unique name: the image's path below the data folder, without suffix, with '/'."""

    image: Path
    mask: Mask | None = None
    group: str = ""
    """What this case belongs to (patient, car); '' until groups were inferred."""

    channels: tuple[Path, ...] = ()
    """Further files of the same size, whose channels follow those of `image`."""

    split: Split = ""
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What a table says of the case in its other columns."""


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """What an image file holds. A palette image holds indices: array (1, *S) and its palette."""

    array: np.ndarray
    """(C, *S), unsigned integers, integers, floats or bool, as stored."""

    palette: Palette | None = None
    spacing_mm: tuple[float, ...] | None = None
    """Distance between pixel centers along each axis of S, where the file says so."""

    origin_mm: tuple[float, ...] | None = None
    """Place of the first pixel in the patient, in ITK's order (x, y, z), where the file says so."""

    direction: tuple[float, ...] | None = None
    """Cosines of the file's axes: a matrix row by row, one column each for x, y, z, as in ITK."""


@dataclass(frozen=True, kw_only=True)
class MaskEncoding:
    """How the user's mask files are written, so that predictions are written likewise."""

    RENAMED: ClassVar = {"kind=colours": "colors"}

    kind: Literal["values", "palette", "colors"] = "values"
    """Plain gray values; palette indices; or red, green, blue."""

    dtype: str = "uint8"
    """NumPy name of the stored values."""

    palette: Palette | None = None
    suffix: str = ".png"
    """File suffix with dot, a lossless format."""


@dataclass(frozen=True, kw_only=True)
class MaskPixels:
    """A mask file as one integer code per pixel.

    Gray values and palette indices are their own code; the color (r, g, b) has the code
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

    normalization: Normalization
    """Brings its intensities, or those of a part of it, to what the network sees."""

    classes: np.ndarray | None
    """(*S) uint8 class indices, labels.IGNORE where the annotator left it open."""

    geometry: Geometry

    @property
    def missing_px(self) -> int:
        """Pixels of the network's grid that hold NaN or infinity, in some channel."""
        if self.image.dtype.kind != "f":
            return 0
        return int((~np.isfinite(self.image)).any(axis=0).sum())


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the network says about one image, on the image file's own grid."""

    probabilities: np.ndarray
    """(K, *S) float32."""

    classes: np.ndarray
    """(*S) uint8 class indices."""

    confidence: float = 0.0
    """0 to 1; ranks images by the Dice to expect."""

    disagreement: np.ndarray | None = None
    """(*S) float32, 0 to 1: how far the networks of an ensemble differ; None for one network."""

    missing_px: int = 0
    """Pixels of the network's grid that held NaN or infinity."""


def spacing_or_ones(spacing: Sequence[float] | None, dims: int) -> tuple[float, ...]:
    """The spacing of each axis of S, 1 where it is unknown.

    Raises:
        DataError: not one positive number for each axis.
    """
    if spacing is None:
        return (1.0,) * dims
    if len(spacing) != dims or not all(0 < length < math.inf for length in spacing):
        raise DataError(
            f"The spacing is {tuple(spacing)} for an image of {dims} axes.",
            hint="One positive number for each axis, in mm, as (y, x) or (z, y, x).",
        )
    return tuple(spacing)


@dataclass(frozen=True)
class CaseFacts:
    """A case of the training folder, and how many pixels each class has in it."""

    case: Case
    class_pixels: tuple[int, ...]
