"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that takes the name `path` only when it is complete.

    It is written under another name, flushed to the disk, then renamed: a kill, or a full disk,
    leaves what was there before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Another name in each process and thread: two that write the same file replace one another's
    # whole files, not each other's halves.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with temporary.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    with replacing(path) as file:
        file.write(content)
