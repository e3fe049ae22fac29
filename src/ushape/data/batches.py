"""Batches of an epoch: the patches in each, and their size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from torch.utils.data import Sampler

PatchKey = tuple[int, int] | tuple[int, int, tuple[int, ...]]
"""(epoch, index within the epoch); with the seed of the run it determines a patch. An optional
third element is the size of the patch in pixels, if it differs from that of the dataset."""

STAGES = ((0.25, 4), (0.5, 2))
"""Fraction of the steps until which growing patches have their size divided by a number."""

SMALLEST_PX = {2: 64, 3: 32}
"""Smallest side of growing patches, by the number of dimensions."""


def growing_shape(
    progress: float,
    whole: tuple[int, ...],
    legal_shape: Callable[[Sequence[int]], tuple[int, ...]],
) -> tuple[int, ...]:
    """Return the size of growing patches after a fraction of the steps, in pixels.

    Args:
        whole: Size at the end of training.
        legal_shape: Returns the smallest size that the network takes and that is not smaller.

    Source:
        Fischer et al. 2024 (Progressive Growing of Patch Size), arXiv 2407.07853.
    """
    part = next((part for end, part in STAGES if progress < end), 1)
    least = SMALLEST_PX[len(whole)]
    legal = legal_shape([max(least, size // part) for size in whole])
    return tuple(map(min, whole, legal))


class EpochBatches(Sampler[list[PatchKey]]):
    """Yields the keys of the batches of one epoch, for one of several processes.

    They depend only on the progress at the beginning of the epoch, so that a resumed run draws the
    same patches as an uninterrupted one. All batches have about as many pixels.

    Args:
        batches: Number of batches of an epoch.
        batch_size: Number of patches in a batch at the end of training.
        find_progress: Returns the number of the epoch and that of all epochs, which need not be
            whole; called at the beginning of each epoch.
        find_shape: Returns the size of the patches after a fraction of the training steps, in
            pixels.
        rank: Index of this process, 0 <= rank < world_size.
        world_size: Number of processes.
    """

    def __init__(
        self,
        batches: int,
        batch_size: int,
        find_progress: Callable[[], tuple[int, float]],
        find_shape: Callable[[float], tuple[int, ...]],
        rank: int = 0,
        world_size: int = 1,
    ):
        self.batches, self.batch_size = batches, batch_size
        self.find_progress, self.find_shape = find_progress, find_shape
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[list[PatchKey]]:
        (epoch, epochs), index = self.find_progress(), self.rank
        pixels = self.batch_size * math.prod(self.find_shape(1.0))
        for batch in range(self.batches):
            shape = self.find_shape((epoch + batch / self.batches) / epochs)
            end = index + round(pixels / math.prod(shape)) * self.world_size
            yield [(epoch, one, shape) for one in range(index, end, self.world_size)]
            index = end

    def __len__(self) -> int:
        return self.batches
