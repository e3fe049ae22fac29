"""Data classes shared by all packages.

Images are (C, *S) and masks (*S), where S is (y, x) or (z, y, x).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np

from ushape.errors import DataError
from ushape.normalization import Normalization

Palette = tuple[tuple[int, int, int], ...]
"""Color (red, green, blue), 0 to 255, of each palette index."""


Box = tuple[tuple[int, int], ...]
"""First pixel and the pixel after the last one, along each axis of S."""


def box_text(box: Box) -> str:
    """Return a part of an image in words, such as "pixels 0-99, 100-199"."""
    return "pixels " + ", ".join(f"{first}-{last - 1}" for first, last in box)


@dataclass(frozen=True)
class MaskParts:
    """The mask of an image in several files: one for each class or object."""

    paths: tuple[Path, ...]
    """One or more files. Nonzero pixels belong to the class or object; later files cover earlier
    ones."""

    values: tuple[int, ...]
    """Code of the pixels of each file, from 1; pixels in no file are 0."""

    are_objects: bool = False
    """Whether each file is one object, of the class that its code stands for."""

    def __str__(self) -> str:
        rest = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        return f"{self.paths[0]}{rest}"


@dataclass(frozen=True)
class CocoMask:
    """The polygons and run lengths of one image in a COCO JSON file.

    The first category of the file has the code 1, the next one 2; pixels without annotation are 0.
    """

    path: Path
    image_id: int | str

    def __str__(self) -> str:
        return f"{self.path}, image {self.image_id}"


ShapesFormat = Literal["labelme", "yolo", "cvat", "run_lengths", "imagej", "geojson", "rtstruct"]
"""Format of a file of shapes; `io.annotations.shape_files.SHAPE_READERS` has its reader, and
`io.annotations.rtstruct` that of contours in the patient."""


@dataclass(frozen=True)
class ShapesMask:
    """The polygons, small masks or run lengths of one image in the file of an annotation tool.

    Later shapes cover earlier ones (of rtstruct, smaller regions cover larger ones); pixels in no
    shape are 0.
    """

    path: Path
    format: ShapesFormat
    image: Path
    """The image, for files that do not contain its size."""

    entry: str = ""
    """Name of the image in a file of several images, otherwise ''."""

    classes: tuple[str, ...] = ()
    """Labels in the file; the first one has the code 1, the next one 2. Regions of rtstruct that
    are not listed are not drawn."""

    box: Box | None = None
    """Region of the slide that is drawn; None for the whole image."""

    scale: tuple[float, float] = (1.0, 1.0)
    """Number of pixels along y and x, on the grid of `box`, for each pixel of the file's shapes."""

    def __str__(self) -> str:
        return f"{self.path}, image {self.entry}" if self.entry else str(self.path)


@dataclass(frozen=True)
class MaskPage:
    """One page (plane) of a stack of masks, or one time point of a mask with four axes."""

    path: Path
    page: int
    """Number of the page, from 0."""

    def __str__(self) -> str:
        return f"{self.path}, page {self.page + 1}"


@dataclass(frozen=True)
class MaskBox:
    """A part of the mask of an image that is divided into parts."""

    path: Path
    box: Box
    """Part of S of the mask file, or of `shape`."""

    shape: tuple[int, ...] | None = None
    """S of the slide at the resolution at which it is read, if that is another one than that of the
    mask file; the nearest of its pixels are used."""

    def __str__(self) -> str:
        return f"{self.path}, {box_text(self.box)}"


Mask = Path | MaskParts | CocoMask | ShapesMask | MaskPage | MaskBox
"""Location of a mask; `io.annotations.read_annotation` reads each kind."""

Split = Literal["", "train", "validation", "test"]
"""Subset (such as training or test) that the dataset assigns to a case; '' if it assigns none."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """The files of one examination: an image and, if annotated, its mask."""

    id: str
    """Unique name: path of the image below the data folder, without suffix, separated by '/'."""

    image: Path
    mask: Mask | None = None
    group: str = ""
    """Group that the case belongs to (patient, car); '' until groups are inferred."""

    channels: tuple[Path, ...] = ()
    """Additional files of the same size, whose channels follow those of `image`."""

    page: int | None = None
    """Number of the page (plane) of `image`, or of its channel if that is a volume in time, from 0,
    that is the image; None for the whole file."""

    box: Box | None = None
    """Part of S of the files that is the case, if they are divided; None for all of it."""

    mpp: float | None = None
    """Micrometers per pixel at which a slide is read; `box` is a part of it at this resolution.
    None: images are read as they are stored."""

    split: Split = ""
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Values of additional columns of a table, by column name."""

    origin: tuple[str, str] | None = None
    """URLs of the files of the image and a checksum of their versions, if `image` is a temporary
    copy; None if it is a file of the user."""


GridRemark = Literal[
    "reoriented",
    "cropped",
    "resampled",
    "shifted",
    "unpositioned",
    "sheared",
    "no_spacing",
    "no_spacing_x",
    "no_spacing_y",
    "no_spacing_z",
    "negative_spacing",
]
"""What was done to read a file's position, or to bring a mask onto the grid of its image.

- reoriented: the mask was mirrored, or its axes exchanged;
- cropped: the mask covers another part of the same grid;
- resampled: the mask has another spacing or direction, so the nearest of its pixels are used;
- shifted: the positions differ by less than half a pixel, which was ignored;
- unpositioned: one of the files has no real position, so pixels are compared by their index;
- sheared: the axes of a file are slightly off right angles, which was corrected;
- no_spacing: a file has no spacing, so 1 mm is assumed;
- no_spacing_x, _y, _z: the spacing along this axis of a file is 0 or no number, so 1 mm is assumed;
- negative_spacing: a spacing is negative, and its absolute value is used.
"""


LengthUnit = Literal["", "meter", "mm", "micron"]
"""Unit of lengths in a file; "" if it has none."""

UNIT_MM: Mapping[LengthUnit, float] = {"": 1.0, "meter": 1e3, "mm": 1.0, "micron": 1e-3}
"""Length of each unit in mm; files without a unit are read as mm."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Position of a file's pixels in the patient, as ITK defines it."""

    shape: tuple[int, ...]
    """Shape of the file, (y, x) or (z, y, x); axes of length 1 are included."""

    spacing_mm: tuple[float, ...]
    """Spacing along each axis of `shape`, in its order."""

    origin_mm: tuple[float, ...]
    """Position of the first pixel, (x, y) or (x, y, z), towards left, posterior, superior."""

    direction: tuple[float, ...]
    """Direction cosines: a matrix row by row, one column for each axis of the file, x first."""

    is_positioned: bool = field(default=True, compare=False)
    """Whether origin and direction differ from those that programs write without a position."""

    remarks: tuple[GridRemark, ...] = field(default=(), compare=False)
    """What was corrected in the file's header."""

    unit: LengthUnit = field(default="mm", compare=False)
    """Unit of a NIfTI file. Masks that are written as NIfTI store their position in the same unit,
    because programs such as nibabel compare only the numbers."""

    @property
    def matrix(self) -> np.ndarray:
        """(D, D + 1) float64: indices in the order of `shape`, and 1, to positions in mm."""
        dims = len(self.shape)
        columns = np.reshape(self.direction, (dims, dims))[:, ::-1] * np.asarray(self.spacing_mm)
        return np.column_stack([columns, self.origin_mm])


Turn = Literal["", "displayed", "stored", "unclear"]
"""How a mask relates to an image that EXIF turns: it fits the image as it is displayed, it fits the
stored pixels, it could be either (and is taken as displayed); '' if the image is not turned."""


TiffTag = tuple[int, int, int, Any, bool]
"""Code, type, count and value of a tag, and whether only the first page has it."""


@dataclass(frozen=True, kw_only=True)
class TiffMetadata:
    """Georeference, axes and scale of a TIFF, which are copied to its prediction."""

    geo_tags: tuple[TiffTag, ...] = ()
    """Tags of GeoTIFF: coordinate system, and position and size of the pixels on the earth."""

    imagej_axes: str = ""
    """Names of the axes of S in a file of ImageJ, such as TYX; '' for other files."""

    imagej: Mapping[str, Any] = field(default_factory=dict)
    """Unit, spacing and frame interval, by their names in ImageJ."""

    resolution: tuple[float, float] | None = None
    """Pixels for each unit along x and y in a file of ImageJ."""


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Content of an image file. A palette image has indices (1, *S) and its palette."""

    array: np.ndarray
    """(C, *S) as stored: integers, floats or bool."""

    palette: Palette | None = None
    spacing_mm: tuple[float, ...] | None = None
    """Distance between pixel centers along each axis of S, if the file contains it."""

    grid: Grid | None = None
    """Position in the patient, if the file contains it."""

    alpha: np.ndarray | None = None
    """(*S) opacity of each pixel, if the file has an alpha channel."""

    white_is_zero: bool = False
    """Whether the file stores white as 0; `array` holds the values as they are shown."""

    orientation: int = 1
    """EXIF orientation of the file, 1 to 8; `array` is turned as it is displayed."""

    is_repeated_gray: bool = False
    """Whether the channels of `array` repeat the only one of the file."""

    tiff: TiffMetadata | None = None


@dataclass(frozen=True, kw_only=True)
class RowReader:
    """An open image file whose rows along the first axis of S can be read separately."""

    shape: tuple[int, ...]
    """Stored shape, (C, *S)."""

    dtype: np.dtype
    """Stored type."""

    read_rows: Callable[[int, int], np.ndarray]
    """Function that returns the rows from a first one to before a last one, (C, rows, *S[1:])."""

    block_rows: int | None = None
    """Number of rows that are unpacked together, as those of a tile; None if any row can be read
    alone."""

    read_box: Callable[[Box], np.ndarray] | None = None
    """Function that returns a box of S, (C, *box), and reads little else; None if whole rows must
    be read."""

    unit_px: int = 1
    """Number of values that are unpacked together, those of a strip, tile or chunk."""

    palette: Palette | None = None
    spacing_mm: tuple[float, ...] | None = None
    tiff: TiffMetadata | None = None
    finest_shape: tuple[int, ...] | None = None
    """S of the finest level, for a slide that is read at another resolution."""

    orientation: int = 1
    """EXIF orientation of the file, 1 to 8; the rows are those of the displayed image."""

    present_bytes: int = sys.maxsize
    """Size of the file that rows are unpacked from; the largest integer if the size is known to
    suffice."""


@dataclass(frozen=True, kw_only=True)
class MaskEncoding:
    """How the user's mask files represent classes, so that predictions are written the same way."""

    RENAMED: ClassVar = {"kind=colours": "colors"}

    kind: Literal["values", "palette", "colors", "alpha", "one_hot"] = "values"
    """Gray values, palette indices, RGB colors, opacity of a picture of one color, or one channel
    for each class, of which predictions have the number."""

    dtype: str = "uint8"
    """NumPy type of the stored values; bool stands for 1 bit."""

    palette: Palette | None = None
    """Color of each palette index; of a mask in the alpha channel, its only color."""

    white_is_zero: bool = False
    """Whether a TIFF stores white as 0."""

    orientation: Literal["displayed", "stored"] = "displayed"
    """Whether masks of photographs that EXIF turns fit the displayed image or its stored pixels."""

    suffix: str = ".png"
    """File suffix of a lossless format, with its dot."""


@dataclass(frozen=True, kw_only=True)
class Instances:
    """Annotated objects of an image, for masks that mark each object in addition to its class."""

    numbers: np.ndarray
    """(*S) int32 number of the object of each pixel, 0 outside of objects."""

    stated: int
    """Number of objects that are annotated, including those that later ones cover completely."""

    overlap_px: int = 0
    """Number of pixels of an object that a later one covers."""


@dataclass(frozen=True, kw_only=True)
class MaskPixels:
    """A mask file as one integer code per pixel.

    The code of a gray value or palette index is the value itself; that of the color (r, g, b) is
    r * 65536 + g * 256 + b.
    """

    codes: np.ndarray
    """(*S), integer."""

    encoding: MaskEncoding = field(default_factory=MaskEncoding)
    grid: Grid | None = None
    """Position in the patient, if the file contains it."""

    remarks: frozenset[GridRemark] = frozenset()
    """What was done to bring the mask onto the grid of its image."""

    turn: Turn = ""

    shape_remarks: tuple[str, ...] = ()
    """Sentences about shapes that may not have been drawn as they were meant."""

    instances: Instances | None = None
    """The annotated objects; None if the mask contains only the class of each pixel."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Position of a preprocessed sample on the grid of its file; sufficient to invert it."""

    file_shape: tuple[int, ...]
    """S of the file."""

    box: Box
    """Part of the file that the network receives."""

    padded_shape: tuple[int, ...]
    """S of that part after padding with zeros."""

    working_shape: tuple[int, ...]
    """S of the network's input: the padded shape, or another one if the plan resamples."""

    coarse_axes: tuple[int, ...] | None = None
    """Axes of thick slices, which are resampled separately, if the image is brought to a common
    spacing; None if it keeps its own."""

    @property
    def is_identity(self) -> bool:
        """Whether the network receives the pixels of the file as they are."""
        is_whole = self.box == tuple((0, size) for size in self.file_shape)
        return is_whole and self.file_shape == self.padded_shape == self.working_shape


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A loaded case on the network's grid, with the intensities of the file."""

    case: Case
    image: np.ndarray
    """(C, *S), of the stored type or float32."""

    normalization: Normalization
    """Normalization to apply to the image, or to a part of it, before the network."""

    classes: np.ndarray | None
    """(*S) uint8 class indices, labels.IGNORE where there is no annotation."""

    geometry: Geometry

    objects: np.ndarray | None = None
    """(*S) int32 number of the object of each pixel, 0 outside; None unless the network learns to
    separate objects."""

    @property
    def missing_px(self) -> int:
        """Number of pixels of the network's grid with NaN or infinity in any channel."""
        if self.image.dtype.kind != "f":
            return 0
        return int((~np.isfinite(self.image)).any(axis=0).sum())


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Prediction for an image, on the grid of the image file."""

    probabilities: np.ndarray
    """(K, *S) float32."""

    classes: np.ndarray
    """(*S) uint8 class indices."""

    confidence: float = 0.0
    """Confidence, 0 to 1; ranks images by their expected Dice."""

    disagreement: np.ndarray | None = None
    """(*S) float32, 0 to 1: disagreement of the networks of an ensemble; None for one network."""

    distance: np.ndarray | None = None
    """(*S) float32, 0 to 1: distance to the border of the object; None if it is not predicted."""

    labels: np.ndarray | None = None
    """(*S) int32 number of the object of each pixel, 0 outside, if the network separates objects;
    None: objects are found in `classes`."""

    missing_px: int = 0
    """Number of pixels of the network's grid with NaN or infinity."""

    source: Pixels | None = None
    """The image as it was read, for outputs that show it or use its grid."""


def files_of(case: Case) -> Iterator[Path]:
    """Yield the files of a case: those of the image and those of the mask."""
    yield case.image
    yield from case.channels
    if isinstance(case.mask, MaskParts):
        yield from case.mask.paths
    elif case.mask is not None:
        yield case.mask if isinstance(case.mask, Path) else case.mask.path


def spacing_or_ones(spacing: Sequence[float] | None, dims: int) -> tuple[float, ...]:
    """Return the spacing along each axis of S, or 1 if it is unknown.

    Raises:
        DataError: if it is not one positive number for each axis.
    """
    if spacing is None:
        return (1.0,) * dims
    if len(spacing) != dims or not all(0 < length < math.inf for length in spacing):
        raise DataError(
            f"The spacing is {tuple(spacing)}, but the image has {dims} axes.",
            code="invalid_spacing",
            hint="Pass one positive number in mm for each axis, as (y, x) or (z, y, x).",
        )
    return tuple(spacing)


@dataclass(frozen=True)
class CaseFacts:
    """A case of the training data and the number of pixels of each class in it."""

    case: Case
    class_pixels: tuple[int, ...]
    """Number of pixels by class index."""


class _HasCase(Protocol):
    @property
    def case(self) -> Case: ...


OfCase = TypeVar("OfCase", bound=_HasCase)
"""What is known about a case, such as `CaseFacts`."""


def select_cases(facts: Iterable[OfCase], ids: Iterable[str]) -> list[OfCase]:
    """Return what is known about the cases of some ids, in the order of these.

    Args:
        ids: Ids of cases that are among those of the facts, such as a subset of `Splits`.
    """
    by_id = {fact.case.id: fact for fact in facts}
    return [by_id[case_id] for case_id in ids]
