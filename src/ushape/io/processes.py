"""Processes of this machine, told apart even after their numbers were given to others."""

from __future__ import annotations

import psutil


def start_time(number: int) -> float | None:
    """Return when a process was created, in seconds; None if it has ended.

    On Linux, it is counted from the start of the system: the time of day would change for running
    processes when the clock is set, for example after a laptop was suspended.
    """
    try:
        process = psutil.Process(number)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        zero = psutil.boot_time() if psutil.LINUX else 0.0
        return round(process.create_time() - zero, 2)
    except psutil.Error:
        return None


def is_running(number: int, started: float | None) -> bool:
    """Return whether a process still runs.

    Args:
        number: Number of the process.
        started: `start_time` of the process: its number alone may be that of a later one.
    """
    return started is not None and start_time(number) == started
