"""Part of an annotated image that illustrates an exported model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy import ndimage

from ushape.data.reading import read_classes, read_image
from ushape.errors import RunError
from ushape.evaluation.scores import dice_by_case
from ushape.evaluation.storage import FACTS, load_report
from ushape.export.graph import SegmentationGraph
from ushape.inference.decision_rule import apply_rule
from ushape.labels import IGNORE
from ushape.planning.run import Run
from ushape.types import Case

Origin = Literal["test", "validation", "training"]
"""What a run uses an image for."""

SAMPLE_PX = {2: (256, 256), 3: (32, 128, 128)}
"""Largest size of the part, by its number of axes."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Part of an image, and what the exported model returns for it."""

    image: np.ndarray
    """(C, *S), in the data type of the file."""

    outputs: np.ndarray
    """(K, *S) float32, probabilities."""

    classes: np.ndarray
    """(*S) uint8, class indices that the decision rule of the run gives."""

    origin: Origin = "test"
    """What the run used the image for."""


def take_sample(graph: SegmentationGraph) -> Sample:
    """Cut a part with foreground out of a test image of typical Dice, and predict it.

    If the run has no test images, a validation image is used, or else a training image.

    Raises:
        RunError: if the run has no annotated case.
        DataError: if the image cannot be read.
    """
    source = graph.source
    case, origin = _typical_case(source.runs[0])
    image, classes = read_image(case, graph.channels), read_classes(case, source.space)
    assert classes is not None
    is_foreground = (classes > 0) & (classes != IGNORE)
    window = _window(is_foreground, SAMPLE_PX[graph.dims])
    image = np.ascontiguousarray(image[(slice(None), *window)])
    with torch.inference_mode():
        outputs = graph(torch.from_numpy(image[None].astype(np.float32)))[0].numpy()
    probabilities, _ = source.space.split_outputs(outputs)
    decided = apply_rule(source.predictor.tuning.rule, probabilities, source.space)
    return Sample(image=image, outputs=outputs, classes=decided, origin=origin)


def _typical_case(run: Run) -> tuple[Case, Origin]:
    """Return the annotated case with the median Dice, or the middle one if there are no scores."""
    facts = {fact.case.id: fact.case for fact in run.load_cases()}
    names, origin = _annotated(run, facts)
    scored = (run.folder / FACTS).exists()
    found = dice_by_case(load_report(run.folder).scores) if scored else {}
    # Cases in which nothing is annotated have no Dice.
    dice = {name: found[name] for name in names if found.get(name) is not None}
    ranked = sorted(dice or names, key=lambda name: (dice.get(name) or 0.0, name))
    return facts[ranked[len(ranked) // 2]], origin


def _annotated(run: Run, cases: Mapping[str, Case]) -> tuple[list[str], Origin]:
    """Return the annotated test cases or, if there are none, validation or training cases."""
    splits = run.load_splits()
    groups: dict[Origin, tuple[str, ...]] = {
        "test": splits.test,
        "validation": splits.validation,
        "training": splits.train,
    }
    for origin, group in groups.items():
        names = [name for name in group if cases[name].mask is not None]
        if names:
            return names, origin
    raise RunError(
        f"{run.folder} has no annotated image from which to cut the sample of the package.",
        code="no_test_image",
        hint="Train with at least one annotated image.",
    )


def _window(foreground: np.ndarray, largest: tuple[int, ...]) -> tuple[slice, ...]:
    """Return the window whose share of foreground is nearest to a half.

    Shapes:
        foreground: (*S) bool.
    """
    size = tuple(map(min, foreground.shape, largest))
    share = ndimage.uniform_filter(foreground.astype(np.float32), size)
    # The filter centers a window of n pixels at n // 2.
    inside = tuple(
        slice(own // 2, own // 2 + whole - own + 1)
        for own, whole in zip(size, foreground.shape, strict=True)
    )
    distance = np.abs(share[inside] - 0.5)
    first = np.unravel_index(int(distance.argmin()), distance.shape)
    return tuple(
        slice(int(start), int(start) + own) for start, own in zip(first, size, strict=True)
    )
