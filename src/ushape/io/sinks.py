"""Write files row by row, each atomically: TIFF in tiles, Zarr in chunks, NIfTI, and .npy.

Each function is a context manager: the file gets its final name when the block ends, and nothing
remains after an exception.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any, BinaryIO, cast

import numpy as np
import tifffile

from ushape.errors import require_package
from ushape.io import nifti
from ushape.io.files import remove_quietly, replacing, temporary_name
from ushape.io.pyramid import PyramidLevels, collect_levels
from ushape.io.tiff import photometric_of
from ushape.types import MaskEncoding, TiffMetadata

TIFF_TILE, ZARR_CHUNK = 256, 512
"""Largest number of pixels along y and x that are packed together."""

BIGTIFF_BYTES = 2**32 - 2**25
"""Unpacked size from which a TIFF is written as BigTIFF: offsets may exceed 32 bits."""

TIFF_LEVEL, ZARR_LEVEL, GZIP_LEVEL = 6, 1, 6
"""Deflate levels, from 1 (fast) to 9 (small); at 6, numcodecs takes four times as long as
tifffile."""

MICROMETERS, CENTIMETERS = 1e3, 0.1
"""Number of micrometers and centimeters in a millimeter."""


@dataclass(frozen=True, kw_only=True)
class RowLayout:
    """Shape, type and metadata of a file that is written row by row."""

    path: Path

    shape: tuple[int, ...]
    """(*S), or (*S, C) if there are channels."""

    dtype: np.dtype

    axes: str
    """Names of the axes of S: YX or ZYX."""

    spacing_mm: tuple[float, ...] | None = None
    encoding: MaskEncoding = field(default_factory=MaskEncoding)
    """Meaning of the values."""

    nifti: Path | None = None
    """The image, if it is a NIfTI file whose position a NIfTI volume repeats."""

    tiff: TiffMetadata | None = None
    """Metadata of the image, which a TIFF repeats."""

    @property
    def channels(self) -> int | None:
        """C; None if there is no such axis."""
        return self.shape[-1] if len(self.shape) > len(self.axes) else None


@dataclass(frozen=True)
class RowSink:
    """An open file that accepts rows in order."""

    put: Callable[[np.ndarray], object]
    """Function that stores the next `block_rows` rows, or the remaining ones, without a copy."""

    block_rows: int
    """Number of rows that are packed together."""


@contextmanager
def write_npy(layout: RowLayout) -> Iterator[RowSink]:
    """Write a .npy file row by row."""
    with replacing(layout.path) as file:
        header = {"descr": layout.dtype.str, "fortran_order": False, "shape": layout.shape}
        np.lib.format.write_array_header_1_0(file, header)
        yield RowSink(lambda rows: file.write(rows.data), 1)


@contextmanager
def write_nifti(layout: RowLayout) -> Iterator[RowSink]:
    """Write a NIfTI volume plane by plane on the grid of its image; .nii.gz is compressed."""
    assert layout.nifti is not None, "the image of the mask is a NIfTI file"
    header, dtype = nifti.header_like(layout.nifti, layout.shape, layout.dtype)
    is_packed = layout.path.name.lower().endswith(".gz")
    with replacing(layout.path) as file, ExitStack() as stack:
        target: BinaryIO = file
        if is_packed:
            packed = gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0)
            target = cast(BinaryIO, stack.enter_context(packed))
        target.write(header)
        yield RowSink(lambda rows: target.write(np.ascontiguousarray(rows, dtype).data), 1)


@contextmanager
def write_zarr(layout: RowLayout) -> Iterator[RowSink]:
    """Write an OME-Zarr image of version 0.4: (C, *S) in chunks of one channel and one plane.

    A large flat image has additional levels.
    """
    library = require_package("zarr", "zarr", str(layout.path))
    lead = () if layout.channels is None else (layout.channels,)
    space = layout.shape[: len(layout.axes)]
    chunk = [1] * len((*lead, *space)[:-2]) + [min(ZARR_CHUNK, length) for length in space[-2:]]
    done = 0
    with replacing_folder(layout.path) as folder, _collecting(layout) as levels:
        group = library.open_group(store=str(folder), mode="w", zarr_format=2)
        factors = [[1.0] * len(space)]
        factors += [
            [whole / own for whole, own in zip(space, level.shape, strict=False)]
            for level in levels.levels
        ]
        has_channels = layout.channels is not None
        facts = multiscale(
            layout.axes.lower(),
            layout.spacing_mm,
            has_channels=has_channels,
            factors=factors,
            offsets=[[0.0] * len(space), *map(levels.offset_of, levels.levels)],
        )
        group.attrs["multiscales"] = [{"version": "0.4", **facts}]
        stored = create_array(group, "0", (*lead, *space), chunk, layout.dtype)

        def put(rows: np.ndarray) -> None:
            nonlocal done
            place = (slice(None),) * len(lead) + (slice(done, done + len(rows)),)
            stored[place] = np.moveaxis(rows, -1, 0) if lead else rows
            levels.add(rows)
            done += len(rows)

        yield RowSink(put, chunk[len(lead)])
        for number, level in enumerate(levels.levels, start=1):
            shape = (*lead, *level.shape[:2])
            chunk = list(map(min, chunk, shape))
            coarse = create_array(group, str(number), shape, chunk, layout.dtype)
            for top in range(0, level.shape[0], ZARR_CHUNK):
                part = level[top : top + ZARR_CHUNK]
                coarse[..., top : top + len(part), :] = np.moveaxis(part, -1, 0) if lead else part


def create_array(
    group: Any,
    name: str,
    shape: Sequence[int],
    chunks: Sequence[int],
    dtype: np.dtype,
    axes: Sequence[str] | None = None,
    shards: Sequence[int] | None = None,
) -> Any:
    """Create a compressed array of zeros in a Zarr group.

    Args:
        axes: Names of the axes, which only Zarr 3 stores.
        shards: Size of a file of several chunks, only in Zarr 3; None: one file for each chunk.
    """
    options: dict[str, Any]
    if group.metadata.zarr_format == 3:
        options = {"dimension_names": axes, "shards": tuple(shards) if shards else None}
    else:
        codecs = require_package("numcodecs", "zarr", name)
        options = {
            "compressors": codecs.Zlib(ZARR_LEVEL),
            "chunk_key_encoding": {"name": "v2", "separator": "/"},
        }
    return group.create_array(
        name,
        shape=tuple(shape),
        dtype=dtype,
        chunks=tuple(chunks),
        fill_value=0,
        # Without them, a large empty array looks to readers as if its chunks were lost.
        config={"write_empty_chunks": True},
        **options,
    )


@contextmanager
def write_tiff(layout: RowLayout) -> Iterator[RowSink]:
    """Write a tiled, deflated TIFF; an OME-TIFF if the spacing is known.

    A large flat image has additional levels: as an OME-TIFF in sub-files, otherwise as additional
    pages.

    tifffile pulls its tiles from an iterator. It therefore runs in a separate thread, which packs
    one block while the next one is computed.
    """
    blocks: Queue[np.ndarray | None] = Queue(maxsize=1)
    with (
        _collecting(layout) as levels,
        replacing(layout.path) as file,
        ThreadPoolExecutor(1) as pool,
    ):
        written = pool.submit(_run_tiff_writer, file, layout, blocks, levels)
        try:
            yield RowSink(lambda rows: _hand_over(blocks, rows, written), _tile_of(layout)[0])
            written.result()
        except BaseException:
            with suppress(Empty):
                blocks.get_nowait()
            blocks.put(None)
            raise


def _hand_over(blocks: Queue[np.ndarray | None], rows: np.ndarray, written: Future[None]) -> None:
    """Wait until the queue is not full; raise the exception of the writing thread, if any."""
    while True:
        if written.done():
            written.result()
        try:
            return blocks.put(rows, timeout=0.1)
        except Full:
            continue


class _StoppedError(Exception):
    """The block was left with an exception, so no more rows will come."""


@contextmanager
def _collecting(layout: RowLayout) -> Iterator[PyramidLevels]:
    """Collect the coarser levels of an image; a volume has none."""
    space = layout.shape if layout.axes == "YX" else (1, 1)
    with collect_levels(space, layout.dtype, layout.path.parent) as levels:
        yield levels


def _run_tiff_writer(
    file: BinaryIO,
    layout: RowLayout,
    blocks: Queue[np.ndarray | None],
    levels: PyramidLevels,
) -> None:
    """Write the blocks of a queue, then the coarser levels; runs in a separate thread."""
    size_bytes = math.prod(layout.shape) * layout.dtype.itemsize
    size_bytes += sum(level.nbytes for level in levels.levels)
    # OME does not define float16.
    is_ome = layout.spacing_mm is not None and layout.dtype != np.float16
    shape = layout.shape[:-1] if layout.channels == 1 else layout.shape
    options = {
        "dtype": layout.dtype,
        "planarconfig": "contig" if len(shape) > len(layout.axes) else None,
        "compression": "zlib",
        "compressionargs": {"level": TIFF_LEVEL},
        "maxworkers": 1,  # More would collect half a gigabyte of tiles.
        **photometric_of(layout.encoding),
    }
    with tifffile.TiffWriter(file, bigtiff=size_bytes >= BIGTIFF_BYTES, ome=is_ome) as writer:
        writer.write(
            _tiles(layout, blocks, levels),
            shape=shape,
            tile=_tile_of(layout)[-2:],
            metadata=_ome_of(layout) if is_ome else None,
            extratags=layout.tiff.geo_tags if layout.tiff else (),
            subifds=len(levels.levels) if is_ome else None,
            **options,
            **_resolution_of(layout, layout.shape),
        )
        for level in levels.levels:
            writer.write(
                _tiles_of(level, layout),
                shape=level.shape[: len(shape)],
                tile=(TIFF_TILE, TIFF_TILE),
                metadata=None,
                subfiletype=tifffile.FILETYPE.REDUCEDIMAGE,
                **options,
                **_resolution_of(layout, level.shape),
            )


def _tile_of(layout: RowLayout) -> tuple[int, ...]:
    """Return the pixels packed together along each axis of S; multiples of 16 along y and x."""
    space = layout.shape[: len(layout.axes)]
    flat = [min(TIFF_TILE, -(-length // 16) * 16) for length in space[-2:]]
    return (*[1] * (len(space) - 2), *flat)


def _tiles(
    layout: RowLayout, blocks: Queue[np.ndarray | None], levels: PyramidLevels
) -> Iterator[np.ndarray]:
    """Yield the tiles of the blocks of rows (planes), in the order of the file."""
    block_rows, (high, wide) = _tile_of(layout)[0], _tile_of(layout)[-2:]
    for _ in range(-(-layout.shape[0] // block_rows)):
        rows = blocks.get()
        if rows is None:
            raise _StoppedError
        levels.add(rows)
        rows = rows[..., 0] if layout.channels == 1 else rows
        for plane in rows if layout.axes == "ZYX" else rows[None]:
            for y in range(0, plane.shape[0], high):
                for x in range(0, plane.shape[1], wide):
                    yield plane[y : y + high, x : x + wide]


def _tiles_of(level: np.ndarray, layout: RowLayout) -> Iterator[np.ndarray]:
    """Yield the tiles of a coarser level, in the order of the file."""
    for y in range(0, level.shape[0], TIFF_TILE):
        for x in range(0, level.shape[1], TIFF_TILE):
            tile = np.asarray(level[y : y + TIFF_TILE, x : x + TIFF_TILE])
            yield tile[..., 0] if layout.channels == 1 else tile


def _resolution_of(layout: RowLayout, shape: Sequence[int]) -> dict[str, Any]:
    """Return the arguments of tifffile for the tags of resolution, in pixels per centimeter.

    Args:
        shape: Shape of the level, (*S) or (*S, C).
    """
    if layout.spacing_mm is None:
        return {}
    dims = len(layout.axes)
    scale = [own / whole for own, whole in zip(shape[:dims], layout.shape[:dims], strict=True)]
    steps = zip(scale[-2:], layout.spacing_mm[-2:], strict=True)
    y, x = (factor / (step * CENTIMETERS) for factor, step in steps)
    return {"resolution": (x, y), "resolutionunit": "CENTIMETER"}


def _ome_of(layout: RowLayout) -> dict[str, Any]:
    """Return the OME metadata: names of the axes and spacing in micrometers."""
    has_samples = (layout.channels or 1) > 1
    ome: dict[str, Any] = {"axes": layout.axes + "S" * has_samples}
    for name, step in zip(layout.axes, layout.spacing_mm or (), strict=True):
        ome[f"PhysicalSize{name}"] = step * MICROMETERS
        ome[f"PhysicalSize{name}Unit"] = "µm"
    return ome


def multiscale(
    axes: str,
    spacing_mm: Sequence[float] | None,
    *,
    has_channels: bool,
    factors: Sequence[Sequence[float]] | None = None,
    offsets: Sequence[Sequence[float]] | None = None,
) -> dict[str, Any]:
    """Return the axes and the levels of an image in the form of OME-Zarr.

    Args:
        axes: Names of the axes of S, in lower case.
        factors: Factor by which each level is smaller than the first one, along each axis of S;
            None: there is one level.
        offsets: Position of the first pixel of each level, in pixels of the first one, along each
            axis of S. None: all are at 0.
    """
    unit = {} if spacing_mm is None else {"unit": "micrometer"}
    own: list[dict[str, str]] = [{"name": "c", "type": "channel"}] if has_channels else []
    own += [{"name": name, "type": "space", **unit} for name in axes]
    steps = [1.0] * len(axes) if spacing_mm is None else [s * MICROMETERS for s in spacing_mm]
    lead = [1.0] * has_channels
    scales = [
        lead + [step * by for step, by in zip(steps, factor, strict=True)]
        for factor in factors or [(1,) * len(axes)]
    ]
    datasets: list[dict[str, Any]] = [
        {"path": str(n), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        for n, scale in enumerate(scales)
    ]
    for dataset, offset in zip(datasets, offsets or (), strict=False):
        if any(offset):
            moved = [step * by for step, by in zip(steps, offset, strict=True)]
            translation = {"type": "translation", "translation": [0.0] * has_channels + moved}
            dataset["coordinateTransformations"].append(translation)
    return {"axes": own, "datasets": datasets}


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield the name of a temporary folder that replaces `path` when the block ends.

    The name is unique, so that two processes do not mix their files. If the process is killed, the
    hidden folder remains until `remove_leftovers`; between the two renames, the former `path` may
    remain hidden, too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    former = temporary.with_suffix(".old")
    try:
        yield temporary
        for is_last in (False, False, True):
            with suppress(FileNotFoundError):
                path.rename(former)
            try:
                temporary.rename(path)
                break
            except OSError:  # Another process has written the same image in the meantime.
                if is_last or not path.exists():
                    raise
                remove_quietly(former)
    except BaseException:
        if former.exists() and not path.exists():
            former.rename(path)
        raise
    finally:
        for left in (temporary, former):
            remove_quietly(left)
