"""Checksums of the files of a data set, and duplicates among its images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ushape.data.details import symmetric_views
from ushape.types import Case, CocoMask, MaskPage, MaskParts, ShapesMask

_IN_FILE = (CocoMask, MaskPage, ShapesMask)
"""Masks in a file that may hold those of other cases, too."""

END_BYTES = 1 << 24
"""Of a larger file only the size and this many bytes at each end enter the checksum."""

MIN_CORRELATION = 0.93
"""Correlation of details above which two images count as duplicates. Measured for different images
of public sets: at most 0.92 (two cars in one studio); copies: `benchmarks/duplicates.py`."""

MAX_SYMMETRIC = 4000
"""Number of images up to which rotated and mirrored copies are found as well."""

MAX_COMPARED = 20_000
"""Number of images up to which all pairs are compared."""


def dataset_checksum(cases: Iterable[Case], folder: Path) -> str:
    """Return a checksum of file names and contents of all images and masks, 16 hex digits.

    It does not depend on where the folder lies. Of a file above 16 MiB only the size and both ends
    are read.
    """
    return combine_checksums(cases, folder, {})


def combine_checksums(cases: Iterable[Case], folder: Path, known: Mapping[Path, bytes]) -> str:
    """Return `dataset_checksum`; only files without a known checksum are read.

    Args:
        known: Checksums from `case_checksums`, by path.
    """
    folder = folder.parent if folder.is_file() else folder  # A table or a COCO file.
    whole = hashlib.sha256()
    for path, own in file_checksums(cases, known).items():
        name = os.path.relpath(path, folder).replace(os.sep, "/")
        whole.update(name.encode(errors="surrogateescape") + own)
    return whole.hexdigest()[:16]


def file_checksums(cases: Iterable[Case], known: Mapping[Path, bytes]) -> dict[Path, bytes]:
    """Return the checksum of each file of a data set; see `dataset_checksum`.

    Args:
        known: Checksums from `case_checksums`, by path.
    """
    paths = sorted({path for case in cases for path in _files_of(case)})
    with ThreadPoolExecutor() as pool:
        parts = pool.map(lambda path: known.get(path) or _file_checksum(path), paths)
        return dict(zip(paths, parts, strict=True))


def case_checksums(case: Case) -> dict[Path, bytes]:
    """Return the checksum of each file that belongs to this case alone."""
    shared = case.mask.path if isinstance(case.mask, _IN_FILE) else None
    return {path: _file_checksum(path) for path in _files_of(case) if path != shared}


def _files_of(case: Case) -> Iterator[Path]:
    mask = case.mask
    if isinstance(mask, MaskParts):
        masks = mask.paths
    elif isinstance(mask, _IN_FILE):
        masks = (mask.path,)
    else:
        masks = (mask,) if mask else ()
    for path in (case.image, *case.channels, *masks):
        if path.is_dir():
            yield from (one for one in path.rglob("*") if one.is_file())
        else:
            yield path


def _file_checksum(path: Path) -> bytes:
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


@dataclass(frozen=True)
class Duplicates:
    """Two images that are duplicates of each other."""

    first: str
    second: str
    """Names of the two images, in the order in which they were given."""

    is_exact: bool
    """Whether all pixels are equal."""


def hash_pixels(image: np.ndarray) -> bytes:
    """Return a hash that is equal for images with equal pixels, whatever the file format."""
    content = np.ascontiguousarray(image)
    found = hashlib.blake2b(content.data, digest_size=16)
    found.update(f"{content.shape}{content.dtype}".encode())
    return found.digest()


def find_duplicate_images(
    names: Sequence[str], hashes: Sequence[bytes], details: Sequence[np.ndarray]
) -> Iterator[Duplicates]:
    """Find all pairs of identical or nearly identical images; images without details are skipped.

    Above MAX_SYMMETRIC images, copies that are rotated or mirrored are not found, and above
    MAX_COMPARED only identical ones.

    Args:
        hashes: Result of `hash_pixels` for each image.
        details: Result of `describe_details` for each image.
    """
    by_hash: dict[bytes, list[int]] = {}
    for index, own in enumerate(details):
        if own.any():
            by_hash.setdefault(hashes[index], []).append(index)
    for places in by_hash.values():
        yield from (Duplicates(names[places[0]], names[other], True) for other in places[1:])
    if 1 < len(details) <= MAX_COMPARED:
        for first, second in sorted(_similar_pairs(details)):
            if hashes[first] != hashes[second]:
                yield Duplicates(names[first], names[second], False)


def _similar_pairs(details: Sequence[np.ndarray], block: int = 1024) -> set[tuple[int, int]]:
    """Return the places of all pairs of images whose details correlate, the first one first.

    Args:
        block: Number of views that are compared at a time.
    """
    stack = np.concatenate(list(details))
    image_of = np.repeat(np.arange(len(details)), [len(own) for own in details])
    found = set()
    for start in range(0, len(stack), block):
        part = stack[start : start + block]
        for view in symmetric_views(part) if len(details) <= MAX_SYMMETRIC else (part,):
            for i, j in np.argwhere(view @ stack[start:].T > MIN_CORRELATION).tolist():
                pair = sorted((int(image_of[start + i]), int(image_of[start + j])))
                if pair[0] < pair[1]:
                    found.add((pair[0], pair[1]))
    return found


def merge_groups(groups: Mapping[str, str], duplicates: Iterable[Duplicates]) -> dict[str, str]:
    """Merge groups that share duplicate images, so that a split cannot separate the duplicates.

    Returns:
        Group of each image; a merged group takes the name that sorts first.
    """
    leader = {group: group for group in groups.values()}

    def lead(group: str) -> str:
        while leader[group] != group:
            group = leader[group]
        return group

    for pair in duplicates:
        first, second = sorted((lead(groups[pair.first]), lead(groups[pair.second])))
        leader[second] = first
    return {name: lead(group) for name, group in groups.items()}
