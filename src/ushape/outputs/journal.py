"""Which images of a prediction are finished, so that the same call goes on where it was killed."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ushape.io.atomic import write_bytes

NAME = ".ushape-predict.jsonl"

HEADER_BYTES = 256


class Journal:
    """A file in the output folder: a line for the call, then one for each finished image.

    Args:
        folder: Of the outputs.
        made_by: What the outputs depend on: weights, rule, kinds of output. Lines of another call
            do not count, and are dropped.
    """

    def __init__(self, folder: Path, made_by: Mapping[str, Any]):
        self.folder, self.path = folder, folder / NAME
        self.made_by = json.loads(json.dumps(made_by))
        self.done: dict[str, dict[str, Any]] = {}
        if self._is_ours():
            self.done = {line["image"]: line for line in self._lines()[1:] if "image" in line}

    def is_done(self, image: str) -> bool:
        """All files that the image led to are there, as long as they were, and begin likewise."""
        line = self.done.get(image)
        return line is not None and all(
            _mark_of(self.folder / name) == mark for name, mark in line["files"].items()
        )

    def may_replace(self, image: str) -> bool:
        """A call was killed while it wrote this image: it is not noted, though others are."""
        return bool(self.done) and image not in self.done

    def add(self, image: str, files: Iterable[Path], rows: Sequence[Mapping[str, Any]]) -> None:
        """Notes an image whose files are all written.

        Args:
            rows: For the table of all images.
        """
        marks = {path.relative_to(self.folder).as_posix(): _mark_of(path) for path in files}
        line = {"image": image, "files": marks, "rows": list(rows)}
        if not self.done and not self._is_ours():  # Not before there is something to note.
            write_bytes(self.path, (json.dumps({"made_by": self.made_by}) + "\n").encode())
        # One write to the end of the file: lines of two processes do not mix.
        number = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(number, (json.dumps(line) + "\n").encode())
        finally:
            os.close(number)
        self.done[image] = line

    def rows_of(self, images: Iterable[str]) -> list[dict[str, Any]]:
        """The rows of these images, each with its name first."""
        return [
            {"image": image, **row}
            for image in images
            for row in self.done.get(image, {}).get("rows", [])
        ]

    def _is_ours(self) -> bool:
        lines = self._lines()
        return bool(lines) and lines[0].get("made_by") == self.made_by

    def _lines(self) -> list[dict[str, Any]]:
        """All that can be read; a line that a kill cut off is none."""
        if not self.path.exists():
            return []
        found = []
        for line in self.path.read_text(errors="replace").splitlines():
            try:
                values = json.loads(line)
            except ValueError:
                continue
            found += [values] if isinstance(values, dict) else []
        return found


def _mark_of(path: Path) -> list[int]:
    """Bytes of a file, or of all files of a folder, and a checksum of its header."""
    if path.is_dir():
        return [sum(one.stat().st_size for one in path.rglob("*") if one.is_file()), 0]
    if not path.is_file():
        return [-1, 0]
    with path.open("rb") as file:
        return [path.stat().st_size, zlib.crc32(file.read(HEADER_BYTES))]
