"""Write predictions: protect existing files, and continue interrupted calls."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ushape.data.inputs import Input
from ushape.errors import ConfigError, DataError, RunError
from ushape.formatting import to_csv
from ushape.inference.output import OutputConfig
from ushape.inference.output.files import write_dicom_seg, write_files, write_streamed_files
from ushape.inference.output.manifest import Manifest
from ushape.inference.output.paths import (
    OutputPaths,
    endings_of,
    is_possible,
    is_present,
    without_suffix,
)
from ushape.inference.output.streamed_objects import (
    AddRows,
    check_streamed_objects,
    collecting_instances,
    collecting_outlines,
    settings_for_bands,
)
from ushape.inference.output.zarr_labels import (
    CLASSES,
    OBJECTS,
    collecting_labels,
    write_zarr_labels,
    zarr_label_paths,
)
from ushape.inference.predictor import Predictor
from ushape.inference.streaming import StreamedPrediction, count_missing
from ushape.io.files import real_path, refuse_existing_output, remove_leftovers, write_bytes
from ushape.io.names import comparable, tells_names_apart
from ushape.io.orientation import as_stored
from ushape.io.rle import RowRuns, SubmissionWriter
from ushape.io.streaming import Bands
from ushape.io.streaming.ome_labels import read_made_by
from ushape.types import Case, Prediction

IMAGES_TABLE = "images.csv"
"""File with a row for each image and class."""


@dataclass(frozen=True)
class Written:
    """An image whose outputs are complete."""

    path: Path | None
    """Path of the mask; None if no masks are written."""

    pixels: int
    missing_px: int = 0
    """Number of pixels of the image that are NaN or infinite."""

    is_gray: bool = False
    """Whether the only channel of the image was used for all channels of the network."""

    cut_parts: int = 0
    """Number of objects that were cut because memory was short."""


class PredictionWriter:
    """Writes the outputs of each image. Safe to use from several threads, one image each."""

    def __init__(
        self,
        config: OutputConfig,
        predictor: Predictor,
        submission: SubmissionWriter | None,
        manifest: Manifest | None,
    ):
        self.config = config.for_masks(join_objects=predictor.joins_objects)
        self.predictor = predictor
        self.adds_instances = config.instances is None and bool(self.config.instances)
        self.submission, self.manifest = submission, manifest
        self.made_by = manifest.digest if manifest else ""
        self.paths = OutputPaths.of(self.config, predictor)
        self.done: dict[Path, list[str]] = {}
        """Names of the outputs of each image that was finished before, the mask last, below the
        folder."""

    @classmethod
    @contextmanager
    def open(
        cls,
        config: OutputConfig,
        predictor: Predictor,
        inputs: Sequence[Input],
        made_by: Mapping[str, Any],
    ) -> Iterator[PredictionWriter]:
        """Open the outputs, and check that nothing would be overwritten.

        Args:
            inputs: All images that will be predicted.
            made_by: Facts that determine the outputs; finished images of an equal call are kept.

        Raises:
            RunError: if an output exists, or is one of the images.
            DataError: if two images share an output.
            ConfigError: if COCO files are requested for volumes.
        """
        dims = predictor.plan.image_dims
        if config.contours == "coco" and dims == 3:
            raise ConfigError(
                "COCO files cannot describe objects of volumes.",
                code="coco_unsupported",
                hint="Write them with --instances, or slice by slice with --contours geojson.",
            )
        with ExitStack() as stack:
            submission = manifest = None
            if config.submission is not None:
                _check_one_class_in_2d(predictor)
                _check_unique_names(inputs)
                submission = stack.enter_context(
                    SubmissionWriter(
                        config.submission,
                        config.order,
                        overwrite=config.overwrite,
                        part=config.part,
                        names=[image.case.image.name for image in inputs],
                    )
                )
            if config.folder is not None:
                together = [one.case for one in inputs] if predictor.reads_groups else []
                manifest = open_log(config, config.folder, predictor, made_by, together)
                if not config.part:  # Walks over all outputs, so each part would take long.
                    remove_leftovers(config.folder)
                if config.overwrite:
                    manifest.forget()
            writer = cls(config, predictor, submission, manifest)
            writer.done = writer._find_finished(inputs)
            writer._check_nothing_overwritten(inputs)
            if manifest is not None:
                manifest.merge()
            yield writer
            writer.write_images_table(inputs)

    @property
    def only_whole(self) -> list[str]:
        """Requested outputs that need the whole image in memory."""
        return [
            kind
            for kind in self.config.only_whole
            if not (kind == "instances" and self.streams_instances)
            and not (kind == "contours" and self.streams_contours)
        ]

    @property
    def streams_contours(self) -> bool:
        """Whether outlines are written also if an image is larger than memory."""
        return self.config.contours == "geojson" and self.predictor.plan.image_dims == 2

    @property
    def streams_instances(self) -> bool:
        """Whether numbers of objects are written also if an image is larger than memory."""
        return bool(self.config.instances) and not settings_for_bands(self.predictor)

    @property
    def keeps_distance(self) -> bool:
        """Whether outputs of an image larger than memory need the numbers of its objects."""
        return self.config.zarr_labels or self.streams_contours or self.streams_instances

    @property
    def prefers_whole(self) -> bool:
        """Whether an output is lost or refused if an image is not in memory."""
        labels_need_it = self.keeps_distance and bool(settings_for_bands(self.predictor))
        return bool(self.only_whole) or labels_need_it

    def check(self, image: Input) -> None:
        """Check, before an image is predicted, that its outputs can be written.

        Raises:
            DataError: if label images cannot be added to it, or a name is too long.
        """
        self._labels_of(image)
        for path in self.paths.of_image(image.below):
            if not is_possible(path):
                raise DataError(
                    f"{image.case.image}: the name of the output {path.name} is too long.",
                    code="output_name_too_long",
                    hint="Rename the image, or shorten the path of the output folder.",
                )

    def is_done(self, image: Input) -> bool:
        """Return whether an earlier call had written all outputs of this image."""
        return image.below in self.done

    def _find_finished(self, inputs: Sequence[Input]) -> dict[Path, list[str]]:
        found: dict[Path, list[str]] = {}
        for image in inputs:
            if self.submission is None or image.case.image.name in self.submission.done:
                names: list[str] | None = []
                if self.manifest is not None:
                    names = self.manifest.files_if_done(image.below, image.case)
                if names is not None:
                    found[image.below] = names
        return found

    def write(self, image: Input, prediction: Prediction) -> Written:
        """Write all outputs of an image, in the orientation of the training masks."""
        if self.predictor.plan.encoding.orientation == "stored":
            prediction = _as_stored(prediction)
        target, rows = self.paths.mask(image.below), list[dict[str, Any]]()
        self._begin(image)
        if target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            beside = {kind: self.paths.beside(target, kind) for kind in self.paths.endings}
            name = image.below.as_posix()
            if path := beside.get("dicom_seg"):
                write_dicom_seg(path, prediction, self.predictor, image.case.image)
            rows = write_files(prediction, self.predictor, self.config, target, beside, name)
            if self.config.zarr_labels:
                write_zarr_labels(image.case.image, prediction, self.predictor.plan, self.made_by)
        if self.submission is not None:
            self.submission.write(image.case.image.name, prediction.classes)
        confidence = {
            "confidence": round(prediction.confidence, 4),
            "expected_dice": self.predictor.expected_dice(prediction),
        }
        self._finish(image, [{**row, **confidence} for row in rows or [{}]])
        is_gray = prediction.source is not None and prediction.source.is_repeated_gray
        return Written(target, prediction.classes.size, prediction.missing_px, is_gray)

    def write_streamed(self, image: Input, prediction: StreamedPrediction) -> Written:
        """Write mask, run lengths, probabilities and objects of an image larger than memory.

        The image is predicted while its outputs are written, then its file is closed.

        Raises:
            DataError: if an output needs the whole image in memory, or a file exists.
        """
        with prediction.source:
            is_stored = self.predictor.plan.encoding.orientation == "stored"
            if is_stored and prediction.source.orientation != 1:
                raise DataError(
                    f"{image.case.image}: the image is too large to rotate its mask like the "
                    "training masks.",
                    code="image_too_large",
                    hint="Save the image without an orientation tag (EXIF or TIFF).",
                )
            target = self._streamed_target(image)
            self._begin(image)
            probabilities = None
            if target is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
                if self.config.probabilities:
                    probabilities = self.paths.beside(target, "probabilities")
            runs, pixels = RowRuns(), [0]
            with ExitStack() as stack:
                adders = self._open_objects(image, prediction.source, target, stack)

                def add_rows(classes: np.ndarray, numbers: np.ndarray | None) -> None:
                    pixels[0] += classes.size
                    if self.submission is not None:
                        runs.add(classes)
                    for add in adders:
                        add(classes, numbers)

                write_streamed_files(
                    prediction, self.predictor, self.config, target, probabilities, add_rows
                )
            if self.submission is not None:
                self.submission.write_runs(image.case.image.name, runs.text)
            if target is not None:
                self._remove_former(image, target)
            self._finish(image, [{}], target)
            return Written(
                target,
                pixels[0],
                count_missing(prediction.source),
                cut_parts=sum(prediction.cut_parts),
            )

    def _open_objects(
        self, image: Input, source: Bands, target: Path | None, stack: ExitStack
    ) -> list[AddRows]:
        """Open the outputs of objects of an image larger than memory.

        Args:
            target: Path of the mask; None: no mask is written.
            stack: Completes the outputs.

        Returns:
            Functions that receive classes and numbers of objects of rows that follow each other.

        Raises:
            DataError: if objects cannot be numbered band by band.
        """
        if target is None or not self.keeps_distance:
            return []
        path, predictor, folder = image.case.image, self.predictor, target.parent
        check_streamed_objects(path, predictor)
        found = []
        if self.config.zarr_labels:
            shape = source.shape[1:]
            labels = collecting_labels(path, predictor, shape, folder, self.made_by)
            found.append(stack.enter_context(labels))
        if self.streams_instances:
            instances = self.paths.beside(target, "instances")
            found.append(stack.enter_context(collecting_instances(instances, predictor, source)))
        if self.streams_contours:
            contours = self.paths.beside(target, "contours")
            found.append(stack.enter_context(collecting_outlines(contours, predictor, source)))
        return found

    @property
    def writes_images_table(self) -> bool:
        """Whether images.csv is requested. A call for a part of the images does not write it."""
        return (self.config.table or self.config.uncertainty) and not self.config.part

    def write_images_table(self, inputs: Sequence[Input]) -> None:
        """Write images.csv, if requested, for the images of this and earlier equal calls."""
        if self.manifest is None or not self.writes_images_table:
            return
        images = [*self.manifest.finished, *(image.below for image in inputs)]
        rows = self.manifest.rows_of(images)
        columns = list(dict.fromkeys(key for row in rows for key in row))
        if rows:
            write_bytes(self.manifest.folder / IMAGES_TABLE, to_csv(columns, rows))

    def mask_path(self, image: Input) -> Path | None:
        """Return the path of an image's mask; None if no masks are written."""
        if self.config.folder is not None and (names := self.done.get(image.below)):
            return self.config.folder / names[-1]
        return self.paths.present_mask(image.below)

    def outputs_of(self, image: Input) -> list[Path]:
        """Return the paths of all files of an image, the mask last, whether they exist or not."""
        return self.paths.of_image(image.below, self.mask_path(image))

    def _begin(self, image: Input) -> None:
        if self.manifest is not None:
            self.manifest.begin(image.below, image.case)

    def _finish(
        self, image: Input, rows: Sequence[Mapping[str, Any]], target: Path | None = None
    ) -> None:
        if self.manifest is not None:
            paths = [*self._labels_of(image), *self.paths.of_image(image.below, target)]
            paths = [path for path in paths if path.exists()]
            self.manifest.finish(image.below, image.case, paths, rows)

    def _remove_former(self, image: Input, target: Path) -> None:
        """Remove outputs of a former call that an image in bands does not have, which may be
        replaced."""
        former = set(self.paths.of_image(image.below)) - set(
            self.paths.of_image(image.below, target)
        )
        for path in former:
            path.unlink(missing_ok=True)

    def _labels_of(self, image: Input) -> list[Path]:
        """Return the label images of an image; if they cannot be added to it, raise DataError."""
        return zarr_label_paths(image.case.image) if self.config.zarr_labels else []

    def _streamed_target(self, image: Input) -> Path | None:
        """Return the path of a mask in bands, after a check that it may be written."""
        if self.only_whole:
            raise DataError(
                f"{image.case.image}: the image is too large for {', '.join(self.only_whole)}.",
                code="image_too_large",
                hint=self._streamed_outputs_hint(),
            )
        target = self.paths.banded_mask(image.below)
        for path in self.paths.of_image(image.below, target) if target is not None else []:
            if is_present(path) and not self._may_replace(image):
                raise DataError(
                    f"{path} already exists.",
                    code="streamed_output_exists",
                    hint="Choose another folder with -o, or replace it with --overwrite.",
                )
        return target

    def _streamed_outputs_hint(self) -> str:
        """Return which outputs can be written band by band, and how the others are avoided."""
        numbers = "numbers of objects"
        if "instances" in self.only_whole:
            numbers += f" with {' and '.join(settings_for_bands(self.predictor))}"
        return (
            f"Masks, probabilities as tif or zarr, and {numbers} can be written band by band. Omit "
            "the other outputs, or divide the image into smaller ones."
        )

    def refuse_links_to_elsewhere(self, names: Iterable[str]) -> None:
        """Raise RunError if one of the folders below the output is a link that leads out of it."""
        if self.config.folder is None:
            return
        root = real_path(self.config.folder)
        for folder in (self.config.folder / name for name in sorted(names)):
            if not real_path(folder).is_relative_to(root):
                raise RunError(
                    f"{folder} is a link to {real_path(folder)}, outside {self.config.folder}.",
                    code="output_outside",
                    hint="Remove the link, or choose another folder with -o.",
                )

    def _check_nothing_overwritten(self, inputs: Sequence[Input]) -> None:
        left = [image for image in inputs if not self.is_done(image)]
        sources = {without_suffix(image.case.image) for image in inputs} if left else set()
        sources_alike = {comparable(str(source)) for source in sources}
        owners: dict[Path, Path] = {}
        alike: dict[str, Path] = {}
        are_apart = cache(tells_names_apart)
        if self.manifest is not None and not (self.manifest.is_ours or self.config.overwrite):
            writes_table = self.config.table or self.config.uncertainty
            refuse_existing_output(self.manifest.folder / IMAGES_TABLE, not writes_table)
        self.refuse_links_to_elsewhere({os.path.dirname(image.below) for image in inputs})  # noqa: PTH120, much faster
        for image in left:
            path = image.case.image
            for target in self.paths.of_image(image.below):
                stem = without_suffix(target)
                is_alike = comparable(str(stem)) in sources_alike
                if stem in sources or (is_alike and not are_apart(target.parent)):
                    raise RunError(
                        f"{target} would replace an image or have the same name as one.",
                        code="output_is_input",
                        hint="Choose another folder with -o.",
                    )
                if owners.setdefault(target, path) != path:
                    raise DataError(
                        f"{owners[target]} and {path} would both be written to {target}.",
                        code="equal_output_names",
                        hint="Rename one of them, or predict them into different folders.",
                    )
                other = alike.setdefault(comparable(str(target)), target)
                if other != target and not are_apart(target.parent):
                    raise DataError(
                        f"{owners[other]} and {path} would both be written to {target}: this disk "
                        "does not distinguish names by upper and lower case, or by the form of "
                        "their accents.",
                        code="equal_output_names",
                        hint="Rename one of them, or predict them into different folders.",
                    )
                if is_present(target):
                    refuse_existing_output(target, self._may_replace(image))
            with suppress(DataError):  # It is raised again when the image is predicted.
                for label in filter(Path.exists, self._labels_of(image)):
                    is_ours = self._may_replace(image) and read_made_by(label) == self.made_by
                    refuse_existing_output(label, self.config.overwrite or is_ours)

    def _may_replace(self, image: Input) -> bool:
        if self.config.overwrite or self.manifest is None:
            return self.config.overwrite
        return self.manifest.may_replace(image.below, image.case)


def open_log(
    config: OutputConfig,
    folder: Path,
    predictor: Predictor,
    made_by: Mapping[str, Any],
    together: Sequence[Case] = (),
) -> Manifest:
    """Open the log of an output folder.

    Args:
        made_by: Facts that determine the outputs, in addition to the kinds of outputs.
        together: Cases that are read together with the others of their group.
    """
    decided = config.for_masks(join_objects=predictor.joins_objects)
    kinds = {**endings_of(decided, predictor), "submission": str(config.submission or "")}
    if config.probabilities:
        kinds["numbers"] = config.stored_type
    if config.columns != "basic":
        kinds["columns"] = config.columns
    if config.zarr_labels:
        kinds["zarr_labels"] = ",".join((CLASSES, OBJECTS))
    facts = {**made_by, "outputs": kinds}
    return Manifest(folder, facts, together, part=config.part, verify=config.verify)


def _as_stored(prediction: Prediction) -> Prediction:
    """Return a prediction on the stored pixels of an image that EXIF turns."""
    source = prediction.source
    if source is None or source.orientation == 1:
        return prediction
    turn, other = partial(as_stored, orientation=source.orientation), prediction.disagreement
    return replace(
        prediction,
        probabilities=turn(prediction.probabilities),
        classes=turn(prediction.classes),
        disagreement=turn(other) if other is not None else None,
        labels=turn(prediction.labels) if prediction.labels is not None else None,
        source=replace(source, array=turn(source.array)),
    )


def _check_unique_names(inputs: Sequence[Input]) -> None:
    """Raise DataError if two images have one name; a submission names them without folders."""
    owners: dict[str, Path] = {}
    for image in (one.case.image for one in inputs):
        first = owners.setdefault(image.name, image)
        if first != image:
            raise DataError(
                f"{first} and {image} would share the row {image.name} of the submission.",
                code="equal_output_names",
                hint="Rename one of them, or make two submissions.",
            )


def _check_one_class_in_2d(predictor: Predictor) -> None:
    """Raise ConfigError unless predictions have one class in 2D: a row of run lengths holds one."""
    classes, dims = predictor.plan.preprocessing.space.scored, predictor.plan.image_dims
    if len(classes) > 1 or dims == 3:
        kind = "volumes" if dims == 3 else f"{len(classes)} classes"
        raise ConfigError(
            f"Run lengths cannot be written for {kind}: a row holds one class of one image.",
            code="run_lengths_unsupported",
            hint="Omit --rle; masks, contours and instances can represent them.",
        )
