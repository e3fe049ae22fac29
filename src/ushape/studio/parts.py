"""What the images of a project are used for: training, validation, or the score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ushape.data.layouts.names import key_below
from ushape.errors import DataError
from ushape.io.files import real_path
from ushape.studio.project_data import ProjectData
from ushape.studio.relatives import groups_of_others
from ushape.studio.runs import Part


class ImageParts:
    """The part of each image, which keeps the score honest.

    Images of one group are in one part, and an image that was shown with a prediction, or on which
    a run was trained, can no longer be held out for testing.
    """

    def __init__(self, project: ProjectData):
        self._project = project
        self._known_groups: tuple[dict[Path, str] | None, dict[str, str]] = (None, {})
        self._kept: tuple[tuple[Any, ...], set[str]] = ((), set())

    def of(self, image_id: str) -> Part:
        """Return what an image is used for."""
        project = self._project
        if self.is_test_image(image_id) or image_id in project.settings.apart:
            return "test"
        found = self._part_in_run(image_id)
        if found is not None:
            return found
        return "train" if project.annotated(image_id) > 0 else "new"

    def is_test_image(self, image_id: str) -> bool:
        """Return whether a run or the data keep an image, or another one of its group, for the
        score."""
        if self._is_kept(image_id):
            return True
        if image_id in self._project.settings.apart:
            return False
        group, part = self.groups().get(image_id), self._part_in_run(image_id)
        return group in self._kept_groups() and part not in ("train", "validation")

    def _part_in_run(self, image_id: str) -> Part | None:
        project = self._project
        return project.runs.parts().get(project.files[image_id])

    def _is_kept(self, image_id: str) -> bool:
        project = self._project
        is_stated = (
            project.image(image_id).case.split == "test" or image_id in project.settings.test
        )
        in_run = self._part_in_run(image_id) == "test"
        return is_stated or (in_run and image_id not in project.settings.apart)

    def _kept_groups(self) -> set[str]:
        """Return the groups of the test images."""
        project = self._project
        own, groups = project.settings, self.groups()
        key = (project.runs.parts(), groups, [*own.test], [*own.apart])
        if self._kept[0] != key:
            self._kept = key, {group for one, group in groups.items() if self._is_kept(one)}
        return self._kept[1]

    def locked(self, image_id: str) -> str | None:
        """Return why an image cannot be corrected, in words; None if it can.

        Images that the user holds out for testing can be annotated, but show no prediction.
        """
        if self.is_test_image(image_id):
            return "This is a test image, which cannot be corrected."
        return None

    def note_seen(self, image_id: str) -> None:
        """Record that an image was shown with a prediction, so that it cannot be set apart."""
        project = self._project
        with project.lock:
            if image_id not in project.settings.seen:
                project.settings.seen.append(image_id)
                project.store()

    def set_apart(self, image_id: str, *, apart: bool) -> None:
        """Hold out an image and its group for testing, or use them for training again.

        Raises:
            DataError: if one of them was shown with a prediction or is trained on.
        """
        project = self._project
        with project.lock:
            own, groups, trained = (
                project.settings.apart,
                self.groups(),
                project.runs.trained(),
            )
            group = groups.get(image_id)
            mates = [
                one for one in project.images if one == image_id or group == groups.get(one, one)
            ]
            if apart and image_id not in own and not self.is_test_image(image_id):
                seen = project.settings.seen
                if any(one in seen or project.files[one] in trained for one in mates):
                    raise DataError(
                        "This image, or another one of its group, was used for training or shown "
                        "with a prediction, so its score would be too high.",
                        code="image_not_independent",
                        hint="Choose an image that has not been shown with a prediction.",
                    )
                own += mates
            elif not apart and image_id in own:
                own[:] = [one for one in own if one not in mates]
            project.store()
            project.note_changes(mates)

    def learn_split(self, run: Path) -> None:
        """Remember the test images of a new run, unless some are remembered already."""
        project = self._project
        if project.settings.test:
            return
        parts = project.runs.parts_of(run)
        with project.lock:
            project.settings.test = [
                one.id
                for one in project.images.values()
                if parts.get(real_path(one.case.image)) == "test"
                and one.id not in project.settings.apart
            ]
            project.store()

    def groups(self) -> dict[str, str]:
        """Return the group of each image that has one: a run or the data state it, or other images
        show it."""
        project = self._project
        known = project.runs.groups()
        if self._known_groups[0] is not known:
            found = {
                one.id: one.case.group or known.get(project.files[one.id], "")
                for one in project.images.values()
            }
            keys = {one: key_below(project.image(one).case.image, project.top) for one in found}
            stated = {keys[one]: group for one, group in found.items() if group}
            others = groups_of_others(stated, [keys[one] for one in found if not found[one]])
            found = {one: group or others.get(keys[one], "") for one, group in found.items()}
            self._known_groups = known, {one: group for one, group in found.items() if group}
        return self._known_groups[1]
