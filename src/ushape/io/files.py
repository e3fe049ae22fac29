"""Write files atomically, and check the claims of files that are read."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import os
import re
import shutil
import socket
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from ushape.errors import DataError, RunError, UshapeError
from ushape.formatting import reason, size_text
from ushape.io.limits import free_memory_bytes

LEFTOVER = re.compile(r"\.(?P<process>\d+)-\d+(-(?P<machine>[0-9a-f]{8}))?\.(part|old)$")
"""End of the name of a file, or of the folder of an image, that a process has not finished writing
(.part), or was about to replace (.old)."""

FOREIGN_LEFTOVER_S = 24 * 3600.0
"""Age in seconds after which an unfinished file of another machine is regarded as abandoned."""

ALL_HIDDEN = "**/.*"
"""Pattern of all hidden files and folders below a folder."""

ADDED_TO_ZARR = re.compile(r"\.zarr/(0/)?(labels/|\.zmetadata$)", re.IGNORECASE)
"""Path of a file that may be added to an OME-Zarr image later and is not part of it: label images,
and consolidated metadata, which list them."""

MAX_PIXELS = 2**31
"""Largest number of values in an image; a small file may claim any size in its header."""

MAX_INFLATION = 4096
"""Largest ratio of decoded to stored bytes, for images of more than SMALL_BYTES."""

WORKING_BYTES = 16
"""Memory for each value of a large image while it is read and measured, in bytes."""

SMALL_BYTES = 2**28
"""Decoded size up to which any ratio is accepted: an empty mask compresses very well."""

MAX_NAME_BYTES = 200
"""Length above which the name of a temporary file is shortened; most systems allow 255 bytes."""

CHECKSUM = "checksum"
"""Key of the checksum in a JSON file that `write_sealed_json` wrote."""

JSON_INFLATION = 16
"""Largest usual ratio of the memory of JSON's values to their size in the file."""

HEAD_BYTES = 2**16
"""Bytes at the beginning of a text file in which the typical words of a format are searched."""

DAMAGED = "The file is damaged or its suffix is wrong. Copy it again, or remove it from the data."
"""Hint of every error about a damaged file."""


def real_path(path: Path) -> Path:
    """Return the absolute path without links; a link that leads back to itself stays as it is.

    `Path.resolve` raises RuntimeError for such a link before Python 3.13.
    """
    return Path(os.path.realpath(path))


def absolute_path(path: Path) -> Path:
    """Return the absolute path without `..`; links are not followed."""
    return Path(os.path.normpath(path.absolute()))


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` when the block ends without an exception.

    The content is flushed to the disk before the file is renamed: if the process is killed or the
    disk is full, the former file is left as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with temporary.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.strerror:
            error.filename, error.filename2 = str(path), None  # Not the temporary file.
        raise


def temporary_name(path: Path) -> Path:
    """Return a name in the folder of the file that is unique per machine, process and thread.

    Two writers of one file therefore replace each other's complete files and never mix contents.
    """
    name = path.name
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    owner = f"{os.getpid()}-{threading.get_ident()}-{machine_mark()}"
    return path.with_name(f".{name}.{owner}.part")


@functools.cache
def machine_mark() -> str:
    """Return eight hexadecimal digits that stand for this machine or container.

    Numbers of processes are unique within one of them: in every container, the first one is 1.
    """
    space = ""
    with suppress(OSError):  # Linux only. Containers may share the name of their machine.
        space = str(Path("/proc/self/ns/pid").readlink())
    return hashlib.sha256(f"{socket.gethostname()} {space}".encode()).hexdigest()[:8]


def flush_file(path: Path) -> None:
    """Wait until the content of a file that was written before is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with replacing(path) as file:
        file.write(content)


def write_json(path: Path, values: Any) -> None:
    """Write JSON atomically; values of other types are written as text."""
    write_bytes(path, (json.dumps(values, indent=2, default=str) + "\n").encode())


JSON_HINT = "Save the file as JSON, encoded in UTF-8."
"""Hint of the error about a JSON file of the user that cannot be read."""


def read_json(path: Path, error: type[UshapeError], *, code: str, hint: str) -> Any:
    """Return the content of a JSON file.

    Args:
        error: Class of the exception that is raised if the file cannot be read.
        code, hint: Attributes of that exception.

    Raises:
        UshapeError: if the file is missing, or is not JSON in UTF-8.
        DataError: if there is not enough memory for it.
    """
    if path.is_file() and path.stat().st_size > SMALL_BYTES // JSON_INFLATION:
        check_memory(path, JSON_INFLATION * path.stat().st_size, "JSON")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as problem:
        raise error(f"{path} cannot be read: {reason(problem)}.", code=code, hint=hint) from None


def write_sealed_json(path: Path, values: Mapping[str, Any], *, free: Sequence[str] = ()) -> None:
    """Write a JSON object atomically, with a checksum of its values.

    Args:
        free: Keys that may be edited later, because the checksum does not cover them.
    """
    plain = json.loads(json.dumps(values, default=str))
    write_json(path, {**plain, CHECKSUM: _checksum_of(plain, free)})


def read_sealed_json(
    path: Path, error: type[UshapeError], *, code: str, hint: str, free: Sequence[str] = ()
) -> Any:
    """Return the content of a JSON file, without its checksum if it has one.

    Args:
        error: Class of the exception that is raised if the file cannot be used.
        code, hint: Attributes of that exception.
        free: Keys that the checksum does not cover.

    Raises:
        UshapeError: if the file cannot be read, or was changed after it was written.
    """
    values = read_json(path, error, code=code, hint=hint)
    if not isinstance(values, dict) or CHECKSUM not in values:  # Written by an earlier version.
        return values
    if values.pop(CHECKSUM) != _checksum_of(values, free):
        raise error(
            f"{path} was changed after it was written: its checksum does not match its content.",
            code=code,
            hint=f'{hint} To use the changed content, remove the key "{CHECKSUM}" from the file.',
        )
    return values


def _checksum_of(values: Mapping[str, Any], free: Sequence[str]) -> str:
    covered = {key: value for key, value in values.items() if key not in free}
    return hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()


def refuse_existing_output(path: Path | None, overwrite: bool) -> None:
    """Check that an output may be written; None stands for no output.

    Raises:
        RunError: if the file or folder exists and `overwrite` is False.
    """
    if path is not None and path.exists() and not overwrite:
        raise RunError(
            f"{path} already exists.",
            code="output_exists",
            hint="Choose another output, or replace this one with --overwrite (overwrite=True).",
        )


def remove_leftovers(folder: Path, pattern: str = ALL_HIDDEN) -> None:
    """Remove the unfinished files and images below a folder whose processes no longer run.

    Those of other machines are removed if they have not changed for a day. A folder that a process
    was about to replace gets its name back if there is no other.

    Args:
        pattern: Glob pattern of the paths that are considered, below the folder.
    """
    if not folder.is_dir():
        return
    for path in _hidden_below(folder) if pattern == ALL_HIDDEN else list(folder.glob(pattern)):
        match = LEFTOVER.search(path.name)
        if match and _is_left_over(path, match):
            former = path.with_name(path.name[1 : match.start()])
            if path.suffix == ".old" and not former.exists():
                path.rename(former)
            else:
                remove_quietly(path)


def _hidden_below(folder: Path) -> list[Path]:
    """Return the hidden files and folders below a folder, quickly; links are not followed."""
    return [
        Path(place, name)
        for place, folders, files in os.walk(folder)
        for name in (*folders, *files)
        if name.startswith(".")
    ]


def _is_left_over(path: Path, match: re.Match[str]) -> bool:
    """Return whether the process that began a file, according to its name, no longer runs."""
    if match["machine"] in (None, machine_mark()):
        return not psutil.pid_exists(int(match["process"]))
    try:
        return time_of_server(path.parent) - path.lstat().st_mtime > FOREIGN_LEFTOVER_S
    except OSError:
        return False


def time_of_server(folder: Path) -> float:
    """Return the present time in seconds by the clock that dates the files of a folder.

    On a network file system, this is the clock of the server, which may differ from that of this
    machine. A file is created for a moment to read it.
    """
    probe = temporary_name(folder / "time")
    try:
        probe.touch()
        return probe.lstat().st_mtime
    except OSError:  # The folder cannot be written to.
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def remove_quietly(path: Path) -> None:
    """Remove a file, a link or a folder, as far as it is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def files_within(path: Path) -> list[Path]:
    """Return a file, or the files in the folder that is one image, sorted.

    The label images and the consolidated metadata that an OME-Zarr image may hold are left out.
    """
    found = all_files_within(path)
    if path.suffix.lower() != ".zarr":
        return found
    names = (f"{path.name}/{one.relative_to(path).as_posix()}" for one in found)
    pairs = zip(found, names, strict=True)
    return [one for one, name in pairs if not ADDED_TO_ZARR.search(name)]


def all_files_within(path: Path) -> list[Path]:
    """Return a file, or all files below a folder, sorted."""
    if not path.is_dir():
        return [path] if path.is_file() else []
    return sorted(one for one in path.rglob("*") if one.is_file())


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Convert every exception of a file format library into a DataError that names the path.

    On random bytes, parsers raise nearly every kind of exception.

    Raises:
        DataError: if the file cannot be read, or does not fit into memory.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Unusual metadata do not make pixels unusable.
            yield
    except UshapeError:
        raise
    except MemoryError:
        raise DataError(
            f"{path}: reading this file needs more memory than is available.",
            code="image_too_large",
            hint="Divide the image into parts.",
        ) from None
    except Exception as error:
        raise damaged(path, f"the file cannot be read ({last_line(error)})") from None


def damaged(path: Path, what: str) -> DataError:
    """Return the error that a reader raises for a damaged file.

    Args:
        what: What is wrong, as a clause without a final period.
    """
    return DataError(f"{path}: {what}.", code="damaged_file", hint=DAMAGED)


def check_claim(path: Path, shape: Sequence[int], value_bytes: int, present_bytes: int) -> None:
    """Check the size that a header claims before memory is allocated for it.

    Args:
        shape: Length of every axis, channels included.
        value_bytes: Bytes of one decoded value.
        present_bytes: Stored bytes that the values are decoded from.

    Raises:
        DataError: if an axis is shorter than 1, if there are more than MAX_PIXELS values, if no
            compression could store that many values in the bytes present, or if there is not
            enough memory.
    """
    if not shape or min(shape) < 1:
        raise damaged(path, f"the header specifies the shape {size_text(shape)}")
    count = math.prod(shape)
    if count > MAX_PIXELS:
        raise DataError(
            f"{path}: according to the header, the shape is {size_text(shape)}, which is more "
            f"than {MAX_PIXELS} values.",
            code="image_too_large",
            hint="Divide the image into parts.",
        )
    if count * value_bytes > max(SMALL_BYTES, MAX_INFLATION * present_bytes):
        raise damaged(
            path,
            f"according to the header, the shape is {size_text(shape)}, but only "
            f"{present_bytes} bytes are stored",
        )
    if count * value_bytes > SMALL_BYTES:
        check_memory(
            path, count * max(WORKING_BYTES, 4 * value_bytes), f"{size_text(shape)} values"
        )


def check_memory(path: Path, wanted_bytes: int, content: str) -> None:
    """Check that a file can be unpacked into the memory that is free.

    Args:
        content: What the file holds, for the message.

    Raises:
        DataError: if there is not enough memory.
    """
    free = free_memory_bytes()
    if wanted_bytes > free:
        raise DataError(
            f"{path}: the file contains {content}, for which about {wanted_bytes / 1e9:.1f} GB of "
            f"memory are needed; {free / 1e9:.1f} GB are free.",
            code="image_too_large",
            hint="Divide the file into parts, close other programs, or use a machine with more "
            "memory.",
        )


def read_head(path: Path, size: int = HEAD_BYTES) -> bytes:
    """Return the first bytes of a file; none if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError:
        return b""


def last_line(error: Exception) -> str:
    """Return the last line of an exception's message.

    ITK lists the places in its source first and the reason last.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip().rstrip(".")[:300]


def append_line(file: int, line: bytes) -> None:
    """Append a line to an open file, completely or not at all, and pass it to the operating system.

    Args:
        file: Descriptor of a file opened with O_APPEND, so that lines of two processes do not mix.
        line: Line with its line end.
    """
    size, rest = os.fstat(file).st_size, memoryview(line)
    try:
        while rest:
            rest = rest[os.write(file, rest) :]
    except BaseException:
        # On a full disk or Ctrl-C: the next line must not be appended to an incomplete one.
        os.ftruncate(file, size)
        raise


def complete_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file; the last one is left out if a kill cut it off."""
    if path.is_file():
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line
