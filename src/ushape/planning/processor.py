"""Share the processor with other programs.

If other programs use some of the cores, the threads of PyTorch wait for those that do not run, and
spin while they wait. Measured with a small U-Net (steps per second; benchmarks/README.md):

    8 cores, nothing else running: 8 threads 39.9, 4 threads 25.7
    8 cores, 4 of them used by others: 8 threads 0.9 (waiting passively 7.9), 4 threads 29.8

so there are as many threads as free cores. The choice is repeated while a training runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import torch

SAMPLE_S = 0.2
"""Seconds for which the load is measured before a training is planned."""


class LoadMeter:
    """Measures how many cores other programs use, from one call to the next."""

    def __init__(self, read: Callable[[], tuple[float, float]] | None = None) -> None:
        self._read = read or _read_seconds
        self._last = self._read()

    def cores_of_others(self) -> float:
        """Return the mean number of cores that others used since the last call."""
        now, used = self._read()
        before, used_before = self._last
        self._last = now, used
        return max(0.0, (used - used_before) / (now - before)) if now > before else 0.0


def threads_beside(others: float, cores: int, all_cores: int | None = None) -> int:
    """Return how many threads to use: as many as cores are free, at least one.

    Args:
        others: Number of cores that other programs use.
        cores: Number of cores that this process may use.
        all_cores: Number of cores of the machine; None: ask the system.
    """
    free = (all_cores or os.cpu_count() or cores) - others
    return max(1, min(cores, int(free + 0.5)))


def leave_cores_to_others(cores: int, meter: LoadMeter | None = None) -> str:
    """Use fewer threads if other programs use the processor.

    Returns:
        A warning that states how busy the processor is; '' if it is not.
    """
    if meter is None:
        meter = LoadMeter()
        time.sleep(SAMPLE_S)
    others = meter.cores_of_others()
    threads = threads_beside(others, cores)
    torch.set_num_threads(threads)
    if threads == cores:
        return ""
    return (
        f"Warning: other programs use {others:.1f} of the {os.cpu_count()} cores of this machine. "
        f"The training starts with {threads} of {cores} threads, and makes fewer steps in the same "
        "time."
    )


@contextmanager
def threads_restored() -> Iterator[None]:
    """Restore the number of PyTorch's threads when the block or the decorated function ends."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _read_seconds() -> tuple[float, float]:
    """Return the time, and the seconds of processor time that other programs have used so far."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # Counted twice.
    own = 0.0
    process = psutil.Process()
    for one in [process, *process.children(recursive=True)]:
        try:
            used = one.cpu_times()
        except psutil.Error:  # It has ended.
            continue
        own += used.user + used.system
    return time.monotonic(), sum(times) - idle - guests - own
