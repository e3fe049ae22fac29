"""Share the processor with other programs.

If other programs use some of the cores, the threads of PyTorch wait for those that do not run, and
spin while they wait. Measured with a small U-Net (steps per second; benchmarks/README.md):

    8 cores, nothing else running: 8 threads 39.9, 4 threads 25.7
    8 cores, 4 of them used by others: 8 threads 0.9 (waiting passively 7.9), 4 threads 29.8

so there are as many threads as free cores. The last digits of the results depend on their number.
If the number of epochs is set, it is chosen once and stored in the plan; with a time limit, the
choice is repeated during training.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import psutil
import torch

from ushape.config import AUTO
from ushape.formatting import pluralize
from ushape.planning.hardware import Machine, allowed_cores, inspect_machine, usable_cores
from ushape.planning.recipe import TrainConfig

THREADS = "OMP_NUM_THREADS"
"""Environment variable with which users choose the number of threads of many programs."""

SAMPLE_S = 0.2
"""Seconds of one measurement of the load."""

SAMPLES = 5
"""Number of measurements whose median counts, so that a short burst has no effect."""


class LoadMeter:
    """Measures how many cores other programs leave free, from one call to the next.

    Args:
        read: Returns the time, and the seconds of processor time that other programs have used.
        cores: Number of cores on which this process may run; None: ask the system.
    """

    def __init__(
        self, read: Callable[[], tuple[float, float]] | None = None, cores: int | None = None
    ) -> None:
        self._read = read or _read_seconds
        self._cores = cores or len(allowed_cores())
        self._last = self._read()

    def free_cores(self) -> float:
        """Return the mean number of cores that others left free since the last call."""
        now, used = self._read()
        before, used_before = self._last
        self._last = now, used
        others = max(0.0, (used - used_before) / (now - before)) if now > before else 0.0
        return max(0.0, self._cores - others)


def measure_free_cores(
    samples: int = SAMPLES,
    meter: LoadMeter | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> float:
    """Return how many cores other programs leave free, the median of some short measurements."""
    meter = meter or LoadMeter()
    found = []
    for _ in range(samples):
        sleep(SAMPLE_S)
        found.append(meter.free_cores())
    return statistics.median(found)


def threads_beside(free_cores: float, most: int) -> int:
    """Return how many threads to use: as many as cores are free, at least one.

    Args:
        free_cores: Number of cores that other programs leave free.
        most: Largest number of threads.
    """
    return max(1, min(most, int(free_cores + 0.5)))


def follows_load(train: TrainConfig, machine: Machine) -> bool:
    """Return whether the number of threads changes during training."""
    return train.minutes is not None and machine.device == "cpu"


def with_load(machine: Machine, train: TrainConfig) -> Machine:
    """Return the machine with its free cores, if the number of threads depends on them."""
    if follows_load(train, machine):
        return replace(machine, free_cores=measure_free_cores(samples=1))  # It is measured again.
    is_open = train.threads == AUTO and THREADS not in os.environ
    if is_open and machine.device == "cpu" and machine.cores > 1:
        return replace(machine, free_cores=measure_free_cores())
    return machine


def choose_threads(train: TrainConfig, machine: Machine) -> int:
    """Return the number of threads for a plan.

    With a time limit it is the largest number, because the number follows the load.
    """
    if train.threads != AUTO:
        return train.threads
    if machine.free_cores is None or follows_load(train, machine):
        return machine.cores
    return threads_beside(machine.free_cores, machine.cores)


def describe_sharing(train: TrainConfig, machine: Machine) -> str:
    """Return a sentence for the plan if it has fewer threads than cores; '' if it has not."""
    threads = choose_threads(train, machine)
    if train.threads != AUTO or machine.free_cores is None or threads == machine.cores:
        return ""
    return (
        f" Other programs leave only {machine.free_cores:.1f} cores free, so the training uses "
        f"{threads} of {machine.cores} threads; train.threads={machine.cores} would use all."
    )


def use_threads(train: TrainConfig, machine: Machine) -> str:
    """Set the number of PyTorch's threads with which training starts.

    Args:
        train: Settings of the training, planned or not.
        machine: This machine, with its load if that is needed.

    Returns:
        A sentence about a number that is not that of the cores; '' if it is, or if the plan
        explains it.
    """
    planned = threads = choose_threads(train, machine)
    if follows_load(train, machine) and machine.free_cores is not None:
        threads = threads_beside(machine.free_cores, planned)
    torch.set_num_threads(threads)
    if threads < planned:
        return (
            f"Warning: other programs leave only {machine.free_cores:.1f} of the "
            f"{pluralize(len(allowed_cores()), 'core')} of this machine free. The training starts "
            f"with {threads} of {planned} threads, and makes fewer steps in the same time."
        )
    if threads > machine.cores and machine.device == "cpu":
        return (
            f"Warning: the training uses {threads} threads, as in its plan, instead of "
            f"{machine.cores}, because another number would change the last digits of the weights. "
            f"If it is slow, start a new run with --set train.threads={machine.cores}."
        )
    if train.threads != AUTO and threads < machine.cores:
        return f"The training uses {threads} of {machine.cores} threads (train.threads)."
    return ""


def keep_to_usable_cores() -> None:
    """Use no more threads than cores, unless OMP_NUM_THREADS sets their number.

    PyTorch starts a thread for each core of the machine, also in a container that may use the time
    of a few cores only.
    """
    if THREADS not in os.environ:
        torch.set_num_threads(min(usable_cores(), torch.get_num_threads()))


def leave_cores_to_others(device: str) -> str:
    """Predict with as many threads as cores are free, unless OMP_NUM_THREADS sets their number.

    Args:
        device: Type of device: cpu, cuda, mps, or auto for the fastest one.

    Returns:
        A sentence if there are fewer threads than cores; '' if there are not.

    Raises:
        PlanError: if the device is not available.
    """
    keep_to_usable_cores()
    machine = inspect_machine(device)
    if machine.device != "cpu" or machine.cores == 1 or THREADS in os.environ:
        return ""
    free = measure_free_cores()
    threads = threads_beside(free, machine.cores)
    if threads == machine.cores:
        return ""
    torch.set_num_threads(threads)
    return (
        f"Other programs leave only {free:.1f} cores free, so the images are predicted with "
        f"{threads} of {machine.cores} threads. To use another number, set {THREADS}."
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
    """Return the time, and the seconds of processor time that other programs have used so far.

    Only the cores on which this process may run count. Where the system does not tell, the
    programs seem to have used no time.
    """
    try:
        cores = psutil.cpu_times(percpu=True)
        own = _own_seconds()
    except (OSError, RuntimeError, psutil.Error):  # Some sandboxes hide the times.
        return time.monotonic(), 0.0
    numbers = allowed_cores()
    if max(numbers) < len(cores):  # Containers may number their cores differently.
        cores = [cores[number] for number in numbers]
    return time.monotonic(), sum(map(_busy_seconds, cores)) - own


def _busy_seconds(times: tuple[float, ...]) -> float:
    # Niced programs count: in another session or control group, they get as much as others.
    idle = times.idle + getattr(times, "iowait", 0.0)  # type: ignore[attr-defined]
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # Counted twice.
    return sum(times) - idle - guests


def _own_seconds() -> float:
    """Return the processor time of this process and of its children, also of those that ended."""
    process, seconds = psutil.Process(), 0.0
    for one in [process, *process.children(recursive=True)]:
        try:
            used = one.cpu_times()
        except psutil.Error:  # It has ended.
            continue
        ended = getattr(used, "children_user", 0.0) + getattr(used, "children_system", 0.0)
        seconds += used.user + used.system + ended
    return seconds
