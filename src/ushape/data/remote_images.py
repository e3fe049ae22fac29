"""Images at URLs: local copies that are made before an image is read, and removed afterwards."""

from __future__ import annotations

import glob
import os
import threading
import zlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from ushape import io
from ushape.data.inputs import MAX_STACKS, Input
from ushape.data.layouts.listing import ANNOTATIONS
from ushape.data.layouts.table import TABLES
from ushape.errors import DataError
from ushape.io.remote import TRANSFERS, RemoteFile, RemoteFolder, require_space
from ushape.io.remote_errors import name_error
from ushape.types import Pixels, files_of

WHOLE_BYTES = 1 << 28
"""Size of all images up to which they are copied before the first one is read."""

AHEAD = 32
"""Largest number of images that are copied before they are needed."""

AHEAD_BYTES = 1 << 30
"""Size of these images after which no more are copied."""

READ_WHEN_LISTED = (".dcm", "", ".nii", ".nii.gz")
"""Suffixes of images whose content decides how they are listed."""

DESCRIPTIONS = (*ANNOTATIONS, *TABLES, ".xml", ".yaml", ".yml")
"""Suffixes of other files whose content decides it, because they tell which images are masks."""

HEADERS = (".mhd", ".vms", ".vmu")
"""Suffixes of images that name other files of their folder."""

DATA_OF_HEADERS = {".raw": ".mhd", ".zraw": ".mhd"}
"""Suffixes of files that usually have the name of the header that they belong to, and its suffix.
"""


@dataclass(frozen=True)
class _Source:
    """A file at a URL."""

    remote: RemoteFolder
    file: RemoteFile

    @property
    def address(self) -> str:
        return self.remote.address_of(self.file.name)


class RemoteImages:
    """Local paths that stand for files at URLs.

    The paths exist from the beginning, with the sizes of the files, so that images are listed as
    those of a local folder; `fetch` copies the content. Safe to use from several threads.

    Args:
        work: Empty local folder.
        output: URL of the output folder, whose files are no inputs; '' if there is none.
    """

    def __init__(self, work: Path, output: str = ""):
        self._work, self._output = work, output
        self._addresses: dict[str, str] = {}
        self._sources: dict[Path, _Source] = {}
        self._members: dict[Path, list[Path]] = {}
        self._left: deque[Path] = deque()
        self._uses: Counter[Path] = Counter()
        self._copies: dict[Path, Future[None]] = {}
        self._lock, self._pool = threading.RLock(), ThreadPoolExecutor(TRANSFERS)
        self._keeps_all = False
        self._failed: dict[Path, DataError] = {}
        self.refused: dict[str, DataError] = {}
        """Errors about images whose names no local file can have, by address."""

    def close(self) -> None:
        """Stop copying."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def add(self, url: str) -> Path:
        """List the files at a URL, and return the local path that stands for it.

        Args:
            url: URL of a file, a folder, or a pattern of names such as s3://bucket/scans/*.tif.

        Raises:
            DataError: if there are no files, or it is a table.
            UshapeError: if the server cannot be reached, or refuses the request.
        """
        base, rest = _without_pattern(url)
        remote = RemoteFolder(base)
        files = remote.list_files()
        own = f"{remote.url}/"
        if self._output.startswith(own):
            below = self._output.removeprefix(own) + "/"
            files = {key: file for key, file in files.items() if not key.startswith(below)}
        if not files:
            raise DataError(
                f"There are no files below {remote.url}.",
                code="file_not_found",
                hint="Check the spelling.",
            )
        place = self._work / str(len(list(self._work.iterdir())))
        folder = place if remote.is_file else place / (remote.url.rpartition("/")[2] or "data")
        for file in files.values():
            path = folder / file.name
            if path.suffix.lower() in TABLES and remote.is_file:
                raise DataError(
                    f"{remote.url}: a table of images must be a local file.",
                    code="remote_table",
                    hint="Specify the folder of the images, or a pattern of their names.",
                )
            try:
                _make_stand_in(path, file)
            except DataError as error:
                if len(files) == 1:
                    raise
                self._refuse(path, remote.address_of(file.name), error)
                continue
            self._sources[path] = _Source(remote, file)
            self._members.setdefault(_unit_of(path), []).append(path)
        for name in remote.left_out:
            self._refuse(Path(name), f"{remote.url}/{name}", _unusable(name))
        self._addresses[str(path if remote.is_file else folder)] = remote.url
        return path if remote.is_file else folder / rest

    def _refuse(self, path: Path, address: str, error: DataError) -> None:
        """Note the error about a file, if it is an image or a part of one."""
        if io.suffix_of(_unit_of(path)) in io.FORMATS:
            self.refused[address] = error

    @property
    def addresses(self) -> dict[str, str]:
        """URLs of the local folders and files, by their paths, for messages."""
        return self._addresses

    def prepare(self, *, whole: bool) -> None:
        """Copy what is needed to list the images.

        Args:
            whole: Copy all files, and keep them.

        Raises:
            RunError: if they do not fit on the disk.
        """
        self._join_companions()
        headers = {unit.parent for unit in self._members if io.suffix_of(unit) in HEADERS}
        listed = [
            unit
            for unit in self._members
            if _is_read_when_listed(unit) or (not _is_image(unit) and unit.parent in headers)
        ]
        images = [unit for unit in self._members if _is_image(unit)]
        needed = dict.fromkeys((*listed, *images))
        is_small = sum(map(self._size_of, needed)) <= WHOLE_BYTES or len(images) <= MAX_STACKS
        self._keeps_all = whole or is_small
        chosen = list(needed) if self._keeps_all else listed
        require_space(
            self._work,
            sum(map(self._size_of, chosen)),
            "The copy of the images that are read together",
            "Set TMPDIR to a folder on a larger disk, or predict fewer images.",
        )
        units = {path: unit for unit in chosen for path in self._members[unit]}
        for path, error in zip(units, self._pool.map(self._try_copy, units), strict=True):
            if error is not None:  # It is raised when the image is fetched.
                self._failed[units[path]] = error

    def _join_companions(self) -> None:
        """Let files that are read with an image, such as the .raw of a .mhd, be parts of it."""
        by_name = {str(unit).lower(): unit for unit in self._members}
        for unit in list(self._members):
            owner = next(filter(None, map(by_name.get, _names_of_owners(unit))), None)
            if owner is not None:
                self._members[owner] += self._members.pop(unit)

    def read(self, path: Path) -> Pixels:
        """Return `io.read` of an image, after its content was copied."""
        self._fetch_now(path)
        return io.read(path)

    def with_origins(self, inputs: Sequence[Input]) -> list[Input]:
        """Return the inputs with the URLs and versions of their images."""
        return [replace(one, case=replace(one.case, origin=self._origin_of(one))) for one in inputs]

    def expect(self, inputs: Iterable[Input]) -> None:
        """Specify which images will be fetched, and in which order."""
        if self._keeps_all:
            return
        units = [unit for one in inputs for unit in self._units_of(one)]
        self._uses, self._left = Counter(units), deque(dict.fromkeys(units))

    def fetch(self, image: Input) -> None:
        """Wait until the files of an image are copied; start copying those of the next images.

        Raises:
            DataError: if a file no longer exists.
            UshapeError: if the server cannot be reached, or refuses the request.
        """
        units = self._units_of(image)
        for unit in units:
            if unit in self._failed:
                raise self._failed[unit]
        if self._keeps_all:
            return
        with self._lock:
            for unit in units:
                self._begin(unit)
            while self._left and len(self._copies) < AHEAD and self._copied_bytes() < AHEAD_BYTES:
                self._begin(self._left.popleft())
            copies = [self._copies[unit] for unit in units]
        for copy in copies:
            copy.result()

    def release(self, image: Input) -> None:
        """Remove the copies of the files of an image, unless other images need them."""
        if self._keeps_all:
            return
        for unit in self._units_of(image):
            with self._lock:
                self._uses[unit] -= 1
                if self._uses[unit] > 0:
                    continue
                self._copies.pop(unit, None)
            for path in self._members[unit]:
                path.unlink(missing_ok=True)

    def _begin(self, unit: Path) -> None:
        if unit not in self._copies and self._uses[unit] > 0:
            self._copies[unit] = self._pool.submit(self._copy_unit, unit)

    def _copied_bytes(self) -> int:
        return sum(self._size_of(unit) for unit in self._copies)

    def _size_of(self, unit: Path) -> int:
        return sum(self._sources[path].file.size or 0 for path in self._members[unit])

    def _copy_unit(self, unit: Path) -> None:
        for path in self._members[unit]:
            self._copy(path)

    def _try_copy(self, path: Path) -> DataError | None:
        try:
            self._copy(path)
        except DataError as error:
            return error
        return None

    def _copy(self, path: Path) -> None:
        source = self._sources[path]
        if not source.file.is_copied(path):  # A stand-in has another modification time.
            source.remote.fetch(source.file, path)

    def _fetch_now(self, path: Path) -> None:
        for member in self._members.get(_unit_of(path), []):
            self._copy(member)

    def _units_of(self, image: Input) -> list[Path]:
        units = dict.fromkeys(map(_unit_of, files_of(image.case)))
        return [unit for unit in units if unit in self._members]

    def _origin_of(self, image: Input) -> tuple[str, str] | None:
        """Return the URLs of the files of an image and their versions; None if it is local."""
        units = self._units_of(image)
        if not units:
            return None
        members = [self._sources[path] for unit in units for path in self._members[unit]]
        versions = [f"{one.address} {one.file.size} {one.file.version}" for one in members]
        addresses = [self._sources[self._members[unit][0]].address for unit in units]
        return "\n".join(addresses), f"{zlib.crc32(repr(versions).encode()):08x}"


def _unit_of(path: Path) -> Path:
    """Return the image that a file is part of: a Zarr folder, or the file itself."""
    folders = (one for one in (path, *path.parents) if one.suffix.lower() == ".zarr")
    return next(folders, path)


def _unusable(name: str) -> DataError:
    return DataError(
        f"{name}: a local file cannot have this name.",
        code="remote_name_unusable",
        hint="Rename the file at the URL.",
    )


def _is_image(unit: Path) -> bool:
    return io.suffix_of(unit) in io.FORMATS


def _is_read_when_listed(unit: Path) -> bool:
    suffix = io.suffix_of(unit)
    return suffix in (*READ_WHEN_LISTED, *DESCRIPTIONS) or unit.stem.endswith("_seg")


def _names_of_owners(unit: Path) -> Iterator[str]:
    """Yield the paths, in lower case, of images that a file may be a part of."""
    if not _is_image(unit):
        if header := DATA_OF_HEADERS.get(unit.suffix.lower()):
            yield str(unit.with_suffix(header)).lower()
        # The folder of a slide in the format MRXS has its name.
        yield from (f"{folder}.mrxs".lower() for folder in unit.parents)


def _without_pattern(url: str) -> tuple[str, str]:
    """Return the URL before the first part with a wildcard, and the rest."""
    if url.startswith("http") or not glob.has_magic(url):
        return url, ""
    parts = url.split("/")
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return "/".join(parts[:first]), "/".join(parts[first:])


def _make_stand_in(path: Path, file: RemoteFile) -> None:
    """Create an empty file of the size of another one, which takes no space on most disks.

    Raises:
        DataError: if the name cannot be that of a local file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as own:  # Not again: names may differ only in case.
            own.truncate(file.size or 0)
    except OSError as error:
        raise name_error(error, file.name) or error from None
    os.utime(path, ns=(0, 0))
