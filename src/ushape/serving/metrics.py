"""Counters of a server in the format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""Upper limits of the classes of durations."""


class Metrics:
    """Counters of one server.

    Args:
        count_tasks: Function that returns how many images wait or are processed.
    """

    def __init__(self, count_tasks: Callable[[], int]):
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "ushape_requests", "Requests.", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "ushape_request_seconds",
            "Duration of requests.",
            ["route"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._batches = Histogram(
            "ushape_batch_images",
            "Images in a batch.",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=self._registry,
        )
        self._pixels = Counter(
            "ushape_predicted_pixels", "Pixels of predicted images.", registry=self._registry
        )
        waiting = Gauge(
            "ushape_open_images", "Images that wait or are processed.", registry=self._registry
        )
        waiting.set_function(count_tasks)

    def add_request(self, route: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            route: Pattern of its path, not the path itself, of which there may be any number.
        """
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def add_batch(self, size: int) -> None:
        self._batches.observe(size)

    def add_pixels(self, count: int) -> None:
        self._pixels.inc(count)

    def text(self) -> bytes:
        """Return all values for Prometheus."""
        return generate_latest(self._registry)
