"""Which case a patch comes from, and where it is cut: so that foreground is seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch.utils.data import Sampler

from ushape.errors import ConfigError
from ushape.labels import IGNORE

Key = tuple[int, int]
"""(epoch, index within the epoch): all that a patch is drawn from, beside the run's seed."""


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Which patches the network sees."""

    patch_shape: tuple[int, ...] | Literal["auto"] = "auto"
    """Size of a training patch in working pixels, (y, x) or (z, y, x)."""

    draw: Literal["foreground", "uniform", "lesion", "patient_lesion"] = "foreground"
    """How a patch's case is drawn. foreground: a planned share of the patches is centered on a
    foreground pixel. The others lie anywhere in a case that is drawn: uniform, each case as
    likely; lesion, cases with more foreground oftener; patient_lesion, each group as likely,
    then within it as lesion."""

    foreground_fraction: float | Literal["auto"] = "auto"
    """Share of patches that are centered on a foreground pixel, where draw is foreground."""

    def __post_init__(self) -> None:
        if self.patch_shape != "auto" and min(self.patch_shape, default=0) < 1:
            raise ConfigError(
                f"sampling.patch_shape is {list(self.patch_shape)}.",
                hint="At least one pixel along each axis, e.g. [256, 256].",
            )
        if self.foreground_fraction != "auto" and not 0 <= self.foreground_fraction <= 1:
            raise ConfigError(
                f"sampling.foreground_fraction is {self.foreground_fraction}, outside [0, 1].",
                hint="0.33 suits most data; more where foreground is rare.",
            )


@dataclass(frozen=True)
class Pick:
    """One draw: a case, and the class its patch is centered on (None: anywhere)."""

    case_index: int
    class_index: int | None


class CaseDraw:
    """Draws cases, a planned share of them for their foreground.

    A foreground draw takes a foreground class first, each as likely as the others, then a case
    that has it: rare classes, and cases among many empty ones, are seen as often as planned.

    Args:
        class_pixels: (cases, classes), pixels of each class in each case, background first.
        foreground_fraction: Share of foreground draws, 0 to 1.
        probabilities: (cases,) of the other draws; None: each case as likely.
    """

    def __init__(
        self,
        class_pixels: np.ndarray,
        foreground_fraction: float,
        probabilities: np.ndarray | None = None,
    ):
        self.case_count = len(class_pixels)
        self.foreground_fraction = foreground_fraction
        self.cumulative = None if probabilities is None else np.cumsum(probabilities)
        self.cases_with = {
            class_index: np.flatnonzero(class_pixels[:, class_index])
            for class_index in range(1, class_pixels.shape[1])
            if class_pixels[:, class_index].any()
        }

    def draw(self, rng: np.random.Generator) -> Pick:
        """One case; the same generator state draws the same one."""
        if self.cases_with and rng.random() < self.foreground_fraction:
            class_index = list(self.cases_with)[rng.integers(len(self.cases_with))]
            return Pick(int(rng.choice(self.cases_with[class_index])), class_index)
        if self.cumulative is None:
            return Pick(int(rng.integers(self.case_count)), None)
        place = rng.random() * self.cumulative[-1]
        return Pick(int(np.searchsorted(self.cumulative, place, side="right")), None)


def build_draw(config: SamplingConfig, class_pixels: np.ndarray, groups: Sequence[str]) -> CaseDraw:
    """The recipe's way to draw cases.

    Args:
        class_pixels: (cases, classes).
        groups: The group of each case.
    """
    if config.draw == "foreground":
        assert config.foreground_fraction != "auto", "the planner leaves nothing open"
        return CaseDraw(class_pixels, config.foreground_fraction)
    lesion = class_pixels[:, 1:].sum(axis=1)
    if config.draw == "uniform":
        probabilities = None
    elif config.draw == "lesion":
        probabilities = lesion_probabilities(lesion)
    else:
        probabilities = patient_lesion_probabilities(lesion, groups)
    return CaseDraw(class_pixels, 0.0, probabilities)


def lesion_probabilities(lesion: np.ndarray) -> np.ndarray:
    """(w + 0.1 mean(w)) / (1.1 sum(w)): slices with a larger lesion oftener, empty ones at times.

    Shapes:
        lesion: (cases,) pixels, w -> (cases,) probabilities; even where no case has any.
    """
    total = lesion.sum()
    if total == 0:
        return np.full(len(lesion), 1 / len(lesion))
    return (lesion + 0.1 * lesion.mean()) / (1.1 * total)


def patient_lesion_probabilities(lesion: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """Each group as likely, its cases by `lesion_probabilities` within it.

    Source:
        Buda, Saha, Mazurowski 2019, 10.1016/j.compbiomed.2019.05.002.
    """
    names = np.asarray(groups)
    probabilities = np.zeros(len(names))
    for name in set(groups):
        of_group = names == name
        probabilities[of_group] = lesion_probabilities(lesion[of_group])
    return probabilities / len(set(groups))


def draw_center(
    classes: np.ndarray,
    class_index: int | None,
    patch_shape: Sequence[int],
    rng: np.random.Generator,
) -> tuple[float, ...]:
    """Center of a patch in pixels; its first corner is center - patch_shape / 2.

    A patch never leaves the image, unless it is larger: then it lies in the middle.

    Args:
        classes: (*S) class indices.
        class_index: Center on a pixel of this class, as far as the image's edges allow.
    """
    shape = np.asarray(classes.shape)
    patch = np.asarray(patch_shape)
    if class_index is None:
        corner = rng.integers(np.maximum(shape - patch, 0) + 1)
    else:
        corner = _find_pixel(classes, class_index, rng) - patch // 2
        corner = corner.clip(0, np.maximum(shape - patch, 0))
    middle = (shape - patch) / 2
    corner = np.where(shape < patch, np.floor(middle), corner)
    return tuple((corner + patch / 2).tolist())


def class_pixels_of(classes: np.ndarray, class_count: int) -> np.ndarray:
    """(class_count,) pixels of each class; ignored pixels count for none."""
    counts = np.bincount(classes.ravel(), minlength=IGNORE + 1)
    return counts[:class_count]


class EpochSampler(Sampler[Key]):
    """The keys of one epoch, for one of several processes.

    Training that resumes at an epoch's start draws exactly the patches of a training that was
    never interrupted: nothing here depends on what happened before.

    Args:
        patches_per_epoch: Over all processes.
        find_epoch: Asked for the epoch's number whenever an epoch begins.
        rank: This process, 0 <= rank < world_size.
        world_size: Number of processes.
    """

    def __init__(
        self,
        patches_per_epoch: int,
        find_epoch: Callable[[], int],
        rank: int = 0,
        world_size: int = 1,
    ):
        self.patches_per_epoch, self.find_epoch = patches_per_epoch, find_epoch
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[Key]:
        epoch = self.find_epoch()
        for index in range(self.rank, self.patches_per_epoch, self.world_size):
            yield epoch, index

    def __len__(self) -> int:
        return len(range(self.rank, self.patches_per_epoch, self.world_size))


def _find_pixel(classes: np.ndarray, class_index: int, rng: np.random.Generator) -> np.ndarray:
    """A pixel of the class, each as likely as the others; anywhere if there is none."""
    for _ in range(32):  # A few blind tries spare the search through the whole image.
        pixel = rng.integers(classes.shape)
        if classes[tuple(pixel)] == class_index:
            return pixel
    found = np.flatnonzero(classes == class_index)
    if found.size == 0:  # Lost by downscaling.
        return rng.integers(classes.shape)
    return np.asarray(np.unravel_index(rng.choice(found), classes.shape))
