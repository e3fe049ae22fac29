"""Places in the queue and space on the disk that requests reserve before they are received."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from ushape.serving.refusals import disk_full
from ushape.serving.scheduler import Places

SPARE_BYTES = 1 << 28
"""Space on the disk that is left free."""

SPACE_RATIO = 3
"""Space for the images of a request and their predictions, as a multiple of its size."""

STEP_BYTES = 1 << 22
"""Bytes of a request after which the free space is checked again; one that does not specify its
size reserves space for so many at a time."""


@dataclass
class DiskBudget:
    """Counts the space that requests in progress will fill, and refuses those that do not fit."""

    folder: Path
    reserved_bytes: int = field(default=0, init=False)
    """Space that is reserved, but not filled yet."""

    @property
    def free_bytes(self) -> int:
        """Space that may be filled; negative if other programs have filled the spare space."""
        return shutil.disk_usage(self.folder).free - SPARE_BYTES

    def reserve(self, count_bytes: int) -> None:
        """Reserve space.

        Raises:
            Refusal: with status 503 if there is too little.
        """
        if self.reserved_bytes + count_bytes > self.free_bytes:
            raise disk_full()
        self.reserved_bytes += count_bytes

    def release(self, count_bytes: int) -> None:
        """Return reserved space, because it is filled or no longer needed."""
        self.reserved_bytes -= count_bytes

    def check(self) -> None:
        """Raise Refusal if other programs have filled the disk."""
        if self.free_bytes < 0:
            raise disk_full()


@dataclass(eq=False)
class Reservation:
    """What a request needs from its first byte on until its answer is written."""

    places: Places
    disk: DiskBudget
    received_bytes: int = field(default=0, init=False)
    _expected_bytes: int = field(default=0, init=False)
    _checked_bytes: int = field(default=0, init=False)
    """Number of received bytes at the last check of the disk."""

    _reserved_bytes: int = field(default=0, init=False)

    def begin(self, stated_bytes: int) -> None:
        """Reserve a place in the queue, and space.

        Args:
            stated_bytes: Size of the body; 0 if it is unknown.

        Raises:
            Refusal: if the queue or the disk is full.
        """
        self.places.require(1)
        self._expect(stated_bytes or STEP_BYTES)

    async def count(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the parts of a body, each when there is space for it.

        Raises:
            Refusal: if the disk is full.
        """
        async for chunk in chunks:
            self._add(len(chunk))
            yield chunk

    def release(self) -> None:
        """Return everything that is still reserved."""
        self.places.release()
        self._release(self._reserved_bytes)

    def _add(self, count_bytes: int) -> None:
        self.received_bytes += count_bytes
        if self.received_bytes > self._expected_bytes:
            self._expect(max(STEP_BYTES, self.received_bytes - self._expected_bytes))
        if self.received_bytes - self._checked_bytes >= STEP_BYTES:
            self.disk.check()
            self._checked_bytes = self.received_bytes
        # Written to the disk with a delay of less than WRITTEN_BYTES, which the spare space covers.
        self._release(count_bytes)

    def _expect(self, more_bytes: int) -> None:
        self.disk.reserve(SPACE_RATIO * more_bytes)
        self._reserved_bytes += SPACE_RATIO * more_bytes
        self._expected_bytes += more_bytes

    def _release(self, count_bytes: int) -> None:
        self.disk.release(count_bytes)
        self._reserved_bytes -= count_bytes
