"""Log of finished images, so that the same call continues where an earlier one was interrupted."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ushape.data.preprocessing import by_group
from ushape.io.files import append_line, complete_lines, files_within, real_path, write_bytes
from ushape.io.ome_zarr import metadata_without_listing
from ushape.types import Case

MANIFEST_FILE = ".ushape-predict.jsonl"

MARKED_BYTES = 256
"""Number of bytes at the beginning of an output file that the stored checksum covers."""

Line = dict[str, Any]


class Manifest:
    """Log in the output folder.

    It has a line for the call and two for each image: one before the first output is written, and
    one after the last.

    Args:
        folder: Output folder.
        made_by: Facts that determine the outputs: weights, rule, kinds of output. Lines of a call
            with other facts are ignored, and dropped.
        together: Cases that are read together with the others of their group: if one of these has
            changed, all are written again.
    """

    def __init__(self, folder: Path, made_by: Mapping[str, Any], together: Sequence[Case] = ()):
        self._mark_of_group = {name: _mark_group(own) for name, own in by_group(together).items()}
        self.folder, self.path = folder, folder / MANIFEST_FILE
        self.made_by = json.loads(json.dumps(made_by))
        self._begun: dict[str, Line] = {}
        self._done: dict[str, Line] = {}
        lines = self.lines()
        self.is_ours = bool(lines) and lines[0].get("made_by") == self.made_by
        for line in lines[1:] if self.is_ours else []:
            if "image" in line:
                (self._done if "files" in line else self._begun)[line["image"]] = line

    @property
    def digest(self) -> str:
        """Checksum of the facts that determine the outputs."""
        facts = json.dumps(self.made_by, sort_keys=True).encode()
        return hashlib.sha256(facts).hexdigest()[:16]

    def is_done(self, below: Path, case: Case) -> bool:
        """Return whether neither the outputs nor the image have changed since they were written."""
        line = self._done.get(below.as_posix())
        return line is not None and line["source"] == self.source_of(case) and self.is_whole(line)

    def may_replace(self, below: Path, case: Case) -> bool:
        """Return whether existing outputs were made from this image file and not edited since."""
        name, path = below.as_posix(), self.source_of(case)[0]
        done, begun = self._done.get(name), self._begun.get(name)
        if done is not None:
            return bool(done["source"][0] == path) and self.is_whole(done)
        return begun is not None and bool(begun["source"][0] == path)

    def forget(self) -> None:
        """Ignore all lines, because everything will be written again."""
        self._begun, self._done = {}, {}

    def begin(self, below: Path, case: Case) -> None:
        """Record an image before the first of its files is written."""
        if not self.is_ours:  # Written with the first image.
            write_bytes(self.path, (json.dumps({"made_by": self.made_by}) + "\n").encode())
            self.is_ours = True
        self._append(self._begun, {"image": below.as_posix(), "source": self.source_of(case)})

    def finish(
        self, below: Path, case: Case, files: Iterable[Path], rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """Record an image whose files are all written.

        Args:
            rows: Rows of the image in the table of all images.
        """
        line = {
            "image": below.as_posix(),
            "source": self.source_of(case),
            "files": {self._name_of(path): _mark_of(path) for path in files},
            "rows": list(rows),
        }
        self._append(self._done, line)

    def source_of(self, case: Case) -> list[Any]:
        """Return the files of an image, and a mark of its group if this is read with it."""
        mark = self._mark_of_group.get(case.group)
        return [*_files_of(case), *([] if mark is None else [mark])]

    def _name_of(self, path: Path) -> str:
        """Return a path below the folder, or an absolute one elsewhere, as of label images."""
        own = path.relative_to(self.folder) if path.is_relative_to(self.folder) else real_path(path)
        return own.as_posix()

    @property
    def finished(self) -> list[Path]:
        """Images of this call and of equal ones whose outputs have not changed."""
        return [Path(name) for name, line in self._done.items() if self.is_whole(line)]

    def rows_of(self, images: Iterable[Path]) -> list[Line]:
        """Return the rows of these images, each with its name first."""
        return [
            {"image": below.as_posix(), **row}
            for below in sorted(set(images))
            for row in self._done.get(below.as_posix(), {}).get("rows", [])
        ]

    def _append(self, known: dict[str, Line], line: Line) -> None:
        try:
            with self.path.open("ab", buffering=0) as file:
                append_line(file.fileno(), (json.dumps(line) + "\n").encode())
        except OSError as error:
            error.filename = str(self.folder)  # Users do not know the log.
            raise
        known[line["image"]] = line

    def is_whole(self, line: Line) -> bool:
        """Return whether the outputs of an image are as they were written."""
        return all(_mark_of(self.folder / name) == mark for name, mark in line["files"].items())

    def lines(self) -> list[Line]:
        """Return all lines that can be read."""
        found = []
        for line in complete_lines(self.path):
            try:
                values = json.loads(line)
            except ValueError:
                continue
            found += [values] if isinstance(values, dict) else []
        return found


def finished_files(folder: Path) -> list[tuple[Path, Path | None, list[Path]]]:
    """Return what the log of an output folder states about each finished image.

    Returns:
        For each image: its path below the folder, the image file, and the files that were written
        for it and have not changed. The image is None if it no longer exists, if it has several
        files, or if it is one of several pages of its file.
    """
    log = Manifest(folder, {})
    done = {line["image"]: line for line in log.lines()[1:] if "files" in line}
    whole = [line for line in done.values() if log.is_whole(line)]
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


def _files_of(case: Case) -> list[Any]:
    """Return the paths, sizes and modification times of the files of an image.

    Of Zarr groups with consolidated metadata, only the other metadata count.
    """
    if case.origin is not None:  # The files are temporary copies.
        return list(case.origin)
    files = [real_path(path) for path in (case.image, *case.channels)]
    found: list[Any] = [" ".join(map(str, files))]
    for path in files:
        facts, stats = [], []
        for one in files_within(path):
            lasting = metadata_without_listing(one)
            if lasting is None:
                stats.append(one.stat())
            else:
                facts.append(zlib.crc32(lasting))
        latest = max((s.st_mtime_ns for s in stats), default=0)
        found.append([sum(s.st_size for s in stats), latest, *facts])
    return found


def _mark_group(cases: Sequence[Case]) -> str:
    """Return a checksum of the paths, sizes and modification times of the images of a group."""
    listed = sorted((one.id, one.page or 0, _files_of(one)) for one in cases)
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _mark_of(path: Path) -> list[int]:
    """Return the size of a file, or of all files in a folder, and a checksum of its beginning."""
    if path.is_dir():
        return [sum(one.stat().st_size for one in path.rglob("*") if one.is_file()), 0]
    if not path.is_file():
        return [-1, 0]
    with path.open("rb") as file:
        return [path.stat().st_size, zlib.crc32(file.read(MARKED_BYTES))]
