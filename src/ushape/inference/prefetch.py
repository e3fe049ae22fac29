"""Reading, network and writing at the same time; small images of one size share a batch."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from ushape.errors import DataError
from ushape.inference.sliding_window import (
    BATCH_PX,
    Network,
    TileSettings,
    predict_alike,
    predict_probabilities,
)
from ushape.labels import LabelSpace

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 8
"""Images that are read before they are needed, and results that wait to be written, at most."""


def map_ahead(
    function: Callable[[T], R], items: Iterable[T], *, threads: int = 2, ahead: int = AHEAD
) -> Iterator[tuple[T, R | DataError]]:
    """Each item with what the function makes of it, in order, computed in threads before it is
    asked for. A DataError is handed on, any other error is raised."""
    waiting: deque[tuple[T, Future[R]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(function, item)))
                if len(waiting) >= ahead:
                    yield _settle(waiting.popleft())
            while waiting:
                yield _settle(waiting.popleft())
        finally:  # Also where nobody wants the rest.
            for _, future in waiting:
                future.cancel()


def _settle(pair: tuple[T, Future[Any]]) -> tuple[T, Any]:
    item, future = pair
    try:
        return item, future.result()
    except DataError as error:
        return item, error


def predict_images(
    network: Network,
    images: Iterable[tuple[T, np.ndarray | DataError]],
    space: LabelSpace,
    settings: TileSettings,
) -> Iterator[tuple[T, np.ndarray | DataError]]:
    """Probabilities of many prepared images, in order; those of one size that follow each other
    are predicted together.

    Shapes:
        images: (C, *S) float32 each -> (K, *S) float32.
    """
    alike: list[tuple[T, np.ndarray]] = []
    for item, image in images:
        is_other = isinstance(image, DataError) or (alike and image.shape != alike[0][1].shape)
        if is_other:
            yield from _predict_alike(network, alike, space, settings)
            alike = []
        if isinstance(image, DataError):
            yield item, image
            continue
        alike.append((item, image))
        if (len(alike) + 1) * math.prod(image.shape[1:]) > BATCH_PX:
            yield from _predict_alike(network, alike, space, settings)
            alike = []
    yield from _predict_alike(network, alike, space, settings)


def _predict_alike(
    network: Network, alike: list[tuple[T, np.ndarray]], space: LabelSpace, settings: TileSettings
) -> Iterator[tuple[T, np.ndarray]]:
    if len(alike) > 1:
        images = np.stack([image for _, image in alike])
        found = predict_alike(network, images, space, settings)
        if found is not None:
            yield from zip([item for item, _ in alike], found, strict=True)
            return
    for item, image in alike:
        yield item, predict_probabilities(network, image, space, settings)
