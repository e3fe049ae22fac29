"""Comparison of an exported graph with the pipeline of `ushape predict`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ushape.data.reading import read_image
from ushape.errors import DataError, PlanError, RunError
from ushape.export.graph import ExportSource, SegmentationGraph
from ushape.formatting import pluralize
from ushape.inference.decision_rule import apply_rule
from ushape.labels import LabelSpace
from ushape.planning.run import Run
from ushape.types import Prediction, select_cases

TOLERANCE = 1e-3
"""Largest difference of a probability; a graph that differs more is not written."""

RUN_IMAGES = 5
"""Largest number of images of the run that are compared."""

LARGEST_SHAPE = {2: (1024, 1024), 3: (48, 160, 160)}
"""Size by number of axes to which the images of the run are cut for the comparison."""

GENERATED = {
    2: ((3, (61, 94)), (1, (64, 64)), (2, (240, 330))),
    3: ((3, (13, 30, 22)), (1, (16, 32, 32)), (2, (12, 60, 66))),
}
"""Numbers and sizes of the generated images by number of axes: such that must be padded, such that
need not, and such of which only some pixels are measured."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Result of a comparison of an exported graph with ushape."""

    images: int
    """Number of compared images."""

    of_run: int
    """Number of compared images that are images of the run, test images if it has any."""

    shapes: tuple[tuple[int, ...], ...]
    """Shapes (B, C, *S) of the inputs of the graph."""

    largest_difference: float
    """Largest difference of a probability. Of a graph that returns masks: the largest distance of a
    changed pixel from the threshold."""

    changed_pixels: int
    """Number of pixels for which another class is decided."""

    pixels: int
    """Number of pixels of all images."""

    @property
    def text(self) -> str:
        """The result as a sentence."""
        own = f", {self.of_run} of them from the data of the run" if self.of_run else ""
        batches = max(shape[0] for shape in self.shapes)
        return (
            "Compared with ushape predict without tiling and in float32 on "
            f"{pluralize(self.images, 'image')}{own} (batches of 1 to {batches}, "
            f"{pluralize(len({one[2:] for one in self.shapes}), 'size')}): largest "
            f"difference in probability {self.largest_difference:.2g}, {self.changed_pixels} of "
            f"{pluralize(self.pixels, 'pixel')} changed."
        )


def prove_parity(
    opened: Callable[[np.ndarray], np.ndarray],
    graph: SegmentationGraph,
    images: Sequence[np.ndarray] | None = None,
) -> Parity:
    """Compare an opened graph with ushape, on generated images and on images of the run.

    Args:
        opened: Function that computes the graph: raw pixels (B, C, *S) float32 to its output.
        graph: Graph that was exported.
        images: Images (C, *S) as stored in files; None: those of `images_of`.

    Raises:
        PlanError: if a probability differs by more than TOLERANCE, or the graph cannot be computed.
    """
    own = images_of(graph.source) if images is None else images
    shapes, differences, changed, pixels, count = [], [0.0], 0, 0, 0
    for batch in (*_generate(graph), *([one] for one in own)):
        inputs = np.stack(batch).astype(np.float32)
        found = _compute(opened, inputs)
        shapes.append(inputs.shape)
        for image, output in zip(batch, found, strict=True):
            difference, other = _compare(graph.source, image, output)
            differences.append(difference)
            changed += other
            pixels += math.prod(image.shape[1:])
            count += 1
    parity = Parity(
        images=count,
        of_run=len(own),
        shapes=tuple(shapes),
        largest_difference=float(np.max(differences)),
        changed_pixels=changed,
        pixels=pixels,
    )
    if not parity.largest_difference <= TOLERANCE:
        raise _difference_error(parity.text)
    return parity


def images_of(source: ExportSource) -> list[np.ndarray]:
    """Return a few images of the first run, as far as they still exist.

    They are test images; of a run without a test set, validation or training images.

    Shapes:
        returns: (C, *S) each, as stored, cut to LARGEST_SHAPE around the center.
    """
    channels = source.plan.preprocessing.channels
    found: list[np.ndarray] = []
    for case in _cases_of(source.runs[0]):
        try:
            image = read_image(case, channels)
        except DataError:  # Images that were moved or changed say nothing about the graph.
            continue
        if image.ndim == source.plan.image_dims + 1:
            found.append(_cut(image))
        if len(found) == RUN_IMAGES:
            break
    return found


def _cases_of(run: Run) -> list:
    try:
        splits = run.load_splits()
        facts = run.load_cases()
    except RunError:
        return []
    chosen = select_cases(facts, splits.test or splits.validation or splits.train)
    return [fact.case for fact in chosen]


def _cut(image: np.ndarray) -> np.ndarray:
    places: list[slice] = [slice(None)]
    for size, most in zip(image.shape[1:], LARGEST_SHAPE[image.ndim - 1], strict=True):
        start = max(0, (size - most) // 2)
        places.append(slice(start, start + most))
    return image[tuple(places)]


def _generate(graph: SegmentationGraph) -> Iterator[list[np.ndarray]]:
    """Yield batches of generated images: smooth patterns with noise, whole numbers and others."""
    random = np.random.default_rng(0)
    preprocessing = graph.source.plan.preprocessing
    known = preprocessing.normalization
    low, high = (min(known.low), max(known.high)) if known else (0.0, 255.0)
    for index, (count, sizes) in enumerate(GENERATED[graph.dims]):
        batch = []
        for _ in range(count):
            values = random.random((graph.channels, *sizes), dtype=np.float32)
            for axis, size in enumerate(sizes, start=1):
                phase = np.arange(size) / random.uniform(4, 12) + random.uniform(0, 6)
                column = [-1 if place == axis else 1 for place in range(values.ndim)]
                values *= 0.6 + 0.4 * np.sin(phase).astype(np.float32).reshape(column)
            image = low + (high - low) * random.uniform(0.5, 1) * values
            is_float = index == 1 or high - low < 16
            whole = np.rint(image).astype(np.int32 if graph.rounds else np.float32)
            batch.append(image if is_float else whole)
        yield batch


def _compute(opened: Callable[[np.ndarray], np.ndarray], inputs: np.ndarray) -> np.ndarray:
    try:
        found = opened(inputs)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise _difference_error(
            f"Its graph cannot be computed for {inputs.shape}: {lines[0][:300]}."
        ) from error
    return found


def _compare(source: ExportSource, image: np.ndarray, output: np.ndarray) -> tuple[float, int]:
    """Return the largest difference of an output, and the number of pixels of another class."""
    predictor, space = source.predictor, source.space
    (wanted,) = predictor.predict([predictor.preprocess_array(image)])
    if source.options.output == "mask":
        return _compare_masks(source, wanted, output)
    own = wanted.probabilities
    expected = own if wanted.distance is None else np.concatenate([own, wanted.distance[None]])
    if output.shape != expected.shape:
        raise _difference_error(f"An output has the shape {output.shape} instead of {own.shape}.")
    decided = [apply_rule(predictor.tuning.rule, one[: len(own)], space) for one in (own, output)]
    return float(np.abs(output - expected).max()), int((decided[0] != decided[1]).sum())


def _compare_masks(
    source: ExportSource, wanted: Prediction, output: np.ndarray
) -> tuple[float, int]:
    expected = source.predictor.codes_of(wanted.classes)
    if output.shape != expected.shape:
        raise _difference_error(f"A mask has the shape {output.shape} instead of {expected.shape}.")
    is_changed = output.astype(np.int64) != expected.astype(np.int64)
    if not is_changed.any():
        return 0.0, 0
    margin = _distance_from_threshold(source, wanted.probabilities, source.space)
    return float(margin[is_changed].max()), int(is_changed.sum())


def _distance_from_threshold(
    source: ExportSource, probabilities: np.ndarray, space: LabelSpace
) -> np.ndarray:
    """Return how far each pixel is from being decided otherwise, (*S)."""
    thresholds = [one.threshold for one in source.predictor.tuning.rule.for_space(space)]
    if space.is_exclusive:
        factors = np.array([1.0, *((1 - one) / one for one in thresholds)])
        odds = np.sort(probabilities * factors.reshape(-1, *[1] * (probabilities.ndim - 1)), axis=0)
        return np.asarray(odds[-1] - odds[-2])
    column = np.array(thresholds).reshape(-1, *[1] * (probabilities.ndim - 1))
    return np.asarray(np.abs(probabilities - column).min(axis=0))


def _difference_error(what: str) -> PlanError:
    return PlanError(
        f"The exported graph and ushape give different results. {what}",
        code="export_differs",
        hint="Nothing was written. Try another format with --to, or predict with ushape; please "
        "report this with the plan of the run.",
    )
