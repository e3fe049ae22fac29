"""What `predict` prints: notes before it starts, its progress, and what was written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ushape.console import Console, OnProgress
from ushape.data.inputs import Input
from ushape.data.preprocessing import by_group
from ushape.data.slices import describe_missing
from ushape.errors import DataError
from ushape.formatting import pluralize
from ushape.inference.output import OutputConfig
from ushape.inference.output.writer import IMAGES_TABLE, PredictionWriter, Written
from ushape.inference.predictor import Predictor
from ushape.instances.contours import class_styles, drawing_colors
from ushape.io.streaming.slides import describe_slide
from ushape.labels.colors import name_color
from ushape.planning.plan import Plan


def tell_notes(writer: PredictionWriter, console: Console) -> None:
    """Print what to know about the predictions and outputs."""
    for line in writer.predictor.notes:
        console.say(line)
    if writer.adds_instances:
        console.say(
            "Objects: touching objects are joined in the masks, as in the training masks. Object "
            "numbers are written next to the masks, as NAME_instances. To omit them: "
            "--no-instances."
        )


def tell_skipped(count: int, console: Console) -> None:
    """Print how many images are finished, if there are any."""
    if count:
        console.say(f"Skipping {pluralize(count, 'image')} finished by an earlier call.")


def tell_missing_neighbors(predictor: Predictor, inputs: Sequence[Input], console: Console) -> None:
    """Print for how many images the nearest slice replaces a missing neighbor."""
    if not any(member.plan.preprocessing.needs_neighbors for member in predictor.members):
        return
    groups = by_group([image.case for image in inputs])
    if line := describe_missing(list(groups.values())):
        console.say(f"{line} To provide all neighbors, specify the folder of the stack.")


def tell_levels(predictor: Predictor, inputs: Sequence[Input], console: Console) -> None:
    """Print which level of the slides is read for the resolution of the prediction."""
    found: dict[str, list[Path]] = {}
    for path in (image.case.image for image in inputs):
        if predictor.is_slide(path):
            with suppress(DataError):  # It is raised again when the slide is predicted.
                found.setdefault(describe_slide(path, predictor.slide_mpp), []).append(path)
    for text, paths in found.items():
        console.say(f"{_count_and_name(paths)}: {text} (predict.slide_mpp).")


@dataclass
class PredictionSummary:
    """Progress and results of a call."""

    total: int
    on_progress: OnProgress
    done: int = 0
    pixels: int = 0
    started: float = field(default_factory=time.monotonic)
    masks: list[Path] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    with_missing: list[Path] = field(default_factory=list)
    """Images with NaN or infinite pixels."""

    with_cuts: list[Path] = field(default_factory=list)
    """Images whose objects were cut because there was too little memory."""

    gray: list[Path] = field(default_factory=list)
    """Gray images that were predicted by a network for color images."""

    def add(self, image: Input, outcome: Written | DataError) -> None:
        self.done += 1
        if isinstance(outcome, DataError):
            name, message = str(image.case.image), outcome.message
            self.failures.append(message if name in message else f"{name}: {message}")
        else:
            self.masks += [outcome.path] if outcome.path else []
            self.pixels += outcome.pixels
            self.with_missing += [image.case.image] if outcome.missing_px else []
            self.gray += [image.case.image] if outcome.is_gray else []
            self.with_cuts += [image.case.image] if outcome.cut_parts else []
        speed = self.pixels / 1e6 / (time.monotonic() - self.started)
        self.on_progress(self.done, self.total, f"{speed:.1f} Mpixel/s")

    def report(self, writer: PredictionWriter, masks: Sequence[Path], console: Console) -> None:
        """Print what was written.

        Raises:
            DataError: if there were failures.
        """
        config = writer.config
        if self.with_missing:
            console.say(
                "NaN or infinite pixels were replaced by average or extreme values in "
                f"{_count_and_name(self.with_missing)}."
            )
        if self.with_cuts:
            console.say(
                "Warning: objects that extend over more rows than fit into half of the free "
                "memory were cut into pieces with separate numbers in "
                f"{_count_and_name(self.with_cuts)}. To keep them whole, close other programs, or "
                "use a machine with more memory."
            )
        if self.gray:
            console.say(
                "Warning: the model expects color images. Gray values were used for all three "
                f"channels in {_count_and_name(self.gray)}."
            )
        if config.folder is not None:
            console.say(f"{pluralize(len(masks), 'mask')} in {config.folder}")
        if config.overlay and len(writer.predictor.plan.preprocessing.space.values) > 2:
            console.say(f"Colors of the overlays: {_describe_colors(writer.predictor.plan)}.")
        if self.failures:
            listed = "\n".join(f"  {failure}" for failure in self.failures)
            others = "The other masks were written. " if masks else ""
            rows = " Run lengths are written once all images are done." if config.submission else ""
            raise DataError(
                f"{len(self.failures)} of {self.total} images could not be predicted:\n{listed}",
                code="images_failed",
                hint=f"{others}Fix or remove these images, and repeat the call.{rows}",
            )
        if config.part:
            tell_last_call(config, console)
        elif config.submission is not None:
            console.say(f"{pluralize(self.total, 'row')} in {config.submission}")


def tell_last_call(config: OutputConfig, console: Console) -> None:
    """Print what to do after all parts."""
    files = [IMAGES_TABLE] if config.table or config.uncertainty else []
    files += [str(config.submission)] if config.submission else []
    also = f", and writes {' and '.join(files)}" if files else ""
    console.say(
        "When all parts are finished, repeat the command once with --part 1/1: it predicts what is "
        f"missing, and merges the logs of the parts{also}."
    )


def _describe_colors(plan: Plan) -> str:
    """Return the name of each foreground class with its color in pictures."""
    space = plan.preprocessing.space
    colors = drawing_colors(class_styles(space.names, space.values, plan.encoding))
    codes = [red << 16 | green << 8 | blue for red, green, blue in colors]
    return ", ".join(
        f"{name} = {name_color(code)}"
        for name, code in list(zip(space.names, codes, strict=True))[1:]
    )


def _count_and_name(images: Sequence[Path]) -> str:
    more = ", ..." if len(images) > 3 else ""
    return f"{pluralize(len(images), 'image')}: {', '.join(map(str, images[:3]))}{more}"
