"""Statistics of a case for planning and checks, measured in a single pass over its files."""

from __future__ import annotations

import multiprocessing
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ushape.data.checksum import case_checksums
from ushape.data.duplicates import Duplicates, find_duplicate_images, hash_pixels
from ushape.data.image_details import COMPARED_PX, describe_details
from ushape.data.intensities import thin_out
from ushape.data.mask_stats import (
    InstanceStats,
    blurred_share,
    border_share,
    centers_of_values,
    count_inner,
    count_values,
    frame_value,
    measure_instances,
    measure_objects,
    parts_per_value,
    void_share,
)
from ushape.data.outline_fit import OutlineFit, fit_outline
from ushape.data.reading import RGB, check_sizes, join_channels, read_first_file
from ushape.data.spacing import factors_to, resampled_shape
from ushape.errors import MAIN_GUARD, DataError, UshapeError
from ushape.formatting import natural_order
from ushape.interrupts import ignore_terminal_signals
from ushape.io.annotations import read_annotation
from ushape.io.float_range import mean_of_channels
from ushape.transforms.resampling import resample_image
from ushape.types import Case, GridRemark, MaskEncoding, Turn

THUMBNAIL = 32
"""Side of a thumbnail in pixels."""

MAX_VALUES = 256
"""Largest number of mask values whose connected components are measured separately."""

MIN_CENTERS = 8
"""Number of mask values above which their centers are measured."""

MIN_NUMBERS = 2
"""The same for masks in which most values are a single connected component, as object ids are."""

MAX_PARTS = 1.25
"""Largest mean number of connected components of an object."""

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
    """Checksum of each file of the case, for the checksum of the dataset."""

    channels: int = 0
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] | None = None
    """Spacing along each axis of S; None if the file does not specify it."""

    mask_shape: tuple[int, ...] = ()
    dtype: str = ""
    low: float = 0.0
    high: float = 0.0
    not_finite: int = 0
    """Number of values that are NaN, infinite, or beyond the range of 32-bit floats."""

    stored_as: Literal["", "gray", "planes"] = ""
    """How the file stores an image that is read in another form: a gray image among color images,
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
    """Sentences about shapes that may not have been drawn as intended."""

    mask_is_image: bool = False
    """Whether the mask file is a copy of the image."""

    turn: Turn = ""
    parts_per_value: float = 0.0
    """Mean number of connected components of each mask value above the lowest: 1 for object ids."""

    objects: int = 0
    """Number of connected components with one value above the lowest."""

    object_size: float = 0.0
    """Longer side of the bounding box of a connected component in pixels: the area-weighted
    median."""

    objects_by_value: Mapping[int, tuple[int, float]] = field(default_factory=dict)
    """The same two numbers for the components of each mask value; empty if there are more than
    256."""

    centers: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    """Center of all pixels of each mask value above 0, or above a negative lowest one, as fractions
    of S, if there are more than 8 values (or 2, if most of them are a single component), but at
    most 256."""

    instances: InstanceStats | None = None
    """Statistics of the annotated objects, if the mask contains them in addition to their class."""

    inner_counts: dict[int, int] = field(default_factory=dict)
    """Number of pixels of each mask value whose neighbors all have the same value, up to the noise
    of lossy compression: few for soft edges, many for classes."""

    blurred_share: float = 0.0
    """Share of the pixels with values in the middle of the range that are more than two pixels
    away from low or from high values: small for soft edges, large for smooth probabilities."""

    void_share: float = 0.0
    """Share of the pixels with the value 255 that lie in a thin band around objects of another
    value."""

    frame_value: int = 0
    """Most common mask value of the outermost pixels."""

    border_share: float = 0.0
    """Share of the outermost pixels that do not have the lowest mask value."""

    fit: OutlineFit | None = None
    """Alignment of mask and image; None without an outline or if the sizes differ."""


def scan_cases(
    cases: Sequence[Case], workers: int, ignore: int | None = None
) -> Iterator[CaseStats]:
    """Measure cases in several processes, since most of the work holds the interpreter lock.

    Args:
        ignore: As for `scan_case`.

    Yields:
        The statistics, in the order of the cases.

    Raises:
        UshapeError: if one of the processes is killed, or cannot start.
    """
    scan = partial(scan_case, ignore=ignore)
    if workers < 2 or len(cases) < WORTH_PROCESSES:
        yield from map(scan, cases)
        return
    # Forked workers start immediately; elsewhere the default start method is used.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    try:
        with ProcessPoolExecutor(workers, context, initializer=_start_worker) as pool:
            yield from pool.map(scan, cases, chunksize=8)
    except BrokenProcessPool:
        raise UshapeError(
            f"One of the {workers} processes that read the images was terminated unexpectedly, "
            "probably because memory ran out.",
            code="scan_process_ended",
            hint="Close other programs, or set the environment variable OMP_NUM_THREADS=1 to read "
            f"the images in a single process. {MAIN_GUARD}",
        ) from None


def _start_worker() -> None:
    """Use one thread, and leave the signals of the terminal to the main process."""
    torch.set_num_threads(1)
    ignore_terminal_signals()


def scan_case(case: Case, ignore: int | None = None) -> CaseStats:
    """Read and measure the files of a case; a damaged file is reported in `error`.

    Args:
        ignore: Mask value of pixels without annotation, if the user specifies it. They belong to no
            object, and to no outline that is compared with the image.
    """
    assert case.mask is not None, "only annotated cases are measured"
    try:
        check_sizes(case)
        stored = read_first_file(case)
        joined = join_channels(case, stored)
        image, mask = joined.array, read_annotation(case.mask, case.image)
    except DataError as error:
        return _damaged(case, error)
    stored_values, counts = count_values(mask.codes)
    codes, values = _hide_ignored(mask.codes, stored_values, ignore)
    low, high, not_finite = _extremes(image)
    same_size = codes.shape == image.shape[1:]
    sizes = measure_objects(codes, int(values[0]))
    objects, object_size = sizes.summary
    parts = parts_per_value(codes, values)
    may_number = len(values) > (MIN_NUMBERS if 0 < parts <= MAX_PARTS else MIN_CENTERS)
    is_unclear = mask.encoding.kind == "values" and may_number and len(values) <= MAX_VALUES
    return CaseStats(
        case=case,
        checksums=case_checksums(case),
        channels=image.shape[0],
        shape=image.shape[1:],
        spacing_mm=joined.spacing_mm,
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
        value_counts=dict(zip(stored_values.tolist(), counts.tolist(), strict=True)),
        encoding=mask.encoding,
        grid_remarks=mask.remarks,
        shape_remarks=mask.shape_remarks,
        mask_is_image=same_size and len(stored_values) > 2 and bool((image[0] == mask.codes).all()),
        turn=mask.turn,
        parts_per_value=parts,
        objects=objects,
        object_size=object_size,
        objects_by_value=sizes.by_value if len(values) <= MAX_VALUES else {},
        centers=centers_of_values(codes, values) if is_unclear else {},
        instances=None if mask.instances is None else measure_instances(codes, mask.instances),
        inner_counts=count_inner(codes, values, mask.encoding),
        blurred_share=blurred_share(codes, values, mask.encoding),
        void_share=void_share(codes, values),
        frame_value=frame_value(codes),
        border_share=border_share(codes, values),
        fit=fit_outline(image, mask.codes, ignore) if same_size and len(values) > 1 else None,
    )


def _hide_ignored(
    codes: np.ndarray, values: np.ndarray, ignore: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return a mask and its values with the lowest value in the place of the ignored one."""
    known = values[values != ignore]
    if len(known) in (0, len(values)):
        return codes, values
    return np.where(codes == ignore, known[0], codes), known


def _damaged(case: Case, error: DataError) -> CaseStats:
    """Return the statistics of a case whose image or mask cannot be read."""
    files = [path for path in (case.image, case.mask) if isinstance(path, Path)]
    return CaseStats(
        case=case,
        error=error.message,
        error_code=error.code,
        hint=error.hint,
        is_zero_bytes=any(path.is_file() and path.stat().st_size == 0 for path in files),
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


def at_spacing(one: CaseStats, target: Sequence[float] | None) -> CaseStats:
    """Return statistics whose sizes are those of the image after resampling to a spacing.

    Sizes of objects are sides of boxes along an unknown axis; they change as the last two axes do.
    Numbers of pixels by mask value remain those of the file.
    """
    if target is None:
        return one
    scale = float(np.prod(factors_to(one.spacing_mm, target, len(target))[-2:])) ** -0.5
    stated = one.instances
    return replace(
        one,
        shape=resampled_shape(one.shape, one.spacing_mm, target),
        spacing_mm=(*(one.spacing_mm or ())[: -len(target)], *target),
        object_size=scale * one.object_size,
        objects_by_value={
            value: (count, scale * size) for value, (count, size) in one.objects_by_value.items()
        },
        instances=stated and replace(stated, size=scale * stated.size),
    )


def make_thumbnail(image: np.ndarray) -> np.ndarray:
    """Reduce an image (C, *S) to (THUMBNAIL, THUMBNAIL) float32 by averaging."""
    plane = image if image.ndim == 3 else image[:, image.shape[1] // 2]
    step = max(1, min(plane.shape[1:]) // (4 * THUMBNAIL))
    gray = mean_of_channels(plane[:, ::step, ::step])
    small = resample_image(gray[None], (THUMBNAIL, THUMBNAIL))
    return np.asarray(small[0], dtype=np.float32)


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
