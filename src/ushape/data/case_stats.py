"""Statistics of a case for planning and checks, measured while its files are read once."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from scipy import ndimage
from skimage import measure

from ushape.data.checksum import case_checksums
from ushape.data.duplicates import Duplicates, find_duplicate_images, hash_pixels
from ushape.data.image_details import COMPARED_PX, describe_details
from ushape.data.outline_fit import OutlineFit, fit_outline
from ushape.data.preprocessing import (
    RGB,
    check_sizes,
    join_channels,
    read_first_file,
    thin_out,
)
from ushape.errors import DataError
from ushape.formatting import natural_order
from ushape.io.annotations import read_annotation
from ushape.labels import MAX_CLASSES
from ushape.labels.colors import channels_of
from ushape.transforms.resampling import resample_image
from ushape.types import Case, GridRemark, MaskEncoding, Turn

THUMBNAIL = 32
"""Side of a thumbnail in pixels."""

MAX_IDS = 5000
"""Masks with more values, or with larger ones, are not tested for object ids."""

COMPRESSION_NOISE = 12
"""Difference of neighboring pixels, 0 to 255, that lossy compression adds to areas of one value."""

MAX_VALUES = 256
"""Largest number of mask values whose parts are measured separately."""

MIDDLE = 0.3
"""Lower end of the middle of the range of mask values, 0 to 0.5."""

VOID = 255
"""Mask value of the band around objects in PASCAL VOC."""

VOID_REACH = 9
"""Largest width of such a band in pixels."""

WORTH_PROCESSES = 64
"""Number of cases below which one process is faster than several."""


@dataclass(frozen=True, kw_only=True)
class CaseStats:
    """Statistics of the files of one case; if `error` is set, the fields after it are empty."""

    case: Case
    error: str | None = None
    """Reason why the image or the mask cannot be read."""

    error_code: str = ""
    hint: str = ""
    is_zero_bytes: bool = False
    checksums: Mapping[Path, bytes] = field(default_factory=dict)
    """Checksum of each file of the case, for the checksum of the data set."""

    channels: int = 0
    shape: tuple[int, ...] = ()
    mask_shape: tuple[int, ...] = ()
    dtype: str = ""
    low: float = 0.0
    high: float = 0.0
    not_finite: int = 0
    """Number of values that are NaN or infinite."""

    stored_as: Literal["", "gray", "planes"] = ""
    """How the file holds an image that is read in another form: a gray image among color images,
    whose values are repeated, or planes that are channels."""

    equal_channels: bool = False
    """Whether two channels are identical."""

    has_alpha: bool = False
    thumbnail: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    """(THUMBNAIL, THUMBNAIL) float32, mean of all channels; the middle plane of a volume."""

    detail: np.ndarray = field(
        default_factory=lambda: np.zeros((0, COMPARED_PX**2), dtype=np.float32)
    )
    """(V, D) float32 from `image_details.describe_details`; distinguishes images with similar
    thumbnails."""

    pixels: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    """(C, N) evenly spread pixels, with their stored values."""

    pixel_hash: bytes = b""
    """Hash from `duplicates.hash_pixels`, equal for images with equal pixels."""

    value_counts: dict[int, int] = field(default_factory=dict)
    """Number of pixels of each mask value."""

    encoding: MaskEncoding = field(default_factory=MaskEncoding)
    grid_remarks: frozenset[GridRemark] = frozenset()
    """What was done to bring the mask onto the grid of the image."""

    shape_remarks: tuple[str, ...] = ()
    """Sentences about shapes that may not have been drawn as they were meant."""

    mask_is_image: bool = False
    """Whether the mask file is a copy of the image."""

    turn: Turn = ""
    parts_per_value: float = 0.0
    """Mean number of connected parts of each mask value above the lowest: 1 for object ids."""

    objects: int = 0
    """Number of connected parts with one value above the lowest."""

    object_size: float = 0.0
    """Longer side of the bounding box of a part in pixels: the area-weighted median."""

    objects_by_value: Mapping[int, tuple[int, float]] = field(default_factory=dict)
    """The same two numbers for the parts of each mask value; empty if there are more than 256."""

    inner_counts: dict[int, int] = field(default_factory=dict)
    """Number of pixels of each mask value whose neighbors all have the same value, up to the noise
    of lossy compression: few for soft edges, many for classes."""

    blurred_share: float = 0.0
    """Share of the pixels with values in the middle of the range that are more than two pixels
    away from low or from high values: small for soft edges, large for smooth probabilities."""

    void_share: float = 0.0
    """Share of the pixels with the value 255 that lie in a thin band beside objects of another
    value."""

    frame_value: int = 0
    """Most common mask value of the outermost pixels."""

    border_share: float = 0.0
    """Share of the outermost pixels that do not have the lowest mask value."""

    fit: OutlineFit | None = None
    """Alignment of mask and image; None without an outline or if the sizes differ."""


def scan_cases(cases: Sequence[Case], workers: int) -> Iterator[CaseStats]:
    """Measure cases in several processes, since most of the work holds the interpreter lock.

    Yields:
        The statistics, in the order of the cases.
    """
    if workers < 2 or len(cases) < WORTH_PROCESSES:
        yield from map(scan_case, cases)
        return
    # Forked workers start immediately; elsewhere the default start method is used.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    with ProcessPoolExecutor(workers, context, initializer=_start_worker) as pool:
        yield from pool.map(scan_case, cases, chunksize=8)


def _start_worker() -> None:
    """Use one thread, and leave the signals of the terminal to the main process."""
    torch.set_num_threads(1)
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def scan_case(case: Case) -> CaseStats:
    """Read and measure the files of a case; a damaged file is reported in `error`."""
    assert case.mask is not None, "only annotated cases are measured"
    try:
        check_sizes(case)
        stored = read_first_file(case)
        image, mask = join_channels(case, stored).array, read_annotation(case.mask, case.image)
    except DataError as error:
        files = [path for path in (case.image, case.mask) if isinstance(path, Path)]
        empty = any(path.is_file() and path.stat().st_size == 0 for path in files)
        return CaseStats(
            case=case,
            error=error.message,
            error_code=error.code,
            hint=error.hint,
            is_zero_bytes=empty,
        )
    codes = mask.codes
    values, counts = count_values(codes)
    low, high, not_finite = _extremes(image)
    same_size = codes.shape == image.shape[1:]
    sizes = measure_objects(codes, int(values[0]))
    objects, object_size = sizes.summary
    return CaseStats(
        case=case,
        checksums=case_checksums(case),
        channels=image.shape[0],
        shape=image.shape[1:],
        mask_shape=codes.shape,
        dtype=str(image.dtype),
        low=low,
        high=high,
        not_finite=not_finite,
        stored_as="planes" if stored.array.ndim > image.ndim else "",
        equal_channels=_has_equal_channels(image),
        has_alpha=stored.alpha is not None,
        thumbnail=make_thumbnail(image),
        detail=describe_details(image),
        pixels=thin_out(image, at_most=2048).copy(),
        pixel_hash=hash_pixels(image),
        value_counts=dict(zip(values.tolist(), counts.tolist(), strict=True)),
        encoding=mask.encoding,
        grid_remarks=mask.remarks,
        shape_remarks=mask.shape_remarks,
        mask_is_image=same_size and len(values) > 2 and bool((image[0] == codes).all()),
        turn=mask.turn,
        parts_per_value=parts_per_value(codes, values),
        objects=objects,
        object_size=object_size,
        objects_by_value=sizes.by_value if len(values) <= MAX_VALUES else {},
        inner_counts=_count_inner(codes, values, mask.encoding),
        blurred_share=_blurred_share(codes, values, mask.encoding),
        void_share=_void_share(codes, values),
        frame_value=_frame_value(codes),
        border_share=_border_share(codes, values),
        fit=fit_outline(image, codes) if same_size and len(values) > 1 else None,
    )


def convert_gray(case_stats: Sequence[CaseStats]) -> tuple[CaseStats, ...]:
    """Return the statistics as they are if gray images among color images are repeated.

    Nothing is converted unless most images have three channels and all others are gray.
    """
    readable = [stats for stats in case_stats if stats.error is None]
    kinds = Counter((stats.channels, len(stats.shape)) for stats in readable)
    is_mixed = kinds.keys() == {(1, 2), (RGB, 2)} and kinds[RGB, 2] > kinds[1, 2]
    if not is_mixed or any(stats.case.channels for stats in readable):
        return tuple(case_stats)
    return tuple(
        replace(stats, channels=RGB, pixels=np.repeat(stats.pixels, RGB, axis=0), stored_as="gray")
        if stats.channels == 1
        else stats
        for stats in case_stats
    )


def make_thumbnail(image: np.ndarray) -> np.ndarray:
    """Reduce an image (C, *S) to (THUMBNAIL, THUMBNAIL) float32 by averaging."""
    plane = image if image.ndim == 3 else image[:, image.shape[1] // 2]
    step = max(1, min(plane.shape[1:]) // (4 * THUMBNAIL))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NaN in float images
        gray = plane[:, ::step, ::step].mean(axis=0, dtype=np.float32)
    small = resample_image(np.nan_to_num(gray)[None], (THUMBNAIL, THUMBNAIL))
    return np.asarray(small[0], dtype=np.float32)


def count_values(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of a mask in ascending order and the number of pixels of each."""
    if codes.size and codes.min() >= 0 and codes.max() < 65_536:
        counts = np.bincount(codes.ravel())  # About 100 times faster than sorting.
        values = np.flatnonzero(counts)
        return values, counts[values]
    return np.unique(codes, return_counts=True)


def sum_values(case_stats: Iterable[CaseStats]) -> Counter[int]:
    """Return the number of pixels of each mask value over all cases."""
    total: Counter[int] = Counter()
    for stats in case_stats:
        total.update(stats.value_counts)
    return total


def duplicates_among(case_stats: Iterable[CaseStats]) -> tuple[Duplicates, ...]:
    """Return the pairs of cases with identical or nearly identical images, in natural order."""
    ordered = sorted(case_stats, key=lambda stats: natural_order(stats.case.id))
    return tuple(
        find_duplicate_images(
            [stats.case.id for stats in ordered],
            [stats.pixel_hash for stats in ordered],
            [stats.detail for stats in ordered],
        )
    )


def _extremes(image: np.ndarray) -> tuple[float, float, int]:
    """Return the smallest and largest finite value and the number of non-finite values."""
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


def parts_per_value(codes: np.ndarray, values: np.ndarray, most: int = 24) -> float:
    """Return the mean number of connected parts as in `CaseStats`; 0 if they are not counted."""
    if not 3 <= len(values) <= MAX_IDS or codes.max() > MAX_IDS or codes.min() < 0:
        return 0.0
    boxes = ndimage.find_objects(codes)
    shown = [value for value in values[1:].tolist() if value > 0][:: max(1, len(values) // most)]
    parts = [ndimage.label(codes[boxes[value - 1]] == value)[1] for value in shown]
    return sum(parts) / max(1, len(parts))


@dataclass(frozen=True)
class ObjectSizes:
    """Connected parts of one mask value each, (N,) arrays."""

    values: np.ndarray
    areas: np.ndarray
    """Number of pixels."""

    sides: np.ndarray
    """Longer side of the bounding box in pixels."""

    @property
    def summary(self) -> tuple[int, float]:
        """Number and size of the parts, as in `CaseStats`."""
        if not len(self.sides):
            return 0, 0.0
        order = np.argsort(self.sides)
        below = np.cumsum(self.areas[order])
        half = int(np.searchsorted(below, below[-1] / 2))
        return len(self.sides), float(self.sides[order][half])

    @property
    def by_value(self) -> dict[int, tuple[int, float]]:
        """Number and size of the parts of each mask value."""
        return {
            value: ObjectSizes(self.values[own], self.areas[own], self.sides[own]).summary
            for value in np.unique(self.values).tolist()
            for own in [self.values == value]
        }


def measure_objects(codes: np.ndarray, background: int) -> ObjectSizes:
    """Measure the connected parts of all values but the background.

    Shapes:
        codes: (*S) mask values.
    """
    labels = measure.label(codes, background=background, connectivity=1)
    boxes = ndimage.find_objects(labels)
    values = np.zeros(len(boxes) + 1, dtype=codes.dtype)
    values[labels.ravel()] = codes.ravel()
    return ObjectSizes(
        values=values[1:],
        areas=np.bincount(labels.ravel(), minlength=len(values))[1:],
        sides=np.array([max(edge.stop - edge.start for edge in box) for box in boxes], dtype=int),
    )


def _count_inner(codes: np.ndarray, values: np.ndarray, encoding: MaskEncoding) -> dict[int, int]:
    """Return the number of pixels of each value in areas of one value, as in `CaseStats`."""
    levels, noise = codes[None], 0
    if encoding.kind == "colors" and len(values) > MAX_CLASSES:
        levels, noise = np.moveaxis(channels_of(codes), -1, 0), COMPRESSION_NOISE
    elif encoding.kind == "values" and _is_photographic(values):
        levels, noise = codes[None].astype(np.int64), COMPRESSION_NOISE
    differs = np.zeros(codes.shape, dtype=bool)
    for axis in range(codes.ndim):
        before = (slice(None),) * axis + (slice(None, -1),)
        after = (slice(None),) * axis + (slice(1, None),)
        if noise:
            steps = np.abs(levels[(slice(None), *before)] - levels[(slice(None), *after)])
            change = steps.max(axis=0) > noise
        else:
            change = codes[before] != codes[after]
        differs[before] |= change
        differs[after] |= change
    inner, counts = count_values(codes[~differs])
    return dict(zip(inner.tolist(), counts.tolist(), strict=True))


def _is_photographic(values: np.ndarray) -> bool:
    """Return whether gray values may come from lossy compression."""
    return len(values) > 16 and 128 <= values[-1] - values[0] <= 255


def _blurred_share(codes: np.ndarray, values: np.ndarray, encoding: MaskEncoding) -> float:
    """Return the share of blurred pixels as in `CaseStats`, of gray masks or of two colors."""
    if len(values) < 4 or encoding.kind == "palette":
        return 0.0
    level = codes.astype(np.float32)
    if encoding.kind == "colors":
        inside, counts = count_values(codes)
        first = channels_of(int(inside[counts.argmax()])).astype(np.float32)
        level = np.linalg.norm(channels_of(codes) - first, axis=-1).astype(np.float32)
    level = (level - level.min()) / max(float(np.ptp(level)), 1e-6)
    is_middle = (level > MIDDLE) & (level < 1 - MIDDLE)
    if not is_middle.any():
        return 0.0
    is_steep = (ndimage.minimum_filter(level, size=5) <= MIDDLE) & (
        ndimage.maximum_filter(level, size=5) >= 1 - MIDDLE
    )
    return float((is_middle & ~is_steep).sum() / is_middle.sum())


def _void_share(codes: np.ndarray, values: np.ndarray) -> float:
    if len(values) < 3 or values[-1] != VOID:
        return 0.0
    void = codes == VOID
    is_object = (codes > 0) & ~void
    is_near = ndimage.maximum_filter(is_object, size=2 * VOID_REACH + 1)
    is_thick = ndimage.minimum_filter(void, size=VOID_REACH, mode="nearest")
    is_thick = ndimage.maximum_filter(is_thick, size=VOID_REACH)
    return float((is_near & ~is_thick)[void].mean())


def _frame_value(codes: np.ndarray) -> int:
    values, counts = np.unique(_frame_of(codes), return_counts=True)
    return int(values[counts.argmax()])


def _frame_of(codes: np.ndarray) -> np.ndarray:
    """Return the outermost pixels; of a volume, those of the middle plane."""
    plane = codes if codes.ndim == 2 else codes[codes.shape[0] // 2]
    return np.concatenate([plane[0], plane[-1], plane[:, 0], plane[:, -1]])


def _border_share(codes: np.ndarray, values: np.ndarray) -> float:
    return float((_frame_of(codes) != values[0]).mean())
