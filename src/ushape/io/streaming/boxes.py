"""Parts of images whose files stay open, since many parts of one file are read after each other."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ushape.io.pyramid import nearest_indices
from ushape.io.streaming import Bands
from ushape.io.streaming.slides import open_bands_at
from ushape.types import Box

MAX_OPEN = 8
"""Largest number of files that a process keeps open."""

_Key = tuple[Path, float | None, int]


class _OpenFiles:
    """The files of this process that were read last. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[_Key, Bands] = {}
        self._inherited: list[Bands] = []

    def read(
        self, path: Path, read: Callable[[Bands], np.ndarray], mpp: float | None = None
    ) -> np.ndarray:
        changed = path.stat().st_mtime_ns if path.exists() else 0
        with self._lock:
            key = path, mpp, changed
            bands = self._open.pop(key, None) or open_bands_at(path, mpp)
            self._open[key] = bands  # The last one is the one that was used last.
            while len(self._open) > MAX_OPEN:
                self._open.pop(next(iter(self._open))).close()
            return read(bands)

    def forget_inherited(self) -> None:
        """Open files again in a forked process, which would share its position with the parent."""
        self._lock = threading.Lock()
        self._inherited += self._open.values()
        self._open = {}


_FILES = _OpenFiles()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_FILES.forget_inherited)


def read_box(path: Path, box: Box, mpp: float | None = None) -> np.ndarray:
    """Read a part of an image, (C, *box), as `Bands.read_box` does.

    Args:
        mpp: Resolution of a slide, as for `open_bands_at`.

    Raises:
        DataError: if the file cannot be read, or has no such part.
    """
    return _FILES.read(path, lambda bands: bands.read_box(box), mpp)


def read_mask_box(path: Path, box: Box, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Read a part of a mask, (1, *box), as `Bands.read_mask_box` does.

    Args:
        shape: S of another grid over the same area that the box is a part of; each of its pixels
            has the value of the pixel of the mask at its center.

    Raises:
        DataError: if the file cannot be read, or has no such part.
    """
    return _FILES.read(path, lambda bands: _sample(bands, box, shape or bands.shape[1:]))


def _sample(bands: Bands, box: Box, shape: tuple[int, ...]) -> np.ndarray:
    """Return a box of another grid, (C, *box), from the nearest pixels of a mask."""
    if shape == bands.shape[1:]:
        return bands.read_mask_box(box)
    places = [
        nearest_indices(old, new)[first:last]
        for old, new, (first, last) in zip(bands.shape[1:], shape, box, strict=True)
    ]
    part = bands.read_mask_box(tuple((int(own[0]), int(own[-1]) + 1) for own in places))
    return part[:, *np.ix_(*(own - own[0] for own in places))]
