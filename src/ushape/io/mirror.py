"""Local copy of a folder at a URL, which a repeated call brings up to date."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Container
from contextlib import ExitStack, suppress
from pathlib import Path

from ushape.errors import ConfigError, DataError, RunError
from ushape.formatting import pluralize
from ushape.io.files import read_json, write_json
from ushape.io.lock import locked
from ushape.io.remote import RemoteFolder, require_space

FOLDER_VARIABLE = "USHAPE_REMOTE_FOLDER"
"""Environment variable with the folder of the copies."""

SOURCE_FILE = "source.json"
"""File beside a copy that states its URL."""

WAIT_S = 2.0
"""Pause before a folder that another process has locked is tried again, in seconds."""


def copies_folder() -> Path:
    """Return the folder of the copies: that of the environment, or one of the user's cache.

    Raises:
        ConfigError: if none is stated, and the user has no home folder.
    """
    if stated := os.environ.get(FOLDER_VARIABLE):
        return Path(stated).expanduser()
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "ushape" / "remote"
    try:
        return Path.home() / ".cache" / "ushape" / "remote"
    except RuntimeError:
        raise ConfigError(
            "There is no home folder for copies of remote files.",
            code="no_cache_folder",
            hint=f"Set {FOLDER_VARIABLE} to a folder that you can write to.",
        ) from None


def mirror(url: str, say: Callable[[str], None]) -> Path:
    """Copy the files at a URL, and return their local folder.

    Files that have not changed since they were copied are kept, and those that no longer exist at
    the URL are removed. The size and the version that the server states decide this.

    Args:
        say: Function that receives a line about what is copied.

    Raises:
        ConfigError: if the URL is one of a web server, or cannot be opened.
        DataError: if there are no files.
        RunError: if they do not fit on the disk, or the server cannot be reached.
    """
    remote = RemoteFolder(url)
    if remote.is_web:
        raise DataError(
            f"{remote.url}: a web server does not list the files of a folder.",
            code="remote_not_listed",
            hint="Download the data, and name the local folder.",
        )
    files = remote.list_files()
    if not files:
        raise DataError(
            f"There are no files below {remote.url}.",
            code="no_images",
            hint="Check the spelling of the folder.",
        )
    if remote.is_file:
        raise DataError(
            f"{remote.url} is a file, not a folder.",
            code="not_a_folder",
            hint="Name the folder of images and masks.",
        )
    name = remote.url.rpartition("/")[2]
    if name in (".", ".."):
        raise DataError(
            f"{remote.url}: the name of the folder cannot be that of a local one.",
            code="remote_failed",
            hint="Name the folder without '.' and '..'.",
        )
    place = copies_folder() / hashlib.sha256(remote.url.encode()).hexdigest()[:12]
    folder = place / name
    with ExitStack() as stack:
        _lock_in_turn(stack, place, remote.url, say)
        _remove_others(folder, files)
        left = [one for one in files.values() if not one.is_copied(folder / one.name)]
        size = sum(one.size or 0 for one in left)
        hint = f"Free space there, or set {FOLDER_VARIABLE} to a folder on a larger disk."
        require_space(place, size, f"The copy of {remote.url}", hint)
        kept = pluralize(len(files) - len(left), "file")
        amount = f"{pluralize(len(left), 'file')} ({size / 1e6:.1f} MB)"
        say(f"Copying {amount} of {remote.url} to {folder}; {kept} did not change.")
        for name in remote.left_out:
            say(f"Warning: {remote.url}/{name} was left out: a local file cannot have this name.")
        write_json(place / SOURCE_FILE, {"url": remote.url})
        remote.fetch_all(left, folder, lambda: None)
    return folder


def _remove_others(folder: Path, names: Container[str]) -> None:
    """Remove all links and empty folders below a copy, and the files that have other names.

    A copy has no links, so those that others have added may lead anywhere.
    """
    found = sorted(folder.rglob("*"), reverse=True) if folder.is_dir() else []
    for path in found:  # What is in a folder comes before the folder.
        if path.is_symlink() or (
            path.is_file() and path.relative_to(folder).as_posix() not in names
        ):
            path.unlink()
        elif path.is_dir():
            with suppress(OSError):  # Not empty.
                path.rmdir()


def url_of_copy(folder: Path) -> str | None:
    """Return the URL of which a folder is the copy, or None if it is no copy."""
    path = folder.parent / SOURCE_FILE
    if not path.is_file() or folder.parent.parent != copies_folder():
        return None
    hint = f"Remove the folder {folder.parent}, and repeat the call."
    return str(read_json(path, DataError, code="json_invalid", hint=hint)["url"])


def _lock_in_turn(stack: ExitStack, folder: Path, url: str, say: Callable[[str], None]) -> None:
    """Lock a folder until the stack is closed, once no other process has locked it."""
    is_told = False
    while True:
        try:
            stack.enter_context(locked(folder))
            return
        except RunError as error:
            if error.code != "folder_in_use":
                raise
        if not is_told:
            say(f"Waiting for another process that copies {url}.")
            is_told = True
        time.sleep(WAIT_S)
