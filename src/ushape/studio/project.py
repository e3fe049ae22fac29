"""State of a project: images, annotations, classes, runs, and what is kept for the score.

Everything is stored in a folder beside the data and written before a request is answered, so that
a server that is killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import math
import os
import secrets
import threading
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ushape import config, io
from ushape.data.layouts.names import key_below
from ushape.errors import DataError, UshapeError
from ushape.formatting import printable
from ushape.io.files import real_path, remove_leftovers
from ushape.io.lock import locked as folder_locked
from ushape.labels import LabelConfig
from ushape.studio.annotations import Annotation, Snapshot
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
from ushape.studio.places import MaskPlaces
from ushape.studio.predictions import StoredPrediction
from ushape.studio.relatives import groups_of_others
from ushape.studio.runs import Part, RunFolders
from ushape.studio.saving import (
    LARGE_PX,
    Saver,
    holds_annotation,
    keep_original,
    write_annotation,
)
from ushape.studio.sources import ImageSource, OpenSources
from ushape.studio.stored import SavedMask, Settings, load_saved, store_saved
from ushape.transforms.overlay import Color

KEPT_IN_MEMORY = 4
"""Number of annotations whose tiles remain unpacked."""


class Project:
    """A data folder that is open on the page.

    Args:
        data: Data folder, table, or run folder.
        images: Folder of further images.
        masks: Folder or pattern of the masks, as for a training.

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
                hint="Name a folder of images, a table of them, or a run folder.",
            )
        self._owned = ExitStack()
        self._owned.enter_context(folder_locked(self.state))
        self.lock = threading.RLock()
        self._saving = threading.Lock()
        try:
            self._load()
        except BaseException:
            self._owned.close()
            raise
        self.runs = RunFolders(self.state, self.run, self._note_folder())
        self.sources = OpenSources()
        self._mask_places = MaskPlaces(self.listing, self.state)
        self._agreed: dict[str, str] = {}
        self._annotations: dict[str, Annotation] = {}
        self._recent: list[str] = []
        self._groups: tuple[dict[Path, str] | None, dict[str, str]] = (None, {})
        self._kept: tuple[tuple[Any, ...], set[str]] = ((), set())
        self._shapes: dict[str, tuple[int, ...] | None] = {}
        self.version = 0
        self.token = secrets.token_hex(8)
        """Text of this session: another one may show other data at the same addresses."""
        self.problems: list[str] = []
        """What the user must know about annotations that cannot be opened."""
        self._changed_at: dict[str, int] = {}
        self._remove_leftovers()
        self.saver = Saver(self.save_annotation)
        self._resume_saving()

    def _load(self) -> None:
        """Load the state, and list the images."""
        self.settings = Settings.load(self.state / "project.json")
        self._saved = load_saved(self.state / "saved.json")
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
        """Save everything, and give the state folder free."""
        self.saver.close()
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
        return printable(path.relative_to(self._top).as_posix())

    @cached_property
    def _top(self) -> Path:
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
                    self._annotation_path(image_id),
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
        if self._annotation_path(image_id).exists():
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

    def part(self, image_id: str) -> Part:
        """Return what an image is used for."""
        if self.is_test_image(image_id) or image_id in self.settings.apart:
            return "test"
        found = self._part_in_run(image_id)
        if found is not None:
            return found
        return "train" if self.annotated(image_id) > 0 else "new"

    def is_test_image(self, image_id: str) -> bool:
        """Return whether a run or the data keep an image, or another one of its group, for the
        score."""
        if self._is_kept(image_id):
            return True
        if image_id in self.settings.apart:
            return False
        group, part = self.groups().get(image_id), self._part_in_run(image_id)
        return group in self._kept_groups() and part not in ("train", "validation")

    def _part_in_run(self, image_id: str) -> Part | None:
        return self.runs.parts().get(self._files[image_id])

    def _is_kept(self, image_id: str) -> bool:
        is_stated = self.image(image_id).case.split == "test" or image_id in self.settings.test
        in_run = self._part_in_run(image_id) == "test"
        return is_stated or (in_run and image_id not in self.settings.apart)

    def _kept_groups(self) -> set[str]:
        """Return the groups of the test images."""
        own, groups = self.settings, self.groups()
        key = (self.runs.parts(), groups, [*own.test], [*own.apart])
        if self._kept[0] != key:
            self._kept = key, {group for one, group in groups.items() if self._is_kept(one)}
        return self._kept[1]

    @cached_property
    def _files(self) -> dict[str, Path]:
        return {one.id: real_path(one.case.image) for one in self.images.values()}

    def locked(self, image_id: str) -> str | None:
        """Return why an image cannot be corrected, in words; None if it can.

        Images that the user keeps for the score can be annotated, but show no prediction.
        """
        if self.is_test_image(image_id):
            return "This is a test image: it is kept for the score and is not corrected."
        return None

    def prediction(self, image_id: str) -> StoredPrediction | None:
        """Return the prediction of the newest run that has one; None for test images."""
        if self.part(image_id) == "test":
            return None
        for run in reversed(self.runs.usable()):
            found = StoredPrediction.open(self.runs.predictions_of(run) / image_id)
            if found is not None and found.shape == self.shape(image_id):
                return found
        return None

    def note_seen(self, image_id: str) -> None:
        """Record that an image was shown with a prediction, so that it cannot be set apart."""
        with self.lock:
            if image_id not in self.settings.seen:
                self.settings.seen.append(image_id)
                self.store()

    def set_apart(self, image_id: str, *, apart: bool) -> None:
        """Keep an image and its group for the score, or give them back.

        Raises:
            DataError: if one of them was shown with a prediction or is trained on.
        """
        with self.lock:
            own, groups, trained = self.settings.apart, self.groups(), self.runs.trained()
            group = groups.get(image_id)
            mates = [one for one in self.images if one == image_id or group == groups.get(one, one)]
            if apart and image_id not in own and not self.is_test_image(image_id):
                seen = self.settings.seen
                if any(one in seen or self._files[one] in trained for one in mates):
                    raise DataError(
                        "The image, or another one of its group, was trained on, or shown with a "
                        "prediction, so a score on it would be too good.",
                        code="image_not_independent",
                        hint="Set an image apart that was not shown yet.",
                    )
                own += mates
            elif not apart and image_id in own:
                own[:] = [one for one in own if one not in mates]
            self.store()
            self.note_changes(mates)

    def learn_split(self, run: Path) -> None:
        """Remember the test images of a new run, unless some are remembered already."""
        if self.settings.test:
            return
        parts = self.runs.parts_of(run)
        with self.lock:
            self.settings.test = [
                one.id
                for one in self.images.values()
                if parts.get(real_path(one.case.image)) == "test"
                and one.id not in self.settings.apart
            ]
            self.store()

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

    def mask_path(self, image_id: str) -> Path:
        """Return where the annotation of an image is written, as the user decided.

        A mask that the studio has written is written again.
        """
        image, target = self.image(image_id), self.target
        if target.is_native:
            is_large = image.mask is None and math.prod(self.shape(image_id) or ()) > LARGE_PX
            path = self._mask_places.native(image, is_large=is_large)
            is_kept = self.settings.save == "separate"
            if path is not None and not (is_kept and self._is_foreign(image_id, path)):
                return path
        return self._mask_places.separate(image, target.encoding.suffix)

    def needs_consent(self, image_id: str) -> bool:
        """Return whether saving would replace a file that the user has not agreed to replace."""
        return not self._may_replace(image_id, self.mask_path(image_id))

    def agree(self) -> None:
        """Record that the masks that wait for a decision may be replaced as they are now."""
        for image_id in self.saver.waiting:
            self._agreed[image_id] = mask_origin(self.mask_path(image_id))

    def save_annotation(self, image_id: str) -> bool:
        """Write the annotation of an image as a mask; False if the user must decide first.

        Raises:
            DataError: if the mask cannot be written.
        """
        with self._saving:
            snapshot, path = self.annotation(image_id).snapshot(), self.mask_path(image_id)
            place, revision = self._place_of(path), snapshot.revision
            saved = self._saved.get(image_id)
            is_known = saved is not None and (saved.revision, saved.path) == (revision, place)
            if is_known and path.exists():
                return True
            if snapshot.is_empty and not snapshot.annotation.origin:
                self._remove_mask(image_id, path)
                return True
            if self.settings.meaning is None:
                self.settings.meaning = config.to_dict(replace(self.listing.meaning, notes=()))
                self.store()
            if not self._was_written(image_id, snapshot, path):
                if not self._may_replace(image_id, path):
                    return False
                if self._is_foreign(image_id, path):
                    keep_original(path, self.state / "masks_before_studio", self.folder)
                file = real_path(path)  # A link stays, and the file that it names is written.
                write_annotation(file, snapshot, self.target, self.image(image_id).case.image)
            facts, is_partial = path.stat(), not snapshot.is_complete
            self._saved[image_id] = SavedMask(
                place, revision, facts.st_size, facts.st_mtime_ns, is_partial
            )
            store_saved(self.state / "saved.json", self._saved)
        return True

    def _was_written(self, image_id: str, snapshot: Snapshot, path: Path) -> bool:
        """Return whether the mask was written by a server that was killed before it noted this."""
        is_unknown = mask_origin(path) != snapshot.annotation.origin
        if not is_unknown or not self._is_foreign(image_id, path):
            return False
        return holds_annotation(path, snapshot, self.target)

    def _remove_mask(self, image_id: str, path: Path) -> None:
        """Remove the mask of an image of which nothing is annotated any more, if the studio wrote
        it and there was none before."""
        if path.exists() and not self._is_foreign(image_id, path):
            path.unlink()
        if self._saved.pop(image_id, None) is not None:
            store_saved(self.state / "saved.json", self._saved)

    def training_mask(self, image_id: str) -> Path | None:
        """Return the mask file of an image for a training; it is written if it is missing.

        Raises:
            DataError: if the mask cannot be written, or if the user must decide where.
        """
        image = self.image(image_id)
        if not self.is_corrected(image_id):
            if image.mask is None:
                return None
            if isinstance(image.mask, Path) and self.target.is_native:
                return image.mask
        if not self.save_annotation(image_id):
            raise DataError(
                "Some masks are not saved yet.",
                code="save_undecided",
                hint="Decide first whether your masks are replaced, or corrected masks are saved "
                "separately.",
            )
        saved = self._saved.get(image_id)
        return self.folder / saved.path if saved is not None else None

    @property
    def has_partial(self) -> bool:
        """Whether a saved mask has pixels that are not annotated."""
        return any(saved.is_partial for saved in list(self._saved.values()))

    def label_config(self) -> LabelConfig:
        """Return the settings by which a training reads the masks."""
        left_out = self.settings.removed_classes
        return self.target.label_config(has_partial=self.has_partial, left_out=left_out)

    def groups(self) -> dict[str, str]:
        """Return the group of each image that has one: a run or the data state it, or other images
        show it."""
        known = self.runs.groups()
        if self._groups[0] is not known:
            found = {
                one.id: one.case.group or known.get(self._files[one.id], "")
                for one in self.images.values()
            }
            keys = {one: key_below(self.image(one).case.image, self._top) for one in found}
            stated = {keys[one]: group for one, group in found.items() if group}
            others = groups_of_others(stated, [keys[one] for one in found if not found[one]])
            found = {one: group or others.get(keys[one], "") for one, group in found.items()}
            self._groups = known, {one: group for one, group in found.items() if group}
        return self._groups[1]

    def _is_foreign(self, image_id: str, path: Path) -> bool:
        """Return whether a file exists that the studio did not write, or that was changed since."""
        saved = self._saved.get(image_id)
        is_ours = saved is not None and saved.path == self._place_of(path)
        return path.exists() and not (is_ours and saved is not None and saved.is_unchanged(path))

    def _may_replace(self, image_id: str, path: Path) -> bool:
        """Return whether a file may be written: a new one, one of the studio, or one that the user
        agreed to replace and that is the same as then."""
        if not self._is_foreign(image_id, path):
            return True
        known = self.known_annotation(image_id)
        origins = (known.origin if known is not None else None, self._agreed.get(image_id))
        return self.settings.save is not None and mask_origin(path) in origins

    def _place_of(self, path: Path) -> str:
        """Return the path below the data folder, which may be moved, or the whole path."""
        real, folder = real_path(path), real_path(self.folder)
        return str(real.relative_to(folder) if real.is_relative_to(folder) else real)

    def _annotation_path(self, image_id: str) -> Path:
        return self.state / "annotations" / f"{image_id}.log"

    def _remove_leftovers(self) -> None:
        """Remove what killed processes have not finished writing."""
        remove_leftovers(self.state)
        for folder in {(self.folder / saved.path).parent for saved in self._saved.values()}:
            remove_leftovers(folder, ".*")

    def _resume_saving(self) -> None:
        """Save what a killed server had not saved yet."""
        for image_id in self.images:
            if not self._annotation_path(image_id).exists():
                continue
            try:
                revision = self.annotation(image_id).revision
            except DataError as error:
                self.problems.append(f"{self.name(image_id)}: {error.message} {error.hint}")
                continue
            saved = self._saved.get(image_id)
            if revision and (saved is None or saved.revision != revision):
                self.saver.add(image_id, 0)
