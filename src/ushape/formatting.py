"""Format names, numbers and tables as text."""

from __future__ import annotations

import csv
import io
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def pluralize(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless the number is 1.

    Examples: `1 mask`, `3 masks`, `2 processes`, `20 epochs`.

    Args:
        noun: Noun in the singular; its plural ends in s, or in es after s, x and ch.
    """
    if number == 1:
        return f"1 {noun}"
    takes_es = noun.endswith(("s", "x", "ch")) and not noun.endswith("epoch")
    return f"{number} {noun}{'es' if takes_es else 's'}"


def singular(noun: str) -> str:
    """Return the singular of a plural noun: `block of sections` for `blocks of sections`."""
    head, of, rest = noun.partition(" of ")
    return head.removesuffix("s") + of + rest


def group_label(number: int, noun: str) -> str:
    """Return a number with a noun that is given in the plural: `1 patient`, `3 patients`.

    Unlike `pluralize`, this also handles nouns such as `blocks of sections`.
    """
    return f"{number} {singular(noun) if number == 1 else noun}"


def size_text(shape: Sequence[int]) -> str:
    """Return a shape as text: `256 × 300`."""
    return " × ".join(map(str, shape))


def command_line() -> str:
    """Return the command line of this process in a form that can be entered again."""
    program, *arguments = sys.argv
    name = Path(program).name
    return shlex.join(["ushape" if name in ("ushape", "__main__.py") else name, *arguments])


def reason(error: Exception) -> str:
    """Return the first line of an exception's message, without a path that precedes it."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__


def natural_order(name: str) -> list[tuple[int, str]]:
    """Return a sort key that orders numbers in names by value: a_2 before a_10.

    For `sorted(names, key=natural_order)`.
    """
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def to_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Write a CSV table with a header; missing values are empty fields.

    Args:
        columns: Column names, in order.
        rows: Values by column name; None is written as an empty field.

    Returns:
        The table encoded in UTF-8, with Unix line ends.
    """
    written = io.StringIO()
    writer = csv.DictWriter(written, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return written.getvalue().encode()


def memory_text(size_bytes: float) -> str:
    """Format an amount of memory in GB, or in MB below 0.1 GB."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e8 else f"{size_bytes / 1e6:.0f} MB"


def number_text(value: float | None, like: float | None = None) -> str:
    """Format a number with three decimals below 10 and one from there on; '' for None.

    Args:
        like: Number that determines the decimals; None: the value itself.
    """
    if value is None:
        return ""
    return f"{value:.3f}" if abs(value if like is None else like) < 10 else f"{value:.1f}"


def count_text(count: int) -> str:
    """Format an integer with a thin space between thousands."""
    return f"{count:,}".replace(",", "\u202f")


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """A table whose cells are ready to be displayed."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    """Cells of each row, one for each column; '' where there is no value."""

    note: str = ""

    @property
    def is_number(self) -> tuple[bool, ...]:
        """Whether each column contains only numbers."""
        return tuple(
            all(_is_number(row[place]) for row in self.rows) for place in range(len(self.columns))
        )


def _is_number(text: str) -> bool:
    """Return whether a text is empty, a number or a range such as `1.2 to 3.4`."""
    parts = text.replace("\u202f", "").removesuffix("%").split(" to ")
    return not text or all(re.fullmatch(r"[-+]?\d+(\.\d+)?", part.strip()) for part in parts)
