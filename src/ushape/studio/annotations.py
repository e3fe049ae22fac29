"""Annotation of an image: class indices or object numbers in tiles, with a log of all edits.

An edit appends the changed tiles to the log, which is flushed to the disk before the edit is
answered.
"""

from __future__ import annotations

import math
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ushape.errors import DataError
from ushape.formatting import size_text
from ushape.labels import IGNORE
from ushape.studio.edit_log import EditLog, PackedTile, Stored, not_stored
from ushape.studio.tile_grid import Box, Key, Plane, TileGrid, Window, plane_box

CACHE_BYTES = 2**27
"""Memory for unpacked tiles of one annotation."""

COARSE = 8
"""Step from which reduced tiles are kept as well."""

NO_OBJECT = np.iinfo(np.uint32).max
"""Object number of pixels that are not annotated."""


@dataclass
class _Edit:
    """A change that can be undone."""

    edit_id: str
    tool: str = ""
    """Tool by which it was made; "" in files of former versions."""

    before: dict[Key, Stored | None] = field(default_factory=dict)
    after: dict[Key, Stored] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """Result of an edit, an undo or a redo."""

    box: Box | None
    """Tiles that changed, (z, y, x); None if no pixel did."""

    revision: int
    """Revision after the edit."""

    is_repeated: bool = False
    """Whether the edit had been made before, and its answer was lost."""

    tool: str = ""
    """Tool of the edit that was made, undone or redone."""


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

    def whole(self) -> np.ndarray:
        """Return all values, (*S)."""
        return self.read([(0, size) for size in self.annotation.grid.shape]).reshape(
            self.annotation.shape
        )

    def read(self, box: Sequence[tuple[int, int]]) -> np.ndarray:
        """Return the values of a box (z, y, x)."""
        with self.annotation.lock:
            return self.annotation._read(self.tiles, box, 1)


class StaleRevisionError(Exception):
    """The edit was drawn on an earlier version of the annotation.

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
        self.grid = TileGrid.of_image(shape)
        self.are_objects = are_objects
        self.dtype = np.dtype(np.uint32 if are_objects else np.uint8)
        self.unknown = NO_OBJECT if are_objects else IGNORE
        self.lock = threading.RLock()
        self.revision = 0
        self.next_number = 1
        self._tiles: dict[Key, Stored] = {}
        self._edits: list[_Edit] = []
        self._position = 0
        self._cache: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._cached_bytes = 0
        try:
            self._log = EditLog(path)
            found = self._replay()
            if found is None or (found != origin and not self._edits and not self.revision):
                self._begin(import_mask, origin)
                found = origin
        except OSError as error:
            raise not_stored(path, error) from None
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
        return self._known_px / math.prod(self.grid.shape)

    @property
    def is_complete(self) -> bool:
        """Whether every pixel is annotated."""
        return self._known_px == math.prod(self.grid.shape)

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
                self.grid.box_of(key)
                for key, own in self._tiles.items()
                if wanted.intersection(own.numbers)
            ]

    def tile_boxes(self) -> Iterator[tuple[tuple[int, int], ...]]:
        """Yield the boxes (z, y, x) of all tiles of the image."""
        yield from map(self.grid.box_of, self.grid.keys)

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
        for key in self.grid.keys_in(box):
            stored = tiles.get(key)
            if stored is None:
                continue
            target, source = self.grid.places(key, rows)
            if step >= COARSE and all((one % COARSE == 0).all() for one in source[1:]):
                tile = self._unpack(key, stored, COARSE)
                source[1:] = [one // COARSE for one in source[1:]]
            else:
                tile = self._unpack(key, stored, 1)
            found[target] = tile[np.ix_(*source)]
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
        tool: str = "",
    ) -> Change:
        """Store new values of boxes, and return what changed.

        Args:
            revision: Revision on which the edit was drawn.
            edit_id: Text by which a repeated edit is recognized.
            changes: Boxes (z, y, x) and their new values; two boxes do not share a tile.
            tool: Name of the tool, which is reported when the edit is undone.

        Raises:
            StaleRevisionError: if the annotation has another revision.
            DataError: if the file cannot be written.
        """
        with self.lock:
            if (known := self.repeated(revision, edit_id)) is not None:
                return known
            changed = (pair for box, values in changes for pair in self._changed(box, values))
            stored = self._append({"kind": "edit", "id": edit_id, "tool": tool}, changed)
            if not stored:
                return Change(None, self.revision, tool=tool)
            self._apply_edit(edit_id, stored, tool)
            return Change(self.grid.box_around(stored), self.revision, tool=tool)

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
                    hint="All edits of this image have already been undone or redone.",
                )
            self._append({"kind": kind, "id": edit_id}, ())
            changed = self._apply_step(kind, edit_id)
            return Change(self.grid.box_around(changed), self.revision, tool=self._last_tool)

    def repeated(self, revision: int, edit_id: str) -> Change | None:
        """Return the result of the newest edit if it has this id; check the revision otherwise.

        Raises:
            StaleRevisionError: if the annotation has another revision.
        """
        if edit_id and edit_id == self._last_id:
            return Change(None, self.revision, is_repeated=True, tool=self._last_tool)
        if revision != self.revision:
            raise StaleRevisionError(self.revision)
        return None

    def _apply_edit(self, edit_id: str, stored: dict[Key, Stored], tool: str) -> None:
        del self._edits[self._position :]
        before = {key: self._tiles.get(key) for key in stored}
        self._edits.append(_Edit(edit_id, tool, before, stored))
        self._position += 1
        self._tiles.update(stored)
        self._count(edit_id, tool)

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
        self._count(edit_id, edit.tool)
        return dict(edit.after)

    def _count(self, edit_id: str, tool: str) -> None:
        self.revision += 1
        self._last_id, self._last_tool = edit_id, tool

    _last_id = _last_tool = ""

    def _begin(
        self, import_mask: Callable[[], Iterator[tuple[slice, np.ndarray]]] | None, origin: str
    ) -> None:
        """Write the first record: the user's mask, tile by tile, or nothing."""
        self._log.clear()
        self._tiles, self._edits, self._position = {}, [], 0
        self.revision = 0
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
        origin, kept = None, self._kept
        for record, stored in self._log.records():
            self.next_number = max(self.next_number, record.get("next", 1))
            if record["kind"] == "tiles":
                self._tiles.update(stored)
            elif record["kind"] == "base":
                origin, kept = record["origin"], record.get("kept", kept)
            elif record["kind"] == "edit":
                self._apply_edit(record["id"], stored, record.get("tool", ""))
            else:
                self._apply_step(record["kind"], record["id"])
        if kept != self._kept:
            if self.revision:
                raise _of_other_image(self.path, self._kept, kept)
            return None
        self._log.drop_rest()
        return origin

    def _append(
        self, record: dict[str, Any], tiles: Iterable[tuple[Key, np.ndarray]]
    ) -> dict[Key, Stored]:
        """Append a record with tiles to the log; an edit without tiles is left out."""
        packed = [self._pack(key, tile) for key, tile in tiles]
        if record["kind"] == "edit" and not packed:
            return {}  # There is nothing to undo.
        return self._log.append({**record, "next": self.next_number}, packed)

    def _pack(self, key: Key, tile: np.ndarray) -> PackedTile:
        numbers: list[int] = []
        if self.are_objects:
            numbers = [int(n) for n in np.unique(tile) if n not in (0, self.unknown)]
            self.next_number = max([self.next_number, *(n + 1 for n in numbers)])
        known = int((tile != self.unknown).sum())
        return PackedTile(key, zlib.compress(tile.tobytes(), 1), known, numbers)

    def _changed(
        self, box: Sequence[tuple[int, int]], values: np.ndarray
    ) -> Iterator[tuple[Key, np.ndarray]]:
        """Yield the tiles that new values of a box change, changed."""
        for key in self.grid.keys_in(box):
            former = self._whole(key)
            tile = former.copy()
            target, source = self.grid.overlap(key, box)
            tile[target] = values[source]
            if not np.array_equal(tile, former):
                yield key, tile

    def _whole(self, key: Key) -> np.ndarray:
        """Return a tile; tiles at the edges of the image are smaller."""
        stored = self._tiles.get(key)
        if stored is None:
            return np.full(self.grid.shape_of(key), self.unknown, self.dtype)
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
            try:
                values = np.frombuffer(zlib.decompress(self._log.read(stored)), self.dtype)
                tile = values.reshape(self.grid.shape_of(key))
            except (zlib.error, ValueError):
                raise self._log.damaged(stored.offset) from None
        self._cache[name] = tile
        self._cached_bytes += tile.nbytes
        while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return tile


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
        hint="Restore the image or its settings in ushape.yaml, or move the file away and open the "
        "folder again to start from the mask.",
    )
