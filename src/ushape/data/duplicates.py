"""Duplicate images: identical ones, and recompressed or resized copies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ushape.transforms.resampling import resample_image

COMPARED_PX = 64
"""Side of the reduced images that are compared, in pixels."""

MIN_CORRELATION = 0.93
"""Correlation of details above which two images count as duplicates. Measured: JPEG copies of
quality 30 reach 0.99, neighboring EM sections 0.6, different cars in one studio 0.8."""

FLAT = 1e-3
"""Details weaker than this share of the image's contrast are treated as noise."""

MAX_COMPARED = 20_000
"""Number of images up to which all pairs are compared."""


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
    names: Sequence[str],
    hashes: Sequence[bytes],
    details: Sequence[np.ndarray],
    block: int = 1024,
) -> Iterator[Duplicates]:
    """Find all pairs of identical or nearly identical images; images without details are skipped.

    Above MAX_COMPARED images only identical ones are found.

    Args:
        names: Name of each image.
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

    Args:
        groups: Group of each image, by its name.
        duplicates: Pairs of duplicate images.

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
