"""Processes of this machine, told apart even after their numbers were given to others."""

from __future__ import annotations

from pathlib import Path

import psutil

STATE, START_TICKS = 0, 19
"""Fields of /proc/PID/stat after the name of the process: its state, and when it was created in
clock ticks since the system was started. See proc_pid_stat(5)."""


def start_time(number: int) -> float | None:
    """Return a number that identifies when a process was created; None if it has ended.

    On Linux, it is counted from the start of the system. The time of day that psutil returns
    changes for running processes when the clock is set, for example after a laptop was suspended.
    """
    if psutil.LINUX:
        try:
            text = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        fields = text.rpartition(")")[2].split()
        return None if fields[STATE] in ("Z", "X") else float(fields[START_TICKS])
    try:
        process = psutil.Process(number)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None


def is_running(number: int, started: float | None) -> bool:
    """Return whether a process still runs.

    Args:
        number: Number of the process.
        started: `start_time` of the process: its number alone may be that of a later one.
    """
    return started is not None and start_time(number) == started
