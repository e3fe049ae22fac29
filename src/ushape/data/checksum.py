"""A checksum of the files that a training saw."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ushape.types import Case, CocoMask, MaskParts

WHOLE_BYTES = 1 << 24
"""A larger file counts by its length, its first and its last so many bytes."""


def digest_of(cases: Iterable[Case], folder: Path) -> str:
    """Of the names below the folder and the contents of all images and masks, 16 hex digits.

    The same files in another place have the same digest. Of a file above 16 MiB its length and both
    ends count.
    """
    paths = sorted({path for case in cases for path in _files_of(case)})
    with ThreadPoolExecutor() as pool:
        parts = pool.map(_digest_file, paths)
        whole = hashlib.sha256()
        for path, part in zip(paths, parts, strict=True):
            whole.update(os.path.relpath(path, folder).replace(os.sep, "/").encode() + part)
    return whole.hexdigest()[:16]


def _files_of(case: Case) -> Iterator[Path]:
    mask = case.mask
    if isinstance(mask, MaskParts):
        masks = mask.paths
    elif isinstance(mask, CocoMask):
        masks = (mask.path,)
    else:
        masks = (mask,) if mask else ()
    for path in (case.image, *case.channels, *masks):
        if path.is_dir():
            yield from (one for one in path.rglob("*") if one.is_file())
        else:
            yield path


def _digest_file(path: Path) -> bytes:
    if not path.exists():  # Taken away since it was read.
        return b""
    digest, size = hashlib.sha256(), path.stat().st_size
    digest.update(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(WHOLE_BYTES))
        if size > WHOLE_BYTES:
            file.seek(max(WHOLE_BYTES, size - WHOLE_BYTES))
            digest.update(file.read())
    return digest.digest()
