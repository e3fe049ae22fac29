"""Limits of cores and memory that a container, a job or another process sets for this process.

Linux limits the processes of a container or a job by control groups, which may be nested: the
strictest limit of all of them applies. In version 2 there is one tree of groups, in version 1 one
for each kind of limit.

Source:
    Documentation of the Linux kernel, "Control Group v2" and "Control Groups version 1";
    sbatch(1) of SLURM, "Output environment variables".
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

import psutil

from ushape.errors import ConfigError

SYSTEM = Path("/")
"""Root folder of the system; tests use another one."""

PROCESSES = "USHAPE_PROCESSES"
"""Environment variable with the number of training runs that share the cores and the main memory of
this machine, including this one."""

SLURM_MEMORY = (
    ("SLURM_MEM_PER_NODE", None),
    ("SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE"),
    ("SLURM_MEM_PER_GPU", "SLURM_GPUS_ON_NODE"),
)
"""Variables with the memory of a job in MB (2^20 bytes), and with the number by which it is
multiplied. 0 MB means that there is no limit."""


def sharing_processes(environment: Mapping[str, str] = os.environ) -> int:
    """Return how many training runs share the cores and the main memory of this machine.

    Raises:
        ConfigError: if the environment variable is not a positive number.
    """
    text = environment.get(PROCESSES) or "1"
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(
            f"The environment variable {PROCESSES} is {text!r}.",
            code="invalid_processes",
            hint="Set it to the number of training runs on this machine at the same time, or "
            "remove it.",
        )
    return int(text)


def core_limit(system: Path = SYSTEM) -> int | None:
    """Return how many cores the processes of a container may use on average, rounded up.

    Returns:
        None if there is no limit.
    """
    quotas = []
    for group in _control_groups("cpu", system):
        texts = _text(group / "cpu.max").split()
        if not texts:
            texts = [_text(group / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
        with suppress(ValueError):  # "max": no limit.
            quota, period = map(int, texts)
            if quota > 0 and period > 0:
                quotas.append(math.ceil(quota / period))
    return min(quotas, default=None)


def memory_limit_bytes(system: Path = SYSTEM, environment: Mapping[str, str] = os.environ) -> int:
    """Return the main memory that the processes of this container or job may use together."""
    groups = [limit for limit, _ in _memory_groups(system)]
    slurm = _slurm_memory_bytes(environment)
    return min([psutil.virtual_memory().total, *groups, *([] if slurm is None else [slurm])])


def free_memory_bytes(system: Path = SYSTEM, environment: Mapping[str, str] = os.environ) -> int:
    """Return how much memory this process can still use, within the limits that apply to it."""
    free = [int(psutil.virtual_memory().available)]
    free += [limit - used for limit, used in _memory_groups(system) if used is not None]
    slurm = _slurm_memory_bytes(environment)
    if slurm is not None:  # The use of other processes is known only if there are control groups.
        free.append(slurm - psutil.Process().memory_info().rss)
    if sys.platform != "win32":
        import resource

        address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
        if address_space != resource.RLIM_INFINITY:
            free.append(address_space - psutil.Process().memory_info().vms)
    return max(0, min(free))


def _slurm_memory_bytes(environment: Mapping[str, str]) -> int | None:
    """Return the memory of a job of SLURM on this node; None if there is no limit."""
    limits = []
    for memory, count in SLURM_MEMORY:
        with suppress(KeyError, ValueError):
            limit = int(environment[memory]) * (1 if count is None else int(environment[count]))
            limits.append(limit << 20)
    return min((limit for limit in limits if limit > 0), default=None)


def _memory_groups(system: Path) -> Iterator[tuple[int, int | None]]:
    """Yield limit and use of memory of each control group that has a limit, in bytes.

    Files that the system keeps in memory do not count as used: it removes them if it needs space.
    """
    for group in _control_groups("memory", system):
        for limit, used, prefix in (
            ("memory.max", "memory.current", ""),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
        ):
            with suppress(ValueError):  # "max", or no such file.
                limit_bytes = int(_text(group / limit))
                used_text = _text(group / used)
                cached = _cached_bytes(_text(group / "memory.stat"), prefix)
                yield limit_bytes, int(used_text) - cached if used_text else None


def _cached_bytes(statistics: str, prefix: str) -> int:
    """Return the size of cached files in the statistics of a control group."""
    names = (f"{prefix}active_file ", f"{prefix}inactive_file ")
    return sum(int(line.split()[1]) for line in statistics.splitlines() if line.startswith(names))


def _control_groups(kind: str, system: Path) -> Iterator[Path]:
    """Yield the folders of the control groups of this process, the innermost one first.

    Args:
        kind: What the groups limit: cpu or memory.
    """
    mounted = system / "sys/fs/cgroup"
    paths = {mounted: "/", mounted / kind: "/"}
    for line in _text(system / "proc/self/cgroup").splitlines():
        _, kinds, path = line.split(":", 2)
        if not kinds:
            paths[mounted] = path
        elif kind in kinds.split(","):
            paths[mounted / kind] = paths[mounted / kinds] = path  # Such as cpu,cpuacct.
    for root, path in paths.items():
        names = PurePosixPath(path).parts[1:]
        if ".." in names:  # It is outside of what this container sees.
            names = ()
        # In a container, the path may be that of the host, of which it sees the end only.
        while names and not root.joinpath(*names).is_dir():
            names = names[1:]
        for length in range(len(names), -1, -1):
            yield root.joinpath(*names[:length])


def _text(path: Path) -> str:
    """Return the content of a small file of the system; '' if it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""
