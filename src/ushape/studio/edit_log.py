"""File of an annotation: records of tiles and edits, each flushed to the disk before it counts.

A process that is killed leaves at most an incomplete record at the end, which is removed when the
file is opened again.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ushape.errors import DataError
from ushape.formatting import reason
from ushape.studio.tile_grid import Key

RECORD_START = b'{"kind": "'
"""First bytes of each record."""

KINDS = ("tiles", "base", "edit", "undo", "redo")


@dataclass(frozen=True)
class Stored:
    """Place of a tile in the file, and what is known of it."""

    offset: int
    length: int
    known_px: int
    """Number of its annotated pixels."""

    numbers: tuple[int, ...] = ()
    """Object numbers in it, without 0."""


@dataclass(frozen=True)
class PackedTile:
    """Tile to be stored."""

    key: Key
    content: bytes
    known_px: int
    numbers: Sequence[int] = ()


class EditLog:
    """Records in a file, which is created if it is missing.

    Raises:
        OSError: if the file cannot be created.
    """

    def __init__(self, path: Path):
        self.path = path
        self._end = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def clear(self) -> None:
        """Remove all records."""
        os.truncate(self.path, 0)
        self._end = 0

    def records(self) -> Iterator[tuple[dict[str, Any], dict[Key, Stored]]]:
        """Yield the complete records and the tiles of each, the oldest first.

        Raises:
            DataError: if a record before the last one is damaged.
        """
        size, history = self.path.stat().st_size, _History()
        self._end = 0
        with self.path.open("rb") as file:
            while self._end < size:
                line = file.readline()
                record, start = _parse_record(line), self._end + len(line)
                blob = file.read(record["bytes"]) if record is not None else b""
                is_whole = record is not None and zlib.crc32(blob) == record["crc"]
                if record is None or not is_whole or not history.accepts(record["kind"]):
                    file.seek(self._end + 1)
                    if RECORD_START in file.read():
                        raise self.damaged(self._end)
                    return  # A process that was killed did not complete it.
                self._end = start + len(blob)
                yield record, _tiles_of(record["tiles"], start)

    def drop_rest(self) -> None:
        """Remove what follows the last complete record."""
        if self._end < self.path.stat().st_size:
            os.truncate(self.path, self._end)

    def append(
        self, record: Mapping[str, Any], tiles: Sequence[PackedTile] = ()
    ) -> dict[Key, Stored]:
        """Append a record, and flush it to the disk.

        Raises:
            DataError: if the file cannot be written; it is then as before.
        """
        rows: list[Any] = []
        offset = 0
        for tile in tiles:
            numbers = list(tile.numbers)
            rows.append([*tile.key, offset, len(tile.content), tile.known_px, numbers])
            offset += len(tile.content)
        blob = b"".join(tile.content for tile in tiles)
        facts = {**record, "tiles": rows, "bytes": len(blob), "crc": zlib.crc32(blob)}
        line = json.dumps(facts).encode() + b"\n"
        self._write(line + blob)
        start = self._end + len(line)
        self._end = start + len(blob)
        return _tiles_of(rows, start)

    def read(self, stored: Stored) -> bytes:
        """Return the content of a tile."""
        with self.path.open("rb") as file:
            file.seek(stored.offset)
            return file.read(stored.length)

    def damaged(self, place: int) -> DataError:
        """Return the error for a file that is damaged from a byte on."""
        return DataError(
            f"{self.path}: the stored edits are damaged, starting at byte {place}.",
            code="damaged_studio_state",
            hint="Restore the file from a copy, or move it away and open the folder again: the "
            "annotation then starts from the last saved mask.",
        )

    def _write(self, content: bytes) -> None:
        try:
            with self.path.open("r+b") as file:
                file.seek(self._end)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):
                os.truncate(self.path, self._end)
            raise not_stored(self.path, error) from None


def not_stored(path: Path, error: OSError) -> DataError:
    """Return the error for an annotation that cannot be written."""
    return DataError(
        f"{path} cannot be written: {reason(error)}.",
        code="edit_not_stored",
        hint="The edit was not applied. Check the free space and the permissions.",
    )


@dataclass
class _History:
    """Counts edits, to know which can be undone and redone."""

    position: int = 0
    count: int = 0

    def accepts(self, kind: str) -> bool:
        """Return whether a record can follow the earlier ones, and count it."""
        if kind == "edit":
            self.position += 1
            self.count = self.position
        elif kind == "undo":
            self.position -= 1
        elif kind == "redo":
            self.position += 1
        return 0 <= self.position <= self.count


def _tiles_of(rows: Sequence[Any], start: int) -> dict[Key, Stored]:
    """Return the tiles of a record.

    Args:
        start: Place of the first one in the file.
    """
    return {
        (z, y, x): Stored(start + offset, length, known, tuple(numbers))
        for z, y, x, offset, length, known, numbers in rows
    }


def _parse_record(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line; None if it is incomplete or damaged."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
        needed = {"kind", "crc", "bytes", "tiles"}
        needed |= {"base": {"origin"}, "tiles": set[str]()}.get(record["kind"], {"id"})
        is_whole = needed <= set(record) and record["kind"] in KINDS and record["bytes"] >= 0
        is_whole = is_whole and all(len(row) == 7 for row in record["tiles"])
    except (ValueError, TypeError, KeyError):
        return None
    return record if is_whole else None
