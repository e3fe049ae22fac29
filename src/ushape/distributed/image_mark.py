"""Mark of an image by which a later call notices that its files have changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ushape.io.ome_zarr import metadata_without_listing

UPPER, LOWER = 16, 6
"""Number of entries that are looked at in a folder: in the image folder and the folders in it,
which hold metadata and levels, and in those below, which hold chunks."""

MAX_FILES = 2000
"""Number of files that are looked at, since an image may have millions."""

NOT_OF_IMAGE = ("labels", ".zmetadata")
"""Names in an OME-Zarr image that other commands add or change."""


def mark_of_image(path: Path) -> str:
    """Return a checksum of the size and modification time of a file.

    Of a folder, such as a Zarr array, the metadata and an evenly spread sample of the chunks count.
    """
    digest = hashlib.sha256()
    for file in islice(_sample(path, 0), MAX_FILES):
        facts: object = metadata_without_listing(file)
        if facts is None:
            found = file.stat()
            facts = (found.st_size, found.st_mtime_ns)
        digest.update(repr((file.relative_to(path).as_posix(), facts)).encode())
    return digest.hexdigest()[:16]


def _sample(path: Path, depth: int) -> Iterator[Path]:
    """Yield a file, or evenly spread files of a folder, always in the same order."""
    if not path.is_dir():
        yield path
        return
    names = sorted(one.name for one in path.iterdir() if one.name not in NOT_OF_IMAGE)
    count = min(len(names), UPPER if depth < 2 else LOWER)
    for index in range(count):
        name = names[index * (len(names) - 1) // max(1, count - 1)]
        yield from _sample(path / name, depth + 1)
