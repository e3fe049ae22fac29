"""Parts of images whose files stay open, since many parts of one file are read after each other."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ushape.io.streaming import Bands, open_bands
from ushape.types import Box

MAX_OPEN = 8
"""Largest number of files that a process keeps open."""

_Key = tuple[Path, int]


class _OpenFiles:
    """The files of this process that were read last. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[_Key, Bands] = {}
        self._inherited: list[Bands] = []

    def read(self, path: Path, read: Callable[[Bands], np.ndarray]) -> np.ndarray:
        changed = path.stat().st_mtime_ns if path.exists() else 0
        with self._lock:
            bands = self._open.pop((path, changed), None) or open_bands(path)
            self._open[path, changed] = bands  # The last one is the one that was used last.
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


def read_box(path: Path, box: Box) -> np.ndarray:
    """Read a part of an image, (C, *box), as `Bands.read_box` does.

    Raises:
        DataError: if the file cannot be read, or has no such part.
    """
    return _FILES.read(path, lambda bands: bands.read_box(box))


def read_mask_box(path: Path, box: Box) -> np.ndarray:
    """Read a part of a mask, (1, *box), as `Bands.read_mask_box` does.

    Raises:
        DataError: if the file cannot be read, or has no such part.
    """
    return _FILES.read(path, lambda bands: bands.read_mask_box(box))
