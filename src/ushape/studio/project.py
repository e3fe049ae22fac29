"""A project that is open on the page."""

from __future__ import annotations

from pathlib import Path

from ushape.labels import LabelConfig
from ushape.studio.mask_files import MaskFiles
from ushape.studio.parts import ImageParts
from ushape.studio.predictions import StoredPrediction
from ushape.studio.project_data import ProjectData
from ushape.studio.saving import Saver


class Project(ProjectData):
    """The data, the part of each image, and the masks, which are saved while the user edits.

    It has the arguments of ProjectData, and raises the same errors.
    """

    def __init__(self, data: Path, images: Path | None = None, *, masks: Path | str | None = None):
        super().__init__(data, images, masks=masks)
        self.parts = ImageParts(self)
        self.masks = MaskFiles(self)
        self.masks.remove_leftovers()
        self.saver = Saver(self.masks.save)
        for image_id in self.masks.unsaved():
            self.saver.add(image_id, 0)

    def agree(self) -> None:
        """Record that the masks that wait for a decision may be replaced as they are now."""
        for image_id in self.saver.waiting:
            self.masks.agree(image_id)

    def close(self) -> None:
        """Save everything, and unlock the state folder."""
        self.saver.close()
        super().close()

    def prediction(self, image_id: str) -> StoredPrediction | None:
        """Return the prediction of the newest run that has one; None for test images."""
        if self.parts.of(image_id) == "test":
            return None
        for run in reversed(self.runs.usable()):
            found = StoredPrediction.open(self.runs.predictions_of(run) / image_id)
            if found is not None and found.shape == self.shape(image_id):
                return found
        return None

    def label_config(self) -> LabelConfig:
        """Return the settings with which training reads the masks."""
        left_out = self.settings.removed_classes
        return self.target.label_config(has_partial=self.masks.has_partial, left_out=left_out)
