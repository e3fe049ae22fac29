"""The memory on which a thread of Linux handles signals."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """`stack_t` of Linux: start, flags, and size in bytes."""

    _fields_ = (
        ("start", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_size_t),
    )


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Give this thread the alternate signal stack back that it had before the block.

    OpenVINO 2026.4 registers its own stack while it compiles some models, and frees it with
    the model. Python handles signals on the registered stack, so that the next signal, such as
    Ctrl-C, would end the process with a segmentation fault.
    """
    if sys.platform != "linux":
        yield
        return
    library, before = ctypes.CDLL(None), _Stack()
    library.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        library.sigaltstack(ctypes.byref(before), None)
