"""Images that are there twice: bit by bit, or as a recompressed or resized copy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ushape.transforms.resampling import resample_image

SIDE = 64
"""Images are compared at this size."""

ALIKE = 0.93
"""Correlation of details from which two images are one. Measured: JPEG copies of quality 30 keep
0.99, neighboring EM sections reach 0.6, different cars in one studio 0.8."""

FLAT = 1e-3
"""Details weaker than this share of the image's contrast are noise."""

MOST = 20_000
"""Images that are compared each with each."""


@dataclass(frozen=True)
class Duplicates:
    """Two images that are one."""

    first: str
    second: str
    """Their names, in the order in which they were given."""

    is_exact: bool


def digest_of(image: np.ndarray) -> bytes:
    """Equal for images of equal pixels, whatever the file format."""
    content = np.ascontiguousarray(image)
    found = hashlib.blake2b(content.data, digest_size=16)
    found.update(f"{content.shape}{content.dtype}".encode())
    return found.digest()


def detail_of(image: np.ndarray) -> np.ndarray:
    """What is left of an image without its broad light and dark, of mean 0 and norm 1.

    Shapes:
        image: (C, *S); of a volume the middle plane.
        returns: (SIDE * SIDE,) float32; zeros for an image without details.
    """
    plane = image if image.ndim == 3 else image[:, image.shape[1] // 2]
    step = max(1, min(plane.shape[1:]) // (4 * SIDE))
    gray = plane[:, ::step, ::step].mean(axis=0, dtype=np.float32)
    gray[~np.isfinite(gray)] = 0
    small = np.asarray(resample_image(gray[None], (SIDE, SIDE))[0], dtype=np.float32)
    fine = small - ndimage.uniform_filter(small, 9)
    fine -= fine.mean()
    norm = float(np.linalg.norm(fine))
    if norm <= FLAT * float(np.abs(small).max()) * SIDE or norm == 0:
        return np.zeros(SIDE * SIDE, dtype=np.float32)
    return np.asarray(fine / norm, dtype=np.float32).ravel()


def find_duplicate_images(
    names: Sequence[str],
    digests: Sequence[bytes],
    details: Sequence[np.ndarray],
    block: int = 1024,
) -> Iterator[Duplicates]:
    """All pairs of equal or nearly equal images; images without details are left out.

    Args:
        details: Of `detail_of`; beyond MOST images only exact copies are found.
    """
    stack = np.stack(details) if len(details) else np.zeros((0, SIDE * SIDE), dtype=np.float32)
    is_detailed = stack.any(axis=1)
    by_digest: dict[bytes, list[int]] = {}
    for index in np.flatnonzero(is_detailed).tolist():
        by_digest.setdefault(digests[index], []).append(index)
    for places in by_digest.values():
        yield from (Duplicates(names[places[0]], names[other], True) for other in places[1:])
    if len(stack) > MOST:
        return
    for start in range(0, len(stack), block):
        likeness = stack[start : start + block] @ stack[start:].T
        for i, j in np.argwhere(likeness > ALIKE).tolist():
            first, second = start + i, start + j
            if first < second and digests[first] != digests[second]:
                yield Duplicates(names[first], names[second], False)


def merge_groups(groups: Mapping[str, str], duplicates: Iterable[Duplicates]) -> dict[str, str]:
    """Groups that share an image become one, so that none of them is on another side of a split.

    Args:
        groups: The group of each image, by its name.

    Returns:
        The group of each image; joined ones take the name that sorts first.
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
