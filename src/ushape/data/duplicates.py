"""Checksums of the files of a data set, and duplicates among its images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from ushape.transforms.resampling import resample_image
from ushape.types import Case, CocoMask, MaskPage, MaskParts, ShapesMask

_IN_FILE = (CocoMask, MaskPage, ShapesMask)
"""Masks in a file that may hold those of other cases, too."""

END_BYTES = 1 << 24
"""Of a larger file only the size and this many bytes at each end enter the checksum."""

COMPARED_PX = 64
"""Side of the reduced images that are compared, in pixels."""

MIN_CORRELATION = 0.93
"""Correlation of details above which two images count as duplicates. Measured: JPEG copies of
quality 30 reach 0.99, neighboring EM sections 0.6, different cars in one studio 0.8."""

FLAT = 1e-3
"""Details weaker than this share of the image's contrast are treated as noise."""

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
        whole.update(os.path.relpath(path, folder).replace(os.sep, "/").encode() + own)
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


def detail_of(image: np.ndarray) -> np.ndarray:
    """Return the fine details of a reduced image, without its shading, with mean 0 and norm 1.

    Shapes:
        image: (C, *S); of a volume the middle plane is used.
        returns: (COMPARED_PX ** 2,) float32; zeros for an image without details.
    """
    plane = image if image.ndim == 3 else image[:, image.shape[1] // 2]
    step = max(1, min(plane.shape[1:]) // (4 * COMPARED_PX))
    gray = plane[:, ::step, ::step].mean(axis=0, dtype=np.float32)
    gray[~np.isfinite(gray)] = 0
    small = np.asarray(resample_image(gray[None], (COMPARED_PX, COMPARED_PX))[0], dtype=np.float32)
    fine = small - ndimage.uniform_filter(small, 9)
    fine -= fine.mean()
    norm = float(np.linalg.norm(fine))
    if norm <= FLAT * float(np.abs(small).max()) * COMPARED_PX or norm == 0:
        return np.zeros(COMPARED_PX**2, dtype=np.float32)
    return np.asarray(fine / norm, dtype=np.float32).ravel()


def find_duplicate_images(
    names: Sequence[str], hashes: Sequence[bytes], details: Sequence[np.ndarray], block: int = 1024
) -> Iterator[Duplicates]:
    """Find all pairs of identical or nearly identical images; images without details are skipped.

    Above MAX_COMPARED images only identical ones are found.

    Args:
        hashes: Result of `hash_pixels` for each image.
        details: Result of `detail_of` for each image.
        block: Number of images that are compared at a time.
    """
    stack = np.stack(details) if len(details) else np.zeros((0, COMPARED_PX**2), dtype=np.float32)
    is_detailed = stack.any(axis=1)
    by_hash: dict[bytes, list[int]] = {}
    for index in np.flatnonzero(is_detailed).tolist():
        by_hash.setdefault(hashes[index], []).append(index)
    for places in by_hash.values():
        yield from (Duplicates(names[places[0]], names[other], True) for other in places[1:])
    if len(stack) > MAX_COMPARED:
        return
    for start in range(0, len(stack), block):
        correlation = stack[start : start + block] @ stack[start:].T
        for i, j in np.argwhere(correlation > MIN_CORRELATION).tolist():
            first, second = start + i, start + j
            if first < second and hashes[first] != hashes[second]:
                yield Duplicates(names[first], names[second], False)


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
