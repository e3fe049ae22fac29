"""Properties of this machine, settings that make its CPU fast, and the time of a training step."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch

from ushape.config import resolved
from ushape.errors import PlanError
from ushape.labels import LabelSpace
from ushape.losses import build_loss
from ushape.models import build_model
from ushape.planning.recipe import Recipe

FORWARD_SHARE = 0.25
"""Seconds of a prediction per second of a training step on as many pixels (measured: 119 and 481
ms for 512 x 512 pixels)."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Cores, memory and accelerator of a machine."""

    device: str
    """Type of the device: cpu, cuda or mps."""

    name: str
    """Name of the device."""

    cores: int
    """Number of CPU cores that this process may use."""

    memory_bytes: int
    """Memory for training: that of the accelerator, or the main memory."""

    main_memory_bytes: int
    has_bf16: bool
    """Whether the device computes bf16 in hardware."""


def inspect_machine(device: str = "auto") -> Machine:
    """Return the properties of this machine.

    Args:
        device: Type of device: cpu, cuda, mps, or auto for the fastest one.

    Raises:
        PlanError: if the device is not available.
    """
    is_available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    found = [*(kind for kind, is_there in is_available.items() if is_there), "cpu"]
    chosen = found[0] if device == "auto" else device
    if chosen not in found:
        raise PlanError(
            f"Device {device} is not available; available: {', '.join(found)}.",
            code="device_not_available",
            hint="Use --device auto for the fastest available one.",
        )
    main_memory = _main_memory_bytes()
    if chosen == "cuda":
        properties = torch.cuda.get_device_properties(0)
        name, memory = properties.name, properties.total_memory
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        name, memory, has_bf16 = _cpu_name(), main_memory, chosen == "cpu" and _cpu_has_bf16()
    return Machine(
        device=chosen,
        name=name,
        cores=_cores(),
        memory_bytes=memory,
        main_memory_bytes=main_memory,
        has_bf16=has_bf16,
    )


def keep_memory() -> bool:
    """Tell glibc to keep freed memory for the next step, and return whether it does.

    Otherwise every step returns its activations to the system and requests them again, which takes
    half of the time of plain PyTorch on a CPU (benchmarks/README.md). It has no effect after large
    allocations and on systems without glibc (macOS, Windows, musl).
    """
    if not sys.platform.startswith("linux"):
        return False
    m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
    try:
        libc = ctypes.CDLL("libc.so.6")
        return bool(libc.mallopt(m_mmap_max, 0)) and bool(libc.mallopt(m_trim_threshold, -1))
    except (OSError, AttributeError):  # Linux with another C library.
        return False


def _cores() -> int:
    """Count the cores that affinity and PyTorch allow, which respects OMP_NUM_THREADS."""
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(allowed, torch.get_num_threads()))


def _main_memory_bytes() -> int:
    """Return the memory of the system, or the limit of its Linux container."""
    total = psutil.virtual_memory().total
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(limit).read_text()))
        except (OSError, ValueError):
            continue
    return total


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cpu_has_bf16() -> bool:
    """Return whether the CPU has bf16 instructions; emulated bf16 is slower than fp32."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is not None:
        found = capabilities()
        names = ["avx512_bf16", "amx_bf16"]
        if sys.platform.startswith("linux"):
            names.append("bf16")  # ARM, where PyTorch uses it through oneDNN.
        return any(found.get(name, False) for name in names)
    try:  # PyTorch before 2.13.
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def precision_context(device: str, precision: str) -> AbstractContextManager[object]:
    """Return autocast for bf16, otherwise a context without effect."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16")


def memory_format(dims: int, *, channels_last: bool) -> torch.memory_format:
    """Return the memory format: channels last only in 2D.

    In PyTorch 2.13, the bf16 gradients of channels-last 3D convolutions on a CPU read uninitialized
    memory: with 2 to 32 channels, about 1 step in 100 became NaN if freed memory contained NaN.
    """
    return torch.channels_last if channels_last and dims == 2 else torch.contiguous_format


def measure_step_s(
    recipe: Recipe, channels: int, space: LabelSpace, device: str, limit_s: float = math.inf
) -> float:
    """Return the typical seconds of a training step with all its batches, without loading.

    The step uses random patches. The random state of PyTorch does not change, so that a training
    starts from the same weights with and without a measurement.

    Args:
        limit_s: Seconds that the measurement may take. If whole steps do not fit, steps with fewer
            patches are measured and scaled.
    """
    train = recipe.train
    batch = resolved(train.batch_size)
    started = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        if batch > PROBE and limit_s < math.inf:
            probe = replace(recipe, train=replace(train, batch_size=PROBE))
            step = _TrainingStep(probe, channels, space, device)
            scaled = typical_s(step.run, limit_s / 4) * batch / PROBE
            left = limit_s - (time.perf_counter() - started)
            if 2 * scaled > left:
                return train.accumulate_grad_batches * scaled
            limit_s = left
        step = _TrainingStep(recipe, channels, space, device)
        return train.accumulate_grad_batches * typical_s(step.run, limit_s)


PROBE = 2
"""Number of patches of a trial step. Batch norm may need more than one."""

WARM_UP = 2
"""Number of calls that allocate memory and select kernels."""


def typical_s(
    run: Callable[[], None], limit_s: float, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the typical seconds of a call, not disturbed by single slow ones.

    This is the median of the calls after the first two, the faster one of the middle two. If only
    a few calls fit into the limit, it is the shortest one. At least one call is made.
    """
    began = clock()
    times: list[float] = []
    while True:
        started = clock()
        run()
        times.append(clock() - started)
        used, count = clock() - began, len(times) - WARM_UP
        if count >= 12 or (count >= 5 and used >= 1.5) or used + min(times) > limit_s:
            break
    settled = sorted(times[WARM_UP:])
    return settled[(len(settled) - 1) // 2] if len(settled) >= 3 else min(times)


class _TrainingStep:
    """Network, loss and optimizer with a random batch."""

    def __init__(self, recipe: Recipe, channels: int, space: LabelSpace, device: str):
        train, network = recipe.train, recipe.network
        batch_size, patch_shape = resolved(train.batch_size), resolved(recipe.sampling.patch_shape)
        layout = memory_format(network.dims, channels_last=train.channels_last)
        built = build_model(network, channels, space.channels)
        dtype = torch.float64 if train.precision == "fp64" else torch.float32
        self.network = built.to(device, dtype, memory_format=layout)  # type: ignore[call-overload]
        self.loss = build_loss(recipe.loss, space, deep_supervision=network.deep_supervision > 0)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), fused=device != "mps")
        self.device, self.precision = device, train.precision

        image = torch.randn(batch_size, channels, *patch_shape)
        self.image = image.to(device, dtype, memory_format=layout)
        margin = int(built.margin)  # type: ignore[arg-type]
        inner = [size - 2 * margin for size in patch_shape]
        self.target = torch.zeros(batch_size, space.channels, *inner, device=device)
        self.weight = torch.ones(batch_size, 1, *inner, device=device)

    def run(self) -> None:
        self.optimizer.zero_grad()
        with precision_context(self.device, self.precision):
            loss = self.loss(self.network(self.image), self.target, self.weight)
        loss.backward()
        self.optimizer.step()
        loss.item()  # Waits for the accelerator.
