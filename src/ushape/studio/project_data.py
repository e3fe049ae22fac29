"""Data of a project: images, annotations, classes, and runs.

Everything is stored in a folder next to the data and written before a request is answered, so that
a server that is killed continues where it was.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path
from typing import Literal

from ushape import config, io
from ushape.errors import DataError, UshapeError
from ushape.formatting import printable
from ushape.io.files import real_path
from ushape.io.lock import locked as folder_locked
from ushape.studio.annotations import Annotation
from ushape.studio.encoding import MaskTarget
from ushape.studio.listing import (
    Listing,
    StudioImage,
    import_mask,
    list_images,
    locate,
    mask_origin,
)
from ushape.studio.meaning import Meaning
from ushape.studio.runs import RunFolders
from ushape.studio.sources import ImageSource, OpenSources
from ushape.studio.stored import Settings, load_saved
from ushape.transforms.overlay import Color

KEPT_IN_MEMORY = 4
"""Number of annotations whose tiles remain unpacked."""


class ProjectData:
    """A data folder that is open on the page.

    Args:
        data: Data folder, table, or run folder.
        images: Folder of additional images.
        masks: Folder or pattern of the masks, as for training.

    Raises:
        DataError: if there are no images, or if the masks cannot be used.
        RunError: if the run is incomplete, or its data are gone.
    """

    def __init__(self, data: Path, images: Path | None = None, *, masks: Path | str | None = None):
        self.place = locate(data, images, masks)
        self.run = self.place.run
        self.kind: Literal["data", "run"] = "data" if self.run is None else "run"
        self.folder = self.place.folder
        self.state = self.place.state
        if not self.folder.is_dir():
            raise DataError(
                f"{self.folder} is not a folder.",
                code="not_a_folder",
                hint="Specify a folder of images, a table, or a run folder.",
            )
        self._owned = ExitStack()
        self._owned.enter_context(folder_locked(self.state))
        self.lock = threading.RLock()
        try:
            self._load()
        except BaseException:
            self._owned.close()
            raise
        self.runs = RunFolders(self.state, self.run, self._note_folder())
        self.sources = OpenSources()
        self._annotations: dict[str, Annotation] = {}
        self._recent: list[str] = []
        self._shapes: dict[str, tuple[int, ...] | None] = {}
        self.version = 0
        self.token = secrets.token_hex(8)
        """Text of this session: another one may show other data at the same addresses."""
        self.problems: list[str] = []
        """What the user must know about annotations that cannot be opened."""
        self._changed_at: dict[str, int] = {}

    def _load(self) -> None:
        """Load the state, and list the images."""
        self.settings = Settings.load(self.state / "project.json")
        self.saved = load_saved(self.state / "saved.json")
        known = None
        if self.settings.meaning is not None:
            source = str(self.state / "project.json")
            known = config.from_dict(Meaning, self.settings.meaning, source=source)
        self.listing: Listing = list_images(self.place, known, self.settings.folders)
        self.settings.folders = self.listing.folders

    def _note_folder(self) -> list[tuple[Path, Path]]:
        """Return the folders in which the data were before, with the one in which they are."""
        own, here = self.settings, real_path(self.folder)
        if own.folder and own.folder != str(here):
            own.former_folders = [own.folder, *own.former_folders]
        own.folder = str(here)
        before = [Path(one) for one in own.former_folders]
        if self.place.former is not None:
            before.append(real_path(self.place.former))
        return [(one, here) for one in before if one != here]

    @property
    def id(self) -> str:
        """Text that differs between projects; it is the same after a restart."""
        path = str(real_path(self.state))
        return hashlib.sha1(path.encode(), usedforsecurity=False).hexdigest()[:16]

    @property
    def images(self) -> dict[str, StudioImage]:
        return self.listing.images

    @property
    def target(self) -> MaskTarget:
        """How masks are written, with the classes as they were changed on the page."""
        target, names = self.listing.meaning.target, self.settings.names
        return target if names is None else target.with_classes(names)

    @property
    def mode(self) -> Literal["classes", "objects"]:
        return "objects" if self.target.are_objects else "classes"

    def class_colors(self) -> list[Color]:
        """Return the color in which each class is shown, background first."""
        found = self.target.colors()
        for index, text in self.settings.colors.items():
            if 0 <= index < len(found):
                code = int(text[1:], 16)
                found[index] = code >> 16, code >> 8 & 255, code & 255
        return found

    def colors(self) -> list[Color]:
        """Return the color of each value of an annotation; none if it numbers objects."""
        return [] if self.target.are_objects else self.class_colors()

    def close(self) -> None:
        """Unlock the state folder."""
        self._owned.close()

    def image(self, image_id: str) -> StudioImage:
        """Return an image.

        Raises:
            KeyError: if there is no image with this id.
        """
        return self.images[image_id]

    def name(self, image_id: str) -> str:
        """Return the path of an image below the folder that contains all images."""
        path = self.image(image_id).case.image.absolute()
        return printable(path.relative_to(self.top).as_posix())

    @cached_property
    def top(self) -> Path:
        """The folder that contains all images."""
        parents = {str(one.case.image.absolute().parent) for one in self.images.values()}
        return Path(os.path.commonpath(parents))

    def source(self, image_id: str) -> ImageSource:
        """Return the open image.

        Raises:
            DataError: if it cannot be read.
        """
        image = self.image(image_id)
        return self.sources.get(image.case, image.stamp)

    def shape(self, image_id: str) -> tuple[int, ...] | None:
        """Return (*S) of an image from its header; None if it cannot be read so."""
        if image_id not in self._shapes:
            found = None
            with suppress(UshapeError, OSError):
                case = self.image(image_id).case
                found = io.read_size(case.image)
                found = self.source(image_id).shape if found is None else found
            self._shapes[image_id] = found
        return self._shapes[image_id]

    def annotation(self, image_id: str) -> Annotation:
        """Return the annotation of an image; the user's mask is imported when it is first opened.

        Raises:
            DataError: if the image or its mask cannot be read.
        """
        with self.lock:
            if image_id not in self._annotations:
                image, space = self.image(image_id), self.listing.meaning.space
                shape = self.shape(image_id) or self.source(image_id).shape
                are_objects = self.target.are_objects
                has_mask = image.mask is not None and space is not None
                self._annotations[image_id] = Annotation(
                    self.annotation_path(image_id),
                    shape,
                    are_objects=are_objects,
                    import_mask=(
                        (lambda: import_mask(image, space, shape, are_objects=are_objects))
                        if has_mask and space is not None
                        else None
                    ),
                    origin=mask_origin(image.mask),
                )
            if image_id in self._recent:
                self._recent.remove(image_id)
            self._recent.append(image_id)
            own, unused = self._annotations[image_id], list[Annotation]()
            while len(self._recent) > KEPT_IN_MEMORY:
                unused.append(self._annotations[self._recent.pop(0)])
        for one in unused:  # Without the lock: this waits for edits of these images.
            one.forget()
        return own

    def known_annotation(self, image_id: str) -> Annotation | None:
        """Return the annotation of an image that was opened before; None for other images."""
        if image_id in self._annotations:
            return self._annotations[image_id]
        if self.annotation_path(image_id).exists():
            with suppress(DataError):
                return self.annotation(image_id)
        return None

    def annotated(self, image_id: str) -> float:
        """Return the share of an image that is annotated, 0 to 1, without importing its mask."""
        if (known := self.known_annotation(image_id)) is not None:
            return known.annotated
        return 1.0 if self.image(image_id).mask is not None else 0.0

    def is_corrected(self, image_id: str) -> bool:
        """Return whether the annotation was edited on the page."""
        known = self.known_annotation(image_id)
        return known is not None and known.revision > 0

    @cached_property
    def files(self) -> dict[str, Path]:
        """The file of each image, with all links resolved."""
        return {one.id: real_path(one.case.image) for one in self.images.values()}

    def store(self) -> None:
        """Write the settings."""
        with self.lock:
            self.settings.store(self.state / "project.json")

    def note_change(self, image_id: str) -> None:
        """Record that an image changed, for pages that ask what did."""
        with self.lock:
            self.version += 1
            self._changed_at[image_id] = self.version

    def note_changes(self, image_ids: Iterable[str]) -> None:
        """Record that several images changed."""
        for image_id in image_ids:
            self.note_change(image_id)

    def changed_since(self, version: int) -> list[str]:
        """Return the ids of the images that changed after a version."""
        with self.lock:
            return [one for one, when in self._changed_at.items() if when > version]

    def annotation_path(self, image_id: str) -> Path:
        """Return the log of the edits of an image; it exists from the first edit."""
        return self.state / "annotations" / f"{image_id}.log"
