"""What a faster backend changes in the prediction, and how much faster it is."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ushape.labels import LabelSpace
from ushape.prediction.backends.backend import Backend


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far the predictions of two backends lie apart."""

    largest_probability: float
    """Largest difference of a class probability in any pixel."""

    changed_share: float
    """Share of pixels whose class differs."""

    tiles: int
    """Tiles seen."""


def compare(
    reference: Backend, other: Backend, tiles: Iterable[np.ndarray], space: LabelSpace
) -> Difference:
    """Predicts the same tiles with both.

    Shapes:
        tiles: batches (B, C, *T) float32, T legal.
    """
    largest, changed, pixels, seen = 0.0, 0, 0, 0
    for batch in tiles:
        first, second = (_predict(backend, batch, space) for backend in (reference, other))
        largest = max(largest, float(np.abs(first - second).max()))
        for one, two in zip(first, second, strict=True):
            classes = space.decode(one)
            changed += int((classes != space.decode(two)).sum())
            pixels, seen = pixels + classes.size, seen + 1
    return Difference(
        largest_probability=largest, changed_share=changed / max(1, pixels), tiles=seen
    )


def measure_speed(
    backends: Sequence[Backend], tiles: np.ndarray, *, rounds: int = 5
) -> dict[str, float]:
    """Median seconds of each backend, by name; they take turns, so that a busy machine is fair.

    Args:
        rounds: Turns of each, after one that does not count.

    Shapes:
        tiles: (B, C, *T) float32, T legal.
    """
    image = torch.from_numpy(np.ascontiguousarray(tiles))
    times: dict[str, list[float]] = {backend.name: [] for backend in backends}
    for _ in range(1 + rounds):
        for backend in backends:
            started = time.perf_counter()
            backend.logits(image)[..., :1].cpu()  # Waits for an accelerator.
            times[backend.name].append(time.perf_counter() - started)
    return {name: statistics.median(found[1:]) for name, found in times.items()}


def _predict(backend: Backend, tiles: np.ndarray, space: LabelSpace) -> np.ndarray:
    """(B, C, *T) -> (B, K, *T'), probabilities in float32."""
    logits = backend.logits(torch.from_numpy(np.ascontiguousarray(tiles)))
    return space.probabilities(logits).cpu().numpy()
