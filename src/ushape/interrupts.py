"""Signals that ask a command to end: Ctrl-C, SIGTERM and SIGHUP."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

REPEAT = "To continue, run the same command again."
"""Hint after an interrupt of a command that keeps what is finished."""


TERMINAL_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)
)
"""Signals that reach all processes of a terminal; Windows has no SIGHUP."""


class Terminated(KeyboardInterrupt):
    """The system asked the command to end, with SIGTERM or SIGHUP.

    It is treated like Ctrl-C, except that training ends at once.

    Args:
        signal_number: Number of the signal.
    """

    def __init__(self, signal_number: int):
        super().__init__()
        self.signal_number = signal_number


@contextmanager
def hint_after_interrupt(sentence: str) -> Iterator[None]:
    """Attach a sentence to an interrupt of the block that says how to continue.

    Of nested blocks, the sentence of the outermost one is kept.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        interrupt.__notes__ = [sentence]
        raise


@contextmanager
def interrupts_handled_by(
    handler: Any, signals: Sequence[int] = (signal.SIGINT,)
) -> Iterator[None]:
    """Handle Ctrl-C by a function or as `signal.signal` takes it during the block.

    Other threads than the main one cannot handle signals: the block then runs without it.

    Args:
        signals: Signals to handle, Ctrl-C (SIGINT) by default.
    """
    before: dict[int, Any] = {}
    try:
        for number in signals:
            before[number] = signal.signal(number, handler)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        for number, handled in before.items():
            signal.signal(number, handled)


@contextmanager
def interrupts_held_off() -> Iterator[None]:
    """Hold off Ctrl-C, SIGTERM and SIGHUP until the end of the block.

    Other threads than the main one cannot handle signals: the block then runs without it.
    """
    received: list[int] = []
    numbers = (*TERMINAL_SIGNALS, signal.SIGTERM)
    handled = [number for number in numbers if callable(signal.getsignal(number))]
    try:
        with interrupts_handled_by(lambda number, _: received.append(number), handled):
            yield
    finally:
        for number in received[:1]:
            signal.raise_signal(number)


@contextmanager
def at_first_interrupt(act: Callable[[], None]) -> Iterator[None]:
    """Call a function at the first Ctrl-C during the block; the second one acts as before it.

    Other threads than the main one cannot handle signals: the block then runs without it.
    """
    before = signal.getsignal(signal.SIGINT)

    def handle(signal_number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, before)
        act()

    with interrupts_handled_by(handle):
        yield


def ignore_terminal_signals() -> None:
    """Ignore the signals of the terminal in a helper process, which its parent ends."""
    for number in TERMINAL_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
