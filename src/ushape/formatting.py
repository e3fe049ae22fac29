"""Names and numbers in sentences."""

from __future__ import annotations

import csv
import io
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def pluralize(number: int, noun: str) -> str:
    """`1 mask`, `3 masks`, `2 processes`, `20 epochs`."""
    if number == 1:
        return f"1 {noun}"
    hisses = noun.endswith(("s", "x", "ch")) and not noun.endswith("epoch")
    return f"{number} {noun}{'es' if hisses else 's'}"


def singular(noun: str) -> str:
    """`patients` -> `patient`, `blocks of sections` -> `block of sections`."""
    head, of, rest = noun.partition(" of ")
    return head.removesuffix("s") + of + rest


def group_label(number: int, noun: str) -> str:
    """`1 patient`, `3 patients`, `1 block of sections`; the noun is in the plural."""
    return f"{number} {singular(noun) if number == 1 else noun}"


def size_text(shape: Sequence[int]) -> str:
    """`256 × 300`."""
    return " × ".join(map(str, shape))


def command_line() -> str:
    """How this process was called, as it can be typed again."""
    program, *arguments = sys.argv
    name = Path(program).name
    return shlex.join(["ushape" if name in ("ushape", "__main__.py") else name, *arguments])


def reason(error: Exception) -> str:
    """What an exception says, without the path that stands before it in our message."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return said.splitlines()[0].rstrip(".") if said else type(error).__name__


def natural_order(name: str) -> list[tuple[int, str]]:
    """Sorts a_2 before a_10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def to_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    """UTF-8, a header first; what a row lacks is empty."""
    written = io.StringIO()
    writer = csv.DictWriter(written, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return written.getvalue().encode()
