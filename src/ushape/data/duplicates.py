"""Identical and nearly identical images of a dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ushape.data.image_details import symmetric_views

MIN_CORRELATION = 0.93
"""Correlation of details above which two images count as duplicates. Measured for different images
of public sets: at most 0.92 (two cars in one studio); copies: `benchmarks/duplicates.py`."""

MAX_SYMMETRIC = 4000
"""Number of images up to which rotated and mirrored copies are found as well."""

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
