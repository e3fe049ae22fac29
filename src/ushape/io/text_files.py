"""Text files of users: their encodings, and the separators of tables."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import TextIO

UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""First bytes of a text in UTF-16."""

CHUNK_BYTES = 1 << 20
"""Number of bytes that are decoded at a time to determine the encoding."""


def open_text(path: Path) -> TextIO:
    """Open a text in UTF-8, in UTF-16 (Unicode text of Excel), or in the encoding of Windows.

    Line ends are not translated, as the csv module requires.
    """
    return path.open(newline="", encoding=_encoding_of(path))


def first_line(file: TextIO) -> str:
    """Return the first line of a table, after the line `sep=;` that Excel understands."""
    first = file.readline(CHUNK_BYTES)
    return file.readline(CHUNK_BYTES) if first.lower().startswith("sep=") else first


def separator_of(path: Path, first: str) -> str:
    """Return the separator of the cells; some spreadsheets write CSV with semicolons.

    Args:
        first: First line of the table.
    """
    return "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)


def _encoding_of(path: Path) -> str:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        if file.read(2) in UTF_16:
            return "utf-16"
        file.seek(0)
        try:
            while chunk := file.read(CHUNK_BYTES):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "cp1252"
    return "utf-8-sig"
