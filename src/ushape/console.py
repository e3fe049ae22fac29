"""What the verbs tell the user: lines, and a progress bar where there is a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich import box
from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    pass


class OnProgress(Protocol):
    """Takes what is done and the total, and what else is worth showing."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


class Console:
    """Lines to standard output; bars only on a terminal."""

    def __init__(self) -> None:
        self._rich = RichConsole(highlight=False, soft_wrap=True, markup=False)

    @property
    def is_terminal(self) -> bool:
        return self._rich.is_terminal

    def say(self, line: str = "") -> None:
        self._rich.print(line)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table as wide as the terminal; the last column takes what is left."""
        table = Table(box=box.SIMPLE_HEAD, show_lines=True, pad_edge=False)
        for place, column in enumerate(columns):
            is_last = place == len(columns) - 1
            table.add_column(column, overflow="fold", ratio=1 if is_last else None)
        for row in rows:
            table.add_row(*map(Text, row))
        self._rich.print(table, soft_wrap=False)

    @contextmanager
    def progress(self, what: str) -> Iterator[OnProgress]:
        """A bar with the time left; gone when done."""
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
                bar.update(task, completed=done, total=total, description=f"{what} {note}".rstrip())

            yield show


class Clock:
    """Seconds since the user's call."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started
