"""Messages and progress bars of the public functions."""

from __future__ import annotations

import errno
import io
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from rich import box
from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ushape.formatting import one_line, printable, renamed

LOGGER = logging.getLogger("ushape")
"""Receives every message at level INFO. A level above INFO silences the console as well."""


class OnProgress(Protocol):
    """Callback that receives the number of finished items, their total and an optional note."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


class _Terminal(io.FileIO):
    """Terminal to which the command writes until it is closed."""

    def write(self, content: Any) -> int:
        """Write to the terminal; nothing is written once it is closed."""
        try:
            return super().write(content)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return memoryview(content).nbytes


def outlive_terminal() -> None:
    """Let the command continue without output if its terminal is closed, as after `disown`.

    Most commands end then, because they receive SIGHUP. Those that do not would end at their next
    line of output, in the middle of training. Writing to a file or a pipe still fails.
    """
    if sys.platform == "win32":
        return
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and stream.isatty():
            stream.flush()
            raw = io.BufferedWriter(_Terminal(stream.fileno(), "wb", closefd=False))
            kept = io.TextIOWrapper(raw, stream.encoding, stream.errors, line_buffering=True)
            setattr(sys, name, kept)


class _Output(RichConsole):
    """Standard output, which a reader such as `head` may close."""

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError, with which the command ends; rich would end the process."""
        raise


class Console:
    """Prints messages to standard output, and progress bars if that is a terminal.

    Args:
        quiet: Print nothing. Messages still go to the logger "ushape".
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.renamed: dict[str, str] = {}
        """Texts that messages show in another form, such as temporary folders as their URLs."""

        self.is_quiet = quiet or LOGGER.level > logging.INFO
        self._rich = _Output(highlight=False, soft_wrap=True, markup=False, quiet=self.is_quiet)

    @property
    def is_terminal(self) -> bool:
        """Whether progress bars are shown."""
        return self._rich.is_terminal and not self.is_quiet

    def say(self, line: str = "") -> None:
        """Print one message; control characters of file names are shown as escapes."""
        line = printable(renamed(line, self.renamed))
        LOGGER.info("%s", line)
        self._rich.print(line)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table as wide as the terminal; the last column takes the remaining width."""
        table = Table(box=box.SIMPLE_HEAD, show_lines=True, pad_edge=False)
        for place, column in enumerate(columns):
            is_last = place == len(columns) - 1
            table.add_column(column, overflow="fold", ratio=1 if is_last else None)
        for row in rows:
            cells = [printable(cell) for cell in row]
            LOGGER.info("%s", "; ".join(cells))
            table.add_row(*map(Text, cells))
        self._rich.print(table, soft_wrap=False)

    @contextmanager
    def progress(self, what: str) -> Iterator[OnProgress]:
        """Show a progress bar with the remaining time, and remove it at the end."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(
            *columns, console=self._rich, transient=True, disable=not self.is_terminal
        ) as bar:
            task = bar.add_task(what, total=None)

            def show(done: int, total: int, note: str = "") -> None:
                bar.update(
                    task,
                    completed=done,
                    total=total,
                    description=f"{what} {one_line(note)}".rstrip(),
                )

            yield show


_COMMAND_STARTED: ContextVar[float | None] = ContextVar("_COMMAND_STARTED", default=None)


@contextmanager
def command_started(started_s: float) -> Iterator[None]:
    """Remember when the command started whose function is called in the block.

    Args:
        started_s: Time of `time.monotonic`.
    """
    token = _COMMAND_STARTED.set(started_s)
    try:
        yield
    finally:
        _COMMAND_STARTED.reset(token)


class Clock:
    """Measures seconds since it was created, or since a time of `time.monotonic`."""

    def __init__(self, started_s: float | None = None) -> None:
        self._started_s = time.monotonic() if started_s is None else started_s

    @classmethod
    def of_command(cls) -> Clock:
        """Return a clock that was started with the command, as users measure its time.

        Only the first one of a command: the functions that its own function calls, and functions
        that are called from Python, get a new clock.
        """
        started_s = _COMMAND_STARTED.get()
        _COMMAND_STARTED.set(None)
        return cls(started_s)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started_s
