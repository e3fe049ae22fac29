"""What `predict` writes for each image: a mask, and what was asked for beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ushape import io
from ushape.data.inputs import Input
from ushape.data.prepare import read_image
from ushape.errors import ConfigError, DataError, RunError
from ushape.evaluation.figures import overlay as draw_overlay
from ushape.io.rle import Order, SubmissionWriter
from ushape.prediction.predictor import Predictor
from ushape.types import Case, Prediction


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """What is written, and where.

    Raises:
        ConfigError: nowhere to write to; pictures or probabilities without a folder for them.
    """

    folder: Path | None
    """For the masks; None: none are written."""

    overlay: bool = False
    """Also NAME_overlay.png beside each mask."""

    probabilities: bool = False
    """Also NAME.npz beside each mask."""

    submission: Path | None = None
    """A .csv or .csv.gz of run lengths."""

    order: Order = "row"
    """How the run lengths count pixels."""

    overwrite: bool = False
    """Replace what exists."""

    def __post_init__(self) -> None:
        if self.folder is None and self.submission is None:
            raise ConfigError("Where shall the masks go?", hint="Name a folder with -o.")
        if self.folder is None and (self.overlay or self.probabilities):
            raise ConfigError(
                "Overlays and probabilities lie beside the masks, and no folder is named.",
                hint="Name one with -o; --rle alone writes run lengths only.",
            )


class Outputs:
    """Writes predictions. A row of the submission comes last: where it is, all else is."""

    def __init__(
        self, config: OutputConfig, predictor: Predictor, submission: SubmissionWriter | None
    ):
        self.config, self.predictor, self.submission = config, predictor, submission

    @classmethod
    @contextmanager
    def open(
        cls, config: OutputConfig, predictor: Predictor, inputs: Sequence[Input]
    ) -> Iterator[Outputs]:
        """Refuses to overwrite anything before the first image is predicted.

        Args:
            inputs: All that will be predicted.

        Raises:
            RunError: an output exists, or is one of the images.
            DataError: two images that would share a row of the submission.
        """
        with ExitStack() as stack:
            submission = None
            if config.submission is not None:
                _refuse_equal_rows(inputs)
                writer = SubmissionWriter(
                    config.submission, config.order, overwrite=config.overwrite
                )
                submission = stack.enter_context(writer)
            outputs = cls(config, predictor, submission)
            outputs._refuse_overwriting(inputs)
            yield outputs

    def is_done(self, one: Input) -> bool:
        """An earlier, interrupted prediction has written this image."""
        return self.submission is not None and one.case.image.name in self.submission.done

    def write(self, prediction: Prediction, one: Input) -> Path | None:
        """All outputs of one image; returns the mask's path."""
        target = self._mask_path(one.below)
        if target is not None:
            self._write_mask(prediction, one.case, target)
        if self.submission is not None:
            self.submission.write(one.case.image.name, prediction.classes)
        return target

    def _mask_path(self, below: Path) -> Path | None:
        if self.config.folder is None:
            return None
        suffix = self.predictor.plan.encoding.suffix
        return self.config.folder / below.with_name(io.stem_of(below) + suffix)

    def _paths_of(self, below: Path) -> list[Path]:
        """All files that one image leads to, the mask last."""
        target = self._mask_path(below)
        if target is None:
            return []
        beside = [_beside(target, "_overlay.png")] if self.config.overlay else []
        beside += [_beside(target, ".npz")] if self.config.probabilities else []
        return [*beside, target]

    def _write_mask(self, prediction: Prediction, case: Case, target: Path) -> None:
        """The mask last: where it exists, what was asked for beside it does."""
        target.parent.mkdir(parents=True, exist_ok=True)
        plan = self.predictor.plan
        if self.config.overlay:
            drawn = draw_overlay(read_image(case), prediction.classes)
            io.write_rgb(_beside(target, "_overlay.png"), drawn)
        if self.config.probabilities:
            names = plan.preparation.space.channel_names
            path = _beside(target, ".npz")
            io.write_probabilities(path, prediction.probabilities, names)
        io.write_mask(target, self.predictor.codes_of(prediction), plan.encoding, like=case.image)

    def _refuse_overwriting(self, inputs: Sequence[Input]) -> None:
        sources = {_without_suffix(one.case.image) for one in inputs}
        owners: dict[Path, Path] = {}
        # A submission under way has masks of images that it was killed in.
        may_exist = self.config.overwrite or bool(self.submission and self.submission.done)
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
                if target.exists() and not may_exist:
                    raise RunError(
                        f"{target} exists.", hint="--overwrite replaces it; or choose another -o."
                    )


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
