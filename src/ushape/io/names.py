"""Comparison of file names, as file systems compare them that ignore case."""

from __future__ import annotations

import tempfile
import unicodedata
from pathlib import Path

PROBE = "ushape-name-"
"""Beginning of the name of a file by which a file system is examined."""


def comparable(name: str) -> str:
    """Return a name in the form in which names are compared: composed, without upper case."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def tells_names_apart(folder: Path) -> bool:
    """Return whether files of a folder may have names that differ only in case or composition.

    Most file systems of Windows and macOS, and shares of such computers, take these names for the
    same; a file is created for a moment to find out. The folder may not exist yet. A folder that
    cannot be written to counts as one that tells names apart.
    """
    present = next((path for path in (folder, *folder.parents) if path.is_dir()), Path())
    try:
        # "\xe9" and "e\u0301" are two compositions of the same letter.
        with tempfile.NamedTemporaryFile(dir=present, prefix=f".{PROBE}\xe9") as file:
            path = Path(file.name)
            others = {path.name.upper(), unicodedata.normalize("NFD", path.name)}
            return not any(path.with_name(name).exists() for name in others)
    except (OSError, UnicodeError):
        return True
