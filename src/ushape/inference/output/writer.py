"""What `predict` writes for each image: a mask, and what was asked for beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ushape import io
from ushape.data.discovery import Input
from ushape.data.preprocessing import read_image
from ushape.errors import ConfigError, DataError, RunError
from ushape.formatting import to_csv
from ushape.inference.output import OutputConfig
from ushape.inference.output.instances import write_objects
from ushape.inference.output.manifest import Manifest
from ushape.inference.output.streamed import classes_in_bands, open_mask, open_probabilities
from ushape.inference.predictor import Predictor
from ushape.inference.uncertainty import entropy_map
from ushape.io.files import remove_leftovers, write_bytes
from ushape.io.rle import RowRuns, SubmissionWriter
from ushape.io.streaming import Bands
from ushape.io.streaming.writer import open_probability_writer
from ushape.transforms.overlay import overlay as draw_overlay
from ushape.types import Case, MaskEncoding, Prediction

IMAGES = "images.csv"
"""A row for each image and class."""


class Outputs:
    """Writes predictions. Safe to use from several threads, one image each."""

    def __init__(
        self,
        config: OutputConfig,
        predictor: Predictor,
        submission: SubmissionWriter | None,
        journal: Manifest | None,
    ):
        self.config, self.predictor = config, predictor
        self.submission, self.journal = submission, journal
        self.endings = dict(config.endings)
        if config.uncertainty and predictor.plan.recipe.network.dims == 3:
            self.endings["uncertainty"] = "_uncertainty.tif"

    @classmethod
    @contextmanager
    def open(
        cls,
        config: OutputConfig,
        predictor: Predictor,
        inputs: Sequence[Input],
        made_by: Mapping[str, Any],
    ) -> Iterator[Outputs]:
        """Refuses to overwrite anything before the first image is predicted.

        Args:
            inputs: All that will be predicted.
            made_by: What the outputs depend on: finished ones of an equal call are kept.

        Raises:
            RunError: an output exists, or is one of the images.
            DataError: two images that would share a row of the submission.
        """
        with ExitStack() as stack:
            submission = journal = None
            if config.submission is not None:
                _refuse_what_rows_cannot_hold(predictor)
                _refuse_equal_rows(inputs)
                writer = SubmissionWriter(
                    config.submission, config.order, overwrite=config.overwrite
                )
                submission = stack.enter_context(writer)
            if config.folder is not None:
                kinds = {**config.endings, "submission": str(config.submission or "")}
                if config.probabilities:
                    kinds["numbers"] = config.stored_type
                journal = Manifest(config.folder, {**made_by, "outputs": kinds})
                remove_leftovers(config.folder)
                if config.overwrite:
                    journal.forget()
            outputs = cls(config, predictor, submission, journal)
            outputs._refuse_overwriting(inputs)
            yield outputs
            outputs.write_images(inputs)

    def is_done(self, one: Input) -> bool:
        """An earlier, interrupted call has written all of this image."""
        in_rows = self.submission is None or one.case.image.name in self.submission.done
        in_folder = self.journal is None or self.journal.is_done(one.below, one.case)
        return in_rows and in_folder

    def write(self, prediction: Prediction, one: Input) -> Path | None:
        """All outputs of one image; returns the mask's path."""
        target, rows = self._mask_path(one.below), list[dict[str, Any]]()
        self._begin(one)
        if target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            if self.config.has_objects:
                rows = write_objects(
                    prediction, one.case, self.predictor.plan, self._beside(target)
                )
            self._write_pictures(prediction, one.case, target)
            codes = self.predictor.codes_of(prediction.classes)
            encoding = self.predictor.plan.encoding
            io.write_mask(target, codes, encoding, like=one.case.image)
        if self.submission is not None:
            self.submission.write(one.case.image.name, prediction.classes)
        sure = self._confidence_row(prediction)
        self._note(one, [{**row, **sure} for row in rows or [{}]])
        return target

    def write_bands(self, one: Input, bands: Bands) -> Path | None:
        """Mask, run lengths and probabilities of an image larger than memory; the mask's path.

        Raises:
            DataError: what was asked for needs the whole image.
        """
        if self.config.only_whole:
            raise DataError(
                f"{one.case.image}: too large for {', '.join(self.config.only_whole)}.",
                hint="Masks, and probabilities as tif or zarr, are written in bands; leave the "
                "rest out, or cut the image up.",
            )
        target = self._band_path(one.below)
        if target is not None and target.exists() and not self._may_replace(one):
            raise DataError(
                f"{target} exists.", hint="--overwrite replaces it; or choose another -o."
            )
        self._begin(one)
        runs, image = RowRuns(), one.case.image
        with ExitStack() as stack:
            takers: list[Callable[[np.ndarray], None]] = []
            shares = None
            if self.submission is not None:
                takers.append(runs.add)
            if target is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
                takers.append(open_mask(stack, self.predictor, bands, target, image))
                if self.config.probabilities:
                    path = _beside(target, self.endings["probabilities"])
                    dtype = self.config.stored_type
                    shares = open_probabilities(stack, self.predictor, bands, path, dtype, image)
            room = target.parent if target is not None else None
            for classes in classes_in_bands(stack, self.predictor, bands, shares, room):
                for take in takers:
                    take(classes)
        if self.submission is not None:
            self.submission.write_runs(image.name, runs.text)
        self._note(one, [{}], target)
        return target

    def _write_pictures(self, prediction: Prediction, case: Case, target: Path) -> None:
        config, space = self.config, self.predictor.plan.preprocessing.space
        if config.overlay:
            drawn = draw_overlay(read_image(case), prediction.classes)
            io.write_rgb(_beside(target, self.endings["overlay"]), drawn)
        if config.uncertainty:
            undecided = prediction.disagreement
            if undecided is None:
                undecided = entropy_map(prediction.probabilities, space)
            path = _beside(target, self.endings["uncertainty"])
            levels = np.rint(255 * undecided).astype(np.uint8)
            io.write_mask(path, levels, MaskEncoding(suffix=path.suffix))
        if config.probabilities == "npz":
            path = _beside(target, self.endings["probabilities"])
            io.write_probabilities(
                path, prediction.probabilities, space.channel_names, config.stored_type
            )
        elif config.probabilities:
            path = _beside(target, self.endings["probabilities"])
            whole = prediction.probabilities.shape
            with open_probability_writer(path, whole, config.stored_type, case.image) as writer:
                writer.write(prediction.probabilities)

    def _beside(self, target: Path) -> dict[str, Path]:
        """Files beside a mask, by kind."""
        return {kind: _beside(target, ending) for kind, ending in self.endings.items()}

    def _confidence_row(self, prediction: Prediction) -> dict[str, Any]:
        expected = self.predictor.expected_dice(prediction)
        return {"confidence": round(prediction.confidence, 4), "expected_dice": expected}

    def _begin(self, one: Input) -> None:
        if self.journal is not None:
            self.journal.begin(one.below, one.case)

    def _note(
        self, one: Input, rows: Sequence[Mapping[str, Any]], target: Path | None = None
    ) -> None:
        if self.journal is not None:
            paths = [path for path in self._paths_of(one.below, target) if path.exists()]
            self.journal.finish(one.below, one.case, paths, rows)

    def write_images(self, inputs: Sequence[Input]) -> None:
        """images.csv, if asked for: of this call, and of equal ones that are still there."""
        config = self.config
        if self.journal is None or not (config.table or config.uncertainty):
            return
        rows = self.journal.rows_of([*self.journal.finished, *(one.below for one in inputs)])
        columns = list(dict.fromkeys(key for row in rows for key in row))
        if rows:
            write_bytes(self.journal.folder / IMAGES, to_csv(columns, rows))

    def mask_path(self, one: Input) -> Path | None:
        """Where the mask of an image lies; None where none is written."""
        target, banded = self._mask_path(one.below), self._band_path(one.below)
        if target is not None and not target.exists() and banded is not None and banded.exists():
            return banded
        return target

    def _mask_path(self, below: Path) -> Path | None:
        if self.config.folder is None:
            return None
        suffix = self.predictor.plan.encoding.suffix
        return self.config.folder / below.with_name(io.stem_of(below) + suffix)

    def _band_path(self, below: Path) -> Path | None:
        """As the mask's, in a format that can be written in bands."""
        target = self._mask_path(below)
        if target is None or target.suffix in (".tif", ".npy", ".zarr"):
            return target
        return target.with_suffix(".tif")

    def _paths_of(self, below: Path, target: Path | None = None) -> list[Path]:
        """All files that one image leads to, the mask last."""
        target = target or self._mask_path(below)
        if target is None:
            return []
        return [*(_beside(target, ending) for ending in self.endings.values()), target]

    def _refuse_overwriting(self, inputs: Sequence[Input]) -> None:
        sources = {_without_suffix(one.case.image) for one in inputs}
        owners: dict[Path, Path] = {}
        if self.journal is not None and not (self.journal.is_ours or self.config.overwrite):
            self._refuse_table(self.journal.folder / IMAGES)
        for one in inputs:
            if self.is_done(one):
                continue
            image = one.case.image
            for target in self._paths_of(one.below):
                if _without_suffix(target) in sources:
                    raise RunError(
                        f"{target} would replace an image, or lie beside it under the same name.",
                        hint="Choose another folder with -o.",
                    )
                if owners.setdefault(target, image) != image:
                    raise DataError(
                        f"{owners[target]} and {image} would both be written to {target}.",
                        hint="Rename one of them, or predict them into different folders.",
                    )
                if target.exists() and not self._may_replace(one):
                    raise RunError(
                        f"{target} exists.", hint="--overwrite replaces it; or choose another -o."
                    )

    def _may_replace(self, one: Input) -> bool:
        ours = self.journal is not None and self.journal.may_replace(one.below, one.case)
        return self.config.overwrite or ours

    def _refuse_table(self, path: Path) -> None:
        if (self.config.table or self.config.uncertainty) and path.exists():
            raise RunError(f"{path} exists.", hint="--overwrite replaces it; or choose another -o.")


def _beside(target: Path, ending: str) -> Path:
    return target.with_name(io.stem_of(target) + ending)


def _without_suffix(path: Path) -> Path:
    resolved = path.resolve()
    return resolved.with_name(io.stem_of(resolved))


def _refuse_equal_rows(inputs: Sequence[Input]) -> None:
    """A submission names images without their folders."""
    owners: dict[str, Path] = {}
    for image in (one.case.image for one in inputs):
        first = owners.setdefault(image.name, image)
        if first != image:
            raise DataError(
                f"{first} and {image} would share the row {image.name} of the submission.",
                hint="Rename one of them, or make two submissions.",
            )


def _refuse_what_rows_cannot_hold(predictor: Predictor) -> None:
    classes, dims = predictor.plan.preprocessing.space.scored, predictor.plan.recipe.network.dims
    if len(classes) > 1 or dims == 3:
        kind = "volumes" if dims == 3 else f"{len(classes)} classes"
        raise ConfigError(
            f"Run lengths of {kind}: a row holds one class of one image.",
            hint="Leave --rle out; masks, contours and instances hold them all.",
        )
