"""Files that take rows as they come: TIFF in tiles, Zarr in chunks, .npy; each whole or not at all.

Each is a context manager: at its end the file takes its name, after an exception nothing does.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any, BinaryIO
from uuid import uuid4

import numpy as np
import tifffile

from ushape import io
from ushape.io import safety
from ushape.io.files import replacing
from ushape.types import MaskEncoding, Palette

TILE, CHUNK = 256, 512
"""Most pixels along y and x that are packed together, in TIFF and in Zarr."""

BIG_BYTES = 2**32 - 2**25
"""Beyond it, unpacked, a TIFF is a BigTIFF: places in the file might not do with 32 bits."""

LEVEL, ZARR_LEVEL = 6, 1
"""Of deflate, from 1, fast, to 9, small. numcodecs needs four times as long as tifffile for 6."""

MICROMETERS, CENTIMETERS = 1e3, 0.1
"""Of one millimeter."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a file is to hold."""

    path: Path

    shape: tuple[int, ...]
    """(*S), or (*S, C) where there are channels."""

    dtype: np.dtype

    axes: str
    """Names of S: YX or ZYX."""

    spacing_mm: tuple[float, ...] | None = None
    palette: Palette | None = None
    is_rgb: bool = False
    """The channels are red, green and blue."""

    @property
    def channels(self) -> int | None:
        """C; None where there is no such axis."""
        return self.shape[-1] if len(self.shape) > len(self.axes) else None


@dataclass(frozen=True)
class Sink:
    """An open file."""

    put: Callable[[np.ndarray], object]
    """Takes the next `grain` rows, or those that are left, to keep."""

    grain: int


@contextmanager
def held(layout: Layout, encoding: MaskEncoding, like: Path | None) -> Iterator[Sink]:
    """A mask of any format of `io.write_mask`, in memory until it is whole."""
    blocks: list[np.ndarray] = []
    yield Sink(blocks.append, layout.shape[0])
    io.write_mask(layout.path, blocks[0], encoding, like)


@contextmanager
def npy(layout: Layout) -> Iterator[Sink]:
    """A .npy, its rows one after the other."""
    with replacing(layout.path) as file:
        header = {"descr": layout.dtype.str, "fortran_order": False, "shape": layout.shape}
        np.lib.format.write_array_header_1_0(file, header)
        yield Sink(lambda rows: file.write(rows.data), 1)


@contextmanager
def zarr(layout: Layout) -> Iterator[Sink]:
    """An OME-Zarr image of version 0.4: (C, *S) in chunks of one channel and one plane."""
    library = safety.need("zarr", "zarr", layout.path)
    codecs = safety.need("numcodecs", "zarr", layout.path)
    lead = () if layout.channels is None else (layout.channels,)
    space = layout.shape[: len(layout.axes)]
    chunk = [1] * len((*lead, *space)[:-2]) + [min(CHUNK, length) for length in space[-2:]]
    done = 0
    with _replacing_folder(layout.path) as folder:
        group = library.open_group(store=str(folder), mode="w", zarr_format=2)
        group.attrs["multiscales"] = [_multiscale(layout)]
        stored = group.create_array(
            "0",
            shape=(*lead, *space),
            dtype=layout.dtype,
            chunks=tuple(chunk),
            compressors=codecs.Zlib(ZARR_LEVEL),
            chunk_key_encoding={"name": "v2", "separator": "/"},
            # A large array without chunks looks to a reader like one that was lost.
            config={"write_empty_chunks": True},
        )

        def put(rows: np.ndarray) -> None:
            nonlocal done
            place = (slice(None),) * len(lead) + (slice(done, done + len(rows)),)
            stored[place] = np.moveaxis(rows, -1, 0) if lead else rows
            done += len(rows)

        yield Sink(put, chunk[len(lead)])


@contextmanager
def tiff(layout: Layout) -> Iterator[Sink]:
    """A tiled TIFF, deflated; with a spacing an OME-TIFF, whatever its suffix.

    tifffile asks for tiles when it wants them. So it works in a thread of its own, which packs
    one block while the next is made.
    """
    blocks: Queue[np.ndarray | None] = Queue(maxsize=1)
    with replacing(layout.path) as file, ThreadPoolExecutor(1) as pool:
        written = pool.submit(_write_tiff, file, layout, blocks)
        try:
            yield Sink(lambda rows: _hand_over(blocks, rows, written), _tile_of(layout)[0])
            written.result()
        except BaseException:
            with suppress(Empty):
                blocks.get_nowait()
            blocks.put(None)
            raise


def _hand_over(blocks: Queue[np.ndarray | None], rows: np.ndarray, written: Future[None]) -> None:
    """Waits until there is room; raises what the other thread has failed with."""
    while True:
        if written.done():
            written.result()
        try:
            return blocks.put(rows, timeout=0.1)
        except Full:
            continue


class _StoppedError(Exception):
    """No more rows will come."""


def _write_tiff(file: BinaryIO, layout: Layout, blocks: Queue[np.ndarray | None]) -> None:
    size_bytes = math.prod(layout.shape) * layout.dtype.itemsize
    # OME has no name for half a float.
    is_ome = layout.spacing_mm is not None and layout.dtype != np.float16
    shape = layout.shape[:-1] if layout.channels == 1 else layout.shape
    with tifffile.TiffWriter(file, bigtiff=size_bytes >= BIG_BYTES, ome=is_ome) as writer:
        writer.write(
            _tiles(layout, blocks),
            shape=shape,
            dtype=layout.dtype,
            tile=_tile_of(layout)[-2:],
            planarconfig="contig" if len(shape) > len(layout.axes) else None,
            compression="zlib",
            compressionargs={"level": LEVEL},
            maxworkers=1,  # More of them would collect half a gigabyte of tiles.
            metadata=_ome_of(layout) if is_ome else None,
            **_photometric_of(layout),
            **_resolution_of(layout),
        )


def _tile_of(layout: Layout) -> tuple[int, ...]:
    """Pixels that are packed together along each axis of S; multiples of 16 along y and x."""
    space = layout.shape[: len(layout.axes)]
    flat = [min(TILE, -(-length // 16) * 16) for length in space[-2:]]
    return (*[1] * (len(space) - 2), *flat)


def _tiles(layout: Layout, blocks: Queue[np.ndarray | None]) -> Iterator[np.ndarray]:
    """Tiles of the blocks of rows (planes), in the order of the file."""
    grain, (high, wide) = _tile_of(layout)[0], _tile_of(layout)[-2:]
    for _ in range(-(-layout.shape[0] // grain)):
        rows = blocks.get()
        if rows is None:
            raise _StoppedError
        rows = rows[..., 0] if layout.channels == 1 else rows
        for plane in rows if layout.axes == "ZYX" else rows[None]:
            for y in range(0, plane.shape[0], high):
                for x in range(0, plane.shape[1], wide):
                    yield plane[y : y + high, x : x + wide]


def _photometric_of(layout: Layout) -> dict[str, Any]:
    """What tifffile is told of the meaning of values."""
    if layout.palette is not None:
        table = np.zeros((3, 256), dtype=np.uint16)
        table[:, : len(layout.palette)] = 257 * np.asarray(layout.palette, dtype=np.uint16).T
        return {"photometric": "palette", "colormap": table}
    return {"photometric": "rgb" if layout.is_rgb else "minisblack"}


def _resolution_of(layout: Layout) -> dict[str, Any]:
    """TIFF's own tags: pixels per centimeter along x and y."""
    if layout.spacing_mm is None:
        return {}
    x, y = (1 / (step * CENTIMETERS) for step in reversed(layout.spacing_mm[-2:]))
    return {"resolution": (x, y), "resolutionunit": "CENTIMETER"}


def _ome_of(layout: Layout) -> dict[str, Any]:
    """Names of axes, and micrometers between pixels."""
    has_samples = (layout.channels or 1) > 1
    told: dict[str, Any] = {"axes": layout.axes + "S" * has_samples}
    for name, step in zip(layout.axes, layout.spacing_mm or (), strict=True):
        told[f"PhysicalSize{name}"] = step * MICROMETERS
        told[f"PhysicalSize{name}Unit"] = "µm"
    return told


def _multiscale(layout: Layout) -> dict[str, Any]:
    """OME-Zarr's metadata of an image of one level."""
    spacing = layout.spacing_mm
    axes: list[dict[str, str]] = [{"name": "c", "type": "channel"}] if layout.channels else []
    unit = {} if spacing is None else {"unit": "micrometer"}
    axes += [{"name": name, "type": "space", **unit} for name in layout.axes.lower()]
    steps = [1.0] * len(layout.axes) if spacing is None else [s * MICROMETERS for s in spacing]
    scale = {"type": "scale", "scale": [1.0] * (len(axes) - len(steps)) + steps}
    level = {"path": "0", "coordinateTransformations": [scale]}
    return {"version": "0.4", "axes": axes, "datasets": [level]}


@contextmanager
def _replacing_folder(path: Path) -> Iterator[Path]:
    """A folder's name to write to, which takes the name `path` when it is complete.

    Its name is its own, so that two processes do not mix their files. A kill leaves it there,
    hidden; between two renames it may also leave the former `path` hidden.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid4().hex[:8]
    temporary, former = (path.with_name(f".{path.name}.{mark}.{end}") for end in ("part", "old"))
    try:
        yield temporary
        if path.exists():
            path.rename(former)
        temporary.rename(path)
    except BaseException:
        if former.exists() and not path.exists():
            former.rename(path)
        raise
    finally:
        for left in (temporary, former):
            shutil.rmtree(left, ignore_errors=True)
