"""Cache for files that hold the images or annotations of many cases."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

from ushape.errors import DataError

T = TypeVar("T")


class KeptFiles(Generic[T]):
    """A reader that keeps what it returned for the latest files. Safe to use from several threads.

    A file that was modified is read again.
    """

    def __init__(self, read: Callable[[Path], T], files: int):
        self._read, self._files = read, files
        self._lock = Lock()
        self._found: dict[tuple[Path, int], T] = {}
        update_wrapper(self, read)

    def __call__(self, path: Path) -> T:
        """Read a file, or return what is kept of it.

        Raises:
            DataError: if the file does not exist, or if the reader raises it.
        """
        try:
            key = path, path.stat().st_mtime_ns
        except OSError:
            raise DataError(
                f"{path}: the file does not exist.",
                code="file_not_found",
                hint="Check the spelling of the path.",
            ) from None
        with self._lock:  # Threads that wait for the same large file must not read it again.
            if key in self._found:
                self._found[key] = self._found.pop(key)  # The last one is the latest.
                return self._found[key]
            while len(self._found) >= self._files:  # Free memory before more is read.
                self._found.pop(next(iter(self._found)))
            self._found[key] = self._read(path)
            return self._found[key]

    def forget(self, path: Path) -> None:
        """Free the memory of a file."""
        with self._lock:
            self._found = {key: value for key, value in self._found.items() if key[0] != path}


def keep_latest(files: int) -> Callable[[Callable[[Path], T]], KeptFiles[T]]:
    """Return a decorator that keeps what a reader returned for the latest files.

    Args:
        files: Number of files whose content is kept.
    """
    return lambda read: KeptFiles(read, files)
