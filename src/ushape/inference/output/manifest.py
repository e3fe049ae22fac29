"""Log of finished images, so that the same call continues where an earlier one was interrupted.

A call that predicts one of several parts has its own log, because lines that two machines
append to one file on a network file system can overwrite each other. The next call that predicts
all images merges these logs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from ushape.data.preprocessing import by_group
from ushape.io.files import append_line, complete_lines, files_within, real_path, replacing
from ushape.io.listing import Listing
from ushape.io.ome_zarr import metadata_without_listing
from ushape.types import Case

MANIFEST_FILE = ".ushape-predict.jsonl"

PARTS_FOLDER = ".ushape-parts"
"""Folder in the output folder with the logs of parts."""

MARKED_BYTES = 256
"""Number of bytes at the beginning of an output file that the stored checksum covers."""

IMAGE_FIRST = re.compile(rb'\{"image": "([\x20\x21\x23-\x5b\x5d-\x7e]*)", "')
"""Beginning of a line about an image, if its name is ASCII without characters to escape."""

APPEND_FLAGS = os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)

Line = dict[str, Any]


class Manifest:
    """Log in the output folder.

    It has a line for the call and two for each image: one before the first output is written, and
    one after the last. The last line about an image counts, of all logs in the folder.

    Args:
        folder: Output folder.
        made_by: Facts that determine the outputs: weights, rule, kinds of output. An image whose
            last line is one of a call with other facts is not finished; these lines are dropped.
        together: Cases that are read together with the others of their group: if one of these has
            changed, all are written again.
        part: Name of the part of the images that this call predicts; '' if it predicts all.
        verify: Read all outputs again to see whether they have changed. Otherwise, outputs that
            have their stored size count as whole; what remains to find are edits that keep the
            size, since outputs are renamed only when they are complete and on the disk.
    """

    def __init__(
        self,
        folder: Path,
        made_by: Mapping[str, Any],
        together: Sequence[Case] = (),
        *,
        part: str = "",
        verify: bool = False,
    ):
        self._listing = Listing()
        self._mark_of_group = {
            name: _mark_group(own, self._listing) for name, own in by_group(together).items()
        }
        self.folder, self.path = folder, folder / MANIFEST_FILE
        if part:
            # Each process has its own file: a scheduler may run a part twice at the same time.
            self.path = folder / PARTS_FOLDER / f"{part}.{uuid.uuid4().hex[:12]}.jsonl"
        self.made_by, self.part, self.verify = json.loads(json.dumps(made_by)), part, verify
        self._last: dict[str, bytes] = {}
        self._last_of_others: dict[str, float] = {}
        self._times_in: dict[Path, dict[str, float]] = {}
        self._read_bytes: dict[Path, int] = {}
        self._has_header = self.is_ours = False
        self.reload()

    def reload(self) -> None:
        """Read all logs in the folder again.

        For each image, this keeps its last line, or the time of a later line of another call.
        """
        self._last, self._last_of_others, self._times_in = {}, {}, {}
        for path in _logs_in(self.folder):
            made_by, events, size = _read_log(path)
            if path != self.path and path.name != MANIFEST_FILE:
                self._read_bytes[path] = size
            if made_by == self.made_by:
                self.is_ours = True
                self._has_header |= path == self.path
                _merge_events(self._last, events)
                continue
            times = {name: _time_of(line) for name, line in events.items()}
            self._times_in[path] = times
            for name, changed in times.items():
                known = self._last_of_others.get(name, changed)
                self._last_of_others[name] = max(changed, known)
        for name, changed in self._last_of_others.items():
            if name in self._last and _time_of(self._last[name]) <= changed:
                del self._last[name]

    def merge(self) -> None:
        """Write the lines of the logs of all parts into that of the folder, and remove those logs.

        A log that has grown since it was read is kept for the next call. So is the log of a part of
        another call, until outputs of all its images were replaced. The lines of another call in
        the log of the folder are dropped, also about images that were not replaced.
        """
        if not self._read_bytes or self.part:
            return
        with replacing(self.path) as file:
            file.write(self._header)
            file.writelines(self._last.values())
        self._has_header = True
        for path, size in self._read_bytes.items():
            is_needed = any(name not in self._last for name in self._times_in.get(path, ()))
            with suppress(OSError):
                if not is_needed and path.stat().st_size == size:
                    path.unlink()
        self._read_bytes = {}
        with suppress(OSError):  # Not empty.
            (self.folder / PARTS_FOLDER).rmdir()

    @property
    def digest(self) -> str:
        """Checksum of the facts that determine the outputs."""
        facts = json.dumps(self.made_by, sort_keys=True).encode()
        return hashlib.sha256(facts).hexdigest()[:16]

    def is_done(self, below: Path, case: Case) -> bool:
        """Return whether neither the outputs nor the image have changed since they were written."""
        return self.files_if_done(below, case) is not None

    def files_if_done(self, below: Path, case: Case) -> list[str] | None:
        """Return the names of the outputs of an image if it is done, as `is_done` says."""
        name = below.as_posix()
        if name not in self._last:
            return None
        return self.files_if_unchanged(name, self._source_of(case, self._listing))

    def knows(self, name: str) -> bool:
        """Return whether there is a line about an image.

        Args:
            name: Path of the image below the named folder, with '/'.
        """
        return name in self._last

    def files_if_unchanged(self, name: str, source: list[Any]) -> list[str] | None:
        """Return the names of the outputs of an image below the folder, the mask last.

        Without a line that says that the image is finished, from these files, and with outputs
        that have not changed, they are None.

        Args:
            name: Path of the image below the named folder, with '/'.
            source: Files of the image as they are now, as in `source_of`.
        """
        line = self._done(name)
        if line is None or line["source"] != source or not self._is_whole(line):
            return None
        return list(line["files"])

    def may_replace(self, below: Path, case: Case) -> bool:
        """Return whether existing outputs were made from this image file and not edited since.

        The logs are read again if they do not know the image: another process may just write it.
        """
        name = below.as_posix()
        if name not in self._last and self.part:
            self.reload()
        line = parse_line(self._last.get(name, b""))
        if line is None or line["source"][0] != self._source_of(case, Listing())[0]:
            return False
        return "files" not in line or self.is_whole(line)

    def forget(self) -> None:
        """Ignore all lines, because everything will be written again."""
        for name, line in self._last.items():  # New lines are later.
            known = self._last_of_others.get(name, 0.0)
            self._last_of_others[name] = max(known, _time_of(line))
        self._last = {}

    def begin(self, below: Path, case: Case) -> None:
        """Record an image before the first of its files is written."""
        self._listing = Listing()
        self._append({"image": below.as_posix(), "source": self._source_of(case, self._listing)})

    def finish(
        self, below: Path, case: Case, files: Iterable[Path], rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """Record an image whose files are all written.

        Args:
            rows: Rows of the image in the table of all images.
        """
        self._append(
            {
                "image": below.as_posix(),
                "source": self._source_of(case, Listing()),
                "files": {self._name_of(path): _mark_of(path) for path in files},
                "rows": list(rows),
            }
        )

    def source_of(self, case: Case) -> list[Any]:
        """Return the files of an image as they are now, and a mark of its group."""
        return self._source_of(case, Listing())

    def _source_of(self, case: Case, listing: Listing) -> list[Any]:
        """Return the files of an image, and a mark of its group if this is read with it."""
        mark = self._mark_of_group.get(case.group)
        return [*_files_of(case, listing), *([] if mark is None else [mark])]

    def _name_of(self, path: Path) -> str:
        """Return a path below the folder, or an absolute one elsewhere, as of label images."""
        own = path.relative_to(self.folder) if path.is_relative_to(self.folder) else real_path(path)
        return own.as_posix()

    @property
    def finished(self) -> list[Path]:
        """Images of this call and of equal ones whose outputs have not changed."""
        self._listing = Listing()
        lines = ((name, self._done(name)) for name in self._last)
        return [Path(name) for name, line in lines if line is not None and self._is_whole(line)]

    def rows_of(self, images: Iterable[Path]) -> list[Line]:
        """Return the rows of these images, each with its name first."""
        return [
            {"image": below.as_posix(), **row}
            for below in sorted(set(images))
            for row in (self._done(below.as_posix()) or {}).get("rows", [])
        ]

    def _done(self, name: str) -> Line | None:
        """Return the line of an image that is finished."""
        line = parse_line(self._last.get(name, b""))
        return line if line is not None and "files" in line else None

    @property
    def _header(self) -> bytes:
        return (json.dumps({"made_by": self.made_by}) + "\n").encode()

    def _append(self, line: Line) -> None:
        # Later than the lines of all calls, also if the clock of this machine is slow.
        name = line["image"]
        known = max(self._last_of_others.get(name, 0.0), _time_of(self._last.get(name, b"")))
        now = max(time.time(), known + 0.001)
        content = (json.dumps({**line, "time": round(now, 3)}) + "\n").encode()
        try:
            if not self._has_header:  # Written with the first image.
                self._write_header()
            try:
                file = os.open(self.path, APPEND_FLAGS)
            except FileNotFoundError:  # Another call has merged this log in the meantime.
                self._write_header()
                file = os.open(self.path, APPEND_FLAGS)
            try:
                append_line(file, content)
            finally:
                os.close(file)
        except OSError as error:
            error.filename = str(self.folder)  # Users do not know the log.
            raise
        self._last[line["image"]] = content

    def _write_header(self) -> None:
        with replacing(self.path) as file:
            file.write(self._header)
        self._has_header = self.is_ours = True

    def _is_whole(self, line: Line) -> bool:
        """Return whether the outputs of an image have their stored size, or `is_whole`."""
        if self.verify:
            return self.is_whole(line)
        for name, (size, _) in line["files"].items():
            is_below = os.sep == "/" and not name.startswith("/")
            path = f"{self.folder}/{name}" if is_below else str(self.folder / name)
            facts = self._listing.facts_of(path)
            if facts is None or not (facts.is_folder or facts.size == size):
                return False
        return True

    def is_whole(self, line: Line) -> bool:
        """Return whether the outputs of an image are as they were written."""
        return all(_mark_of(self.folder / name) == mark for name, mark in line["files"].items())


def has_log(folder: Path) -> bool:
    """Return whether a folder contains outputs of `predict`."""
    return bool(_logs_in(folder))


def _logs_in(folder: Path) -> list[Path]:
    """Return the log of an output folder, and those of parts that are not merged yet."""
    own = folder / MANIFEST_FILE
    parts = sorted((folder / PARTS_FOLDER).glob("*.jsonl"))
    return [*([own] if own.is_file() else []), *parts]


def _read_log(path: Path) -> tuple[Any, dict[str, bytes], int]:
    """Return the facts of the call, the last line about each image, and the size of the file.

    The size is that before the file was read. Without a header, there are no lines.
    """
    found: dict[str, bytes] = {}
    size, lines = path.stat().st_size, complete_lines(path)
    header = parse_line(next(lines, b""))
    for line in lines if header is not None else ():
        name = _name_in(line)
        # Whether the only line about an image is damaged is found when it is used.
        if name is None or name in found:
            values = parse_line(line)
            name = values.get("image") if values is not None else None
        if name is not None:
            found[name] = line
    return (header or {}).get("made_by"), found, size


def _merge_events(last: dict[str, bytes], events: Mapping[str, bytes]) -> None:
    """Add lines of another log; of two lines about an image, the later one is kept."""
    for name, line in events.items():
        other = last.get(name)
        if other is None or _time_of(line) >= _time_of(other):
            last[name] = line


def _time_of(line: bytes) -> float:
    """Return the time of a line; 0 if it contains none, or no finite number."""
    time_s: Any = (parse_line(line) or {}).get("time")
    is_number = isinstance(time_s, (int, float)) and not isinstance(time_s, bool)
    return float(time_s) if is_number and abs(time_s) <= sys.float_info.max else 0.0


def _name_in(line: bytes) -> str | None:
    """Return the image of a line without parsing all of it; None if it does not begin with it."""
    match = IMAGE_FIRST.match(line)
    return match[1].decode() if match else None


def parse_line(line: bytes) -> Line | None:
    """Return the values of a line of a log; None if it is damaged."""
    # `from_json` is several times faster; `json.loads` accepts names that are not Unicode.
    for parse in (from_json, json.loads):
        try:
            values = parse(line)
        except ValueError:
            continue
        return values if isinstance(values, dict) else None
    return None


def finished_files(folder: Path) -> list[tuple[Path, Path | None, list[Path]]]:
    """Return what the log of an output folder records about each finished image.

    Returns:
        For each image: its path below the folder, the image file, and the files that were written
        for it and have not changed. The image is None if it no longer exists, if it has several
        files, or if it is one of several pages of its file.
    """
    last: dict[str, bytes] = {}
    for path in _logs_in(folder):
        _merge_events(last, _read_log(path)[1])
    log = Manifest(folder, {})
    done = (line for line in map(parse_line, last.values()) if line is not None and "files" in line)
    whole = [line for line in done if log.is_whole(line)]
    images = Counter(line["source"][0] for line in whole)
    return [
        (
            Path(line["image"]),
            image if images[line["source"][0]] == 1 and image.exists() else None,
            [folder / name for name in line["files"]],
        )
        for line in whole
        if (image := Path(line["source"][0]))
    ]


def _files_of(case: Case, listing: Listing) -> list[Any]:
    """Return the paths, sizes and modification times of the files of an image.

    Of Zarr groups with consolidated metadata, only the other metadata count.
    """
    if case.origin is not None:  # The files are temporary copies.
        return list(case.origin)
    files = [listing.real_path(path) for path in (case.image, *case.channels)]
    return [" ".join(files), *(_facts_of(path, listing) for path in files)]


def _facts_of(path: str, listing: Listing) -> list[int]:
    found = listing.facts_of(path)
    if found is not None and not found.is_folder:
        return [found.size, found.changed_ns]
    facts, stats = [], []
    for one in files_within(Path(path)):
        lasting = metadata_without_listing(one)
        if lasting is None:
            stats.append(one.stat())
        else:
            facts.append(zlib.crc32(lasting))
    latest = max((s.st_mtime_ns for s in stats), default=0)
    return [sum(s.st_size for s in stats), latest, *facts]


def _mark_group(cases: Sequence[Case], listing: Listing) -> str:
    """Return a checksum of the paths, sizes and modification times of the images of a group."""
    listed = sorted((one.id, one.page or 0, _files_of(one, listing)) for one in cases)
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _mark_of(path: Path) -> list[int]:
    """Return the size of a file, or of all files in a folder, and a checksum of its beginning."""
    if path.is_dir():
        return [sum(one.stat().st_size for one in path.rglob("*") if one.is_file()), 0]
    if not path.is_file():
        return [-1, 0]
    with path.open("rb") as file:
        return [path.stat().st_size, zlib.crc32(file.read(MARKED_BYTES))]
