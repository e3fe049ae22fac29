"""Read, compute and write many images at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

from ushape.errors import DataError
from ushape.inference.sliding_window import BATCH_PX

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 8
"""Largest number of images that are read in advance, and of results that wait to be written."""

AHEAD_PX = 1 << 23
"""Largest number of pixels of all images in memory, if there is more than one."""


class Loaded(Protocol):
    """An image that was read."""

    @property
    def pixels(self) -> int:
        """Number of pixels, channels not counted."""
        ...

    @property
    def batch_key(self) -> object:
        """Images with equal keys may share a batch; an image with None is processed alone."""
        ...


S = TypeVar("S", bound=Loaded)
P = TypeVar("P")


@dataclass(frozen=True)
class Computed(Generic[T, P]):
    """An item between computing and writing."""

    item: T
    result: P | DataError
    is_alone: bool = False


@dataclass
class Limit:
    """Number of images that may be in memory, derived from the largest one that was read."""

    largest_px: int = 0

    def __call__(self) -> int:
        # The first image may be large, so only one is read.
        return max(1, min(AHEAD, AHEAD_PX // self.largest_px)) if self.largest_px else 1


def overlap(
    items: Iterable[T],
    *,
    read: Callable[[T], S],
    compute: Callable[[Sequence[S]], Sequence[P]],
    write: Callable[[T, P], R],
) -> Iterator[tuple[T, R | DataError]]:
    """Yield each item with what `write` returns for it, in order.

    This is the loop `write(item, compute(read(item)))`. While this thread computes, the next items
    are read and the last results are written in separate threads. A DataError of `read` or
    `write` takes the place of the result; any other exception is raised.
    """

    def write_one(one: Computed[T, P]) -> R:
        if isinstance(one.result, DataError):
            raise one.result
        return write(one.item, one.result)

    limit = Limit()
    computed = compute_ahead(items, read=read, compute=compute, limit=limit)
    # One thread writes, so that the outputs are in the order of the items.
    for one, result in map_ahead(
        write_one, computed, threads=1, ahead=limit, alone=lambda one: one.is_alone
    ):
        yield one.item, result


def compute_ahead(
    items: Iterable[T],
    *,
    read: Callable[[T], S],
    compute: Callable[[Sequence[S]], Sequence[P]],
    limit: Limit | None = None,
) -> Iterator[Computed[T, P]]:
    """Yield each item with what `compute` returns for it, in order, while the next items are read.

    Small images with one key that follow each other are computed together.
    """
    limit = limit or Limit()
    batch: list[tuple[T, S]] = []

    def results() -> Iterator[Computed[T, P]]:
        if batch:
            is_alone = batch[0][1].batch_key is None
            found = _compute_each(compute, [image for _, image in batch])
            for (item, _), result in zip(batch, found, strict=True):
                yield Computed(item, result, is_alone)
            batch.clear()

    for item, image in map_ahead(read, items, ahead=limit):
        if isinstance(image, DataError):
            yield from results()
            yield Computed(item, image)
            continue
        limit.largest_px = max(limit.largest_px, image.pixels)
        if batch and batch[0][1].batch_key != image.batch_key:
            yield from results()
        batch.append((item, image))
        is_full = (len(batch) + 1) * image.pixels > BATCH_PX
        if is_full or image.batch_key is None:
            yield from results()
    yield from results()


def _compute_each(
    compute: Callable[[Sequence[S]], Sequence[P]], images: Sequence[S]
) -> Sequence[P | DataError]:
    """Return the results of a batch; after a DataError, each image is computed alone."""
    try:
        return compute(images)
    except DataError as error:
        if len(images) == 1:
            return [error]
    return [found for image in images for found in _compute_each(compute, [image])]


def map_ahead(
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    threads: int = 2,
    ahead: Callable[[], int] = lambda: AHEAD,
    alone: Callable[[T], bool] = lambda item: False,
) -> Iterator[tuple[T, R | DataError]]:
    """Yield each item with what the function returns for it, in order, computed in threads.

    Args:
        ahead: Function that returns how many items may be in progress or waiting to be yielded.
        alone: Function that returns whether an item is processed in the calling thread, when all
            items before it were yielded.
    """
    waiting: deque[tuple[T, Future[R]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                is_alone = alone(item)
                if not is_alone:
                    waiting.append((item, pool.submit(function, item)))
                while waiting and (is_alone or len(waiting) >= ahead()):
                    first, future = waiting.popleft()
                    yield first, _result_of(future.result)
                if is_alone:
                    yield item, _result_of(partial(function, item))
            while waiting:
                first, future = waiting.popleft()
                yield first, _result_of(future.result)
        finally:  # Also if the consumer stops early.
            for _, future in waiting:
                future.cancel()


def _result_of(call: Callable[[], R]) -> R | DataError:
    try:
        return call()
    except DataError as error:
        return error
