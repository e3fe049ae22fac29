"""Unpack archives after checking their names, sizes and file types."""

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
"""Largest number of files in an archive."""

COPY_BYTES = 1 << 20
"""Number of bytes that are copied at once."""


class NoRoomError(DataError):
    """The disk is too small for the archive, which may be intact."""

    default_code = "disk_full"


@dataclass(frozen=True)
class ArchiveMember:
    """A file that an archive claims to contain."""

    name: str
    size_bytes: int
    is_ordinary: bool
    """Whether it is a file or folder, not a link or device."""

    is_folder: bool
    key: zipfile.ZipInfo | tarfile.TarInfo


def unpack(archive: Path, folder: Path, *, most_bytes: int) -> None:
    """Unpack a zip or tar into a folder after checking all names and sizes.

    If unpacking stops early, the folder is incomplete and should be discarded.

    Args:
        most_bytes: Largest accepted unpacked size.

    Raises:
        DataError: if the file is not an archive or is damaged, a path leads outside the folder, it
            contains a link or the same name twice, or it is too large.
        NoRoomError: if the disk has too little free space.
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
        RuntimeError,  # Password-protected.
        NotImplementedError,
    ) as error:
        raise _damaged(archive, error) from None
    except OSError as error:
        if error.errno is not None:  # Unlike those of the disk, errors of gzip and bz2 have none.
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


def _members(content: zipfile.ZipFile | tarfile.TarFile) -> Iterator[ArchiveMember]:
    """Yield the members one by one, so that a decompression bomb is not read to its end."""
    if isinstance(content, zipfile.ZipFile):
        for info in content.infolist():
            # Type bits of the Unix mode; 0 if the archive was made on another system.
            kind = (info.external_attr >> 16) & 0o170000
            is_ordinary = kind in (0, 0o100000, 0o040000)
            yield ArchiveMember(info.filename, info.file_size, is_ordinary, info.is_dir(), info)
        return
    for entry in content:
        is_ordinary = entry.isreg() or entry.isdir()
        yield ArchiveMember(entry.name, entry.size, is_ordinary, entry.isdir(), entry)


def _check(
    archive: Path, folder: Path, members: Iterator[ArchiveMember], most_bytes: int
) -> dict[PurePosixPath, ArchiveMember]:
    """Check the members, and return the files by their path below the folder."""
    found: dict[PurePosixPath, ArchiveMember] = {}
    names: set[str] = set()
    total = 0
    for member in members:
        path = _safe(archive, member)
        total += member.size_bytes
        if total > most_bytes or len(found) >= MAX_FILES:
            raise DataError(
                f"{archive}: the archive unpacks to more than {most_bytes >> 20} MiB or "
                f"{MAX_FILES} files.",
                code="archive_too_large",
                hint="This is not the dataset, and may be intended to fill the disk.",
            )
        if member.is_folder or path.parts[0] == "__MACOSX" or path.name == ".DS_Store":
            continue
        # On some file systems A.tif and a.tif are the same file.
        if (key := str(path).casefold()) in names:
            raise DataError(
                f"{archive}: the archive contains {member.name} twice.",
                code="archive_unsafe",
                hint="Unpack it manually and check which of the files is correct.",
            )
        names.add(key)
        found[path] = member
    for path in found:
        if inside := next((above for above in path.parents if above in found), None):
            raise DataError(
                f"{archive}: {inside} is both a file and a folder in the archive.",
                code="archive_unsafe",
                hint="Do not use this archive.",
            )
    folder.mkdir(parents=True, exist_ok=True)
    if total > (free := shutil.disk_usage(folder).free):
        raise NoRoomError(
            f"{archive}: unpacking needs {total >> 20} MiB, but {folder} has only "
            f"{free >> 20} MiB free.",
            code="disk_full",
            hint="Free some space, or choose another folder with --to.",
        )
    return found


def _safe(archive: Path, member: ArchiveMember) -> PurePosixPath:
    """Return the path of a member below the folder."""
    path = PurePosixPath(member.name.replace("\\", "/"))
    windows = PureWindowsPath(member.name)
    leads_away = windows.drive or windows.root or path.is_absolute() or ".." in path.parts
    # On Windows a colon denotes a drive or a hidden stream; NUL ends a name early.
    if leads_away or any(sign in member.name for sign in ":\0"):
        raise DataError(
            f"{archive}: {member.name!r} would be written outside the folder.",
            code="archive_unsafe",
            hint="Do not use this archive.",
        )
    if not member.is_ordinary:
        raise DataError(
            f"{archive}: {member.name} is a link or a device, not a file.",
            code="archive_unsafe",
            hint="Do not use this archive, or unpack it manually and check it.",
        )
    if not path.parts and not member.is_folder:
        raise DataError(
            f"{archive}: the archive contains a file without a name.",
            code="archive_unsafe",
            hint="Do not use this archive.",
        )
    return path


def _stream(content: zipfile.ZipFile | tarfile.TarFile, member: ArchiveMember) -> IO[bytes]:
    if isinstance(content, zipfile.ZipFile):
        assert isinstance(member.key, zipfile.ZipInfo)
        return content.open(member.key)
    assert isinstance(member.key, tarfile.TarInfo)
    stream = content.extractfile(member.key)
    assert stream is not None  # Only links and devices have none.
    return stream


def _copy(archive: Path, member: ArchiveMember, source: IO[bytes], file: IO[bytes]) -> None:
    written = 0
    while block := source.read(COPY_BYTES):
        written += len(block)
        if written > member.size_bytes:
            break
        file.write(block)
    if written != member.size_bytes:
        raise DataError(
            f"{archive}: {member.name} does not have the {member.size_bytes} bytes that the "
            "archive specifies.",
            code="archive_damaged",
            hint="The archive is damaged. Download it again.",
        )


def _damaged(archive: Path, error: Exception) -> DataError:
    with archive.open("rb") as file:
        begins = file.read(512).lstrip().lower()
    if begins.startswith((b"<!doctype", b"<html")):
        return DataError(
            f"{archive} is a web page, not an archive.",
            code="archive_damaged",
            hint="Use the address of the file itself, not of a page about it.",
        )
    return DataError(
        f"{archive} is not a zip or tar archive, or is damaged ({error}).",
        code="archive_damaged",
        hint="Download it again, or use another archive.",
    )
