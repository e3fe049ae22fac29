"""Mask files of a project: where they are written, when, and which ones may be replaced."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ushape import config
from ushape.errors import DataError
from ushape.io.files import real_path, remove_leftovers
from ushape.studio.annotations import Snapshot
from ushape.studio.listing import mask_origin
from ushape.studio.places import MaskPlaces
from ushape.studio.project_data import ProjectData
from ushape.studio.saving import LARGE_PX, holds_annotation, keep_original, write_annotation
from ushape.studio.stored import SavedMask, store_saved


class MaskFiles:
    """The masks of a project as files, in the user's own encoding.

    A file that the studio did not write, or that was changed since, is replaced only after the user
    has agreed.
    """

    def __init__(self, project: ProjectData):
        self._project = project
        self._places = MaskPlaces(project.listing, project.state)
        self._saved = project.saved
        self._lock = threading.Lock()
        self._agreed: dict[str, str] = {}

    def path(self, image_id: str) -> Path:
        """Return where the annotation of an image is written, as the user decided.

        A mask that the studio has written is written again.
        """
        project = self._project
        image, target = project.image(image_id), project.target
        if target.is_native:
            is_large = image.mask is None and math.prod(project.shape(image_id) or ()) > LARGE_PX
            path = self._places.native(image, is_large=is_large)
            is_kept = project.settings.save == "separate"
            if path is not None and not (is_kept and self._is_foreign(image_id, path)):
                return path
        return self._places.separate(image, target.encoding.suffix)

    def needs_consent(self, image_id: str) -> bool:
        """Return whether saving would replace a file that the user has not agreed to replace."""
        return not self._may_replace(image_id, self.path(image_id))

    def agree(self, image_id: str) -> None:
        """Record that the user agrees to replace the mask of an image as it is now."""
        self._agreed[image_id] = mask_origin(self.path(image_id))

    def save(self, image_id: str) -> bool:
        """Write the annotation of an image as a mask; False if the user must decide first.

        Raises:
            DataError: if the mask cannot be written.
        """
        project = self._project
        with self._lock:
            snapshot, path = project.annotation(image_id).snapshot(), self.path(image_id)
            place, revision = self._place_of(path), snapshot.revision
            saved = self._saved.get(image_id)
            is_known = saved is not None and (saved.revision, saved.path) == (revision, place)
            if is_known and path.exists():
                return True
            if snapshot.is_empty and not snapshot.annotation.origin:
                self._remove_mask(image_id, path)
                return True
            if project.settings.meaning is None:
                project.settings.meaning = config.to_dict(
                    replace(project.listing.meaning, notes=())
                )
                project.store()
            if not self._was_written(image_id, snapshot, path):
                if not self._may_replace(image_id, path):
                    return False
                if self._is_foreign(image_id, path):
                    keep_original(path, project.state / "masks_before_studio", project.folder)
                file = real_path(path)  # A link stays, and the file that it names is written.
                write_annotation(file, snapshot, project.target, project.image(image_id).case.image)
            facts, is_partial = path.stat(), not snapshot.is_complete
            self._saved[image_id] = SavedMask(
                place, revision, facts.st_size, facts.st_mtime_ns, is_partial
            )
            store_saved(project.state / "saved.json", self._saved)
        return True

    def for_training(self, image_id: str) -> Path | None:
        """Return the mask file of an image for training; it is written if it is missing.

        Raises:
            DataError: if the mask cannot be written, or if the user must decide where.
        """
        project = self._project
        image = project.image(image_id)
        if not project.is_corrected(image_id):
            if image.mask is None:
                return None
            if isinstance(image.mask, Path) and project.target.is_native:
                return image.mask
        if not self.save(image_id):
            raise DataError(
                "Some masks are not saved yet.",
                code="save_undecided",
                hint="First decide whether to replace your masks or to save corrected masks "
                "separately.",
            )
        saved = self._saved.get(image_id)
        return project.folder / saved.path if saved is not None else None

    @property
    def has_partial(self) -> bool:
        """Whether a saved mask has pixels that are not annotated."""
        return any(saved.is_partial for saved in list(self._saved.values()))

    def _was_written(self, image_id: str, snapshot: Snapshot, path: Path) -> bool:
        """Return whether the mask was written by a server that was killed before it noted this."""
        is_unknown = mask_origin(path) != snapshot.annotation.origin
        if not is_unknown or not self._is_foreign(image_id, path):
            return False
        return holds_annotation(path, snapshot, self._project.target)

    def _remove_mask(self, image_id: str, path: Path) -> None:
        """Remove the mask of an image of which nothing is annotated any more, if the studio wrote
        it and there was none before."""
        if path.exists() and not self._is_foreign(image_id, path):
            path.unlink()
        if self._saved.pop(image_id, None) is not None:
            store_saved(self._project.state / "saved.json", self._saved)

    def _is_foreign(self, image_id: str, path: Path) -> bool:
        """Return whether a file exists that the studio did not write, or that was changed since."""
        saved = self._saved.get(image_id)
        is_ours = saved is not None and saved.path == self._place_of(path)
        return path.exists() and not (is_ours and saved is not None and saved.is_unchanged(path))

    def _may_replace(self, image_id: str, path: Path) -> bool:
        """Return whether a file may be written: a new one, one of the studio, or one that the user
        agreed to replace and that is the same as then."""
        project = self._project
        if not self._is_foreign(image_id, path):
            return True
        known = project.known_annotation(image_id)
        origins = (known.origin if known is not None else None, self._agreed.get(image_id))
        return project.settings.save is not None and mask_origin(path) in origins

    def _place_of(self, path: Path) -> str:
        """Return the path below the data folder, which may be moved, or the whole path."""
        real, folder = real_path(path), real_path(self._project.folder)
        return str(real.relative_to(folder) if real.is_relative_to(folder) else real)

    def remove_leftovers(self) -> None:
        """Remove what killed processes have not finished writing."""
        project = self._project
        remove_leftovers(project.state)
        for folder in {(project.folder / saved.path).parent for saved in self._saved.values()}:
            remove_leftovers(folder, ".*")

    def unsaved(self) -> Iterator[str]:
        """Yield the images whose mask a killed server had not saved yet.

        Annotations that cannot be opened are added to the problems of the project.
        """
        project = self._project
        for image_id in project.images:
            if not project.annotation_path(image_id).exists():
                continue
            try:
                revision = project.annotation(image_id).revision
            except DataError as error:
                name = project.name(image_id)
                project.problems.append(f"{name}: {error.message} {error.hint}")
                continue
            saved = self._saved.get(image_id)
            if revision and (saved is None or saved.revision != revision):
                yield image_id
