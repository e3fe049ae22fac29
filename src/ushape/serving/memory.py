"""Memory that requests with arrays may use together."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ushape.inference.predictor import MAX_SHARE, Predictor
from ushape.planning.hardware import inspect_machine
from ushape.serving.refusals import RETRY_AFTER, Refusal


def needed_bytes(predictor: Predictor, pixels: int) -> int:
    """Return the memory that images with so many pixels and their probabilities take."""
    own = predictor.plan.preprocessing
    return pixels * (5 * own.channels + 12 * own.space.outputs)


def memory_limit_bytes(predictor: Predictor) -> float:
    """Return the memory that images and their predictions may take."""
    return MAX_SHARE * inspect_machine(predictor.device).main_memory_bytes


@dataclass
class MemoryBudget:
    """Counts the bytes that requests in progress need, and refuses those that do not fit."""

    limit_bytes: float
    used_bytes: float = field(default=0.0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @contextmanager
    def reserved(self, count_bytes: float) -> Iterator[None]:
        """Reserve memory while the block runs.

        Raises:
            Refusal: with status 413 if the budget is smaller, and 503 if others use it now.
        """
        with self._lock:
            if count_bytes > self.limit_bytes:
                raise Refusal(
                    413,
                    "image_too_large",
                    "The arrays of the request are too large for the memory of the server.",
                    "Send fewer or smaller images, or a file: POST /predict.",
                )
            if self.used_bytes + count_bytes > self.limit_bytes:
                raise Refusal(
                    503,
                    "unavailable",
                    "The memory of the server is used by other requests.",
                    "Try again later.",
                    [RETRY_AFTER],
                )
            self.used_bytes += count_bytes
        try:
            yield
        finally:
            with self._lock:
                self.used_bytes -= count_bytes
