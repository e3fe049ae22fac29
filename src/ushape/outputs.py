"""What `predict` writes for each image: a mask, and what was asked for beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ushape import io
from ushape.errors import DataError, RunError
from ushape.evaluation.figures import overlay as draw_overlay
from ushape.io.rle import Order, SubmissionWriter
from ushape.prediction.predictor import Predictor
from ushape.types import Prediction


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """What is written, and where."""

    folder: Path | None
    """For the masks; None: none are written."""

    overlay: bool = False
    probabilities: bool = False
    submission: Path | None = None
    """A .csv or .csv.gz of run lengths."""

    order: Order = "row"
    """How the run lengths count pixels."""

    overwrite: bool = False


class Outputs:
    """Writes predictions. A row of the submission comes last: where it is, all else is."""

    def __init__(
        self, config: OutputConfig, predictor: Predictor, submission: SubmissionWriter | None
    ):
        self.config, self.predictor, self.submission = config, predictor, submission

    @classmethod
    @contextmanager
    def open(
        cls, config: OutputConfig, predictor: Predictor, images: Sequence[tuple[Path, Path]]
    ) -> Iterator[Outputs]:
        """Refuses to overwrite anything before the first image is predicted.

        Args:
            images: Each image, and its path below the folder that was named.

        Raises:
            RunError: an output exists, or is one of the images.
            DataError: two images that would share a row of the submission.
        """
        with ExitStack() as stack:
            submission = None
            if config.submission is not None:
                _refuse_equal_rows(images)
                writer = SubmissionWriter(
                    config.submission, config.order, overwrite=config.overwrite
                )
                submission = stack.enter_context(writer)
            outputs = cls(config, predictor, submission)
            outputs._refuse_overwriting(images)
            yield outputs

    def is_done(self, image: Path) -> bool:
        """An earlier, interrupted prediction has written this image."""
        return self.submission is not None and image.name in self.submission.done

    def write(self, prediction: Prediction, image: Path, below: Path) -> Path | None:
        """All outputs of one image; returns the mask's path."""
        target = self._mask_path(below)
        if target is not None:
            self._write_mask(prediction, image, target)
        if self.submission is not None:
            self.submission.write(image.name, prediction.classes)
        return target

    def _mask_path(self, below: Path) -> Path | None:
        if self.config.folder is None:
            return None
        return (self.config.folder / below).with_suffix(self.predictor.plan.encoding.suffix)

    def _write_mask(self, prediction: Prediction, image: Path, target: Path) -> None:
        """The mask last: where it exists, what was asked for beside it does."""
        target.parent.mkdir(parents=True, exist_ok=True)
        if self.config.overlay:
            drawn = draw_overlay(io.read(image).array, prediction.classes)
            io.write_rgb(target.with_name(f"{target.stem}_overlay.png"), drawn)
        plan = self.predictor.plan
        if self.config.probabilities:
            names = plan.preparation.space.names
            io.write_probabilities(target.with_suffix(".npz"), prediction.probabilities, names)
        io.write_mask(target, self.predictor.codes_of(prediction), plan.encoding)

    def _refuse_overwriting(self, images: Sequence[tuple[Path, Path]]) -> None:
        sources = {image.resolve().with_suffix("") for image, _ in images}
        for image, below in images:
            target = self._mask_path(below)
            if target is None or self.is_done(image):
                continue
            if target.resolve().with_suffix("") in sources:
                raise RunError(
                    f"{target} would replace an image, or lie beside it under the same name.",
                    hint="Choose another folder with -o.",
                )
            # A submission under way has masks of images that it was killed in.
            is_ours = self.submission is not None and bool(self.submission.done)
            if target.exists() and not (self.config.overwrite or is_ours):
                raise RunError(
                    f"{target} exists.", hint="--overwrite replaces it; or choose another -o."
                )


def _refuse_equal_rows(images: Sequence[tuple[Path, Path]]) -> None:
    """A submission names images without their folders."""
    owners: dict[str, Path] = {}
    for image, _ in images:
        first = owners.setdefault(image.name, image)
        if first != image:
            raise DataError(
                f"{first} and {image} would share the row {image.name} of the submission.",
                hint="Rename one of them, or make two submissions.",
            )
