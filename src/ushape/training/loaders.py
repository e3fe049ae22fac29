"""Number of processes that can load patches in the memory of this machine."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ushape.config import resolved
from ushape.data.cache import KEEP_SHARE
from ushape.formatting import pluralize
from ushape.planning.plan import Plan
from ushape.training.datamodule import worker_context

SHARED_MEMORY = Path("/dev/shm")
"""File system on Linux through which loading processes hand over batches. Docker containers have 64
MB of it by default."""

PREFETCHED = 2
"""Number of batches that each process of PyTorch's loader has finished in advance, at most."""


def with_fitting_loaders(
    plan: Plan, kept_bytes: float, say: Callable[[str], None], neighbors: int = 1
) -> Plan:
    """Return the plan with no more loading processes than shared and main memory allow.

    The patches do not depend on the number of processes.

    Args:
        kept_bytes: Memory of the training cases that are kept in memory; 0 if files are read.
        say: Function that receives a line if there are fewer processes than planned.
        neighbors: Number of training processes on this machine, which share its memory.
    """
    train = plan.recipe.train
    planned = workers = resolved(train.workers)
    if not planned:
        return plan
    batch_bytes = bytes_of_batch(plan)
    free_bytes = free_shared_bytes()
    if free_bytes is not None:
        fitting = max(0, (free_bytes // neighbors // batch_bytes - 1) // PREFETCHED)
        workers = min(workers, fitting)
    if workers < planned:
        shared = f", shared by {neighbors} devices" if neighbors > 1 else ""
        say(
            f"Only {(free_bytes or 0) / 1e6:.0f} MB of shared memory are free in {SHARED_MEMORY}"
            f"{shared}, and a batch takes {batch_bytes / 1e6:.0f} MB: "
            f"{_describe(workers, planned)} In Docker, --shm-size=8g or --ipc=host makes more "
            "available."
        )
    if worker_context() is None and kept_bytes:  # Each process has a copy of the cases.
        limit = KEEP_SHARE * plan.machine.main_memory_bytes
        fitting = min(workers, max(0, int(limit / kept_bytes) - 1))
        if fitting < workers:
            say(
                f"On this system, each process that loads patches has a copy of the training cases "
                f"({kept_bytes / 1e9:.1f} GB): {_describe(fitting, planned)}"
            )
        workers = fitting
    if workers == planned:
        return plan
    return replace(plan, recipe=replace(plan.recipe, train=replace(train, workers=workers)))


def bytes_of_batch(plan: Plan) -> int:
    """Return the size of a batch of patches: image, target and weight, all float32."""
    channels = plan.preprocessing.input_channels + plan.preprocessing.space.outputs + 1
    return 4 * resolved(plan.recipe.train.batch_size) * channels * math.prod(plan.patch_shape)


def free_shared_bytes() -> int | None:
    """Return the free shared memory; None on systems that do not limit it in this way."""
    try:
        return shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return None


def _describe(workers: int, planned: int) -> str:
    if not workers:
        return "patches are loaded by the training process itself."
    verb = "loads" if workers == 1 else "load"
    return f"{pluralize(workers, 'process')} instead of {planned} {verb} patches."
