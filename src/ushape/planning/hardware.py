"""Properties of this machine, and settings that make its CPU fast."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

from ushape.errors import PlanError, check_range
from ushape.io.limits import core_limit, memory_limit_bytes, sharing_processes


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
    """Main memory that this process may use."""

    has_bf16: bool
    """Whether the device computes bf16 in hardware."""

    free_cores: float | None = None
    """Number of CPU cores that other programs left free; None: it was not measured."""

    devices: int = 1
    """Number of processes that train one model together, each on a device of this type."""


def inspect_machine(device: str = "auto", devices: int = 1) -> Machine:
    """Return the properties of this machine.

    Args:
        device: Type of device: cpu, cuda, mps, or auto for the fastest one.
        devices: Number of devices of this type that train one model together.

    Raises:
        PlanError: if the device is not available, or if there are fewer of them.
        ConfigError: if the number is not positive, or if `sharing_processes` raises it.
    """
    is_available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    found = [*(kind for kind, is_there in is_available.items() if is_there), "cpu"]
    chosen = found[0] if device == "auto" else device
    if chosen not in found:
        raise PlanError(
            f"Device {device} is not available; available: {', '.join(found)}.",
            code="device_not_available",
            hint=_hint_for(device, found),
        )
    _refuse_too_many(chosen, devices)
    main_memory = memory_limit_bytes() // sharing_processes()
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
        devices=devices,
    )


def _hint_for(device: str, available: Sequence[str]) -> str:
    """Return what to use instead of a device whose type is not available."""
    names = [name.strip().partition(":") for name in device.split(",")]
    kinds = {kind for kind, _, _ in names}
    if len(kinds) > 1 or not kinds <= set(available) or names == [(device, "", "")]:
        return "Use --device auto for the fastest available one."
    numbers = [number for _, _, number in names if number]
    kind = kinds.pop()
    chosen = f"CUDA_VISIBLE_DEVICES={','.join(numbers)}" if kind == "cuda" and numbers else ""
    if len(names) == 1:
        how = f" and set the environment variable {chosen} to choose the GPU" if chosen else ""
        return f"Use --device {kind}{how}."
    how = f" The environment variable {chosen} chooses the GPUs." if chosen else ""
    return (
        "Lists of devices are for commands that train several models. To train one model on "
        f"several devices: ushape train DATA --device {kind} --devices {len(names)}.{how}"
    )


def _refuse_too_many(device: str, devices: int) -> None:
    """Raise an error if this machine has fewer devices; any number of processes use its CPU."""
    check_range("devices", devices, 1, hint="Use at least one device.")
    available = {"cuda": torch.cuda.device_count(), "mps": 1}.get(device, devices)
    if devices > available:
        raise PlanError(
            f"{devices} devices of type {device} were requested, but this machine has {available}.",
            code="device_not_available",
            hint="Use fewer --devices, or --device cpu.",
        )


def reuse_freed_memory() -> bool:
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


def allowed_cores() -> list[int]:
    """Return the numbers of the CPU cores on which this process may run."""
    affinity = getattr(os, "sched_getaffinity", None)
    return sorted(affinity(0)) if affinity else list(range(os.cpu_count() or 1))


def usable_cores() -> int:
    """Return how many cores this process may use: those of its affinity, or a limit on their time.

    A container that may use the time of two cores can run on all of them. Training runs that take
    place at the same time share the cores.
    """
    cores = len(allowed_cores())
    return max(1, min(cores, core_limit() or cores) // sharing_processes())


def _cores() -> int:
    """Count the cores that the system and PyTorch allow, which respects OMP_NUM_THREADS."""
    return max(1, min(usable_cores(), torch.get_num_threads()))


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
