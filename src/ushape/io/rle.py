"""Run-length encoding, and Kaggle submission files."""

from __future__ import annotations

import csv
import glob
import gzip
import io
import os
import sys
import uuid
from collections.abc import Iterable, Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ushape.errors import ConfigError, DataError, RunError
from ushape.io.files import append_line, complete_lines, refuse_existing_output, replacing

if sys.platform != "win32":
    import fcntl

Order = Literal["row", "column"]
"""Order in which pixels are counted: row by row (Carvana), or column by column."""

HEADER = ("img", "rle_mask")
"""Columns of a submission."""


def encode_runs(mask: np.ndarray, order: Order = "row") -> str:
    """Encode a mask as one-based "start length start length ..."; an empty mask gives ''.

    Shapes:
        mask: (y, x), foreground where not 0.
    """
    runs = RowRuns()
    runs.add(mask if order == "row" else mask.T)
    return runs.text


class RowRuns:
    """Row-wise run lengths of a mask that is passed in bands."""

    def __init__(self) -> None:
        self._pixels, self._is_inside = 0, False
        self._edges: list[np.ndarray] = []

    def add(self, band: np.ndarray) -> None:
        """Add the next rows (n, x), foreground where not 0."""
        flat = (band != 0).ravel()
        edges = np.flatnonzero(np.diff(flat, prepend=self._is_inside))
        self._edges.append(edges + self._pixels)
        self._pixels += len(flat)
        self._is_inside = bool(flat[-1]) if len(flat) else self._is_inside

    @property
    def text(self) -> str:
        """One-based "start length start length ..." of all rows so far."""
        last = [np.array([self._pixels])] if self._is_inside else []
        edges = np.concatenate([*self._edges, *last]) if self._edges else np.empty(0, np.int64)
        starts, ends = edges[::2], edges[1::2]
        return " ".join(map(str, np.stack([starts + 1, ends - starts], axis=1).ravel().tolist()))


class SubmissionWriter:
    """Writes `img,rle_mask` rows to a .csv or .csv.gz; resumable.

    Rows are collected in a partial file in the output's folder; when `write` returns, the row has
    been passed to the operating system. `finish` converts the partial file to the output. If the
    process is killed, the next writer continues after the last complete row. Only one process at a
    time may write to an output. Writers of parts, of which there may be many, have partial files of
    their own, and never finish; the next writer of the whole takes their rows over.

    Args:
        path: Output file.
        overwrite: Discard rows of an earlier writer, and replace the output when the new one is
            complete.
        part: Name of the part of the images whose rows are written; '' if all are.
        names: Order of the rows by their names; rows with other names follow.

    Raises:
        ConfigError: if the name does not end in .csv or .csv.gz.
        RunError: if the output exists, another process writes it, or rows were written in the
            other order.
    """

    def __init__(
        self,
        path: Path,
        order: Order = "row",
        *,
        overwrite: bool = False,
        part: str = "",
        names: Sequence[str] = (),
    ):
        if not path.name.endswith((".csv", ".csv.gz")):
            raise ConfigError(
                f"{path} does not end in .csv or .csv.gz.",
                code="unwritable_suffix",
                hint="Use a name such as submit.csv.gz.",
            )
        refuse_existing_output(path, overwrite)
        self.path, self.order, self.part, self.names = path, order, part, names
        token = f".{part}.{uuid.uuid4().hex[:12]}" if part else ""
        self.partial = self._partial_of(order, token)
        for other in get_args(Order):
            if other == order:
                continue
            for begun in self._begun(other):
                raise RunError(
                    f"{begun} was written with --rle-order {other}, not {order}.",
                    code="rle_order_changed",
                    hint=f"Continue with --rle-order {other}, or delete the file.",
                )
        path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered, so that a killed process loses no finished row.
        self._file = self.partial.open("ab", buffering=0)
        _lock(self._file, self.partial)
        if overwrite:
            self._file.truncate(0)
        self._places: dict[str, tuple[int, int]] = {}
        """Offset and length of the row of each name in the partial file."""
        self._written: set[str] = set()
        # No other process writes from here on.
        self._size = self._add_places(_rows_of(self.partial))
        self._file.truncate(self._size)
        self.done = set(self._places)
        """Names of the images that have a row."""
        others = [one for one in self._begun(order) if one != self.partial]
        if part and not overwrite:
            self.done.update(name for other in others for name, _ in _rows_of(other))
        elif not part:
            self._take_over(others, are_discarded=overwrite)

    def write(self, name: str, mask: np.ndarray) -> None:
        """Add the row of a mask (y, x) of the image's size; see `write_runs`."""
        self.write_runs(name, encode_runs(mask, self.order))

    def write_runs(self, name: str, runs: str) -> None:
        """Add a row, completely or not at all. It replaces one of an earlier writer.

        Raises:
            DataError: if this writer has written the name already, or it cannot be written to a
                row.
        """
        if name in self._written:
            raise DataError(
                f"{name}: {self.path.name} already has a row for this image.",
                code="duplicate_name",
                hint="A submission has one row per file name. Rename one of the two files.",
            )
        self._append(name, _line_of(name, runs))
        self._written.add(name)

    def finish(self) -> None:
        """Write the output atomically and remove the partial file."""
        os.fsync(self._file.fileno())
        self._file.close()
        with replacing(self.path) as target:
            if self.path.suffix == ".gz":
                # No time stamp, so that equal masks give equal files.
                with gzip.GzipFile(fileobj=target, mode="wb", mtime=0, filename="") as packed:
                    packed.writelines(self._lines())
            else:
                target.writelines(self._lines())
        self.partial.unlink()

    def __enter__(self) -> SubmissionWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Finish, unless there was an error or this is a part: then the rows are kept."""
        if kind is None and not self.part:
            self.finish()
            return
        self._file.close()
        if self.part and not self._places:
            self.partial.unlink()

    def _lines(self) -> Iterator[bytes]:
        """Yield the lines of the output."""
        yield (",".join(HEADER) + "\n").encode()
        with self.partial.open("rb") as rows:
            for name in dict.fromkeys((*self.names, *self._places)):
                if name in self._places:
                    offset, length = self._places[name]
                    rows.seek(offset)
                    yield rows.read(length)

    def _append(self, name: str, line: bytes) -> None:
        append_line(self._file.fileno(), line)
        self._size = self._add_places([(name, line)], self._size)
        self.done.add(name)

    def _add_places(self, rows: Iterable[tuple[str, bytes]], offset: int = 0) -> int:
        """Note where rows that follow each other lie, and return where the last one ends."""
        for name, line in rows:
            self._places[name] = (offset, len(line))
            offset += len(line)
        return offset

    def _take_over(self, others: Iterable[Path], *, are_discarded: bool) -> None:
        """Add the rows of the writers of parts, unless they are discarded, and remove the files."""
        for other in others:
            for name, line in () if are_discarded else _rows_of(other):
                self._append(name, line)
            os.fsync(self._file.fileno())
            other.unlink()

    def _partial_of(self, order: str, token: str = "") -> Path:
        return self.path.with_name(f".{self.path.name}.{order}{token}.part")

    def _begun(self, order: str) -> list[Path]:
        """Return the partial files of all writers, the one that was written last at the end."""
        parts = self.path.parent.glob(f".{glob.escape(self.path.name)}.{order}.*.part")
        whole = self._partial_of(order)
        found = [*([whole] if whole.exists() else []), *parts]
        return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def _rows_of(partial: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the line of each row of a partial file up to the first incomplete one."""
    for line in complete_lines(partial):
        try:
            name, _ = _row_of(line.decode(errors="surrogateescape"))
        except ValueError:  # Zeros that a power failure left.
            break
        yield name, line


def _lock(file: FileIO, path: Path) -> None:
    """Lock a file until the process ends.

    Nothing is locked on Windows, and on file systems without such locks.

    Raises:
        RunError: if another process has locked it.
    """
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.close()
        raise RunError(
            f"{path} is being written by another process.",
            code="output_locked",
            hint="Wait until it has ended, or choose another name for --rle.",
        ) from None
    except OSError:  # The file system has no locks.
        return


def _line_of(name: str, runs: str) -> bytes:
    """Return a row as a line of the file, encoded."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow((name, runs))
    try:
        line = text.getvalue().encode(errors="surrogateescape")
    except UnicodeEncodeError:
        line = b""
    if not name or not line or any(character in name for character in "\r\n\0"):
        raise DataError(
            f"{name!r} cannot be the name of an image in a submission.",
            code="submission_name",
            hint="Rename the image file so that its name contains no line breaks or control "
            "characters.",
        )
    return line


def _row_of(line: str) -> tuple[str, str]:
    """Return name and run lengths of a line.

    Only the name is parsed by the csv module, which refuses fields of more than 131072 characters;
    the run lengths of a noisy mask can be longer.

    Raises:
        ValueError: if the line is not a row.
    """
    name, comma, runs = line.rstrip("\r\n").rpartition(",")
    try:
        fields = next(csv.reader([name], strict=True), [])
    except csv.Error as error:
        raise ValueError(error) from None
    if not comma or len(fields) != 1 or not fields[0] or "\0" in line:
        raise ValueError("it does not have two columns")
    return fields[0], runs.strip('"')
