"""Zarr arrays of versions 2 and 3, and OME-Zarr images: level 0, with its axes and scale."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ushape.errors import DataError
from ushape.io import safety
from ushape.io.npy import channels_first
from ushape.types import Pixels

CODECS = {
    "blosc", "bytes", "bz2", "crc32c", "delta", "gzip", "lz4", "lzma", "sharding_indexed",
    "shuffle", "transpose", "zlib", "zstd",
}  # fmt: skip
"""Ways of packing that only pack: others (pickle) run code."""

MM = {
    "angstrom": 1e-7, "centimeter": 10.0, "inch": 25.4, "meter": 1e3, "micrometer": 1e-3,
    "millimeter": 1.0, "nanometer": 1e-6, "picometer": 1e-9,
}  # fmt: skip
"""Millimeters of OME's units of length."""

EMPTY_CHUNKS, EMPTY_BYTES = 2**13, 2**30
"""An array of up to this many chunks and bytes may have no chunk at all: it is its fill value."""

MAX_MISSING = 256
"""Chunks, beyond that, for each that is there."""

MISSING = 2**64 - 1
"""Where a shard's index says that a chunk lies that is not there."""

MAX_METADATA = 2**24
"""Bytes of a metadata file that are read."""


def read(path: Path) -> Pixels:
    """An image: (C, y, x) or (C, z, y, x), by the names of its axes where it has them.

    A time axis of length 1 is left out. Axes without names follow the rule of .npy. Spacing is
    known where OME names both scale and unit. A chunk without a file is filled with the array's
    fill value, as Zarr has it.

    Raises:
        DataError: no Zarr array or OME-Zarr image, damaged, too large, several time points; zarr
            is missing.
    """
    with safety.reading(path):
        zarr = safety.need("zarr", "zarr", path)
        attributes = attributes_of(path)
        if "bioformats2raw.layout" in attributes:
            path = path / "0"
            attributes = attributes_of(path)
        level, axes, scales = level_0(path, attributes)
        names = check_metadata(path, level)
        version: Any = 3 if (level / "zarr.json").exists() else 2
        array = np.asarray(zarr.open_array(store=str(level), mode="r", zarr_format=version)[...])
        if not axes and names and len(set(names) & set("tczyx")) == array.ndim:
            axes = [(name, None) for name in names]
        if not axes:
            return Pixels(array=channels_first(path, array))
        return order_axes(path, array, axes, scales)


def attributes_of(folder: Path) -> dict[str, Any]:
    """User attributes of a group or array; OME's own level of version 0.5 is opened."""
    if (folder / "zarr.json").exists():
        attributes = metadata(folder / "zarr.json").get("attributes") or {}
    elif (folder / ".zattrs").exists():
        attributes = metadata(folder / ".zattrs")
    else:
        attributes = {}
    return attributes["ome"] if isinstance(attributes.get("ome"), dict) else attributes


def metadata(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_METADATA:
        raise safety.damaged(path, f"metadata of {path.stat().st_size} bytes")
    found = json.loads(path.read_bytes())
    if not isinstance(found, dict):
        raise safety.damaged(path, "no metadata of a Zarr array or group")
    return found


def level_0(
    path: Path, attributes: dict[str, Any]
) -> tuple[Path, list[tuple[str, str | None]], list[float]]:
    """Folder of the largest array; name and unit of its axes; its scale along each."""
    if not attributes.get("multiscales"):
        if not (path / "zarr.json").exists() and not (path / ".zarray").exists():
            raise DataError(
                f"{path}: no Zarr array, and no OME-Zarr image.",
                hint="Name the folder that has .zarray, zarr.json or .zattrs in it.",
            )
        return path, [], []
    image = attributes["multiscales"][0]
    dataset = image["datasets"][0]
    level = path / str(dataset["path"])
    if not level.resolve().is_relative_to(path.resolve()):
        raise safety.damaged(path, f"names {dataset['path']!r}, outside itself, as its pixels")
    # Version 0.3 has plain names, 0.2 none and always these five.
    told = image.get("axes") or ["t", "c", "z", "y", "x"]
    axes = [(a, None) if isinstance(a, str) else (str(a["name"]), a.get("unit")) for a in told]
    steps = [
        *(dataset.get("coordinateTransformations") or ()),
        *(image.get("coordinateTransformations") or ()),
    ]
    factors = [step["scale"] for step in steps if step.get("type") == "scale"]
    scales = np.prod(np.array(factors, dtype=float).reshape(len(factors), len(axes)), axis=0)
    return level, axes, scales.tolist() if factors else []


def check_metadata(path: Path, level: Path, *, is_whole: bool = True) -> list[str]:
    """Refuses arrays that are too large or packed by what runs code; names of axes, if any.

    Args:
        is_whole: All of it will be read; else only its chunks must not be too large.
    """
    is_new = (level / "zarr.json").exists()
    told = metadata(level / ("zarr.json" if is_new else ".zarray"))
    codecs = set(codecs_of(told) if is_new else old_codecs_of(told))
    if not codecs <= CODECS:
        raise DataError(
            f"{path}: packed with {min(codecs - CODECS)!r}.",
            hint=f"Known: {', '.join(sorted(CODECS))}.",
        )
    kind = told["data_type"] if is_new else told["dtype"]
    dtype = np.dtype(kind)
    if dtype.kind not in "buif":
        raise DataError(f"{path}: holds {kind}, not numbers.", hint="Save plain numbers.")
    shape = [int(length) for length in told["shape"]]
    grid = told["chunk_grid"]["configuration"]["chunk_shape"] if is_new else told["chunks"]
    chunks = [int(length) for length in grid]
    for claim in (shape, chunks) if is_whole else (chunks,):
        safety.check_claim(path, claim, 1, math.prod(claim))
    check_missing(path, level, shape, chunks, dtype.itemsize)
    if "blosc" in codecs:
        check_blosc(path, level, told, math.prod(chunks))
    names = told.get("dimension_names") or []
    return [str(name).lower() for name in names]


def check_missing(
    path: Path, level: Path, shape: list[int], chunks: list[int], value_bytes: int
) -> None:
    """Refuses arrays that are large and nearly empty: a missing chunk is its fill value.

    So a few bytes may rightly stand for a whole array, but not for any size.
    """
    count = math.prod(-(-n // int(c)) for n, c in zip(shape, chunks, strict=True))
    wanted = math.prod(shape) * value_bytes
    if count <= EMPTY_CHUNKS and wanted <= EMPTY_BYTES:
        return
    sizes = [file.stat().st_size for file in level.rglob("*") if file.is_file()]
    if count > max(EMPTY_CHUNKS, MAX_MISSING * len(sizes)):
        raise safety.damaged(path, f"claims {count} chunks and holds {len(sizes)} files")
    if wanted > max(EMPTY_BYTES, safety.MAX_INFLATION * sum(sizes)):
        raise safety.damaged(path, f"claims {wanted} bytes and holds {sum(sizes)}")


def check_blosc(path: Path, level: Path, told: dict[str, Any], most_values: int) -> None:
    """Refuses chunks that are cut off: blosc reads as far as a chunk says that it goes."""
    for file in level.rglob("*"):
        if file.name.startswith(".z") or file.name == "zarr.json" or not file.is_file():
            continue
        name, content_bytes = file.relative_to(level), file.stat().st_size
        with file.open("rb") as opened:
            for start, size in _parts_of(opened, content_bytes, told):
                opened.seek(start)
                head = opened.read(16)
                said = int.from_bytes(head[12:], "little")
                if len(head) < 16 or said != size or start + size > content_bytes:
                    raise safety.damaged(path, f"chunk {name} is cut off")
                if int.from_bytes(head[4:8], "little") > 8 * most_values:
                    raise safety.damaged(path, f"chunk {name} unpacks to too much")


def _parts_of(file: BinaryIO, size: int, told: dict[str, Any]) -> list[tuple[int, int]]:
    """First byte and length of each packed chunk in a file: one, or those of a shard's index."""
    shards = [step for step in told.get("codecs") or [] if step["name"] == "sharding_indexed"]
    if not shards:
        return [(0, size)]
    says = shards[0]["configuration"]
    steps = {step["name"] for step in says["index_codecs"]}
    if not steps <= {"bytes", "crc32c"} or "sharding_indexed" in codecs_of(says):
        raise ValueError("shards within shards, or with a packed index")
    outer = told["chunk_grid"]["configuration"]["chunk_shape"]
    count = math.prod(
        int(whole) // int(part) for whole, part in zip(outer, says["chunk_shape"], strict=True)
    )
    index_bytes = 16 * count + 4 * ("crc32c" in steps)
    if index_bytes > size:
        raise ValueError(f"a shard of {size} bytes for {count} chunks")
    file.seek(0 if says.get("index_location") == "start" else size - index_bytes)
    index = np.frombuffer(file.read(16 * count), "<u8").reshape(count, 2)
    return [(int(start), int(length)) for start, length in index if start != MISSING]


def old_codecs_of(told: dict[str, Any]) -> list[str]:
    """Names of all codecs in the metadata of an array of version 2."""
    steps = [told.get("compressor"), *(told.get("filters") or [])]
    return [str(step["id"]) for step in steps if step]


def codecs_of(told: dict[str, Any]) -> Iterator[str]:
    """The same for version 3, with those within shards."""
    for step in told.get("codecs") or []:
        name = step if isinstance(step, str) else step["name"]
        yield str(name)
        inner = {} if isinstance(step, str) else step.get("configuration") or {}
        for key in ("codecs", "index_codecs"):
            yield from codecs_of({"codecs": inner.get(key)})


def order_axes(
    path: Path, array: np.ndarray, axes: list[tuple[str, str | None]], scales: list[float]
) -> Pixels:
    """(C, *S) from named axes."""
    names = [name.lower() for name, _ in axes]
    if sorted(names) != sorted(set(names) & set("tczyx")) or len(names) != array.ndim:
        raise safety.damaged(path, f"axes {', '.join(names)} of shape {array.shape}")
    if not {"y", "x"} <= set(names):
        raise DataError(f"{path}: axes {', '.join(names)}.", hint="Images have y and x.")
    if "t" in names and array.shape[names.index("t")] > 1:
        raise DataError(
            f"{path}: {array.shape[names.index('t')]} time points.",
            hint="Save each time point as an image of its own.",
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
        tuple(step * MM[str(unit)] for step, unit in zip(steps, units, strict=True))
        if steps and all(unit in MM for unit in units)
        else None
    )
    return Pixels(array=moved.reshape(shape), spacing_mm=spacing)
