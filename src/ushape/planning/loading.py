"""Training patches of a recipe, and the time to load a batch of them on this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import numpy as np
from torch.utils.data import default_collate

from ushape.config import resolved
from ushape.data.cache import SampleStore, are_kept
from ushape.data.lazy import LazySamples
from ushape.data.pixel_weights import PixelWeights
from ushape.data.preprocessing import Preprocessing
from ushape.data.sampling import PatchDataset, build_draw
from ushape.errors import DataError
from ushape.models import network_sizes
from ushape.planning.hardware import Machine
from ushape.planning.recipe import Recipe
from ushape.planning.timing import typical_s
from ushape.types import CaseFacts

MEASURED_CASES = 4
"""Largest number of cases of which patches are loaded to measure the time."""

LOADERS_OF_GPU = 16
"""Largest number of processes that load patches for a GPU. For 16 patches of 512 x 512 pixels with
learned distances, one process needs 483 ms, and a step on an H200 40 ms (benchmarks/README.md)."""


def loading_processes(machine: Machine) -> int:
    """Return how many processes load patches: many for GPUs, which often wait for them."""
    if machine.device == "cpu":
        return min(machine.cores // 4, 8)
    return min(machine.cores - 1, LOADERS_OF_GPU * machine.devices)


def build_patches(
    recipe: Recipe, preprocessing: Preprocessing, training: SampleStore, class_pixels: np.ndarray
) -> PatchDataset:
    """Return the training patches of a recipe without "auto" values.

    Args:
        class_pixels: Pixels of each class in the training cases, (cases, classes).
    """
    groups = [case.group for case in training.cases]
    lengths = preprocessing.config.relative_lengths(recipe.network.dims)
    return PatchDataset(
        training if training.keep else LazySamples(training),
        preprocessing.space,
        build_draw(recipe.sampling, class_pixels, groups),
        PixelWeights(recipe.pixel_weights, class_pixels, lengths),
        resolved(recipe.augment),
        patch_shape=resolved(recipe.sampling.patch_shape),
        margin=network_sizes(recipe.network).margin,
        seed=recipe.seed,
        max_distance_px=recipe.labels.max_distance_px,
        lengths=lengths,
        slices=preprocessing.config.slices if preprocessing.by_slice else None,  # type: ignore[arg-type]
    )


def measure_loading_s(
    recipe: Recipe,
    preprocessing: Preprocessing,
    training: Sequence[CaseFacts],
    machine: Machine,
    limit_s: float,
) -> float | None:
    """Return the typical seconds in which one process loads the batches of a training step.

    Patches of a few training cases are cut, augmented and encoded as in training. If the cases do
    not fit into memory, the time includes reading their files.

    Args:
        recipe: Recipe without "auto" values, except for the numbers of epochs and steps.
        training: All training cases.
        limit_s: Seconds that the measurement may take. If reading several cases, or loading a
            whole batch, does not fit, a single case is read and a patch of it is timed.

    Returns:
        None if a case cannot be read: training lists all such cases.
    """
    try:
        return _measure(recipe, preprocessing, training, machine, limit_s)
    except DataError:
        return None


def _measure(
    recipe: Recipe,
    preprocessing: Preprocessing,
    training: Sequence[CaseFacts],
    machine: Machine,
    limit_s: float,
) -> float:
    started = time.perf_counter()
    dims, memory_bytes = recipe.network.dims, machine.main_memory_bytes
    keep = are_kept(training, preprocessing, dims, memory_bytes, recipe.train.patch_source)
    step = -(-len(training) // MEASURED_CASES)
    some = training[::step]
    batches, count = 0, resolved(recipe.train.batch_size)

    def open_cases(used: Sequence[CaseFacts]) -> PatchDataset:
        store = SampleStore([one.case for one in used], preprocessing, keep=keep)
        store.load_all(machine.cores)
        pixels = np.asarray([one.class_pixels for one in used])
        return build_patches(recipe, preprocessing, store, pixels)

    def elapsed_s() -> float:
        return time.perf_counter() - started

    def load(patches: int) -> None:
        nonlocal batches
        default_collate([dataset[batches, index] for index in range(patches)])
        batches += 1

    dataset = open_cases(some[:1])
    opened_s = elapsed_s()
    batch_s = count * typical_s(partial(load, 1), limit_s / 4)
    if batch_s <= limit_s - elapsed_s():
        if len(some) * opened_s + batch_s <= limit_s - elapsed_s():
            dataset = open_cases(some)
        batch_s = typical_s(partial(load, count), limit_s - elapsed_s())
    return recipe.train.accumulate_grad_batches * batch_s


def waiting_s(loading_s: float, step_s: float, workers: int) -> float:
    """Return how long a step waits for its batches.

    Args:
        loading_s: Seconds in which one process loads them.
        step_s: Seconds of the step itself.
        workers: Number of processes that load while the steps run; 0: the training process loads.
    """
    return loading_s if workers == 0 else max(0.0, loading_s / workers - step_s)
