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

    foreground_fraction: float | Literal["auto"] = "auto"
    """Share of patches that are centred on a foreground pixel; the others lie anywhere."""

    def __post_init__(self) -> None:
        if self.foreground_fraction != "auto" and not 0 <= self.foreground_fraction <= 1:
            raise ConfigError(
                f"sampling.foreground_fraction is {self.foreground_fraction}, outside [0, 1].",
                hint="0.33 suits most data; more where foreground is rare.",
            )


@dataclass(frozen=True)
class Pick:
    """One draw: a case, and the class its patch is centred on (None: anywhere)."""

    case_index: int
    class_index: int | None


class CaseDraw:
    """Draws cases, a planned share of them for their foreground.

    A foreground draw takes a foreground class first, each as likely as the others, then a case
    that has it: rare classes, and cases among many empty ones, are seen as often as planned.

    Args:
        class_pixels: (cases, classes), pixels of each class in each case, background first.
        foreground_fraction: Share of foreground draws, 0 to 1.
    """

    def __init__(self, class_pixels: np.ndarray, foreground_fraction: float):
        self.case_count = len(class_pixels)
        self.foreground_fraction = foreground_fraction
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
        return Pick(int(rng.integers(self.case_count)), None)


def draw_centre(
    classes: np.ndarray,
    class_index: int | None,
    patch_shape: Sequence[int],
    rng: np.random.Generator,
) -> tuple[float, ...]:
    """Centre of a patch in pixels; its first corner is centre - patch_shape / 2.

    A patch never leaves the image, unless it is larger: then it lies in the middle.

    Args:
        classes: (*S) class indices.
        class_index: Centre on a pixel of this class, as far as the image's edges allow.
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
