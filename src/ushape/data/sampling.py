"""Training patches: selection of case and position, augmentation and encoding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ushape.data.batches import PatchKey
from ushape.data.pixel_weights import PixelWeights
from ushape.data.slices import stack_slices
from ushape.errors import ConfigError, check_range
from ushape.labels import IGNORE, LabelSpace
from ushape.transforms.augment import AugmentConfig, change_intensity
from ushape.transforms.augment.geometry import cut_together, draw_warp
from ushape.transforms.object_distance import border_distance
from ushape.types import Sample


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Selection of the training patches."""

    RENAMED: ClassVar = {
        "draw": "strategy",
        "strategy=lesion": "foreground_weighted",
        "strategy=patient_lesion": "group_foreground_weighted",
        "class_shares": "class_ratios",
    }

    patch_shape: tuple[int, ...] | Literal["auto"] = "auto"
    """Size of a training patch in pixels after preprocessing, (y, x) or (z, y, x)."""

    growing_patches: bool = False
    """Whether patches have a quarter of their size in the first quarter of the steps and half of it
    in the second quarter, but at least 64 pixels, or 32 in 3D. Batches contain correspondingly more
    of these smaller patches."""

    strategy: Literal[
        "foreground", "uniform", "foreground_weighted", "group_foreground_weighted"
    ] = "foreground"
    """Sampling of patches. foreground: a given fraction of the patches is centered on a foreground
    pixel, and the others are placed at random. With the other values, all patches are placed at
    random, in a case that is drawn uniformly (uniform), with a probability that depends on its
    amount of foreground (foreground_weighted), or with such a probability within a uniformly drawn
    group (group_foreground_weighted)."""

    foreground_fraction: float | Literal["auto"] = "auto"
    """Fraction of the patches that are centered on a foreground pixel if strategy is foreground."""

    class_ratios: tuple[float, ...] | None = None
    """Ratios of the foreground classes in the patches that are centered on foreground; they need
    not sum to 1. null: equal for all classes, or chosen by the planner together with
    foreground_fraction."""

    def __post_init__(self) -> None:
        ratios = self.class_ratios
        if ratios is not None and not (min(ratios, default=0) >= 0 < sum(ratios) < math.inf):
            raise ConfigError(
                f"sampling.class_ratios is {list(ratios)}.",
                code="value_out_of_range",
                hint="Give each foreground class a ratio of at least 0, and at least one of them "
                "a ratio above 0.",
            )
        if self.patch_shape != "auto" and min(self.patch_shape, default=0) < 1:
            raise ConfigError(
                f"sampling.patch_shape is {list(self.patch_shape)}.",
                code="value_out_of_range",
                hint="Use at least one pixel along each axis, for example [256, 256].",
            )
        if self.foreground_fraction != "auto":
            hint = "0.33 suits most data; use more if foreground is rare."
            check_range("sampling.foreground_fraction", self.foreground_fraction, 0, 1, hint=hint)


@dataclass(frozen=True)
class Pick:
    """A drawn case, and the class that its patch is centered on (None for a random position)."""

    case_index: int
    class_index: int | None


class CaseDraw:
    """Draws cases, a given fraction of them for their foreground.

    A foreground draw first selects a foreground class, then a case that contains it, so that rare
    classes and rare non-empty cases are sampled as often as intended.

    Args:
        class_pixels: (cases, classes) pixels of each class in each case, background first.
        foreground_fraction: Fraction of foreground draws, 0 to 1.
        probabilities: (cases,) probabilities of the cases in the other draws; None to draw
            uniformly from the cases with an annotated pixel.
        class_ratios: Ratios of the foreground classes in the foreground draws; None for equal
            ones. Classes that occur in no case are left out.

    Raises:
        ConfigError: if the number of ratios differs from the number of foreground classes.
    """

    def __init__(
        self,
        class_pixels: np.ndarray,
        foreground_fraction: float,
        probabilities: np.ndarray | None = None,
        class_ratios: Sequence[float] | None = None,
    ):
        classes = class_pixels.shape[1] - 1
        ratios = np.ones(classes) if class_ratios is None else np.asarray(class_ratios)
        check_ratios(ratios, classes)
        with_pixels = np.flatnonzero(class_pixels.any(axis=1))
        self.annotated = with_pixels if len(with_pixels) else np.arange(len(class_pixels))
        self.foreground_fraction = foreground_fraction
        self.cumulative = None if probabilities is None else np.cumsum(probabilities)
        self.cases_with = {
            class_index: np.flatnonzero(class_pixels[:, class_index])
            for class_index in range(1, class_pixels.shape[1])
            if class_pixels[:, class_index].any() and ratios[class_index - 1] > 0
        }
        self.cumulative_ratios = (
            None
            if class_ratios is None
            else np.cumsum([ratios[index - 1] for index in self.cases_with])
        )

    def draw(self, rng: np.random.Generator) -> Pick:
        """Draw a case; it depends only on the state of the generator."""
        if self.cases_with and rng.random() < self.foreground_fraction:
            class_index = list(self.cases_with)[self._draw_place(rng)]
            return Pick(int(rng.choice(self.cases_with[class_index])), class_index)
        if self.cumulative is None:
            return Pick(int(self.annotated[rng.integers(len(self.annotated))]), None)
        place = rng.random() * self.cumulative[-1]
        return Pick(int(np.searchsorted(self.cumulative, place, side="right")), None)

    def _draw_place(self, rng: np.random.Generator) -> int:
        """Draw the index of a class in `cases_with`."""
        if self.cumulative_ratios is None:
            return int(rng.integers(len(self.cases_with)))
        place = rng.random() * self.cumulative_ratios[-1]
        return int(np.searchsorted(self.cumulative_ratios, place, side="right"))


def check_ratios(ratios: Sequence[float] | np.ndarray, classes: int) -> None:
    """Raise an error if there is not one ratio for each foreground class.

    Raises:
        ConfigError: if the numbers differ.
    """
    if len(ratios) != classes:
        raise ConfigError(
            f"sampling.class_ratios has {len(ratios)} values, but there are {classes} foreground "
            "classes.",
            code="class_count_mismatch",
            hint="Specify one ratio per foreground class, or omit the setting for equal ratios.",
        )


def build_draw(config: SamplingConfig, class_pixels: np.ndarray, groups: Sequence[str]) -> CaseDraw:
    """Build the case sampler of a recipe.

    Args:
        class_pixels: (cases, classes) pixels of each class in each case.
        groups: Group of each case.
    """
    if config.strategy == "foreground":
        assert config.foreground_fraction != "auto", "the planner sets all automatic values"
        return CaseDraw(class_pixels, config.foreground_fraction, class_ratios=config.class_ratios)
    foreground = class_pixels[:, 1:].sum(axis=1)
    if config.strategy == "uniform":
        probabilities = None
    elif config.strategy == "foreground_weighted":
        probabilities = foreground_probabilities(foreground)
    else:
        probabilities = group_foreground_probabilities(foreground, groups)
    return CaseDraw(class_pixels, 0.0, probabilities)


def foreground_probabilities(foreground: np.ndarray) -> np.ndarray:
    """Return (w + 0.1 mean(w)) / (1.1 sum(w)) for the pixels w of foreground; uniform if all are 0.

    Shapes:
        foreground: (cases,) pixels.
        returns: (cases,) probabilities.
    """
    total = foreground.sum()
    if total == 0:
        return np.full(len(foreground), 1 / len(foreground))
    return (foreground + 0.1 * foreground.mean()) / (1.1 * total)


def group_foreground_probabilities(foreground: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """Return uniform probabilities of groups, times `foreground_probabilities` within each group.

    Source:
        Buda, Saha, Mazurowski 2019, 10.1016/j.compbiomed.2019.05.002.
    """
    names = np.asarray(groups)
    probabilities = np.zeros(len(names))
    for name in set(groups):
        of_group = names == name
        probabilities[of_group] = foreground_probabilities(foreground[of_group])
    return probabilities / len(set(groups))


def draw_center(
    classes: np.ndarray,
    class_index: int | None,
    patch_shape: Sequence[int],
    rng: np.random.Generator,
) -> tuple[float, ...]:
    """Draw the center of a patch in pixels; its first corner is center - patch_shape / 2.

    A patch lies within the image; one that is larger than the image is centered on it. A patch at a
    random position that would show no annotated pixel is moved to a random annotated pixel.

    Args:
        classes: (*S) class indices.
        class_index: Class to center on, as far as the edges allow; None for a random position.
    """
    shape = np.asarray(classes.shape)
    patch = np.asarray(patch_shape)
    if class_index is None:
        corner = rng.integers(np.maximum(shape - patch, 0) + 1)
        box = tuple(slice(a, a + size) for a, size in zip(corner, patch, strict=True))
        if not (classes[box] != IGNORE).any():
            corner = _find_annotated(classes, rng) - rng.integers(patch)
            corner = corner.clip(0, np.maximum(shape - patch, 0))
    else:
        corner = _find_pixel(classes, class_index, rng) - patch // 2
        corner = corner.clip(0, np.maximum(shape - patch, 0))
    middle = (shape - patch) / 2
    corner = np.where(shape < patch, np.floor(middle), corner)
    return tuple((corner + patch / 2).tolist())


def _find_pixel(classes: np.ndarray, class_index: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a pixel of the class uniformly; any pixel if the class is absent."""
    for _ in range(32):  # A few random tries usually avoid a search through the whole image.
        pixel = rng.integers(classes.shape)
        if classes[tuple(pixel)] == class_index:
            return pixel
    found = np.flatnonzero(classes == class_index)
    if found.size == 0:  # Lost by downscaling.
        return rng.integers(classes.shape)
    return np.asarray(np.unravel_index(rng.choice(found), classes.shape))


def _find_annotated(classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw an annotated pixel uniformly; any pixel if there is none."""
    found = np.flatnonzero(classes != IGNORE)
    place = rng.choice(found) if found.size else rng.integers(classes.size)
    return np.asarray(np.unravel_index(place, classes.shape))


class Patch(TypedDict):
    """One training patch; a batch has an additional first axis."""

    image: Tensor
    """(C, *P) float32, normalized intensities."""
    target: Tensor
    """(K, *P') float32, 0 or 1; P' is smaller than P for a network without padding. If the network
    learns the distance to the border of the object, this distance, 0 to 1, is an additional last
    channel."""
    weight: Tensor
    """(1, *P') float32, weight of each pixel in the loss; 0 for ignored pixels."""


class PatchDataset(Dataset[Patch]):
    """Draws, cuts, augments and encodes patches.

    Args:
        samples: Training cases.
        patch_shape: P, in working pixels.
        margin: Number of pixels that the network loses on each side.
        seed: Random seed of the run.
        max_distance_px: Largest distance to the border of an object that is learned, if the label
            space has this channel.
        lengths: Relative length of a pixel along each axis, for this distance; None: 1.
        slices: Number of slices of a volume that a 2D patch shows as channels; None: patches have
            as many axes as the samples.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        space: LabelSpace,
        draw: CaseDraw,
        weights: PixelWeights,
        augment: AugmentConfig,
        *,
        patch_shape: tuple[int, ...],
        margin: int = 0,
        seed: int = 0,
        max_distance_px: float | None = None,
        lengths: Sequence[float] | None = None,
        slices: int | None = None,
    ):
        self.samples, self.space, self.draw = samples, space, draw
        self.weights, self.augment = weights, augment
        self.patch_shape, self.margin, self.seed = patch_shape, margin, seed
        self.max_distance_px, self.lengths, self.slices = max_distance_px, lengths, slices

    def __getitem__(self, key: PatchKey) -> Patch:
        patch_shape = key[2] if len(key) == 3 else self.patch_shape
        # The output of the network lies within the image; its margin may reach beyond.
        inner_shape = tuple(size - 2 * self.margin for size in patch_shape)
        rng = np.random.default_rng([self.seed, *key[:2]])
        pick = self.draw.draw(rng)
        sample = self.samples[pick.case_index]
        assert sample.classes is not None, "a training case has a mask"

        whole, normalization = sample.image, sample.normalization
        maps = [one for one in (sample.classes, sample.objects) if one is not None]
        if self.slices is None:
            center = draw_center(sample.classes, pick.class_index, inner_shape, rng)
        else:
            place = draw_center(sample.classes, pick.class_index, (1, *inner_shape), rng)
            z, center = place[0], place[1:]
            whole, maps = stack_slices(whole, int(z), self.slices), [one[int(z)] for one in maps]
            normalization = normalization.repeated(self.slices)
        warp = draw_warp(self.augment.geometry, patch_shape, rng)
        image, (classes, *objects) = cut_together(whole, maps, center, patch_shape, warp)
        image = normalization.apply(image)
        image = change_intensity(image, self.augment.intensity, rng)

        inner = tuple(slice(self.margin, size - self.margin) for size in patch_shape)
        target, _ = self.space.encode(torch.from_numpy(classes[inner]))
        if objects:
            assert self.max_distance_px is not None, "the planner chooses it"
            # Measured after the warp, which would change the distances.
            distance = border_distance(objects[0], self.max_distance_px, self.lengths)[None, *inner]
            target = torch.cat([target, torch.from_numpy(distance)])
        # Weights of the whole patch: objects in the margin may have borders within the output.
        weight = torch.from_numpy(self.weights.of(classes)[None, *inner])
        return Patch(image=torch.from_numpy(image), target=target, weight=weight)
