"""OME-Zarr images with several resolution levels, which many processes write block by block."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ushape.errors import require_package
from ushape.io.files import flush_file, remove_quietly, temporary_name
from ushape.io.sinks import create_array, multiscale
from ushape.types import Box

OmeVersion = Literal["0.4", "0.5"]

PARTIAL = re.compile(r"\.[0-9a-f]{32}\.partial$")
"""End of the name of the file that zarr writes and then renames to that of the chunk."""


@dataclass(frozen=True, kw_only=True)
class Pyramid:
    """Shape, division and metadata of an OME-Zarr image with several resolution levels."""

    path: Path
    version: OmeVersion
    """0.4 is stored as Zarr 2, 0.5 as Zarr 3."""

    shape: tuple[int, ...]
    """(*S) of the first level."""

    dtype: str
    chunk: tuple[int, ...]
    """Size of a chunk along each axis of S."""

    shard: tuple[int, ...] | None = None
    """Size of a shard, a file of several chunks, along each axis of S; None: a file per chunk."""

    channels: int | None = None
    """Length of the axis before S, whose chunks have the length 1; None if there is none."""

    spacing_mm: tuple[float, ...] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Attributes of the image in addition to those of OME."""

    label: Mapping[str, Any] | None = None
    """Attributes `image-label` of a label image; None for other images."""

    most_levels: int | None = None
    """Largest number of levels; None: until the image fits into one chunk."""

    @property
    def unit(self) -> tuple[int, ...]:
        """Size along each axis of S of what one file stores."""
        return self.shard or self.chunk

    @property
    def factors(self) -> list[tuple[int, ...]]:
        """Factor by which each level is smaller than the first one, along each axis of S.

        Each level halves the axes whose pixels are not much longer than those of the others, until
        the image fits into one chunk.
        """
        spacing = self.spacing_mm or (1.0,) * len(self.shape)
        found = [(1,) * len(self.shape)]
        while len(found) != self.most_levels and any(
            n > c for n, c in zip(self.shape_at(found[-1]), self.chunk, strict=True)
        ):
            last, size = found[-1], self.shape_at(found[-1])
            lengths = [a * b for a, b in zip(spacing, last, strict=True)]
            shortest = min(length for length, n in zip(lengths, size, strict=True) if n > 1)
            found.append(
                tuple(
                    factor * (2 if n > 1 and length < 2 * shortest else 1)
                    for factor, n, length in zip(last, size, lengths, strict=True)
                )
            )
        return found

    def shape_at(self, factor: Sequence[int]) -> tuple[int, ...]:
        """Return (*S) of a level, by its factor along each axis."""
        return tuple(-(-n // own) for n, own in zip(self.shape, factor, strict=True))

    @property
    def exists(self) -> bool:
        """Whether the metadata of all levels exist."""
        name = "zarr.json" if self.version == "0.5" else ".zarray"
        return all((self.path / str(n) / name).exists() for n in range(len(self.factors)))

    def create(self) -> None:
        """Write the metadata of all levels, unless the image exists.

        Several processes may call it at the same time.
        """
        zarr = require_package("zarr", "zarr", str(self.path))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(self.path)
        try:
            group = zarr.open_group(
                store=str(temporary), mode="w", zarr_format=3 if self.version == "0.5" else 2
            )
            group.attrs.update(self._metadata())
            lead = () if self.channels is None else (1,)
            for level, factor in enumerate(self.factors):
                create_array(
                    group,
                    str(level),
                    (*((self.channels,) if self.channels else ()), *self.shape_at(factor)),
                    (*lead, *self.chunk),
                    np.dtype(self.dtype),
                    self._axes,
                    (*lead, *self.shard) if self.shard else None,
                )
            if not self.path.exists():
                temporary.rename(self.path)
        except OSError:
            if not self.path.exists():  # Otherwise another process has been faster.
                raise
        finally:
            remove_quietly(temporary)

    def open(self, level: int = 0) -> Any:
        """Open the array of a level to read and write it."""
        zarr = require_package("zarr", "zarr", str(self.path))
        version: Any = 3 if self.version == "0.5" else 2
        array = zarr.open_array(store=str(self.path / str(level)), mode="r+", zarr_format=version)
        return array.with_config({"write_empty_chunks": True})

    @property
    def _axes(self) -> list[str]:
        return ["c"] * (self.channels is not None) + list("zyx"[-len(self.shape) :])

    def _metadata(self) -> dict[str, Any]:
        # Means of f pixels lie in the middle of them; every f-th pixel lies where it was.
        has_means = self.channels is not None
        levels = multiscale(
            "zyx"[-len(self.shape) :],
            self.spacing_mm,
            has_channels=has_means,
            factors=self.factors,
            offsets=[[(own - 1) / 2 for own in f] for f in self.factors] if has_means else None,
        )
        levels = {"name": self.path.stem, **levels}
        label = {"image-label": dict(self.label)} if self.label is not None else {}
        if self.version == "0.5":
            ome = {"version": "0.5", "multiscales": [levels], **label}
            return {"ome": ome, **self.attributes}
        return {"multiscales": [{"version": "0.4", **levels}], **label, **self.attributes}


def read_box(pyramid: Pyramid, box: Box) -> np.ndarray:
    """Read a part (*box) of the first level of an image without channels, as a new array."""
    return np.array(pyramid.open()[tuple(slice(*edge) for edge in box)])


def write_box(array: Any, box: Box, values: np.ndarray) -> None:
    """Write whole chunks (or shards) of an array and wait until they are on the disk.

    Args:
        array: Array of a level, of the axes S, or of channels and S.
        box: Part of S whose edges are those of chunks or of the array.

    Shapes:
        values: (*box), or (C, *box).
    """
    lead = array.ndim - len(box)
    array[(slice(None),) * lead + tuple(slice(*edge) for edge in box)] = values
    units = array.shards or array.chunks
    ranges = [range(length) for length in array.shape[:lead]]
    ranges += [
        range(first // unit, -(-last // unit))
        for (first, last), unit in zip(box, units[lead:], strict=True)
    ]
    folder = Path(array.store.root) / array.path
    written = [
        folder / array.metadata.encode_chunk_key(place) for place in itertools.product(*ranges)
    ]
    for path in written:
        flush_file(path)
    for parent in {path.parent for path in written}:
        _flush_folder(parent)


def remove_partial_chunks(path: Path) -> None:
    """Remove the chunks within an image that killed processes have not finished writing.

    If a process is writing a chunk, it gets a FileNotFoundError.
    """
    for folder, _, names in os.walk(path):
        for name in filter(PARTIAL.search, names):
            remove_quietly(Path(folder, name))


def _flush_folder(folder: Path) -> None:
    """Wait until the names of new files in a folder are on the disk, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def reduce_box(above: Any, box: Box, factor: Sequence[int]) -> np.ndarray:
    """Return a part of a level from the level above: nearest values, or the mean of channels.

    Args:
        above: Array of the level above.
        box: Part of the level, along S.
        factor: How many pixels of the level above make one, along each axis of S: 1 or 2.

    Shapes:
        returns: (*box) of every second pixel; of an array of channels, (C, *box) of means, rounded
            to the nearest value of an integer type.
    """
    lead = above.ndim - len(box)
    sizes = above.shape[lead:]
    edges = [
        (first * own, min(last * own, size))
        for (first, last), own, size in zip(box, factor, sizes, strict=True)
    ]
    values = np.asarray(above[(slice(None),) * lead + tuple(slice(*edge) for edge in edges)])
    if not lead:
        return values[tuple(slice(None, None, own) for own in factor)]
    mean = values.astype(np.float32)
    for axis, own in enumerate(factor, start=1):
        if own == 2:
            odd = mean.take(range(1, mean.shape[axis], 2), axis=axis)
            even = mean.take(range(0, mean.shape[axis], 2), axis=axis)
            if odd.shape != even.shape:  # The last pixel stands alone.
                odd = np.concatenate([odd, even.take([-1], axis=axis)], axis=axis)
            mean = np.asarray((even + odd) / 2, dtype=np.float32)
    return (np.rint(mean) if values.dtype.kind in "ui" else mean).astype(values.dtype)
