"""Comparison of the program of a standalone folder with ushape itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ushape import io
from ushape.data.inputs import find_inputs
from ushape.errors import PlanError, RunError, UshapeError
from ushape.inference.output import OutputConfig
from ushape.inference.output.writer import PredictionWriter
from ushape.inference.predictor import Predictor
from ushape.planning.run import Run
from ushape.types import Prediction

COMPARED_IMAGES = 3
"""Number of images that are predicted by both."""

GENERATED_SHAPES = ((96, 128), (131, 77), (200, 64))
"""Size of the images of noise that are compared if the images of the run are not there."""

READ_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".pbm", ".pnm",
    ".tif", ".tiff", ".ome.tif", ".ome.tiff",
)  # fmt: skip
"""Suffixes of the images that the program reads."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Masks of the program compared with those of ushape."""

    images: int
    pixels: int
    are_generated: bool
    """Whether the images were noise, because those of the run are not there."""

    differ_from_default: int
    """Number of pixels that have another class with the default backend of `ushape predict`."""

    @property
    def text(self) -> str:
        kind = "generated images" if self.are_generated else "images of the run"
        return (
            f"Compared on {self.images} {kind}: the masks are identical to those of "
            f"`ushape predict --backend onnx`. With the default backend, "
            f"{self.differ_from_default} of {self.pixels} pixels differ."
        )


def choose_images(run: Run, channels: int, folder: Path) -> tuple[list[Path], bool]:
    """Return test images of a run that the program can read, or images of noise.

    Args:
        folder: Folder for the images of noise.

    Returns:
        The images, and whether they are noise.
    """
    try:
        facts, splits = run.load_cases(), run.load_splits()
    except RunError:  # The data are no longer there.
        facts = []
    else:
        order = (*splits.test, *splits.validation, *splits.train)
        cases = {fact.case.id: fact.case for fact in facts}
        known = [cases[name] for name in order if name in cases]
        paths = [
            case.image
            for case in known
            if not (case.channels or case.box) and case.page is None
            if io.suffix_of(case.image) in READ_SUFFIXES
        ]
        by_name = {io.stem_of(path): path for path in reversed(paths)}
        found = [path for path in paths if by_name[io.stem_of(path)] == path]
        if found:
            return found[:COMPARED_IMAGES], False
    generator, found = np.random.default_rng(0), []
    for number, shape in enumerate(GENERATED_SHAPES):
        picture = generator.integers(0, 256, shape if channels == 1 else (*shape, 3), np.uint8)
        found.append(folder / f"noise_{number}.png")
        io.write_rgb(found[-1], picture)
    return found, True


def compare(
    program: Path, run: Run, predictor: Predictor, default: Predictor, work: Path
) -> Comparison:
    """Predict images of a run with the program and with ushape, and compare the files.

    Args:
        predictor: Computes with the same ONNX files as the program.
        default: Computes with the default backend.
        work: Empty folder for images and masks.

    Raises:
        PlanError: if the program fails, or a file differs.
    """
    images, are_generated = choose_images(run, predictor.plan.preprocessing.channels, work)
    ours, theirs, others = work / "ushape", work / "program", work / "default"
    write_masks(predictor, images, ours)
    write_masks(default, images, others)
    _run_program(program, images, theirs)
    pixels = differ = 0
    for path in sorted(ours.glob("[!.]*")):
        if not _is_equal(path, theirs / path.name):
            raise PlanError(
                f"The standalone program and ushape write different versions of {path.name}.",
                code="export_differs",
                hint="Nothing was written. Please report this with the package versions.",
            )
        if not path.name.endswith("_instances.tif"):
            codes, other = (io.read_mask(one).codes for one in (path, others / path.name))
            pixels += codes.size
            differ += int((codes != other).sum())
    return Comparison(
        images=len(images), pixels=pixels, are_generated=are_generated, differ_from_default=differ
    )


def write_masks(predictor: Predictor, images: Sequence[Path], folder: Path) -> None:
    """Write the masks of images as `ushape predict` does."""
    plan = predictor.plan
    inputs = find_inputs(images, channels=plan.preprocessing.channels, dims=plan.image_dims)
    with PredictionWriter.open(OutputConfig(folder=folder), predictor, inputs, {}) as writer:
        found = predictor.predict_many(image.case for image in inputs)
        for image, (_, prediction) in zip(inputs, found, strict=True):
            if isinstance(prediction, UshapeError):
                raise prediction
            assert isinstance(prediction, Prediction)
            writer.write(image, prediction)


def _run_program(program: Path, images: Sequence[Path], output: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    command = [sys.executable, str(program), *map(str, images), "-o", str(output)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
        raise PlanError(
            f"The standalone program failed: {lines[-1]}.",
            code="export_failed",
            hint="Nothing was written. Please report this with the package versions.",
        )


def _is_equal(path: Path, other: Path) -> bool:
    """Return whether two files are equal; of TIFF, the values and their type."""
    if not other.is_file():
        return False
    if path.read_bytes() == other.read_bytes():
        return True
    if path.suffix not in (".tif", ".tiff"):
        return False
    one, two = io.read_mask(path), io.read_mask(other)
    return one.encoding == two.encoding and bool(np.array_equal(one.codes, two.codes))
