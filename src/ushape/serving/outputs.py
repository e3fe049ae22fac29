"""Read an upload and write its prediction in the form that a request names."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from ushape import io
from ushape.data.inputs import Input
from ushape.inference.output import OutputConfig
from ushape.inference.output.writer import PredictionWriter
from ushape.inference.predictor import (
    IN_MEMORY_BYTES,
    MAX_IN_MEMORY_BYTES,
    Predictor,
    PreparedImage,
)
from ushape.inference.streaming import StreamedImage, StreamedPrediction
from ushape.serving.memory import memory_limit_bytes, needed_bytes
from ushape.serving.refusals import Refusal
from ushape.serving.uploads import Upload
from ushape.types import Case, Prediction

Form = Literal["mask", "tiff", "probabilities", "overlay", "geojson", "table", "instances"]
"""Form of an answer: the mask as `ushape predict` writes it or as TIFF, probabilities as TIFF of
float32, the image with outlines as PNG, outlines, a table of objects as CSV, or their numbers."""

KINDS = {"overlay": "overlay", "probabilities": "probabilities", "geojson": "contours",
         "table": "table", "instances": "instances"}  # fmt: skip
"""Kind of output of `OutputConfig` for each form that is not a mask."""

MEDIA_TYPES = {
    ".png": "image/png",
    ".bmp": "image/bmp",
    ".gif": "image/gif",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".csv": "text/csv; charset=utf-8",
    ".geojson": "application/geo+json",
    ".zip": "application/zip",
}
"""Media type by suffix; application/octet-stream for others."""


@dataclass(frozen=True)
class Answer:
    """A file that answers a request."""

    path: Path
    name: str
    """Name for the client's copy."""

    facts: dict[str, str]
    """Facts of the prediction by the name of their header."""

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES.get(io.suffix_of(self.path), "application/octet-stream")


@dataclass(frozen=True)
class Outputs:
    """Reader and writer of the images of requests."""

    predictor: Predictor

    def check_memory(self, path: Path, pixels: int) -> None:
        """Check that an image that cannot be predicted in parts fits into memory.

        Raises:
            Refusal: if it and its probabilities would take more than MAX_SHARE of the memory.
        """
        needed = needed_bytes(self.predictor, pixels)
        if not io.is_read_in_bands(path) and needed > self._memory_limit:
            raise Refusal(
                413,
                "image_too_large",
                f"The image has {pixels} pixels, too many for the memory of the server.",
                "Send it as a TIFF file, which can be predicted in parts.",
            )

    @cached_property
    def _memory_limit(self) -> float:
        return memory_limit_bytes(self.predictor)

    def read(self, upload: Upload, form: Form) -> PreparedImage | StreamedImage:
        """Preprocess an image, or open it if it is predicted in parts.

        Raises:
            DataError: if it cannot be predicted.
        """
        writer = self._writer(upload, form)
        limit = MAX_IN_MEMORY_BYTES if writer.prefers_whole else IN_MEMORY_BYTES
        return self.predictor.preprocess_or_stream(_case_of(upload), (), limit)

    def keeps_distance(self, upload: Upload, form: Form) -> bool:
        """Return whether an image that is predicted in parts needs the numbers of its objects."""
        return self._writer(upload, form).keeps_distance

    def write(
        self, upload: Upload, form: Form, prediction: Prediction | StreamedPrediction
    ) -> Answer:
        """Write the file of an answer into the folder of the upload.

        Raises:
            DataError: if the image is too large for the form.
        """
        writer = self._writer(upload, form)
        image = Input(_case_of(upload), Path(upload.path.name))
        facts = {}
        if isinstance(prediction, StreamedPrediction):
            written = writer.write_streamed(image, prediction)
        else:
            written = writer.write(image, prediction)
            facts["X-Confidence"] = f"{prediction.confidence:.4f}"
            expected = self.predictor.expected_dice(prediction)
            if expected is not None:
                facts["X-Expected-Dice"] = f"{expected:.4f}"
        if written.missing_px:
            facts["X-Missing-Pixels"] = str(written.missing_px)
        assert written.path is not None, "there is a folder"
        mask = written.path
        path = writer.paths.beside(mask, KINDS[form]) if form in KINDS else mask
        ending = path.name.removeprefix(io.stem_of(mask))
        return Answer(path, upload.name + ending, facts)

    def _writer(self, upload: Upload, form: Form) -> PredictionWriter:
        config = OutputConfig(
            folder=upload.path.parent / "result",
            overlay=form == "overlay",
            probabilities="tif" if form == "probabilities" else None,
            probability_type="float32" if form == "probabilities" else None,
            contours="geojson" if form == "geojson" else None,
            table=form == "table",
            instances=form == "instances",
        )
        predictor = self._for_tiff if form == "tiff" else self.predictor
        return PredictionWriter(config, predictor, submission=None, manifest=None)

    @property
    def _for_tiff(self) -> Predictor:
        """The same networks, with masks in TIFF."""
        first, *others = self.predictor.members
        encoding = replace(first.plan.encoding, suffix=".tif")
        first = replace(first, plan=replace(first.plan, encoding=encoding))
        return replace(self.predictor, members=(first, *others))


def pack(answers: Sequence[Answer], path: Path) -> Answer:
    """Write the files of several images into a ZIP file, numbered in the order of the images."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as packed:
        for number, answer in enumerate(answers, start=1):
            packed.write(answer.path, f"{number:02d}_{answer.name}")
            answer.path.unlink()
    return Answer(path, "masks.zip", {})


def _case_of(upload: Upload) -> Case:
    return Case(id="image", image=upload.path)
