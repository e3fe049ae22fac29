"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

LEFTOVER = re.compile(r"\.(?P<process>\d+)-\d+\.part$")


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


def remove_leftovers(folder: Path) -> None:
    """Takes away what processes that were killed left half-written below a folder."""
    for path in folder.rglob(".*.part") if folder.is_dir() else ():
        match = LEFTOVER.search(path.name)
        if match and path.is_file() and not _is_alive(int(match["process"])):
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # Somebody else's.
    return True


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    with replacing(path) as file:
        file.write(content)
