"""Annotation of an image: class indices or object numbers in tiles, with a log of all edits.

An edit appends the changed tiles to one file, which is flushed to the disk before the edit is
answered. A process that is killed leaves at most an incomplete record at the end, which is removed
when the file is opened again.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ushape.errors import DataError
from ushape.formatting import reason, size_text
from ushape.labels import IGNORE

Plane = Literal["z", "y", "x"]
Window = tuple[tuple[int, int], tuple[int, int]]
"""First row and the one after the last one, and the same of columns, in a plane."""

FLAT_TILE, DEEP_TILE = (1, 512, 512), (16, 128, 128)
"""Pixels (z, y, x) of a tile of an image and of a volume."""

CACHE_BYTES = 2**27
"""Memory for unpacked tiles of one annotation."""

COARSE = 8
"""Step from which reduced tiles are kept as well."""

NO_OBJECT = np.iinfo(np.uint32).max
"""Object number of pixels that are not annotated."""

RECORD_START = b'{"kind": "'
"""First bytes of each record."""

KINDS = ("tiles", "base", "edit", "undo", "redo")

Key = tuple[int, int, int]


@dataclass(frozen=True)
class Stored:
    """Place of a tile in the file, and what is known of it."""

    offset: int
    length: int
    known_px: int
    """Number of its annotated pixels."""

    numbers: tuple[int, ...] = ()
    """Object numbers in it, without 0."""


@dataclass
class _Edit:
    """A change that can be undone."""

    edit_id: str
    before: dict[Key, Stored | None] = field(default_factory=dict)
    after: dict[Key, Stored] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """Result of an edit, an undo or a redo."""

    box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None
    """Tiles that changed, (z, y, x); None if no pixel did."""

    revision: int
    """Revision after the edit."""

    is_repeated: bool = False
    """Whether the edit had been made before, and its answer was lost."""


@dataclass(frozen=True)
class Snapshot:
    """Values of an annotation at one revision."""

    annotation: Annotation
    revision: int
    is_complete: bool
    """Whether every pixel is annotated."""

    tiles: Mapping[Key, Stored]

    @property
    def is_empty(self) -> bool:
        """Whether no pixel is annotated."""
        return not any(stored.known_px for stored in self.tiles.values())

    def read(self, box: Sequence[tuple[int, int]]) -> np.ndarray:
        """Return the values of a box (z, y, x)."""
        with self.annotation.lock:
            return self.annotation._read(self.tiles, box, 1)


class StaleRevisionError(Exception):
    """The edit was drawn on a former state of the annotation.

    Args:
        revision: The current revision.
    """

    def __init__(self, revision: int):
        super().__init__("The image was changed in another window.")
        self.revision = revision


class Annotation:
    """Annotation of one image. Safe to use from several threads.

    Attributes:
        origin: Text that identifies the mask from which the annotation began.

    Args:
        path: File of the tiles and the log; created if it is missing.
        shape: (*S) of the image.
        are_objects: Whether pixels have object numbers instead of class indices.
        import_mask: Function that yields parts of the user's mask as (box, values) to begin with;
            None if there is no mask, so that no pixel is annotated.
        origin: Text that identifies the user's mask. If it changes before the first edit, the mask
            is imported again.

    Raises:
        DataError: if the file is damaged before its last record, belongs to an image of another
            size, or cannot be written.
    """

    def __init__(
        self,
        path: Path,
        shape: Sequence[int],
        *,
        are_objects: bool = False,
        import_mask: Callable[[], Iterator[tuple[slice, np.ndarray]]] | None = None,
        origin: str = "",
    ):
        self.path, self.shape = path, tuple(shape)
        self.shape3: Key = (1, *self.shape) if len(shape) == 2 else self.shape  # type: ignore[assignment]
        self.tile: Key = FLAT_TILE if len(shape) == 2 else DEEP_TILE
        self.are_objects = are_objects
        self.dtype = np.dtype(np.uint32 if are_objects else np.uint8)
        self.unknown = NO_OBJECT if are_objects else IGNORE
        self.lock = threading.RLock()
        self.revision = 0
        self.next_number = 1
        self._tiles: dict[Key, Stored] = {}
        self._edits: list[_Edit] = []
        self._position = 0
        self._end = 0
        self._cache: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._cached_bytes = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            found = self._replay()
            if found is None or (found != origin and not self._edits and not self.revision):
                self._begin(import_mask, origin)
                found = origin
        except OSError as error:
            raise _not_stored(path, error) from None
        self.origin = found

    def forget(self) -> None:
        """Free the memory of the unpacked tiles."""
        with self.lock:
            self._cache.clear()
            self._cached_bytes = 0

    @property
    def can_undo(self) -> bool:
        return self._position > 0

    @property
    def can_redo(self) -> bool:
        return self._position < len(self._edits)

    @property
    def annotated(self) -> float:
        """Share of the pixels that are annotated, 0 to 1."""
        return self._known_px / math.prod(self.shape3)

    @property
    def is_complete(self) -> bool:
        """Whether every pixel is annotated."""
        return self._known_px == math.prod(self.shape3)

    @property
    def _known_px(self) -> int:
        with self.lock:
            return sum(stored.known_px for stored in self._tiles.values())

    @property
    def object_count(self) -> int:
        """Number of objects, if they are numbered."""
        with self.lock:
            return len({number for stored in self._tiles.values() for number in stored.numbers})

    def boxes_with(self, numbers: Iterable[int]) -> list[tuple[tuple[int, int], ...]]:
        """Return the boxes (z, y, x) of the tiles in which objects have pixels."""
        wanted = set(numbers)
        with self.lock:
            return [
                self.tile_box(key)
                for key, own in self._tiles.items()
                if wanted.intersection(own.numbers)
            ]

    def tile_boxes(self) -> Iterator[tuple[tuple[int, int], ...]]:
        """Yield the boxes (z, y, x) of all tiles of the image."""
        for key in self._keys_in([(0, size) for size in self.shape3]):
            yield self.tile_box(key)

    def tile_box(self, key: Key) -> tuple[tuple[int, int], ...]:
        """Return the box (z, y, x) of a tile."""
        return tuple(
            (number * size, number * size + own)
            for number, size, own in zip(key, self.tile, self._shape_of(key), strict=True)
        )

    def read(self, box: Sequence[tuple[int, int]], step: int = 1) -> np.ndarray:
        """Return the values of a box (z, y, x), every `step`-th along y and x.

        Shapes:
            returns: (z, ceil(y / step), ceil(x / step)), a new array.
        """
        with self.lock:
            return self._read(self._tiles, box, step)

    def snapshot(self) -> Snapshot:
        """Return the current values, which later edits do not change."""
        with self.lock:
            return Snapshot(self, self.revision, self.is_complete, dict(self._tiles))

    def _read(
        self, tiles: Mapping[Key, Stored], box: Sequence[tuple[int, int]], step: int
    ) -> np.ndarray:
        rows = [
            range(first, last, own) for (first, last), own in zip(box, (1, step, step), strict=True)
        ]
        found = np.full([len(one) for one in rows], self.unknown, self.dtype)
        for key in self._keys_in(box):
            stored = tiles.get(key)
            if stored is None:
                continue
            target, source = [], []
            for axis, (number, size) in enumerate(zip(key, self.tile, strict=True)):
                start, own = number * size, rows[axis]
                first = max(0, -(-(start - own.start) // own.step))
                last = min(len(own), max(first, -(-(start + size - own.start) // own.step)))
                target.append(slice(first, last))
                source.append(np.arange(own.start, own.stop, own.step)[first:last] - start)
            if step >= COARSE and all((one % COARSE == 0).all() for one in source[1:]):
                tile = self._unpack(key, stored, COARSE)
                source[1:] = [one // COARSE for one in source[1:]]
            else:
                tile = self._unpack(key, stored, 1)
            found[tuple(target)] = tile[np.ix_(*source)]
        return found

    def read_plane(self, plane: Plane, index: int, window: Window, step: int = 1) -> np.ndarray:
        """Return the values in a window of a plane, (rows, columns), every `step`-th.

        Planes z have the axes (y, x), planes y (z, x) and planes x (z, y).
        """
        box = plane_box(plane, index, window)
        found = self.read(box, step if plane == "z" else 1)
        flat = found.squeeze(axis="zyx".index(plane))
        return flat if plane == "z" else flat[::step, ::step]

    def edit(
        self,
        revision: int,
        edit_id: str,
        changes: Iterable[tuple[Sequence[tuple[int, int]], np.ndarray]],
    ) -> Change:
        """Store new values of boxes, and return what changed.

        Args:
            revision: Revision on which the edit was drawn.
            edit_id: Text by which a repeated edit is recognized.
            changes: Boxes (z, y, x) and their new values; two boxes do not share a tile.

        Raises:
            StaleRevisionError: if the annotation has another revision.
            DataError: if the file cannot be written.
        """
        with self.lock:
            if (known := self.repeated(revision, edit_id)) is not None:
                return known
            changed = (pair for box, values in changes for pair in self._changed(box, values))
            stored = self._append({"kind": "edit", "id": edit_id}, changed)
            if not stored:
                return Change(None, self.revision)
            self._apply_edit(edit_id, stored)
            return Change(self._box_of(stored), self.revision)

    def step(self, revision: int, edit_id: str, kind: Literal["undo", "redo"]) -> Change:
        """Undo or redo one edit.

        Raises:
            StaleRevisionError: if the annotation has another revision.
            DataError: if there is no such edit, or the file cannot be written.
        """
        with self.lock:
            if (known := self.repeated(revision, edit_id)) is not None:
                return known
            if not (self.can_undo if kind == "undo" else self.can_redo):
                raise DataError(
                    f"There is nothing to {kind}.",
                    code="edit_without_effect",
                    hint="All edits of this image are undone or redone.",
                )
            self._append({"kind": kind, "id": edit_id}, ())
            changed = self._apply_step(kind, edit_id)
            return Change(self._box_of(changed), self.revision)

    def repeated(self, revision: int, edit_id: str) -> Change | None:
        """Return the result of the newest edit if it has this id; check the revision otherwise.

        Raises:
            StaleRevisionError: if the annotation has another revision.
        """
        if edit_id and edit_id == self._last_id:
            return Change(None, self.revision, is_repeated=True)
        if revision != self.revision:
            raise StaleRevisionError(self.revision)
        return None

    def _apply_edit(self, edit_id: str, stored: dict[Key, Stored]) -> None:
        del self._edits[self._position :]
        before = {key: self._tiles.get(key) for key in stored}
        self._edits.append(_Edit(edit_id, before, stored))
        self._position += 1
        self._tiles.update(stored)
        self._count(edit_id)

    def _apply_step(self, kind: str, edit_id: str) -> dict[Key, Any]:
        if kind == "undo":
            self._position -= 1
            edit = self._edits[self._position]
            for key, stored in edit.before.items():
                if stored is None:
                    del self._tiles[key]
                else:
                    self._tiles[key] = stored
        else:
            edit = self._edits[self._position]
            self._position += 1
            self._tiles.update(edit.after)
        self._count(edit_id)
        return dict(edit.after)

    def _count(self, edit_id: str) -> None:
        self.revision += 1
        self._last_id = edit_id

    _last_id = ""

    def _begin(
        self, import_mask: Callable[[], Iterator[tuple[slice, np.ndarray]]] | None, origin: str
    ) -> None:
        """Write the first record: the user's mask, tile by tile, or nothing."""
        os.truncate(self.path, 0)
        self._tiles, self._edits, self._position = {}, [], 0
        self._end = self.revision = 0
        for rows, values in import_mask() if import_mask is not None else ():
            box = ((rows.start, rows.stop), *((0, n) for n in self.shape[1:]))
            if len(self.shape) == 2:
                box, values = ((0, 1), *box), values[None]
            self._tiles.update(self._append({"kind": "tiles"}, self._changed(box, values)))
        self._append({"kind": "base", "origin": origin, "kept": self._kept}, ())

    @property
    def _kept(self) -> list[Any]:
        """What the tiles depend on."""
        return [*self.shape, self.dtype.name]

    def _replay(self) -> str | None:
        """Read the log, and return the origin of the first record; None if it is incomplete."""
        size, origin, kept = self.path.stat().st_size, None, self._kept
        with self.path.open("rb") as file:
            while self._end < size:
                line = file.readline()
                record, start = _parse_record(line), self._end + len(line)
                blob = file.read(record["bytes"]) if record is not None else b""
                is_whole = record is not None and zlib.crc32(blob) == record["crc"]
                if record is None or not is_whole or not self._can_apply(record["kind"]):
                    file.seek(self._end + 1)
                    if RECORD_START in file.read():
                        raise _damaged(self.path, self._end)
                    break  # A process that was killed did not complete it.
                self._end = start + len(blob)
                self.next_number = max(self.next_number, record.get("next", 1))
                stored = {
                    (z, y, x): Stored(start + offset, length, known, tuple(numbers))
                    for z, y, x, offset, length, known, numbers in record["tiles"]
                }
                if record["kind"] == "tiles":
                    self._tiles.update(stored)
                elif record["kind"] == "base":
                    origin, kept = record["origin"], record.get("kept", kept)
                elif record["kind"] == "edit":
                    self._apply_edit(record["id"], stored)
                else:
                    self._apply_step(record["kind"], record["id"])
        if kept != self._kept:
            if self.revision:
                raise _of_other_image(self.path, self._kept, kept)
            return None
        if self._end < size:
            os.truncate(self.path, self._end)
        return origin

    def _can_apply(self, kind: str) -> bool:
        if kind == "undo":
            return self.can_undo
        return kind != "redo" or self.can_redo

    def _append(
        self, record: dict[str, Any], tiles: Iterable[tuple[Key, np.ndarray]]
    ) -> dict[Key, Stored]:
        """Append a record with tiles to the file and flush it to the disk."""
        blobs: list[bytes] = []
        rows: list[Any] = []
        offset = 0
        for key, tile in tiles:
            blob = zlib.compress(tile.tobytes(), 1)
            known = int((tile != self.unknown).sum())
            numbers: list[int] = []
            if self.are_objects:
                numbers = [int(n) for n in np.unique(tile) if n not in (0, self.unknown)]
                self.next_number = max([self.next_number, *(n + 1 for n in numbers)])
            rows.append([*key, offset, len(blob), known, numbers])
            blobs.append(blob)
            offset += len(blob)
        if record["kind"] == "edit" and not rows:
            return {}  # There is nothing to undo.
        content = b"".join(blobs)
        record = {
            **record,
            "tiles": rows,
            "next": self.next_number,
            "bytes": len(content),
            "crc": zlib.crc32(content),
        }
        line = json.dumps(record).encode() + b"\n"
        self._write(line + content)
        start = self._end + len(line)
        self._end = start + len(content)
        return {
            (z, y, x): Stored(start + own, length, known, tuple(numbers))
            for z, y, x, own, length, known, numbers in rows
        }

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
            raise _not_stored(self.path, error) from None

    def _changed(
        self, box: Sequence[tuple[int, int]], values: np.ndarray
    ) -> Iterator[tuple[Key, np.ndarray]]:
        """Yield the tiles that new values of a box change, changed."""
        for key in self._keys_in(box):
            former = self._whole(key)
            tile = former.copy()
            target, source = [], []
            for number, size, (first, last) in zip(key, self.tile, box, strict=True):
                start = number * size
                low, high = max(first, start), min(last, start + size)
                target.append(slice(low - start, high - start))
                source.append(slice(low - first, high - first))
            tile[tuple(target)] = values[tuple(source)]
            if not np.array_equal(tile, former):
                yield key, tile

    def _whole(self, key: Key) -> np.ndarray:
        """Return a tile; tiles at the edges of the image are smaller."""
        stored = self._tiles.get(key)
        if stored is None:
            return np.full(self._shape_of(key), self.unknown, self.dtype)
        return self._unpack(key, stored, 1)

    def _unpack(self, key: Key, stored: Stored, step: int) -> np.ndarray:
        """Return a stored tile, or every `step`-th of its pixels, which must not be changed."""
        name = stored.offset, step
        if name in self._cache:
            self._cache.move_to_end(name)
            return self._cache[name]
        if step > 1:
            tile = self._unpack(key, stored, 1)[:, ::step, ::step].copy()
        else:
            with self.path.open("rb") as file:
                file.seek(stored.offset)
                blob = file.read(stored.length)
            try:
                values = np.frombuffer(zlib.decompress(blob), self.dtype)
                tile = values.reshape(self._shape_of(key))
            except (zlib.error, ValueError):
                raise _damaged(self.path, stored.offset) from None
        self._cache[name] = tile
        self._cached_bytes += tile.nbytes
        while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return tile

    def _shape_of(self, key: Key) -> tuple[int, ...]:
        return tuple(
            min(size, whole - number * size)
            for number, size, whole in zip(key, self.tile, self.shape3, strict=True)
        )

    def _keys_in(self, box: Sequence[tuple[int, int]]) -> list[Key]:
        """Return the tiles that a box covers, in part or completely."""
        spans = (
            range(first // size, -(-last // size))
            for (first, last), size in zip(box, self.tile, strict=True)
        )
        return list(itertools.product(*spans))  # type: ignore[arg-type]

    def _box_of(
        self, tiles: dict[Key, Any]
    ) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None:
        if not tiles:
            return None
        keys = np.array(list(tiles))
        low = keys.min(axis=0) * self.tile
        high = np.minimum((keys.max(axis=0) + 1) * self.tile, self.shape3)
        pairs = zip(low.tolist(), high.tolist(), strict=True)
        return tuple(pairs)  # type: ignore[return-value]


def plane_box(plane: Plane, index: int, window: Window) -> tuple[tuple[int, int], ...]:
    """Return the box (z, y, x) of a window of a plane."""
    axes = list[tuple[int, int]](window)
    axes.insert("zyx".index(plane), (index, index + 1))
    return tuple(axes)


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


def _not_stored(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{path} cannot be written: {reason(error)}.",
        code="edit_not_stored",
        hint="The edit was not made. Check the free space and the permissions.",
    )


def _damaged(path: Path, place: int) -> DataError:
    return DataError(
        f"{path}: the stored edits are damaged from byte {place} on.",
        code="damaged_studio_state",
        hint="Restore the file from a copy, or move it away and open the folder again: the "
        "annotation then begins with the mask that was saved last.",
    )


def _of_other_image(path: Path, new: list[Any], former: list[Any]) -> DataError:
    (new_shape, new_kind), (shape, kind) = ((own[:-1], own[-1]) for own in (new, former))
    if shape != new_shape:
        sizes = f"an image of {size_text(shape)} pixels, but it now has {size_text(new_shape)}"
    else:
        kinds = [
            f"number {'objects' if own == 'uint32' else 'classes'}" for own in (kind, new_kind)
        ]
        sizes = f"masks that {kinds[0]}, but they now {kinds[1]}"
    return DataError(
        f"{path}: the stored edits were made on {sizes}.",
        code="annotation_mismatch",
        hint="Restore the image, or its settings in ushape.yaml; or move the file away and open "
        "the folder again, to begin with the mask.",
    )
