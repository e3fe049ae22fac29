"""Run lengths, and the submission files of Kaggle that hold them."""

from __future__ import annotations

import csv
import gzip
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, get_args

import numpy as np

from ushape.errors import ConfigError, DataError, RunError
from ushape.io.atomic import replacing

Order = Literal["row", "column"]
"""Pixels counted from left to right, then top to bottom (Carvana); or down each column first."""

HEADER = ("img", "rle_mask")


def encode_runs(mask: np.ndarray, order: Order = "row") -> str:
    """One-based "start length start length ..."; an empty mask is the empty string.

    Shapes:
        mask: (y, x), foreground where not 0.
    """
    flat = (mask != 0).ravel(order="C" if order == "row" else "F")
    edges = np.flatnonzero(np.diff(flat, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    runs = np.stack([starts + 1, ends - starts], axis=1)
    return " ".join(map(str, runs.ravel().tolist()))


def decode_runs(text: str, shape: tuple[int, int], order: Order = "row") -> np.ndarray:
    """Inverse of `encode_runs`: (y, x) bool.

    Raises:
        DataError: no numbers, an odd count, runs that overlap or leave the image.
    """
    try:
        numbers = np.array([int(word) for word in text.split()], dtype=np.int64)
    except ValueError:
        raise DataError(
            f"Run lengths with something that is no number: {text[:60]!r}.",
            hint="They read: start length start length ..., starts counted from 1.",
        ) from None
    if len(numbers) % 2:
        raise DataError(
            f"{len(numbers)} numbers are no pairs of start and length.",
            hint="The line may have been cut off.",
        )
    starts, lengths = numbers[::2] - 1, numbers[1::2]
    ends = starts + lengths
    pixels = shape[0] * shape[1]
    if (lengths < 1).any() or (starts < np.concatenate([[0], ends[:-1]])[: len(starts)]).any():
        raise DataError(
            "Run lengths that overlap, run backwards or are empty.",
            hint="Starts rise from 1, and each run ends before the next one begins.",
        )
    if len(ends) and ends[-1] > pixels:
        raise DataError(
            f"Run lengths reach pixel {ends[-1]}, an image of {shape[0]} × {shape[1]} has "
            f"{pixels}.",
            hint="Give the size of the image that they were made from.",
        )
    steps = np.zeros(pixels + 1, dtype=np.int8)
    np.add.at(steps, starts, 1)
    np.add.at(steps, ends, -1)
    flat = np.cumsum(steps[:-1], dtype=np.int8) > 0
    return flat.reshape(shape, order="C" if order == "row" else "F")


class SubmissionWriter:
    """Writes `img,rle_mask` rows to a .csv or .csv.gz, in constant memory; resumable.

    Rows are collected in a file beside the output, each flushed as it comes. `finish` turns it
    into the output. After a kill the next writer goes on after the last whole row.

    Args:
        path: The output.
        overwrite: Replace an output that exists.

    Raises:
        ConfigError: not the name of a .csv or .csv.gz.
        RunError: the output exists; rows that were begun in the other order.
    """

    def __init__(self, path: Path, order: Order = "row", *, overwrite: bool = False):
        if not path.name.endswith((".csv", ".csv.gz")):
            raise ConfigError(f"{path} is no .csv or .csv.gz.", hint="E.g. --rle submit.csv.gz.")
        if path.exists() and not overwrite:
            raise RunError(f"{path} exists.", hint="--overwrite replaces it; or choose another.")
        self.path, self.order = path, order
        self.partial = self._partial_of(order)
        for other in get_args(Order):
            begun = self._partial_of(other)
            if other != order and begun.exists():
                raise RunError(
                    f"{begun} was begun with pixels counted by {other}, now by {order}.",
                    hint=f"Continue with --rle-order {other}, or delete it.",
                )
        path.parent.mkdir(parents=True, exist_ok=True)
        self.done = set(self._keep_whole_rows())
        self._file = self.partial.open("a", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file, lineterminator="\n")

    def write(self, name: str, mask: np.ndarray) -> None:
        """Adds a row; the mask (y, x) at the image's own size."""
        self._writer.writerow((name, encode_runs(mask, self.order)))
        self._file.flush()
        self.done.add(name)

    def finish(self) -> None:
        """Writes the output, whole or not at all, and removes what it was collected in."""
        os.fsync(self._file.fileno())
        self._file.close()
        with replacing(self.path) as target, self.partial.open("rb") as rows:
            if self.path.suffix == ".gz":
                # No time stamp: equal masks make equal files.
                with gzip.GzipFile(fileobj=target, mode="wb", mtime=0, filename="") as packed:
                    packed.write((",".join(HEADER) + "\n").encode())
                    shutil.copyfileobj(rows, packed)
            else:
                target.write((",".join(HEADER) + "\n").encode())
                shutil.copyfileobj(rows, target)
        self.partial.unlink()

    def __enter__(self) -> SubmissionWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finishes, unless there was an error: then the rows stay for the next time."""
        if kind is None:
            self.finish()
        else:
            self._file.close()

    def _partial_of(self, order: str) -> Path:
        return self.path.with_name(f".{self.path.name}.{order}.part")

    def _keep_whole_rows(self) -> Iterator[str]:
        """Names of the rows that were written whole; what follows the last of them is cut off."""
        if not self.partial.exists():
            return
        with self.partial.open("r+b") as file:
            whole = 0
            for line in file:
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                yield next(csv.reader([line.decode()]))[0]
            file.truncate(whole)


def read_submission(path: Path) -> Iterator[tuple[str, str]]:
    """Name and run lengths of each row of a .csv or .csv.gz.

    Raises:
        DataError: other columns than Kaggle's.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        if tuple(header) != HEADER:
            raise DataError(
                f"{path}: columns {', '.join(header) or 'none'}, not {', '.join(HEADER)}.",
                hint="A submission is a .csv or .csv.gz that `ushape predict --rle` wrote.",
            )
        yield from ((name, runs) for name, runs in rows)
