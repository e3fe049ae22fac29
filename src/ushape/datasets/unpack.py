"""Archives, unpacked without trusting them."""

from __future__ import annotations

import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from ushape.errors import DataError

MAX_FILES = 200_000
BLOCK = 1 << 20


class NoRoomError(DataError):
    """The archive may be good; the disk is too small for it."""


@dataclass(frozen=True)
class Member:
    """A file that an archive claims to hold."""

    name: str
    size_bytes: int
    is_ordinary: bool
    """No link, no device."""

    is_folder: bool
    key: zipfile.ZipInfo | tarfile.TarInfo


def unpack(archive: Path, folder: Path, *, most_bytes: int) -> None:
    """Unpacks a zip or tar into a folder, after looking at all of its names and sizes.

    What a stop leaves in the folder is incomplete: give one that is thrown away then.

    Args:
        most_bytes: Expanded; more is refused.

    Raises:
        DataError: not an archive, or damaged; a path that leads elsewhere; a link; a name twice;
            more than allowed, or than the disk has room for.
    """
    try:
        with _opened(archive) as content:
            members = _check(archive, folder, _members(content), most_bytes)
            for path, member in members.items():
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with _stream(content, member) as source, target.open("xb") as file:
                    _copy(archive, member, source, file)
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        EOFError,
        zlib.error,
        lzma.LZMAError,
        RuntimeError,  # A password.
        NotImplementedError,
    ) as error:
        raise _damaged(archive, error) from None
    except OSError as error:
        if error.errno is not None:  # The disk's errors have a number, those of gzip and bz2 none.
            raise
        raise _damaged(archive, error) from None


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile | tarfile.TarFile]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as content:
            yield content
    else:
        with tarfile.open(archive) as tar:
            yield tar


def _members(content: zipfile.ZipFile | tarfile.TarFile) -> Iterator[Member]:
    """One by one, so that a bomb is not read to its end."""
    if isinstance(content, zipfile.ZipFile):
        for info in content.infolist():
            # Type bits of the Unix mode; 0 where the archive comes from elsewhere.
            kind = (info.external_attr >> 16) & 0o170000
            is_ordinary = kind in (0, 0o100000, 0o040000)
            yield Member(info.filename, info.file_size, is_ordinary, info.is_dir(), info)
        return
    for entry in content:
        is_ordinary = entry.isreg() or entry.isdir()
        yield Member(entry.name, entry.size, is_ordinary, entry.isdir(), entry)


def _check(
    archive: Path, folder: Path, members: Iterator[Member], most_bytes: int
) -> dict[PurePosixPath, Member]:
    """The files by where they go."""
    found: dict[PurePosixPath, Member] = {}
    names: set[str] = set()
    total = 0
    for member in members:
        path = _safe(archive, member)
        total += member.size_bytes
        if total > most_bytes or len(found) >= MAX_FILES:
            raise DataError(
                f"{archive}: more than {most_bytes >> 20} MiB or {MAX_FILES} files when unpacked.",
                hint="This is not the data set, and may be meant to fill your disk.",
            )
        if member.is_folder or path.parts[0] == "__MACOSX" or path.name == ".DS_Store":
            continue
        # On some disks A.tif and a.tif are one file.
        if (key := str(path).casefold()) in names:
            raise DataError(
                f"{archive}: {member.name} is in it twice.",
                hint="Unpack it by hand and look which one is meant.",
            )
        names.add(key)
        found[path] = member
    for path in found:
        if inside := next((above for above in path.parents if above in found), None):
            raise DataError(
                f"{archive}: {inside} is a file and a folder in it.", hint="Do not use it."
            )
    folder.mkdir(parents=True, exist_ok=True)
    if total > (free := shutil.disk_usage(folder).free):
        raise NoRoomError(
            f"{archive}: needs {total >> 20} MiB unpacked; {folder} has {free >> 20} MiB free.",
            hint="Make room, or choose another folder with --to.",
        )
    return found


def _safe(archive: Path, member: Member) -> PurePosixPath:
    """Where a member goes, below the folder."""
    path = PurePosixPath(member.name.replace("\\", "/"))
    windows = PureWindowsPath(member.name)
    leads_away = windows.drive or windows.root or path.is_absolute() or ".." in path.parts
    # A colon is a drive or a hidden stream on Windows; NUL ends a name early.
    if leads_away or any(sign in member.name for sign in ":\0"):
        raise DataError(
            f"{archive}: {member.name!r} would be written outside of its folder.",
            hint="Do not use this archive.",
        )
    if not member.is_ordinary:
        raise DataError(
            f"{archive}: {member.name} is a link or a device, no file.",
            hint="Do not use this archive, or unpack it by hand and look.",
        )
    if not path.parts and not member.is_folder:
        raise DataError(f"{archive}: a file without a name.", hint="Do not use this archive.")
    return path


def _stream(content: zipfile.ZipFile | tarfile.TarFile, member: Member) -> IO[bytes]:
    if isinstance(content, zipfile.ZipFile):
        assert isinstance(member.key, zipfile.ZipInfo)
        return content.open(member.key)
    assert isinstance(member.key, tarfile.TarInfo)
    stream = content.extractfile(member.key)
    assert stream is not None  # Only links and devices have none.
    return stream


def _copy(archive: Path, member: Member, source: IO[bytes], file: IO[bytes]) -> None:
    written = 0
    while block := source.read(BLOCK):
        written += len(block)
        if written > member.size_bytes:
            break
        file.write(block)
    if written != member.size_bytes:
        raise DataError(
            f"{archive}: {member.name} has not the {member.size_bytes} bytes it states.",
            hint="The archive is damaged. Fetch it again.",
        )


def _damaged(archive: Path, error: Exception) -> DataError:
    with archive.open("rb") as file:
        begins = file.read(512).lstrip().lower()
    if begins.startswith((b"<!doctype", b"<html")):
        return DataError(
            f"{archive} is a web page, no archive.",
            hint="Use the address of the file itself, not of the page about it.",
        )
    return DataError(
        f"{archive} is no zip or tar, or damaged: {error}.", hint="Fetch it again, or another one."
    )
