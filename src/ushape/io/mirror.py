"""Local copy of a folder at a URL, which a repeated call brings up to date."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from ushape.errors import ConfigError, DataError, RunError
from ushape.formatting import pluralize
from ushape.io.files import read_json, real_path, write_json
from ushape.io.lock import locked
from ushape.io.names import comparable, tells_names_apart
from ushape.io.remote import RemoteFile, RemoteFolder, require_space

FOLDER_VARIABLE = "USHAPE_REMOTE_FOLDER"
"""Environment variable with the folder of the copies."""

SOURCE_FILE = "source.json"
"""File next to a copy that contains its URL."""

WAIT_S, LONGEST_WAIT_S = 2.0, 60.0
"""First and longest pause before a folder that others have locked is tried again, in seconds."""


def copies_folder() -> Path:
    """Return the folder of the copies: that of the environment, or one of the user's cache.

    Raises:
        ConfigError: if none is set, and the user has no home folder.
    """
    if stated := os.environ.get(FOLDER_VARIABLE):
        return Path(stated).expanduser()
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "ushape" / "remote"
    try:
        return Path.home() / ".cache" / "ushape" / "remote"
    except RuntimeError:
        raise ConfigError(
            "There is no home folder to store copies of remote files in.",
            code="no_cache_folder",
            hint=f"Set {FOLDER_VARIABLE} to a folder that you can write to.",
        ) from None


@contextmanager
def mirror(url: str, say: Callable[[str], None]) -> Iterator[Path]:
    """Copy the files at a URL, and yield their local folder, which does not change in the block.

    Files that have not changed since they were copied are kept, and those that no longer exist at
    the URL are removed. This is decided by the size and the version that the server reports. If
    something changes, this waits until no other process reads the copy; otherwise, several can read
    it.

    Args:
        say: Function that receives a line about what is copied.

    Raises:
        ConfigError: if the URL is one of a web server, or cannot be opened.
        DataError: if there are no files.
        RunError: if they do not fit on the disk, or the server cannot be reached.
    """
    remote = RemoteFolder(url)
    files = _list_files(remote)
    place = copies_folder() / hashlib.sha256(remote.url.encode()).hexdigest()[:12]
    folder = place / remote.url.rpartition("/")[2]
    is_ours, is_told, pause_s = False, False, WAIT_S
    while True:
        with ExitStack() as stack:
            # Processes that start together have the same list. One of them copies the files, and
            # keeps the copy from then on, so the others must not insist on copying them again. Own
            # copies are not compared: a file system may store less precise times.
            if _entered(stack, _shared(place)) and (is_ours or _is_current(folder, files)):
                if not (is_ours or is_told):
                    count = pluralize(len(files), "file")
                    say(f"{folder} is up to date with {remote.url}: {count}.")
                    _tell_left_out(remote, say)
                yield folder
                return
        with ExitStack() as stack:
            if _entered(stack, locked(place)):
                files = _list_files(remote) if is_ours else files
                _update(remote, files, folder, say)
                is_ours = True
                continue
        if not is_told:
            say(
                f"Waiting for other processes that copy {remote.url} or read its copy, because "
                "files at the URL have changed. To use another folder for the copy instead, set "
                f"{FOLDER_VARIABLE}."
            )
        is_told = True
        time.sleep(pause_s)
        files = _list_files(remote)  # Another process may have copied newer files meanwhile.
        pause_s = min(2 * pause_s, LONGEST_WAIT_S)


@contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    """Keep other processes from changing a local copy during the block.

    Raises:
        RunError: if another process is changing it.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(_shared(folder.parent))
        except RunError as error:
            if error.code != "output_not_writable":  # Then nobody may be able to change it.
                raise
        yield


def url_of_copy(folder: Path) -> str | None:
    """Return the URL of which a folder is the copy, or None if it is not a copy."""
    path = folder.parent / SOURCE_FILE
    if not path.is_file() or folder.parent.parent != copies_folder():
        return None
    hint = f"Remove the folder {folder.parent}, and run the same command again."
    return str(read_json(path, DataError, code="json_invalid", hint=hint)["url"])


def _list_files(remote: RemoteFolder) -> dict[str, RemoteFile]:
    """Return the files below a URL that can be copied.

    Raises:
        DataError: if it is not a folder with files, or if no local folder can have its name.
    """
    if remote.is_web:
        raise DataError(
            f"{remote.url}: a web server does not list the files of a folder.",
            code="remote_not_listed",
            hint="Download the data, and specify the local folder.",
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
            hint="Specify the folder of images and masks.",
        )
    name = remote.url.rpartition("/")[2]
    if name in (".", ".."):
        raise DataError(
            f"{remote.url}: the name of the folder cannot be that of a local one.",
            code="remote_failed",
            hint="Specify the folder without '.' and '..'.",
        )
    return _without_alike(remote, files)


def _without_alike(remote: RemoteFolder, files: dict[str, RemoteFile]) -> dict[str, RemoteFile]:
    """Leave out files whose copies would overwrite others, since a disk ignores case in names."""
    owners: dict[str, str] = {}
    for name in files:
        owners.setdefault(comparable(name), name)
    if len(owners) == len(files) or tells_names_apart(copies_folder()):
        return files
    kept = set(owners.values())
    remote.left_out += [name for name in files if name not in kept]
    return {name: file for name, file in files.items() if name in kept}


def _update(
    remote: RemoteFolder, files: Mapping[str, RemoteFile], folder: Path, say: Callable[[str], None]
) -> None:
    """Bring a copy up to date."""
    _remove_others(folder, files)
    left = _missing(folder, files)
    size = sum(one.size or 0 for one in left)
    hint = f"Free some space there, or set {FOLDER_VARIABLE} to a folder on a larger disk."
    require_space(folder.parent, size, f"The copy of {remote.url}", hint)
    kept = pluralize(len(files) - len(left), "file")
    amount = f"{pluralize(len(left), 'file')} ({size / 1e6:.1f} MB)"
    say(f"Copying {amount} of {remote.url} to {folder}; {kept} did not change.")
    _tell_left_out(remote, say)
    write_json(folder.parent / SOURCE_FILE, {"url": remote.url})
    remote.fetch_all(left, folder, lambda: None)


def _tell_left_out(remote: RemoteFolder, say: Callable[[str], None]) -> None:
    for name in remote.left_out:
        say(
            f"Warning: {remote.url}/{name} was left out: a local file cannot have this name, or "
            "cannot exist next to another one whose name differs only in upper and lower case."
        )


def _missing(folder: Path, files: Mapping[str, RemoteFile]) -> list[RemoteFile]:
    """Return the files that have not been copied in their present version."""
    return [one for one in files.values() if not one.is_copied(folder / one.name)]


def _is_current(folder: Path, files: Mapping[str, RemoteFile]) -> bool:
    """Return whether a copy contains these files in their present versions, and no others."""
    has_others = any(_is_other(path, folder, files) for path in folder.rglob("*"))
    has_source = (folder.parent / SOURCE_FILE).is_file()
    return has_source and not has_others and not _missing(folder, files)


def _is_other(path: Path, folder: Path, names: Container[str]) -> bool:
    """Return whether a path in a copy is a link, or a file that is not at the URL."""
    return path.is_symlink() or (
        path.is_file() and path.relative_to(folder).as_posix() not in names
    )


def _remove_others(folder: Path, names: Container[str]) -> None:
    """Remove all links and empty folders below a copy, and the files that have other names.

    A copy has no links, so those that others have added may lead anywhere.
    """
    found = sorted(folder.rglob("*"), reverse=True) if folder.is_dir() else []
    for path in found:  # What is in a folder comes before the folder.
        if _is_other(path, folder, names):
            path.unlink()
        elif path.is_dir():
            with suppress(OSError):  # Not empty.
                path.rmdir()


def _entered(stack: ExitStack, lock: AbstractContextManager[None]) -> bool:
    """Hold a lock until the stack is closed; return False if others hold it."""
    try:
        stack.enter_context(lock)
    except RunError as error:
        if error.code != "folder_in_use":
            raise
        return False
    return True


_shares: dict[Path, tuple[int, ExitStack]] = {}
"""Shared locks of this process with the number of blocks that need each of them."""

_guard = threading.Lock()


@contextmanager
def _shared(folder: Path) -> Iterator[None]:
    """Share the lock of a folder with other processes, and with other blocks of this process.

    Raises:
        RunError: if another process or thread has locked the folder for itself.
    """
    key = real_path(folder)
    with _guard:
        if key in _shares:
            count, lock = _shares[key]
        else:
            count, lock = 0, ExitStack()
            lock.enter_context(locked(folder, shared=True))
        _shares[key] = (count + 1, lock)
    try:
        yield
    finally:
        with _guard:
            count, lock = _shares.pop(key)
            if count > 1:
                _shares[key] = (count - 1, lock)
            else:
                lock.close()
