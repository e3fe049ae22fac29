"""Zarr arrays of versions 2 and 3, and OME-Zarr images: level 0, with its axes and scale."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ushape.errors import DataError, require_package
from ushape.io import files
from ushape.io.files import real_path
from ushape.io.npy import channels_first, placeholder
from ushape.types import Box, Pixels, RowReader

CODECS = {
    "blosc", "bytes", "bz2", "crc32c", "delta", "gzip", "lz4", "lzma", "sharding_indexed",
    "shuffle", "transpose", "zlib", "zstd",
}  # fmt: skip
"""Codecs that are accepted; others, such as pickle, can run code."""

ZARR_UNIT_MM = {
    "angstrom": 1e-7, "centimeter": 10.0, "inch": 25.4, "meter": 1e3, "micrometer": 1e-3,
    "millimeter": 1.0, "nanometer": 1e-6, "picometer": 1e-9,
}  # fmt: skip
"""Length of OME-Zarr's units in millimeters."""

EMPTY_CHUNKS, EMPTY_BYTES = 2**13, 2**30
"""Largest array, in chunks and bytes, that may have no chunk files."""

MAX_MISSING = 256
"""Largest number of chunks per file that exists, in larger arrays."""

MISSING = 2**64 - 1
"""Offset by which the index of a shard marks an empty chunk."""

MAX_METADATA = 2**24
"""Largest size of a metadata file, in bytes."""


def read(path: Path) -> Pixels:
    """Read an image: (C, y, x) or (C, z, y, x), arranged by the names of its axes if it has any.

    A time axis of length 1 is dropped. Axes without names are arranged as in a .npy. The spacing is
    known if the OME metadata contain both scale and unit. A chunk without a file consists of the
    array's fill value, as defined by Zarr.

    Raises:
        DataError: if the folder is not a Zarr array or OME-Zarr image, is damaged or too large, or
            has several time points.
        MissingPackageError: if zarr is not installed.
    """
    with files.reading(path):
        array, axes, scales = _open(path, is_whole=True)
        return _arrange(path, np.asarray(array[...]), axes, scales)


def open_rows(path: Path) -> RowReader:
    """Open a Zarr array, or level 0 of an OME-Zarr image, to read parts of it.

    Raises:
        DataError: as for `read`, except for the size of the whole array.
        MissingPackageError: if zarr is not installed.
    """
    stored, axes, scales = _open(path, is_whole=False)
    whole = _arrange(path, placeholder(stored.shape, stored.dtype), axes, scales)
    places = _places_of_space(whole.array.ndim - 1, stored.shape, axes)
    channels, *space = whole.array.shape
    check = _blosc_check(path, stored)

    def read_box(box: Box) -> np.ndarray:
        wanted = [slice(None)] * stored.ndim
        for place, edge in zip(places, box, strict=True):
            wanted[place] = slice(*edge)
        check(wanted)
        part = np.asarray(stored[tuple(wanted)])
        if axes:
            part = _arrange_by_name(path, part, axes, []).array
        elif stored.ndim == 3 and places[0] == 0 and len(places) == 2:
            part = np.moveaxis(part, -1, 0)
        return part.reshape(channels, *(last - first for first, last in box))

    def read_rows(first: int, last: int) -> np.ndarray:
        return read_box(((first, last), *((0, size) for size in space[1:])))

    return RowReader(
        shape=whole.array.shape,
        dtype=stored.dtype,
        read_rows=read_rows,
        block_rows=int(stored.chunks[places[0]]),
        read_box=read_box,
        unit_px=math.prod(stored.chunks),
        spacing_mm=whole.spacing_mm,
    )


def _blosc_check(path: Path, stored: Any) -> Callable[[Sequence[slice]], None]:
    """Return a function that checks the chunks of a part of an array before they are unpacked.

    An array may have millions of chunks, so they are not checked when it is opened.
    """
    level = Path(stored.store.root) / stored.path
    is_new = (level / "zarr.json").exists()
    info = read_metadata(level / ("zarr.json" if is_new else ".zarray"))
    if "blosc" not in set(_codecs_of(info) if is_new else _old_codecs_of(info)):
        return lambda wanted: None
    _, units = size_of(info, is_new=is_new)

    def check(wanted: Sequence[slice]) -> None:
        ranges = []
        for own, size, unit in zip(wanted, stored.shape, units, strict=True):
            first, last, _ = own.indices(size)
            ranges.append(range(first // unit, -(-last // unit)))
        keys = map(stored.metadata.encode_chunk_key, itertools.product(*ranges))
        _check_blosc(path, (level / key for key in keys), info, math.prod(units))

    return check


def _places_of_space(
    dims: int, shape: tuple[int, ...], axes: list[tuple[str, str | None]]
) -> list[int]:
    """Return the axis of a stored array that is each axis of S, of which there are `dims`."""
    if axes:
        names = [name.lower() for name, _ in axes]
        return [names.index(name) for name in "zyx"[-dims:]]
    # Colors are the last axis of three, channels the first of four.
    first = 1 if len(shape) == 4 else 0
    return list(range(first, first + dims))


def _open(path: Path, *, is_whole: bool) -> tuple[Any, list[tuple[str, str | None]], list[float]]:
    """Return the checked zarr array of level 0; name and unit of its axes; its scale along each."""
    zarr = require_package("zarr", "zarr", str(path))
    attributes = attributes_of(path)
    if "bioformats2raw.layout" in attributes:
        path = path / "0"
        attributes = attributes_of(path)
    level, axes, scales = _level_0(path, attributes)
    names = _check_metadata(path, level, is_whole=is_whole)
    version: Any = 3 if (level / "zarr.json").exists() else 2
    array = zarr.open_array(store=str(level), mode="r", zarr_format=version)
    if not axes and names and len(set(names) & set("tczyx")) == array.ndim:
        axes = [(name, None) for name in names]
    return array, axes, scales


def _arrange(
    path: Path, array: np.ndarray, axes: list[tuple[str, str | None]], scales: list[float]
) -> Pixels:
    """Return an array as (C, *S), by the names of its axes if it has any."""
    if not axes:
        return Pixels(array=channels_first(path, array))
    return _arrange_by_name(path, array, axes, scales)


def attributes_of(folder: Path) -> dict[str, Any]:
    """Return the user attributes of a group or array; those below `ome` in version 0.5."""
    if (folder / "zarr.json").exists():
        attributes = read_metadata(folder / "zarr.json").get("attributes") or {}
    elif (folder / ".zattrs").exists():
        attributes = read_metadata(folder / ".zattrs")
    else:
        attributes = {}
    if not isinstance(attributes, dict):
        raise files.damaged(folder, "the attributes of the metadata are not a JSON object")
    return attributes["ome"] if isinstance(attributes.get("ome"), dict) else attributes


def read_metadata(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_METADATA:
        raise files.damaged(path, f"the metadata take {path.stat().st_size} bytes")
    found = json.loads(path.read_bytes())
    if not isinstance(found, dict):
        raise files.damaged(path, "the file does not contain the metadata of a Zarr array or group")
    return found


def metadata_without_listing(path: Path) -> bytes | None:
    """Return the metadata in a zarr.json without its consolidated metadata.

    Returns:
        None for other files, and without consolidated metadata.
    """
    if path.name != "zarr.json":
        return None
    try:
        values = read_metadata(path)
    except (OSError, ValueError, RecursionError, DataError):
        return None
    if not values.pop("consolidated_metadata", None):
        return None
    return json.dumps(values, sort_keys=True).encode()


def inside(folder: Path, name: Any) -> Path:
    """Return the path of a name below a folder.

    Raises:
        DataError: if it lies elsewhere, for example because it is a link.
    """
    path = folder / str(name)
    if not real_path(path).is_relative_to(real_path(folder)):
        raise files.damaged(folder, f"the metadata refer to a folder outside the image ({name!r})")
    return path


def size_of(info: dict[str, Any], *, is_new: bool) -> tuple[list[int], list[int]]:
    """Return shape and chunks of an array, from its metadata; shards count as chunks."""
    grid = info["chunk_grid"]["configuration"]["chunk_shape"] if is_new else info["chunks"]
    return [int(length) for length in info["shape"]], [int(length) for length in grid]


def _level_0(
    path: Path, attributes: dict[str, Any]
) -> tuple[Path, list[tuple[str, str | None]], list[float]]:
    """Return the folder of the largest array, name and unit of its axes, and their scales."""
    if not attributes.get("multiscales"):
        if not (path / "zarr.json").exists() and not (path / ".zarray").exists():
            raise DataError(
                f"{path}: the folder is neither a Zarr array nor an OME-Zarr image.",
                code="not_zarr",
                hint="Specify the folder that contains .zarray, zarr.json or .zattrs.",
            )
        return path, [], []
    image = attributes["multiscales"][0]
    dataset = image["datasets"][0]
    level = inside(path, dataset["path"])
    # In version 0.3 axes are plain names; in 0.2 there are always these five, without names.
    info = image.get("axes") or ["t", "c", "z", "y", "x"]
    axes = [(a, None) if isinstance(a, str) else (str(a["name"]), a.get("unit")) for a in info]
    steps = [
        *(dataset.get("coordinateTransformations") or ()),
        *(image.get("coordinateTransformations") or ()),
    ]
    factors = [step["scale"] for step in steps if step.get("type") == "scale"]
    scales = np.prod(np.array(factors, dtype=float).reshape(len(factors), len(axes)), axis=0)
    return level, axes, scales.tolist() if factors else []


def _check_metadata(path: Path, level: Path, *, is_whole: bool = True) -> list[str]:
    """Check an array's size and codecs; return the names of its axes, if any.

    Args:
        is_whole: Whether the whole array will be read; if not, only the size of a chunk is limited.

    Raises:
        DataError: if the array is too large, is not numeric, or uses an unknown codec.
    """
    is_new = (level / "zarr.json").exists()
    info = read_metadata(level / ("zarr.json" if is_new else ".zarray"))
    codecs = set(_codecs_of(info) if is_new else _old_codecs_of(info))
    if not codecs <= CODECS:
        raise DataError(
            f"{path}: the codec {min(codecs - CODECS)!r} is not supported.",
            code="unsupported_compression",
            hint=f"Supported codecs: {', '.join(sorted(CODECS))}.",
        )
    kind = info["data_type"] if is_new else info["dtype"]
    dtype = np.dtype(kind)
    if dtype.kind not in "buif":
        raise DataError(
            f"{path}: the values are of type {kind}, not numbers.",
            code="unsupported_values",
            hint="Save plain numbers.",
        )
    shape, chunks = size_of(info, is_new=is_new)
    for claim in (shape, chunks) if is_whole else (chunks,):
        files.check_claim(path, claim, 1, math.prod(claim))
    _check_missing(path, level, shape, chunks, dtype.itemsize)
    if "blosc" in codecs and is_whole:
        _check_blosc(path, level.rglob("*"), info, math.prod(chunks))
    names = info.get("dimension_names") or []
    return [str(name).lower() for name in names]


def _check_missing(
    path: Path, level: Path, shape: list[int], chunks: list[int], value_bytes: int
) -> None:
    """Raise DataError if an array is large and nearly all of its chunks are missing.

    A missing chunk consists of the fill value, so a few bytes may stand for a small array, but not
    for one of any size.
    """
    count = math.prod(-(-n // int(c)) for n, c in zip(shape, chunks, strict=True))
    wanted = math.prod(shape) * value_bytes
    if count <= EMPTY_CHUNKS and wanted <= EMPTY_BYTES:
        return
    found = stored = 0
    for file in level.rglob("*"):
        if file.is_file():
            found, stored = found + 1, stored + file.stat().st_size
        has_files = count <= max(EMPTY_CHUNKS, MAX_MISSING * found)
        if has_files and wanted <= max(EMPTY_BYTES, files.MAX_INFLATION * stored):
            return  # Not all of the millions of files are counted.
    if count > max(EMPTY_CHUNKS, MAX_MISSING * found):
        raise files.damaged(
            path, f"the metadata specify {count} chunks, but there are {found} files"
        )
    raise files.damaged(path, f"the metadata specify {wanted} bytes, but {stored} are stored")


def _check_blosc(
    path: Path, chunks: Iterable[Path], info: dict[str, Any], chunk_values: int
) -> None:
    """Raise DataError if a chunk is cut off: blosc reads as many bytes as the chunk claims.

    Args:
        chunks: Files of chunks or shards; other files and missing ones are left out.
    """
    for file in chunks:
        if file.name.startswith(".z") or file.name == "zarr.json" or not file.is_file():
            continue
        name, content_bytes = file.relative_to(path), file.stat().st_size
        with file.open("rb") as opened:
            for start, size in _parts_of(opened, content_bytes, info):
                opened.seek(start)
                head = opened.read(16)
                claimed = int.from_bytes(head[12:], "little")
                if len(head) < 16 or claimed != size or start + size > content_bytes:
                    raise files.damaged(path, f"chunk {name} is cut off")
                if int.from_bytes(head[4:8], "little") > 8 * chunk_values:
                    raise files.damaged(
                        path, f"chunk {name} is larger than specified when unpacked"
                    )


def chunks_in_shard(info: dict[str, Any]) -> list[int] | None:
    """Return the size of the chunks in each shard of an array; None if it has no shards."""
    shards = _shards_of(info)
    return [int(n) for n in shards[0]["configuration"]["chunk_shape"]] if shards else None


def _shards_of(info: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        step
        for step in info.get("codecs") or []
        if isinstance(step, dict) and step["name"] == "sharding_indexed"
    ]


def _parts_of(file: BinaryIO, size: int, info: dict[str, Any]) -> list[tuple[int, int]]:
    """Return first byte and length of each packed chunk in a file; several if it is a shard."""
    shards = _shards_of(info)
    if not shards:
        return [(0, size)]
    settings = shards[0]["configuration"]
    steps = {step["name"] for step in settings["index_codecs"]}
    if not steps <= {"bytes", "crc32c"} or "sharding_indexed" in _codecs_of(settings):
        raise ValueError("nested shards and compressed shard indices are not supported")
    outer = info["chunk_grid"]["configuration"]["chunk_shape"]
    count = math.prod(
        int(whole) // int(part) for whole, part in zip(outer, settings["chunk_shape"], strict=True)
    )
    index_bytes = 16 * count + 4 * ("crc32c" in steps)
    if index_bytes > size:
        raise ValueError(f"a shard of {count} chunks has only {size} bytes")
    file.seek(0 if settings.get("index_location") == "start" else size - index_bytes)
    index = np.frombuffer(file.read(16 * count), "<u8").reshape(count, 2)
    return [(int(start), int(length)) for start, length in index if start != MISSING]


def _old_codecs_of(info: dict[str, Any]) -> list[str]:
    """Return the names of all codecs in the metadata of an array of version 2."""
    steps = [info.get("compressor"), *(info.get("filters") or [])]
    return [str(step["id"]) for step in steps if step]


def _codecs_of(info: dict[str, Any]) -> Iterator[str]:
    """Yield the names of all codecs in the metadata of an array of version 3, shards included."""
    for step in info.get("codecs") or []:
        name = step if isinstance(step, str) else step["name"]
        yield str(name)
        inner = {} if isinstance(step, str) else step.get("configuration") or {}
        for key in ("codecs", "index_codecs"):
            yield from _codecs_of({"codecs": inner.get(key)})


def _arrange_by_name(
    path: Path, array: np.ndarray, axes: list[tuple[str, str | None]], scales: list[float]
) -> Pixels:
    """Return an array with named axes as (C, *S), without a time axis of length 1."""
    names = [name.lower() for name, _ in axes]
    if sorted(names) != sorted(set(names) & set("tczyx")) or len(names) != array.ndim:
        raise files.damaged(path, f"the axes {', '.join(names)} do not fit the shape {array.shape}")
    if not {"y", "x"} <= set(names):
        raise DataError(
            f"{path}: the axes are {', '.join(names)}.",
            code="unsupported_axes",
            hint="An image needs the axes y and x.",
        )
    if "t" in names and array.shape[names.index("t")] > 1:
        raise DataError(
            f"{path}: the image has {array.shape[names.index('t')]} time points.",
            code="several_time_points",
            hint="Save each time point as a separate image.",
        )
    kept = [name for name in "zyx" if name in names]
    if "z" in kept and array.shape[names.index("z")] == 1:
        kept.remove("z")
    lengths = dict(zip(names, array.shape, strict=True))
    order = [name for name in "tczyx" if name in names]
    moved = array.transpose([names.index(name) for name in order])
    shape = (lengths.get("c", 1), *(lengths[name] for name in kept))
    units = [axes[names.index(name)][1] for name in kept]
    steps = [scales[names.index(name)] for name in kept] if scales else []
    spacing = (
        tuple(step * ZARR_UNIT_MM[str(unit)] for step, unit in zip(steps, units, strict=True))
        if steps and all(unit in ZARR_UNIT_MM for unit in units)
        else None
    )
    return Pixels(array=moved.reshape(shape), spacing_mm=spacing)
