"""Pixels of images for the screen: parts at reduced sizes, also of images larger than memory."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ushape.io.streaming import Bands, open_bands
from ushape.studio.tile_grid import Plane, Window, plane_box
from ushape.types import Case

MAX_DIRECT_PX = 1 << 22
"""Number of pixels of an image up to which they are read to show a part of it, however reduced."""

MAX_WHOLE_PX = 1 << 27
"""Number of voxels of a volume up to which all of it stays in memory while other planes than its
slices are shown."""

OVERVIEW_STEP = 8
"""Reduction of the copy that is kept of larger images."""

STRIP_PX = 1 << 24
"""Number of pixels that are read together to make this copy."""

PERCENTILES = (0.5, 99.5)
"""Percentiles of the intensities that are shown as black and white."""

MAX_OPEN = 3
"""Number of images that are kept open."""

RGB = 3


class ImageSource:
    """An open image. Safe to use from several threads.

    Attributes:
        shape: (*S), (y, x) or (z, y, x).
        channels: Number of channels of all files.
        spacing_mm: Distance between pixel centers along each axis, if the file contains it.
        percentiles: (C', 2) intensities that are shown as black and white.

    Args:
        case: The image; it is not divided into parts.

    Raises:
        DataError: if a file cannot be read.
    """

    def __init__(self, case: Case):
        self._lock = threading.Lock()
        self._paths = (case.image, *case.channels)
        self._files: list[Bands] = []
        self._open()
        first = self._files[0]
        self.shape: tuple[int, ...] = first.shape[1:]
        self.channels = sum(one.shape[0] for one in self._files)
        self.spacing_mm = first.spacing_mm
        self.dtype = first.dtype
        self._volume: np.ndarray | None = None
        self._overview: np.ndarray | None = None
        sample = self._sample()
        self.percentiles = _percentiles_of(sample, first.dtype)

    def close(self) -> None:
        """Close the files; they are opened again if another part is read."""
        with self._lock:
            for one in self._files:
                one.close()
            self._files, self._volume = [], None

    def _open(self) -> None:
        with ExitStack() as stack:
            for path in self._paths:
                self._files.append(stack.enter_context(open_bands(path)))
            stack.pop_all()

    def read_plane(self, plane: Plane, index: int, window: Window, step: int) -> np.ndarray:
        """Return the mean of squares of `step` pixels in a window of a plane, as colors.

        Shapes:
            returns: (ceil(rows / step), ceil(columns / step)) uint8 gray values, or with a last
                axis of 3.
        """
        with self._lock:
            if len(self.shape) == 2 and step >= OVERVIEW_STEP and self._is_large:
                found, rest = self._read_overview(window), step // OVERVIEW_STEP
            else:
                found, rest = self._read(plane, index, window), step
        return to_colors(reduce_mean(found, rest), self.percentiles)

    @property
    def _is_large(self) -> bool:
        return math.prod(self.shape) > MAX_DIRECT_PX

    def _sample(self) -> np.ndarray:
        """Return pixels of the whole image, (C', ...), from which the percentiles are taken."""
        with self._lock:
            if len(self.shape) == 2 and self._is_large:
                return self._make_overview()
            if len(self.shape) == 3:
                middle = self.shape[0] // 2
                return self._read("z", middle, ((0, self.shape[1]), (0, self.shape[2])))
            return self._read("z", 0, ((0, self.shape[0]), (0, self.shape[1])))

    def _read(self, plane: Plane, index: int, window: Window) -> np.ndarray:
        """Return stored values (C', rows, columns) of at most three channels."""
        if not self._files:
            self._open()
        if len(self.shape) == 2:
            return self._join([one.read_box(window) for one in self._files])
        if plane == "z" or math.prod(self.shape) > MAX_WHOLE_PX:
            box, axis = plane_box(plane, index, window), 1 + "zyx".index(plane)
            return self._join([one.read_box(box).squeeze(axis) for one in self._files])
        if self._volume is None:
            whole = tuple((0, size) for size in self.shape)
            self._volume = self._join([one.read_box(whole) for one in self._files])
        places: list[slice | int] = [slice(*own) for own in window]
        places.insert("zyx".index(plane), index)
        return self._volume[(slice(None), *places)]

    def _join(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        joined = np.concatenate(parts) if len(parts) > 1 else parts[0]
        return joined[: RGB if self.channels >= RGB else 1]

    def _make_overview(self) -> np.ndarray:
        if self._overview is None:
            if not self._files:
                self._open()
            height, width = self.shape
            rows = max(1, STRIP_PX // width // OVERVIEW_STEP) * OVERVIEW_STEP
            strips = [
                reduce_mean(
                    self._join(
                        [
                            one.read_box(((top, min(top + rows, height)), (0, width)))
                            for one in self._files
                        ]
                    ),
                    OVERVIEW_STEP,
                )
                for top in range(0, height, rows)
            ]
            self._overview = np.concatenate(strips, axis=1)
        return self._overview

    def _read_overview(self, window: Window) -> np.ndarray:
        (top, bottom), (left, right) = window
        edges = (top, bottom, left, right)
        top, bottom, left, right = (-(-edge // OVERVIEW_STEP) for edge in edges)
        return self._make_overview()[:, top:bottom, left:right]


class OpenSources:
    """The images that were shown last. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[Path, ImageSource] = OrderedDict()
        self._stamps: dict[Path, str] = {}

    def get(self, case: Case, stamp: str = "") -> ImageSource:
        """Return an open image.

        Args:
            stamp: Text that changes if a file of the image does, which is then opened again.

        Raises:
            DataError: if a file cannot be read.
        """
        with self._lock:
            if case.image in self._open and self._stamps[case.image] != stamp:
                self._open.pop(case.image).close()
            if case.image not in self._open:
                self._open[case.image] = ImageSource(case)
                self._stamps[case.image] = stamp
            self._open.move_to_end(case.image)
            while len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)[1].close()
            return self._open[case.image]


def reduce_mean(image: np.ndarray, step: int) -> np.ndarray:
    """Return the mean of squares of `step` pixels; those at the edges may be smaller.

    Shapes:
        image: (C, y, x).
        returns: (C, ceil(y / step), ceil(x / step)) float32, or the image if `step` is 1.
    """
    if step == 1:
        return image
    found = image.astype(np.float32)
    for axis in (1, 2):
        starts = np.arange(0, found.shape[axis], step)
        counts = np.minimum(found.shape[axis] - starts, step)
        sums = np.add.reduceat(found, starts, axis=axis)
        found = sums / counts.reshape([-1 if own == axis else 1 for own in range(3)])
    return found.astype(np.float32)


def to_colors(image: np.ndarray, percentiles: np.ndarray) -> np.ndarray:
    """Return stored values as gray values (y, x) or colors (y, x, 3), uint8.

    Shapes:
        image: (C, y, x) with one or three channels.
        percentiles: (C, 2) values that become 0 and 255.
    """
    low, high = percentiles[:, 0, None, None], percentiles[:, 1, None, None]
    scaled = (image.astype(np.float32) - low) * (255 / np.maximum(high - low, 1e-12))
    shown = np.nan_to_num(scaled, nan=0, posinf=255, neginf=0).clip(0, 255).astype(np.uint8)
    return shown[0] if len(shown) == 1 else np.moveaxis(shown, 0, -1)


def _percentiles_of(sample: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return the intensities that are shown as black and white, for each channel.

    Colors of 8 bits are shown as they are.
    """
    if dtype == np.uint8 and len(sample) == RGB:
        return np.array([[0.0, 255.0]] * RGB)
    found = []
    for channel in sample:
        values = channel[np.isfinite(channel)]
        low, high = np.percentile(values, PERCENTILES) if values.size else (0.0, 1.0)
        if low == high and values.size:
            low, high = float(values.min()), float(values.max())
        found.append((float(low), float(high) if high > low else float(low) + 1))
    return np.array(found)
