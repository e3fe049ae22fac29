"""Sizes and times of many files, read folder by folder."""

from __future__ import annotations

import os
import stat
from collections import Counter
from pathlib import Path
from typing import NamedTuple

FEW = 1000
"""Number of files of a folder that are looked up one by one, before the whole folder is listed.

On a network file system, a listing brings the facts of all files at once, while each single
question takes a round trip. A part of a large folder needs few of them."""


class FileFacts(NamedTuple):
    """Facts from the file system about a file or folder; links are followed."""

    size: int
    """Size in bytes."""

    changed_ns: int
    """Time of the last modification in nanoseconds."""

    is_folder: bool
    is_link: bool


class Listing:
    """Facts about files at the time of the first question about their folder."""

    def __init__(self) -> None:
        self._asked: Counter[str] = Counter()
        self._known: dict[str, dict[str, FileFacts]] = {}
        self._real: dict[str, str] = {}

    def facts_of(self, path: str) -> FileFacts | None:
        """Return the facts about a file or folder; None if it does not exist."""
        head, separator, name = path.rpartition(os.sep)
        folder = head + separator
        known = self._known.get(folder)
        if known is None:
            self._asked[folder] += 1
            if self._asked[folder] <= FEW:
                return _facts_of(path)
            known = self._known[folder] = _list_folder(folder)
        return known.get(name)

    def real_path(self, path: Path) -> str:
        """Return the absolute path without links, as `ushape.io.files.real_path` does."""
        text = os.path.abspath(path)  # noqa: PTH100, much faster than pathlib
        facts = self.facts_of(text)
        if facts is None or facts.is_link:
            return os.path.realpath(text)
        folder, name = os.path.split(text)
        real = self._real.get(folder)
        if real is None:
            real = self._real[folder] = os.path.realpath(folder)
        return f"{real}{name}" if real.endswith(os.sep) else f"{real}{os.sep}{name}"


class RealPaths:
    """Absolute paths without links of many files.

    Which names of a folder are links is read once, if there are many questions about the folder.
    """

    def __init__(self) -> None:
        self._asked: Counter[str] = Counter()
        self._known: dict[str, tuple[str, set[str]]] = {}

    def of(self, path: Path) -> str:
        """Return what `ushape.io.files.real_path` does, as text."""
        text = str(path)
        folder, _, name = text.rpartition(os.sep)
        if os.name == "nt" or not folder or name == os.pardir:
            return os.path.realpath(text)
        known = self._known.get(folder)
        if known is None:
            self._asked[folder] += 1
            if self._asked[folder] <= FEW:
                return os.path.realpath(text)
            known = self._known[folder] = os.path.realpath(folder), _links_in(folder)
        real, links = known
        if name in links:
            return os.path.realpath(text)
        return f"{real}{name}" if real.endswith(os.sep) else f"{real}{os.sep}{name}"


def _links_in(folder: str) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_symlink()}
    except OSError:
        return set()


def _facts_of(path: str) -> FileFacts | None:
    try:
        found = Path(path).lstat()
        is_link = stat.S_ISLNK(found.st_mode)
        found = Path(path).stat() if is_link else found
    except (OSError, ValueError):
        return None
    return FileFacts(found.st_size, found.st_mtime_ns, stat.S_ISDIR(found.st_mode), is_link)


def _list_folder(folder: str) -> dict[str, FileFacts]:
    found: dict[str, FileFacts] = {}
    try:
        entries = os.scandir(folder or os.curdir)
    except OSError:
        return found
    with entries:
        for entry in entries:
            try:
                facts, is_link = entry.stat(), entry.is_symlink()
            except OSError:  # Removed in the meantime, or a link that leads nowhere.
                continue
            is_folder = stat.S_ISDIR(facts.st_mode)
            found[entry.name] = FileFacts(facts.st_size, facts.st_mtime_ns, is_folder, is_link)
    return found
