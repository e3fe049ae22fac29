"""Lock of a folder, so that two processes never write the same files."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ushape.errors import RunError
from ushape.formatting import reason
from ushape.io.files import LEFTOVER, real_path, time_of_server
from ushape.io.processes import is_running, start_time

LOCK_FILE = ".ushape.lock"
"""Name of the lock file in a folder, which exists while a process writes there."""

OPEN_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
"""A link is not followed: the file that it names would be overwritten."""

SHARES = 1 << 16
"""Number of processes that can share a lock on Windows, where each locks a byte of its own."""

RETRIES, RETRY_S = 20, 0.1
"""How often, and after which pause in seconds, a shared lock is tried again: another process may
just be giving back an exclusive one."""

MOUNTS = Path("/proc/self/mounts")
"""Mounted file systems on Linux."""

LOCAL_LOCKS = {"nolock", "local_lock=all", "local_lock=posix", "localflock", "nobrl"}
"""Mount options of NFS, Lustre and SMB with which locks are not sent to the server, so that only
processes of the same machine exclude each other. See nfs(5), mount.lustre(8), mount.cifs(8)."""

_held: set[Path] = set()
"""Folders that this process has locked. POSIX locks do not exclude their own process."""

_guard = threading.Lock()


@contextmanager
def locked(folder: Path, *, shared: bool = False, silent_s: float | None = None) -> Iterator[None]:
    """Lock a folder while the block runs.

    The system releases the lock when the process ends, even after kill -9, so that a lock file that
    is left over never matters, whatever process has its number now. On a network file system
    without locks, only processes of the same machine exclude each other.

    The folder is created, and removed at the end if nothing was written into it.

    Args:
        shared: Admit other processes that share the lock, but none that does not.
        silent_s: Seconds for which nothing in the folder must have changed before it counts as
            free, if a process of another machine may have locked it on a file system whose locks
            do not exclude other machines; None: it counts as free at once.

    Raises:
        RunError: if another process or thread has locked the folder, or if it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(
            f"{folder} is a file, but a folder is needed here.",
            code="output_is_file",
            hint="Choose another name for the folder, or move the file elsewhere.",
        )
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(folder, error) from None
    key = real_path(folder)
    with _guard:
        if key in _held:
            raise _in_use(folder, f"process {os.getpid()}")
        _held.add(key)
    try:
        file = _acquire(folder, shared, silent_s)
        try:
            yield
        finally:
            _release(file, folder / LOCK_FILE, shared)
            for path in new or [folder]:
                with contextlib.suppress(OSError):
                    path.rmdir()  # Fails if the folder contains anything.
    finally:
        _held.discard(key)


def is_unused(folder: Path) -> bool:
    """Return whether a folder is missing or contains nothing but what a killed process left."""
    if not folder.exists():
        return True
    return folder.is_dir() and all(
        path.name == LOCK_FILE or (LEFTOVER.search(path.name) and path.suffix == ".part")
        for path in folder.iterdir()
    )


def _acquire(folder: Path, shared: bool, silent_s: float | None) -> int:
    """Return the descriptor of the lock file, which holds the lock and names its owner.

    Raises:
        RunError: if another process has the lock.
    """
    path, retries = folder / LOCK_FILE, RETRIES if shared else 0
    while True:
        try:
            file = os.open(path, OPEN_FLAGS, 0o666)
        except OSError as error:
            raise _not_writable(folder, error) from None
        try:
            is_ours = _try_lock(file, path, shared, silent_s)
            if not is_ours and not retries:
                raise _in_use(folder, _name_of(_owner(path)))
            if not is_ours or not _is_same_file(file, path):
                # The former owner has removed the file in the meantime, or will do so soon.
                os.close(file)
                if not is_ours:
                    retries -= 1
                    time.sleep(RETRY_S)
                continue
            os.ftruncate(file, 0)
            os.write(file, _own_facts(shared))
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(file)
            raise
        return file


def _release(file: int, path: Path, shared: bool) -> None:
    """Release the lock, and remove the lock file unless others may share it.

    The folder may have been removed.
    """
    with contextlib.suppress(OSError):
        if sys.platform != "win32" and not shared and _is_same_file(file, path):
            path.unlink()
    with contextlib.suppress(OSError):
        os.close(file)
    if sys.platform == "win32":  # An open file cannot be removed.
        with contextlib.suppress(OSError):
            path.unlink()


def _try_lock(file: int, path: Path, shared: bool, silent_s: float | None) -> bool:
    """Return whether the lock was free and now belongs to this process."""
    # Read before: POSIX locks are lost if any descriptor of the file is closed.
    owner = _owner(path)
    try:
        if sys.platform == "win32":
            import msvcrt

            # Beyond the text, which others may read.
            share = random.SystemRandom().randrange(SHARES) if shared else 0
            os.lseek(file, (1 << 30) + share, os.SEEK_SET)
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1 if shared else SHARES)
            os.lseek(file, 0, os.SEEK_SET)
        else:
            import fcntl

            # Not flock: loading processes would inherit it and outlive the killed process.
            fcntl.lockf(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # The file system has no locks.
        if _is_alive(owner):
            return shared and bool(owner.get("shared"))
        is_certain = False
    else:
        is_certain = silent_s is None or not _is_locked_locally(path)
    if is_certain or silent_s is None or owner.get("host") == socket.gethostname():
        return True
    return _seconds_unchanged(path.parent) > silent_s


def _is_locked_locally(path: Path) -> bool:
    """Return whether locks of this file do not exclude processes of other machines."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:  # Another system than Linux.
        return False
    path, found, options = real_path(path), Path(), ""
    for line in lines:
        _, escaped, _, *rest = line.split(" ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), escaped))
        # A later file system hides an earlier one at the same place.
        if path.is_relative_to(point) and len(point.parts) >= len(found.parts):
            found, options = point, rest[0]
    return not LOCAL_LOCKS.isdisjoint(options.split(","))


def _seconds_unchanged(folder: Path) -> float:
    """Return for how many seconds no file or folder below a folder has been written.

    All times are those of the clock that dates the files, which is that of the server on a network
    file system.
    """
    latest = 0.0
    for root, _, names in os.walk(folder):
        for path in (Path(root), *(Path(root, name) for name in names)):
            with contextlib.suppress(OSError):  # Removed in the meantime.
                latest = max(latest, path.lstat().st_mtime)
    # Next to the folder, whose own time would change.
    return time_of_server(folder.parent) - latest


def _is_same_file(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _own_facts(shared: bool) -> bytes:
    number, host = os.getpid(), socket.gethostname()
    facts = {"process": number, "started": start_time(number), "host": host}
    return json.dumps({**facts, "shared": shared}).encode()


def _owner(path: Path) -> dict[str, Any]:
    """Return what the owner of the lock has written; {} if it has not yet, or is unreadable."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_alive(owner: dict[str, Any]) -> bool:
    """Return whether the owner runs on this machine: its number alone may be that of another."""
    if owner.get("host") != socket.gethostname():
        return False
    try:
        return is_running(owner["process"], owner["started"])
    except (KeyError, TypeError, ValueError):
        return False


def _name_of(owner: dict[str, Any]) -> str:
    if "process" not in owner:
        return "another process"
    return f"process {owner['process']} on {owner.get('host', 'this machine')}"


def _not_writable(folder: Path, error: OSError) -> RunError:
    return RunError(
        f"{folder} cannot be written to: {reason(error)}.",
        code="output_not_writable",
        hint="Check the permissions and the free space, or choose another folder.",
    )


def _in_use(folder: Path, owner: str) -> RunError:
    return RunError(
        f"{folder} is in use by {owner}.",
        code="folder_in_use",
        hint="Wait until that command has ended, or stop it.",
    )
