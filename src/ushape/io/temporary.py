"""Arrays in temporary files, for which space on the disk is reserved before they are written."""

from __future__ import annotations

import errno
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from ushape.errors import is_disk_full


@contextmanager
def temporary_map(
    shape: Sequence[int], folder: Path | None, dtype: DTypeLike = np.uint8
) -> Iterator[np.ndarray]:
    """Yield an array (*S), such as a label map, in a file that is deleted with the process.

    Args:
        folder: Folder with enough free space; None: the system's temporary folder.

    Raises:
        OSError: if the disk has too little space. Without this check, writing to the array would
            end the process.
    """
    place = Path(tempfile.gettempdir()) if folder is None else folder
    with tempfile.TemporaryFile(dir=place) as file:
        reserve(file.fileno(), math.prod(shape) * np.dtype(dtype).itemsize, place)
        yield np.memmap(file, dtype=dtype, mode="w+", shape=tuple(shape))


def reserve(file: int, size: int, folder: Path) -> None:
    """Reserve the bytes of a file on the disk; where the system cannot, check that they are free.

    Args:
        file: Descriptor of an empty file.
        size: Size that the file will have, in bytes.
        folder: Folder of the file.

    Raises:
        OSError: if the disk has too little space.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
            return
        except OSError as error:  # Other errors: nothing to reserve, or no support for it.
            if is_disk_full(error):
                error.filename = str(folder)
                raise
    # macOS, Windows, or a file system that cannot reserve space.
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
