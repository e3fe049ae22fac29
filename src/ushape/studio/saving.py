"""Write annotations as masks in the user's encoding, a moment after each edit."""

from __future__ import annotations

import filecmp
import logging
import math
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from ushape import io
from ushape.errors import UshapeError, explained
from ushape.io.files import absolute_path
from ushape.io.orientation import as_stored
from ushape.io.streaming import open_band_writer
from ushape.studio.annotations import Snapshot
from ushape.studio.encoding import MaskTarget

DELAY_S = 0.7
"""Time after an edit at which the mask is written, so that a series of edits is written once."""

RETRY_S = 30
"""Time after which a mask that could not be written is written again."""

LARGE_PX = 1 << 26
"""Number of pixels from which masks are written in strips, in formats that allow it."""

STRIP_ROWS = 512

TIFF = {".tif", ".tiff"}

logger = logging.getLogger("ushape.studio")


def write_annotation(path: Path, snapshot: Snapshot, target: MaskTarget, image: Path) -> None:
    """Write an annotation as a mask file, atomically.

    Args:
        image: Image file, whose position and orientation the mask gets.

    Raises:
        DataError: if the format cannot hold the mask.
    """
    shape, turn = snapshot.annotation.shape, 1
    if target.encoding.orientation == "stored":
        turn = io.read_orientation(image)
    if math.prod(shape) > LARGE_PX and turn == 1:
        _write_in_strips(path, snapshot, target, image)
        return
    codes, encoding = target.codes_of(snapshot.whole())
    if turn != 1:
        codes = as_stored(codes, turn)
    has_tags = {io.suffix_of(one).removeprefix(".ome") for one in (image, path)} <= TIFF
    io.write_mask(path, codes, encoding, io.read(image) if has_tags else image)


def holds_annotation(path: Path, snapshot: Snapshot, target: MaskTarget) -> bool:
    """Return whether a mask file has the content of an annotation, as after `write_annotation`.

    Files of large or turned images are not read.
    """
    shape = snapshot.annotation.shape
    if math.prod(shape) > LARGE_PX:
        return False
    with suppress(UshapeError, OSError):
        return np.array_equal(io.read_mask(path).codes, target.codes_of(snapshot.whole())[0])
    return False


def _write_in_strips(path: Path, snapshot: Snapshot, target: MaskTarget, image: Path) -> None:
    """Write a mask strip by strip; formats that are not written in parts collect the strips."""
    annotation = snapshot.annotation
    is_flat, shape = len(annotation.shape) == 2, annotation.shape
    rest = [(0, size) for size in shape[1:]]
    highest = annotation.next_number if target.are_objects else max(target.space.values)
    if not snapshot.is_complete:
        highest = max(highest, target.ignore)
    encoding = target.encoding_for(highest, is_partial=not snapshot.is_complete)
    height = STRIP_ROWS if is_flat else 1
    with open_band_writer(path, shape, encoding, image) as writer:
        for top in range(0, shape[0], height):
            rows = (top, min(shape[0], top + height))
            labels = snapshot.read([(0, 1), rows, *rest] if is_flat else [rows, *rest])
            codes, _ = target.codes_of(labels[0] if is_flat else labels, encoding)
            writer.write(codes)


def keep_original(mask: Path, folder: Path, root: Path) -> Path:
    """Copy a mask of the user into a folder before it is replaced, and return the copy.

    The same content is copied once.

    Args:
        root: Folder of the data; the copy lies at the same place below `folder`.
    """
    path, root = absolute_path(mask), absolute_path(root)
    below = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
    copy = folder / below
    number = 1
    while copy.exists():
        if filecmp.cmp(mask, copy, shallow=False):
            return copy
        number += 1
        copy = folder / below.with_name(f"{io.stem_of(below)}-{number}{io.suffix_of(below)}")
    copy.parent.mkdir(parents=True, exist_ok=True)
    part = copy.with_name(f".{copy.name}.part")
    shutil.copy2(mask, part)
    part.replace(copy)
    return copy


class Saver:
    """A thread that saves annotations a moment after they change.

    Args:
        save: Function that saves the annotation of an image id; False: it must wait for the user.
    """

    def __init__(self, save: Callable[[str], bool]):
        self._save = save
        self._due: dict[str, float] = {}
        self._waiting: set[str] = set()
        self._failed: dict[str, float] = {}
        self._busy = ""
        self._changed = threading.Condition()
        self._is_closed = False
        self.last_s: float | None = None
        self._errors: dict[str, UshapeError] = {}
        self._thread = threading.Thread(target=self._run, name="ushape-studio-saver", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        """Number of images whose newest annotation is not saved."""
        with self._changed:
            return len({*self._due, *self._failed, *self._waiting} | ({self._busy} - {""}))

    @property
    def error(self) -> UshapeError | None:
        """Reason why an image could not be saved; it is tried again."""
        with self._changed:
            return next(iter(self._errors.values()), None)

    @property
    def waiting(self) -> list[str]:
        """Ids of the images that are not saved before the user decides where."""
        with self._changed:
            return sorted(self._waiting)

    def add(self, image_id: str, delay_s: float = DELAY_S) -> None:
        """Save an image soon."""
        with self._changed:
            self._waiting.discard(image_id)
            self._failed.pop(image_id, None)
            self._due[image_id] = time.monotonic() + delay_s
            self._changed.notify_all()

    def retry(self) -> None:
        """Save the images that waited for the user."""
        for image_id in self.waiting:
            self.add(image_id, 0)

    def flush(self, timeout_s: float = 60) -> None:
        """Save everything that need not wait for the user, now."""
        end = time.monotonic() + timeout_s
        with self._changed:
            self._due = dict.fromkeys([*self._due, *self._failed], 0.0)
            self._failed.clear()
            self._changed.notify_all()
            while (self._due or self._busy) and time.monotonic() < end:
                self._changed.wait(0.05)

    def close(self) -> None:
        """Save everything and end the thread."""
        self.flush()
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(5)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._is_closed:
                    now = time.monotonic()
                    times = {**self._failed, **self._due}
                    ready = [one for one, due in times.items() if due <= now]
                    if ready:
                        break
                    self._changed.wait(min(times.values()) - now if times else None)
                if self._is_closed:
                    return
                self._busy = ready[0]
                self._due.pop(self._busy, None)
                self._failed.pop(self._busy, None)
            self._save_one(self._busy)
            with self._changed:
                self._busy = ""
                self._changed.notify_all()

    def _save_one(self, image_id: str) -> None:
        started, error = time.monotonic(), None
        is_saved = False
        try:
            is_saved = self._save(image_id)
        except UshapeError as known:
            error = known
        except Exception as unknown:
            error = explained(unknown)
            if error is None:
                logger.exception("The mask of image %s was not saved.", image_id)
                error = UshapeError(
                    "A mask could not be saved because of an internal error.",
                    code="mask_not_saved",
                    hint="The edits are kept. See the output of the program for details.",
                )
        with self._changed:
            self._errors.pop(image_id, None)
            if error is not None:
                self._errors[image_id] = error
                self._failed[image_id] = time.monotonic() + RETRY_S
            elif is_saved:
                self.last_s = round(time.monotonic() - started, 3)
            else:
                self._waiting.add(image_id)
