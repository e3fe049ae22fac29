"""Division of an array into blocks of whole chunks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ushape.types import Box

MAX_BLOCK_PX = 1 << 27
"""Largest number of pixels of a block of several shards."""


@dataclass(frozen=True)
class BlockGrid:
    """Blocks of an array, numbered in row-major order."""

    shape: tuple[int, ...]
    block: tuple[int, ...]
    """Size of a block along each axis; the last ones may be smaller."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of blocks along each axis."""
        return tuple(-(-n // own) for n, own in zip(self.shape, self.block, strict=True))

    def __len__(self) -> int:
        return math.prod(self.counts)

    def place(self, index: int) -> tuple[int, ...]:
        """Return the position of a block along each axis."""
        found = []
        for count in reversed(self.counts):
            index, own = divmod(index, count)
            found.append(own)
        return tuple(reversed(found))

    def index(self, place: Sequence[int]) -> int:
        """Return the number of the block at a position."""
        index = 0
        for own, count in zip(place, self.counts, strict=True):
            index = index * count + own
        return index

    def box(self, index: int) -> Box:
        """Return the pixels of a block."""
        edges = zip(self.place(index), self.block, self.shape, strict=True)
        return tuple((own * size, min((own + 1) * size, length)) for own, size, length in edges)


def choose_block(
    shape: Sequence[int],
    unit: Sequence[int],
    memory_of: Callable[[tuple[int, ...]], int],
    most_bytes: int,
) -> tuple[int, ...]:
    """Return the largest block of whole units whose memory is within a limit, at least one unit.

    The block grows by one unit at a time, along the axis that is shortest in pixels, and has at
    most MAX_BLOCK_PX pixels, so that little is lost if a process ends.

    Args:
        unit: Size of a shard, or of a chunk, along each axis.
        memory_of: Function that returns the memory that a block of a size needs.
    """
    block = list(unit)
    open_axes = set(range(len(shape)))
    while open_axes:
        axis = min(open_axes, key=lambda a: block[a])
        larger = [size + unit[axis] * (a == axis) for a, size in enumerate(block)]
        if block[axis] >= shape[axis]:
            open_axes.discard(axis)
        elif math.prod(larger) > MAX_BLOCK_PX or memory_of(tuple(larger)) > most_bytes:
            break
        else:
            block = larger
    return tuple(block)
