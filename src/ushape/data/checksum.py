"""Checksums of the files of a dataset."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ushape.io.files import all_files_within, files_within
from ushape.io.ome_zarr import metadata_without_listing
from ushape.types import Case, CocoMask, MaskPage, ShapesMask, files_of

_IN_FILE = (CocoMask, MaskPage, ShapesMask)
"""Masks in a file that may hold those of other cases, too."""

END_BYTES = 1 << 24
"""Of a larger file only the size and this many bytes at each end enter the checksum."""


def dataset_checksum(cases: Iterable[Case], folder: Path) -> str:
    """Return a checksum of file names and contents of all images and masks, 16 hex digits.

    It does not depend on where the folder lies. Of a file above 16 MiB only the size and both ends
    are read. Label images and consolidated metadata of OME-Zarr images are left out.
    """
    return combine_checksums(cases, folder, {})


def has_checksum(cases: Iterable[Case], folder: Path, checksum: str) -> bool:
    """Return whether this is the `dataset_checksum`, as this or an earlier version computes it."""
    cases = list(cases)
    if checksum == dataset_checksum(cases, folder):
        return True
    return checksum == _combine(earlier_checksums(cases), folder)


def combine_checksums(cases: Iterable[Case], folder: Path, known: Mapping[Path, bytes]) -> str:
    """Return `dataset_checksum`; only files without a known checksum are read.

    Args:
        known: Checksums from `case_checksums`, by path.
    """
    return _combine(file_checksums(cases, known), folder)


def _combine(files: Mapping[Path, bytes], folder: Path) -> str:
    folder = folder.parent if folder.is_file() else folder  # A table or a COCO file.
    whole = hashlib.sha256()
    for path, own in files.items():
        name = os.path.relpath(path, folder).replace(os.sep, "/")
        whole.update(name.encode(errors="surrogateescape") + own)
    return whole.hexdigest()[:16]


def file_checksums(cases: Iterable[Case], known: Mapping[Path, bytes]) -> dict[Path, bytes]:
    """Return the checksum of each file of a dataset; see `dataset_checksum`.

    Args:
        known: Checksums from `case_checksums`, by path.
    """
    paths = sorted({path for case in cases for path in _files_within(case, files_within)})
    with ThreadPoolExecutor() as pool:
        parts = pool.map(lambda path: known.get(path) or _file_checksum(path), paths)
        return dict(zip(paths, parts, strict=True))


def earlier_checksums(cases: Iterable[Case]) -> dict[Path, bytes]:
    """Return the checksum of each file as earlier versions computed it.

    Label images and consolidated metadata of OME-Zarr images are included.
    """
    paths = sorted({path for case in cases for path in _files_within(case, all_files_within)})
    return {path: _checksum_of(path) for path in paths}


def case_checksums(case: Case) -> dict[Path, bytes]:
    """Return the checksum of each file that belongs to this case alone."""
    if case.box is not None:
        return {}
    shared = case.mask.path if isinstance(case.mask, _IN_FILE) else None
    return {
        path: _file_checksum(path) for path in _files_within(case, files_within) if path != shared
    }


def _files_within(case: Case, within: Callable[[Path], list[Path]]) -> Iterator[Path]:
    """Yield the files of a case, and those in a folder that is one image."""
    for path in files_of(case):
        yield from within(path) if path.is_dir() else [path]


def _file_checksum(path: Path) -> bytes:
    lasting = metadata_without_listing(path)
    return _checksum_of(path) if lasting is None else hashlib.sha256(lasting).digest()


def _checksum_of(path: Path) -> bytes:
    if not path.exists():  # Removed since it was listed.
        return b""
    found, size = hashlib.sha256(), path.stat().st_size
    found.update(str(size).encode())
    with path.open("rb") as file:
        found.update(file.read(END_BYTES))
        if size > END_BYTES:
            file.seek(max(END_BYTES, size - END_BYTES))
            found.update(file.read())
    return found.digest()
