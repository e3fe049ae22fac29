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


def quoted(path: Path | str) -> str:
    """Return a path as it is typed in a command; of many names, that is the name itself."""
    return shlex.quote(str(path))


def reason(error: Exception) -> str:
    """Return the first line of an exception's message, without a path that precedes it."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__


def natural_order(name: str) -> list[tuple[int, str]]:
    """Return a sort key that orders numbers in names by value: a_2 before a_10.

    For `sorted(names, key=natural_order)`.
    """
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


FORMULA_STARTS = "=+-@\t\r\n＝＋－＠"
"""First characters of a cell that spreadsheet programs read as a formula, or skip before one."""


def escape_cell(text: str) -> str:
    """Return a cell of a CSV table that no spreadsheet program runs as a formula.

    An apostrophe is put before texts that begin like a formula; numbers are not changed.
    `unescape_cell` restores the text.

    Source:
        OWASP, CSV Injection.
    """
    begins = text.lstrip("'")[:1]
    return f"'{text}" if begins and begins in FORMULA_STARTS and not _is_plain(text) else text


def unescape_cell(cell: str) -> str:
    """Return the text of a cell that `escape_cell` wrote; other cells are not changed."""
    begins = cell.lstrip("'")[:1]
    is_escaped = cell.startswith("'") and begins and begins in FORMULA_STARTS
    return cell[1:] if is_escaped else cell


def _is_plain(text: str) -> bool:
    return re.fullmatch(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?", text) is not None


def renamed(text: str, names: Mapping[str, str]) -> str:
    """Return a text with every occurrence of some names replaced by others."""
    for name, other in names.items():
        text = text.replace(name, other)
    return text


def to_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Write a CSV table with a header; missing values are empty fields.

    Texts that spreadsheet programs would run as formulas are escaped; see `escape_cell`.

    Args:
        columns: Column names, in order.
        rows: Values by column name; None is written as an empty field.

    Returns:
        The table encoded in UTF-8, with Unix line ends. Bytes of names that are not UTF-8 are
        written as they are.
    """
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(map(_cell, columns))
    for row in rows:
        assert row.keys() <= set(columns), "each value has a column"
        writer.writerow(_cell(row.get(name)) for name in columns)
    return written.getvalue().encode(errors="surrogateescape")


def read_csv(content: bytes) -> list[dict[str, str]]:
    """Return the rows of a table that `to_csv` wrote, with the texts as they were.

    Raises:
        csv.Error: if the text is not a CSV table.
        ValueError: if a row has another number of cells than the header.
    """
    text = content.decode(errors="surrogateescape")
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns = [unescape_cell(cell) for cell in next(lines, [])]
    return [dict(zip(columns, map(unescape_cell, line), strict=True)) for line in lines if line]


def _cell(value: Any) -> Any:
    return escape_cell(value) if isinstance(value, str) else value


def printable(text: str) -> str:
    """Return a text without characters that change how it is displayed, as in hostile file names.

    Control characters except line breaks, terminal sequences, marks of writing direction, and bytes
    that cannot be decoded become visible escapes such as `\\x1b`.
    """
    return INVISIBLE.sub(lambda found: _visible(found[0]), text)


def display_name(name: str) -> str:
    """Return a file name in which bytes that are not UTF-8 are visible escapes, as `\\udcfc`.

    Such names cannot be encoded, and therefore not be printed or written to files.
    """
    return name if name.isascii() else name.encode(errors="backslashreplace").decode()


def file_name(name: str) -> str:
    """Return the file name of which `display_name` returned a text."""
    return re.sub(r"\\u(dc[89a-f][0-9a-f])", lambda found: chr(int(found[1], 16)), name)


def one_line(text: str) -> str:
    """Return a name on one line, with visible escapes as in `printable`."""
    return printable(text).replace("\n", "\\n")


INVISIBLE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ud800-\udfff]"
)
"""Control characters except the line break, format characters, and surrogates."""


def _visible(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


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
