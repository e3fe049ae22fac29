"""Cache for files that hold the annotations of many images."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from threading import Lock
from typing import TypeVar

from ushape.errors import DataError

T = TypeVar("T")


def keep_latest(files: int) -> Callable[[Callable[[Path], T]], Callable[[Path], T]]:
    """Return a decorator that keeps what a reader returned for the latest files.

    A file that was modified is read again.

    Args:
        files: Number of files whose content is kept.

    Raises:
        DataError: if the file does not exist.
    """

    def decorate(read: Callable[[Path], T]) -> Callable[[Path], T]:
        lock = Lock()

        @lru_cache(maxsize=files)
        def read_once(path: Path, changed_ns: int) -> T:
            return read(path)

        @wraps(read)
        def read_cached(path: Path) -> T:
            try:
                changed_ns = path.stat().st_mtime_ns
            except OSError:
                raise DataError(
                    f"{path}: the file does not exist.",
                    code="file_not_found",
                    hint="Check the spelling of the path.",
                ) from None
            with lock:  # Threads that wait for the same large file must not read it again.
                return read_once(path, changed_ns)

        return read_cached

    return decorate
