"""One case, looked at from all sides: everything that the checks need, in one reading."""

from __future__ import annotations

import multiprocessing
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from skimage import measure

from ushape.data.duplicates import Duplicates, detail_of, digest_of, find_duplicate_images
from ushape.data.preprocessing import read_image, thin_out
from ushape.errors import DataError
from ushape.formatting import natural_order
from ushape.io.annotations import read_annotation
from ushape.transforms.resampling import resample_image
from ushape.types import Case, MaskEncoding

THUMBNAIL = 32
"""Side of a thumbnail in pixels."""

REACH = 8
"""Shifts of a mask that are tried against the image's edges, in pixels."""

MAX_EDGE_PIXELS = 600
"""Of a mask's outline, evenly spread."""

MAX_IDS = 5000
WORTH_PROCESSES = 64
"""Fewer cases are read sooner than processes are started."""

EXIF_ORIENTATION = 274


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How well a mask's outline lies on edges of the image."""

    here: float
    """Mean edge strength under the outline; 1 is the image's average."""

    best: float
    """The same where it is largest, within REACH."""

    shift: tuple[int, int]
    """Where that is: (y, x) pixels."""


@dataclass(frozen=True, kw_only=True)
class CaseStats:
    """What one case's files say. Where `error` is set, the fields after it are empty."""

    case: Case
    error: str | None = None
    """Why the image or the mask cannot be read."""

    hint: str = ""
    is_zero_bytes: bool = False
    channels: int = 0
    shape: tuple[int, ...] = ()
    mask_shape: tuple[int, ...] = ()
    dtype: str = ""
    low: float = 0.0
    high: float = 0.0
    not_finite: int = 0
    """NaN or infinite values."""

    equal_channels: bool = False
    """Two channels hold the same, pixel by pixel."""

    has_alpha: bool = False
    thumbnail: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    """(THUMBNAIL, THUMBNAIL) float32, all channels averaged; the middle plane of a volume."""

    detail: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    """(D,) float32 of `duplicates.detail_of`; tells images apart that only look alike from afar."""

    pixels: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    """(C, N), some evenly spread pixels as stored."""

    digest: bytes = b""
    """Equal for images of equal pixels."""

    value_counts: dict[int, int] = field(default_factory=dict)
    """Pixels of each mask value."""

    encoding: MaskEncoding = field(default_factory=MaskEncoding)
    mask_is_image: bool = False
    image_turn: int = 1
    """EXIF orientation of the image file, 1: upright."""

    mask_turn: int = 1
    parts_per_value: float = 0.0
    """Connected parts of each mask value above the lowest, on average: 1 for object ids."""

    objects: int = 0
    """Connected parts of one value above the lowest."""

    object_size: float = 0.0
    """Longer side of the box around a part, in pixels: half of the area is in larger ones."""

    thin_share: float = 0.0
    """Of the pixels that have neither of the two commonest values: share with a neighbor of
    another value. Near 1 for soft edges, small for classes."""

    border_share: float = 0.0
    """Share of the image's frame that is not of the lowest mask value."""

    fit: Fit | None = None
    """None: no outline, or another size than the image's."""

    @property
    def is_turned_apart(self) -> bool:
        """The image's EXIF turns it, the mask's does not."""
        return self.image_turn != 1 and self.mask_turn == 1


def measure_cases(cases: Sequence[Case], workers: int) -> Iterator[CaseStats]:
    """In order, in processes: most of an exam is Python, which threads would do one at a time."""
    if workers < 2 or len(cases) < WORTH_PROCESSES:
        yield from map(measure_case, cases)
        return
    # Forked workers start at once; where forking is not safe, the platform's own way.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    with ProcessPoolExecutor(
        workers, context, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        yield from pool.map(measure_case, cases, chunksize=8)


def measure_case(case: Case) -> CaseStats:
    """Reads a case's image and mask; never raises for what is wrong with them."""
    assert case.mask is not None, "only annotated cases are examined"
    try:
        image, mask = read_image(case), read_annotation(case.mask)
    except DataError as error:
        files = [path for path in (case.image, case.mask) if isinstance(path, Path)]
        empty = any(path.is_file() and path.stat().st_size == 0 for path in files)
        return CaseStats(case=case, error=error.message, hint=error.hint, is_zero_bytes=empty)
    codes = mask.codes
    values, counts = count_values(codes)
    low, high, not_finite = _extremes(image)
    same_size = codes.shape == image.shape[1:]
    objects, object_size = measure_objects(codes, int(values[0]))
    return CaseStats(
        case=case,
        channels=image.shape[0],
        shape=image.shape[1:],
        mask_shape=codes.shape,
        dtype=str(image.dtype),
        low=low,
        high=high,
        not_finite=not_finite,
        equal_channels=_has_equal_channels(image),
        has_alpha=_has_alpha(case.image),
        thumbnail=make_thumbnail(image),
        detail=detail_of(image),
        pixels=thin_out(image, at_most=2048).copy(),
        digest=digest_of(image),
        value_counts=dict(zip(values.tolist(), counts.tolist(), strict=True)),
        encoding=mask.encoding,
        mask_is_image=same_size and len(values) > 2 and bool((image[0] == codes).all()),
        image_turn=_turn_of(case.image),
        mask_turn=_turn_of(case.mask) if isinstance(case.mask, Path) else 1,
        parts_per_value=_parts_per_value(codes, values),
        objects=objects,
        object_size=object_size,
        thin_share=_thin_share(codes, values, counts),
        border_share=_border_share(codes, values),
        fit=fit_outline(image, codes) if same_size and len(values) > 1 else None,
    )


def thumbnail_of(case: Case) -> np.ndarray:
    """A small gray picture of a case's image."""
    return make_thumbnail(read_image(case))


def make_thumbnail(image: np.ndarray) -> np.ndarray:
    """(C, *S) -> (THUMBNAIL, THUMBNAIL) float32: area averages of the mean channel."""
    plane = image if image.ndim == 3 else image[:, image.shape[1] // 2]
    step = max(1, min(plane.shape[1:]) // (4 * THUMBNAIL))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NaN in float images
        gray = plane[:, ::step, ::step].mean(axis=0, dtype=np.float32)
    small = resample_image(np.nan_to_num(gray)[None], (THUMBNAIL, THUMBNAIL))
    return np.asarray(small[0], dtype=np.float32)


def count_values(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values of a mask, rising, and how many pixels have each."""
    if codes.size and codes.min() >= 0 and codes.max() < 65_536:
        counts = np.bincount(codes.ravel())  # A hundred times faster than sorting.
        values = np.flatnonzero(counts)
        return values, counts[values]
    return np.unique(codes, return_counts=True)


def sum_values(exams: Iterable[CaseStats]) -> Counter[int]:
    """Pixels of each mask value over all cases."""
    total: Counter[int] = Counter()
    for exam in exams:
        total.update(exam.value_counts)
    return total


def duplicates_among(exams: Iterable[CaseStats]) -> tuple[Duplicates, ...]:
    """Cases whose images are equal or nearly so; the first by name, a_2 before a_10."""
    ordered = sorted(exams, key=lambda exam: natural_order(exam.case.id))
    return tuple(
        find_duplicate_images(
            [exam.case.id for exam in ordered],
            [exam.digest for exam in ordered],
            [exam.detail for exam in ordered],
        )
    )


def likeness_of(exams: Sequence[CaseStats]) -> tuple[float, float]:
    """Median correlation of neighbors by name, and of images that are far apart."""
    ordered = sorted(exams, key=lambda exam: natural_order(exam.case.id))
    pictures = np.stack([exam.thumbnail.ravel() for exam in ordered])
    pictures = pictures - pictures.mean(axis=0)  # What all have in common says nothing.
    pictures /= np.maximum(np.linalg.norm(pictures, axis=1, keepdims=True), 1e-9)
    half = len(pictures) // 2
    near = (pictures[1:] * pictures[:-1]).sum(axis=1)
    far = (pictures[half:] * pictures[: len(pictures) - half]).sum(axis=1)
    return float(np.median(near)), float(np.median(far))


def fit_outline(image: np.ndarray, codes: np.ndarray) -> Fit | None:
    """Compares the edges under the mask's outline with those beside it.

    Shapes:
        image: (C, *S); codes: (*S). Of a volume the middle plane.
        returns: None where there is no outline, or no edge.
    """
    if codes.ndim == 3:
        image, codes = image[:, image.shape[1] // 2], codes[codes.shape[0] // 2]
    gray = image.mean(axis=0, dtype=np.float32)
    gray[~np.isfinite(gray)] = 0
    rows, columns = _outline_pixels(codes)
    if len(rows) < 16 or min(gray.shape) <= 4 * REACH:
        return None
    strength = np.zeros_like(gray)
    strength[1:] += np.abs(np.diff(gray, axis=0))
    strength[:, 1:] += np.abs(np.diff(gray, axis=1))
    average = float(strength.mean())
    if average == 0:
        return None
    steps = np.arange(-REACH, REACH + 1, 2)
    means = np.array([[strength[rows + dy, columns + dx].mean() for dx in steps] for dy in steps])
    place = np.unravel_index(int(means.argmax()), means.shape)
    return Fit(
        here=float(means[len(steps) // 2, len(steps) // 2]) / average,
        best=float(means.max()) / average,
        shift=(int(steps[place[0]]), int(steps[place[1]])),
    )


def _outline_pixels(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Some pixels that differ from their left or upper neighbor, away from the frame."""
    changes = np.zeros(codes.shape, dtype=bool)
    changes[1:] |= codes[1:] != codes[:-1]
    changes[:, 1:] |= codes[:, 1:] != codes[:, :-1]
    for axis in (0, 1):
        for side in (slice(0, REACH), slice(-REACH, None)):
            changes[(slice(None),) * axis + (side,)] = False
    found = np.flatnonzero(changes)
    chosen = found[:: max(1, len(found) // MAX_EDGE_PIXELS)]
    rows, columns = np.unravel_index(chosen, codes.shape)
    return rows, columns


def _extremes(image: np.ndarray) -> tuple[float, float, int]:
    """Smallest and largest finite value, and how many are not."""
    if image.dtype.kind != "f":
        return float(image.min()), float(image.max()), 0
    finite = np.isfinite(image)
    bad = int(image.size - finite.sum())
    if bad == image.size:
        return 0.0, 0.0, bad
    sound = image[finite] if bad else image
    return float(sound.min()), float(sound.max()), bad


def _has_equal_channels(image: np.ndarray) -> bool:
    return any(
        bool((image[i] == image[j]).all())
        for i in range(len(image))
        for j in range(i)
        if len(image) <= 8
    )


def _parts_per_value(codes: np.ndarray, values: np.ndarray, most: int = 24) -> float:
    if not 3 <= len(values) <= MAX_IDS or codes.max() > MAX_IDS or codes.min() < 0:
        return 0.0
    boxes = ndimage.find_objects(codes)
    shown = [value for value in values[1:].tolist() if value > 0][:: max(1, len(values) // most)]
    parts = [ndimage.label(codes[boxes[value - 1]] == value)[1] for value in shown]
    return sum(parts) / max(1, len(parts))


def measure_objects(codes: np.ndarray, background: int) -> tuple[int, float]:
    """Number and size of the connected parts of one value, as `CaseStats` has them."""
    parts = measure.label(codes, background=background, connectivity=1)
    boxes = ndimage.find_objects(parts)
    if not boxes:
        return 0, 0.0
    areas = np.bincount(parts.ravel())[1:]
    sides = np.array([max(edge.stop - edge.start for edge in box) for box in boxes])
    order = np.argsort(sides)
    below = np.cumsum(areas[order])
    half = int(np.searchsorted(below, below[-1] / 2))
    return len(boxes), float(sides[order][half])


def _thin_share(codes: np.ndarray, values: np.ndarray, counts: np.ndarray) -> float:
    if len(values) < 3:
        return 0.0
    odd = ~np.isin(codes, values[np.argsort(counts)[-2:]])
    differs = np.zeros(codes.shape, dtype=bool)
    for axis in range(codes.ndim):
        before = (slice(None),) * axis + (slice(None, -1),)
        after = (slice(None),) * axis + (slice(1, None),)
        change = codes[before] != codes[after]
        differs[before] |= change
        differs[after] |= change
    return float(differs[odd].mean())


def _border_share(codes: np.ndarray, values: np.ndarray) -> float:
    plane = codes if codes.ndim == 2 else codes[codes.shape[0] // 2]
    frame = np.concatenate([plane[0], plane[-1], plane[:, 0], plane[:, -1]])
    return float((frame != values[0]).mean())


def _turn_of(path: Path) -> int:
    """EXIF orientation of a photograph; 1 where the file has none."""
    if path.suffix.lower() not in (".jpg", ".jpeg"):
        return 1
    try:
        with Image.open(path) as image:
            return int(image.getexif().get(EXIF_ORIENTATION, 1))
    except (OSError, SyntaxError, ValueError, TypeError):
        return 1


def _has_alpha(path: Path) -> bool:
    if path.suffix.lower() not in (".png", ".webp", ".gif"):
        return False
    try:
        with Image.open(path) as image:
            return image.mode in ("LA", "RGBA", "PA")
    except (OSError, SyntaxError, ValueError):
        return False
