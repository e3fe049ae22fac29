"""Archives, unpacked without trusting them."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

from ushape.errors import DataError

MOST_BYTES = 200 << 30
"""An archive that says it holds more is refused: Carvana's largest has 25 GB."""


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a zip into a folder, whole files only, none outside of it.

    Raises:
        DataError: no zip; a path that leads elsewhere; a link; a size that cannot be meant.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            members = content.infolist()
            total = sum(member.file_size for member in members)
            if total > MOST_BYTES:
                raise DataError(
                    f"{archive}: {total >> 30} GB when unpacked.",
                    hint="This is no data set of ours.",
                )
            for member in members:
                target = folder / _safe(archive, member)
                if member.is_dir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with content.open(member) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file)
    except (zipfile.BadZipFile, EOFError) as error:
        raise DataError(
            f"{archive}: no zip, or damaged: {error}.", hint="Delete it and fetch it again."
        ) from None


def _safe(archive: Path, member: zipfile.ZipInfo) -> PurePosixPath:
    path = PurePosixPath(member.filename)
    windows = PureWindowsPath(member.filename)
    is_link = (member.external_attr >> 16) & 0o170000 == 0o120000
    leads_away = path.is_absolute() or ".." in path.parts or ".." in windows.parts
    if leads_away or windows.drive or windows.root or is_link:
        raise DataError(
            f"{archive}: {member.filename} would be written outside of its folder.",
            hint="Do not use this archive.",
        )
    return path
