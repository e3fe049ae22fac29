"""Trivial baselines: segmentations that need no network, scored on the same cases.

A score is worth something only if it exceeds them. On masks that cover 80% of each image, for
example, a network that labels every pixel as foreground has a Dice of 0.89.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ushape import config
from ushape.data.reading import read_classes, read_image
from ushape.errors import ConfigError, RunError
from ushape.evaluation.scores import CaseScore, score_case
from ushape.formatting import pluralize, reason
from ushape.io.files import read_sealed_json, write_sealed_json
from ushape.io.float_range import LARGEST
from ushape.labels import IGNORE, LabelSpace
from ushape.metrics.overlap import count_masks
from ushape.planning.planner import BASELINE_CASES
from ushape.types import Case, CaseFacts

BaselineName = Literal[
    "all_foreground",
    "all_background",
    "mean_mask",
    "intensity",
    "majority_class",
    "mean_mask_argmax",
]

BASELINE_TEXTS: dict[BaselineName, str] = {
    "all_foreground": "labeling every pixel as {name}",
    "all_background": "labeling no pixel as {name}",
    "mean_mask": "the mean mask of the training cases",
    "intensity": "an intensity threshold",
    "majority_class": "labeling every pixel with the most frequent class",
    "mean_mask_argmax": "the most frequent class at each position in the training cases",
}
"""What each baseline does; {name} stands for the class."""

GRIDS = {2: (64, 64), 3: (24, 24, 24)}
"""Points of an image at which training cases are sampled, by the number of dimensions."""

MAX_PIXELS = 200_000_000
"""Maximum number of pixels of these cases together."""


@dataclass(frozen=True, kw_only=True)
class IntensityRule:
    """Rule that assigns pixels to a class by their intensity alone."""

    channel: int | None
    """Channel, from 0; None: the mean of all channels."""

    is_relative: bool
    """Whether intensities are standardized to mean 0 and standard deviation 1 in each image."""

    is_brighter: bool
    """Whether the class is above the threshold (True) or below it."""

    threshold: float

    def values_of(self, image: np.ndarray) -> np.ndarray:
        """Return the number of each pixel of an image (C, *S) that is compared, (*S) float32."""
        values = _plane(image, self.channel)
        if self.is_relative:
            points = values[_grid_points(values.shape)].astype(np.float64)
            values = (values - points.mean()) / max(float(points.std()), 1e-6)
            values = values.clip(-LARGEST, LARGEST).astype(np.float32)
        return values if self.is_brighter else -values

    def of(self, image: np.ndarray) -> np.ndarray:
        """Return where the class is in an image (C, *S), (*S) bool."""
        return np.asarray(self.values_of(image) >= self.threshold)


@dataclass(frozen=True, kw_only=True)
class ClassBaselines:
    """Baselines of one class or region that were chosen on training cases."""

    mean_mask: str
    """Grid positions at which the class is frequent enough, packed bits in hexadecimal."""

    intensity: IntensityRule


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """Baselines as determined from the training cases."""

    cases: int = 0
    """Number of training cases that were read; 0 if there are none, which leaves only constants."""

    grid: tuple[int, ...] = ()
    classes: dict[str, ClassBaselines] = field(default_factory=dict)
    """By name of class or region."""

    majority_class: int | None = None
    """Index of the most frequent class, if classes exclude each other."""

    argmax: str = ""
    """Most frequent class at each position of the grid, a byte each in hexadecimal."""

    note: str = ""
    """Reason why the baselines could not be chosen on training cases."""

    @property
    def text(self) -> str:
        """How the baselines were chosen, or which are missing and why."""
        if self.cases:
            cases = pluralize(self.cases, "training case")
            return f"The mean mask and the intensity threshold were determined from {cases}."
        return (
            "The mean mask of the training cases and an intensity threshold are not among the "
            f"baselines, because they could not be determined from training cases: {self.note}"
        )


class BaselineSampler:
    """Samples training cases at the points of a grid to determine the baselines.

    At most 100 cases are sampled, evenly spread.
    """

    def __init__(self, facts: Sequence[CaseFacts]):
        self.cases = [fact.case for fact in _thin_out(facts)]
        self._samples: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._wanted = {case.id for case in self.cases}

    @property
    def is_complete(self) -> bool:
        """Whether all cases were sampled that the baselines are chosen on."""
        return len(self._samples) == len(self._wanted)

    def add(self, case: Case, image: np.ndarray, classes: np.ndarray | None) -> None:
        """Sample a case, unless the baselines are chosen without it.

        Shapes:
            image: (C, *S) as stored; classes: (*S) class indices.
        """
        if case.id in self._wanted:
            assert classes is not None, "training cases are annotated"
            points = _grid_points(classes.shape)
            self._samples[case.id] = classes[points], np.stack([plane[points] for plane in image])

    def choose(self, space: LabelSpace) -> Baselines:
        """Return the baselines with the highest Dice over the pooled samples."""
        return _choose([self._samples[case.id] for case in self.cases], space)


def measure_baselines(
    facts: Sequence[CaseFacts], space: LabelSpace, channels: int | None = None
) -> Baselines:
    """Read training cases and choose the baselines on them, as `BaselineSampler` does.

    Raises:
        DataError: if a file cannot be read.
    """
    sampler = BaselineSampler(facts)
    for case in sampler.cases:
        classes = read_classes(case, space)
        sampler.add(case, read_image(case, channels), classes)
    return sampler.choose(space)


def _choose(samples: Sequence[tuple[np.ndarray, np.ndarray]], space: LabelSpace) -> Baselines:
    """Choose the baselines on class indices (*grid) and pixels (C, *grid) of some cases."""
    if not samples:
        return Baselines(note="there are no training cases")
    classes = np.stack([own for own, _ in samples])
    counted = classes != IGNORE
    if not counted.any():
        return Baselines(note="none of the pixels that are compared is annotated")
    pixels = counted.sum(axis=0)
    found = {}
    for region in space.scored:
        shown = region.of(classes)
        share = shown.sum(axis=0) / np.maximum(pixels, 1)
        cut, _ = best_threshold(share.ravel(), shown.sum(axis=0).ravel(), pixels.ravel())
        found[region.name] = ClassBaselines(
            mean_mask=np.packbits(share >= cut).tobytes().hex(),
            intensity=_choose_intensity([image for _, image in samples], shown, counted),
        )
    numbers = np.stack([(classes == index).sum(axis=0) for index in range(len(space.values))])
    return Baselines(
        cases=len(samples),
        grid=classes.shape[1:],
        classes=found,
        majority_class=int(numbers.reshape(len(numbers), -1).sum(axis=1).argmax()),
        argmax=numbers.argmax(axis=0).astype(np.uint8).tobytes().hex(),
    )


def score_baselines(
    baselines: Baselines, case: Case, image: np.ndarray, truth: np.ndarray, space: LabelSpace
) -> dict[BaselineName, list[CaseScore]]:
    """Score each baseline on a case, one score for each class.

    Shapes:
        image: (C, *S) as stored in the file; truth: (*S) class indices.
    """
    counted = truth != IGNORE
    scores: dict[BaselineName, list[CaseScore]] = {}
    for region in space.scored:
        in_truth = region.of(truth)
        for name, mask in _masks(baselines, region.name, image):
            counts = count_masks(mask, in_truth, counted)
            wrong = counts.truth + counts.predicted - 2 * counts.overlap
            scores.setdefault(name, []).append(
                CaseScore(
                    case=case.id,
                    group=case.group,
                    class_name=region.name,
                    counts=counts,
                    pixel_error=wrong / max(1, counts.pixels),
                )
            )
    if space.is_exclusive and baselines.majority_class is not None:
        constant = np.full_like(truth, baselines.majority_class)
        scores["majority_class"] = score_case(case.id, case.group, constant, truth, space)
        frequent = _enlarge(_argmax_of(baselines), truth.shape)
        scores["mean_mask_argmax"] = score_case(case.id, case.group, frequent, truth, space)
    return scores


def save_baselines(path: Path, baselines: Baselines) -> None:
    """Write the baselines of a run atomically."""
    write_sealed_json(path, config.to_dict(baselines))


def load_baselines(path: Path, space: LabelSpace, channels: int) -> Baselines:
    """Load a file of `save_baselines`.

    Args:
        channels: Number of channels of the images of the run.

    Raises:
        RunError: if the file is damaged, or its classes are not those of the run.
    """
    hint = "Delete this file; ushape evaluate RUN measures the baselines again."
    values = read_sealed_json(path, RunError, code="damaged_run_file", hint=hint)
    try:
        found = config.from_dict(Baselines, values, source=str(path))
        _check(found, space, channels)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, ConfigError) as error:
        raise RunError(
            f"{path} does not contain baselines written by ushape: {reason(error)}.",
            code="damaged_run_file",
            hint=hint,
        ) from None
    return found


def best_threshold(
    values: np.ndarray, positives: np.ndarray, pixels: np.ndarray
) -> tuple[float, float]:
    """Return the threshold from which values are labeled that has the highest Dice, and this Dice.

    Args:
        positives: Number of pixels of the class with this value.
        pixels: Number of all pixels with this value.

    Shapes:
        all: (N,), at least one value.
    """
    order = np.argsort(-values, kind="stable")
    ranked = values[order]
    hits = np.cumsum(positives[order], dtype=np.int64)
    called = np.cumsum(pixels[order], dtype=np.int64)
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # Equal values go together.
    dice = 2 * hits[last] / np.maximum(called[last] + hits[-1], 1)
    best = int(dice.argmax())
    return float(ranked[last[best]]), float(dice[best])


def _thin_out(facts: Sequence[CaseFacts]) -> Sequence[CaseFacts]:
    pixels = sum(sum(fact.class_pixels) for fact in facts)
    step = max(1, math.ceil(len(facts) / BASELINE_CASES), math.ceil(pixels / MAX_PIXELS))
    return facts[::step]


def _grid_points(shape: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Return the indices of the grid points, for indexing an array of this shape (*S)."""
    grid = GRIDS[len(shape)]
    middles = [
        (np.arange(n) * 2 + 1) * size // (2 * n) for n, size in zip(grid, shape, strict=True)
    ]
    return np.ix_(*middles)


def _choose_intensity(
    images: Sequence[np.ndarray], shown: np.ndarray, counted: np.ndarray
) -> IntensityRule:
    """Choose channel, polarity and threshold by the Dice over all samples.

    Shapes:
        images: (C, *grid) each; shown, counted: (N, *grid) bool, pixels of the class and pixels
            that are not ignored.
    """
    channels: list[int | None] = [None, *range(len(images[0]))] if len(images[0]) > 1 else [None]
    found = []
    for channel in channels:
        for is_relative in (False, True):
            for is_brighter in (True, False):
                rule = IntensityRule(
                    channel=channel, is_relative=is_relative, is_brighter=is_brighter, threshold=0
                )
                values = np.stack([rule.values_of(image) for image in images])[counted]
                positives = shown[counted]
                cut, dice = best_threshold(values, positives, np.ones_like(positives))
                found.append((dice, replace(rule, threshold=cut)))
    return max(found, key=lambda one: one[0])[1]


def _plane(image: np.ndarray, channel: int | None) -> np.ndarray:
    """Return the mean of the channels, or one of them, (*S) float32; NaN and infinity become 0."""
    is_float = image.dtype.kind == "f"
    if channel is None:
        with np.errstate(invalid="ignore"):  # Infinity in several channels
            plane = image.mean(axis=0, dtype=np.float64 if is_float else np.float32)
    else:
        plane = image[channel]
    plane = plane.astype(np.float32)
    return np.nan_to_num(plane, copy=False, posinf=0, neginf=0) if is_float else plane


def _masks(
    baselines: Baselines, name: str, image: np.ndarray
) -> Iterator[tuple[BaselineName, np.ndarray]]:
    """Yield where each baseline of a class labels it, (*S) bool or a single value."""
    yield "all_foreground", np.ones((), bool)
    yield "all_background", np.zeros((), bool)
    if (own := baselines.classes.get(name)) is not None:
        yield "mean_mask", _enlarge(_mean_mask_of(own, baselines.grid), image.shape[1:])
        yield "intensity", own.intensity.of(image)


def _mean_mask_of(own: ClassBaselines, grid: tuple[int, ...]) -> np.ndarray:
    bits = np.frombuffer(bytes.fromhex(own.mean_mask), np.uint8)
    return np.unpackbits(bits, count=math.prod(grid)).reshape(grid).astype(bool)


def _argmax_of(baselines: Baselines) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(baselines.argmax), np.uint8).reshape(baselines.grid)


def _enlarge(small: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Enlarge an array (*grid) to (*S) by nearest neighbor."""
    places = [np.arange(n) * size // n for n, size in zip(shape, small.shape, strict=True)]
    return np.asarray(small[np.ix_(*places)])


def _check(found: Baselines, space: LabelSpace, channels: int) -> None:
    """Check that stored baselines are complete and belong to these classes.

    Raises:
        ValueError: if they do not.
    """
    if not found.cases:
        return
    if found.grid not in GRIDS.values() or set(found.classes) != {r.name for r in space.scored}:
        raise ValueError("the grid or the classes are not those of the run")
    for own in found.classes.values():
        if len(bytes.fromhex(own.mean_mask)) != -(-math.prod(found.grid) // 8):
            raise ValueError("the size of a mean mask differs from that of the grid")
        if not 0 <= (own.intensity.channel or 0) < channels:
            raise ValueError("a channel does not exist")
    largest = _argmax_of(found).max()
    if max(int(largest), found.majority_class or 0) >= len(space.values):
        raise ValueError("a class index is too large")
