"""What this machine has, and the measures that make its CPU fast."""

from __future__ import annotations

import ctypes
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from ushape.errors import PlanError


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Cores, memory, accelerator."""

    device: str
    """cpu, cuda or mps."""

    name: str
    """The device in words."""

    cores: int
    """CPU cores that this process may use."""

    memory_bytes: int
    """Memory for training: the accelerator's, or the main memory."""

    main_memory_bytes: int
    has_bf16: bool
    """The device computes bf16 in hardware."""


def inspect_machine(device: str = "auto") -> Machine:
    """Looks at the machine.

    Args:
        device: auto, cpu, cuda or mps.

    Raises:
        PlanError: a device that is not there.
    """
    found = _available_devices()
    chosen = found[0] if device == "auto" else device
    if chosen not in found:
        raise PlanError(
            f"Device {device} is not there; found: {', '.join(found)}.",
            hint="--device auto takes the fastest one.",
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
    """Tells glibc to keep freed memory for the next step.

    Otherwise every step returns its activations to the system and faults them in again, half of
    the time of plain PyTorch on a CPU (benchmarks/README.md). Only works before large
    allocations were made. Returns whether the C library took it.
    """
    m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
    try:
        libc = ctypes.CDLL("libc.so.6")
        return bool(libc.mallopt(m_mmap_max, 0)) and bool(libc.mallopt(m_trim_threshold, -1))
    except (OSError, AttributeError):  # Not glibc: macOS, Windows, musl.
        return False


def _available_devices() -> list[str]:
    """Fastest first."""
    found = ["cuda"] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def _cores() -> int:
    """Cores by affinity and by torch's own count, which respects OMP_NUM_THREADS."""
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(allowed, torch.get_num_threads()))


def _main_memory_bytes() -> int:
    """The system's memory, or the container's share of it."""
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
    """Without these instructions bf16 is slower than fp32 (0.37 of its speed)."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
