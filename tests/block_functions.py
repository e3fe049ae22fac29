"""Functions of blocks that workers of Dask import in the tests."""

import os
import signal
import time
from pathlib import Path

from ushape.errors import DataError


def square(index):
    return index**2


def marked(folder, index, *, seconds=0.0):
    """Compute a block once: the second call finds its mark. Every call adds a line to a log."""
    mark = Path(folder) / f"{index}.done"
    with (Path(folder) / f"{index}.log").open("a") as log:
        log.write("found\n" if mark.exists() else "computed\n")
    if mark.exists():
        return 0
    time.sleep(seconds)
    mark.touch()
    return 1


def kill_once(folder, index):
    """Kill the worker in the middle of block 3, the first time."""
    sign = Path(folder) / "killed"
    if index == 3 and not sign.exists():
        sign.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return marked(folder, index)


def kill_always(index):
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(index):
    raise DataError(f"part {index} is damaged.", code="damaged", hint="Copy it again.")


def fail_once(folder, index):
    """Raise an error of the disk the first time that a block is computed."""
    sign = Path(folder) / f"{index}.failed"
    if not sign.exists():
        sign.touch()
        raise OSError("Input/output error")
    return index


def fail(index):
    raise ValueError("surprise")
