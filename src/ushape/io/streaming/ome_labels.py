"""Add label images to an OME-Zarr image: in its group labels/, with as many levels as the image."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ushape.errors import DataError, RunError, require_package
from ushape.formatting import size_text
from ushape.io import ome_zarr
from ushape.io.files import check_memory, remove_leftovers
from ushape.io.lock import locked
from ushape.io.ome_zarr import inside
from ushape.io.sinks import ZARR_CHUNK, RowLayout, RowSink, create_array, replacing_folder
from ushape.io.streaming import BandWriter
from ushape.io.streaming.ome_listing import (
    LABELS,
    list_label,
    listed_labels,
    read_listing,
    update_listing,
)

Step = dict[str, Any]
"""A coordinate transformation of OME-Zarr."""

MADE_BY = "ushape"
"""Key of the attributes of a label image with what it was made by."""

MAX_PLANES = 16
"""Largest number of planes that are packed together."""

BLOCK_BYTES = 1 << 28
"""Size of a block of several planes that is in memory at once."""


@dataclass(frozen=True, kw_only=True)
class LabelStyle:
    """Metadata of a label image about its values."""

    names: Mapping[int, str]
    """Name of the class that a value shows."""

    colors: Mapping[int, tuple[int, int, int]]
    """Color of a value; viewers choose those of other values."""

    made_by: str = ""
    """Digest of the facts that determine the pixels, as `read_made_by` returns it."""


@dataclass(frozen=True, kw_only=True)
class ImageLevels:
    """Resolution levels of an OME-Zarr image, without its channels."""

    folder: Path
    """Group of the image."""

    is_new: bool
    """Whether the image is of version 0.5 (Zarr 3) instead of 0.4 (Zarr 2)."""

    axes: tuple[dict[str, Any], ...]
    shapes: tuple[tuple[int, ...], ...]
    """Shape of each level, along `axes`."""

    chunks: tuple[int, ...]
    """Chunks of the first level, along `axes`; if there are shards, those in a shard."""

    steps: tuple[tuple[Step, ...], ...]
    """Coordinate transformations of each level."""

    common_steps: tuple[Step, ...]
    """Coordinate transformations of all levels."""

    @property
    def names(self) -> list[str]:
        return [axis["name"].lower() for axis in self.axes]

    @property
    def space(self) -> tuple[str, ...]:
        """Names of the axes of S, as `ome_zarr.read` returns them."""
        lengths = dict(zip(self.names, self.shapes[0], strict=True))
        return tuple(name for name in "zyx" if name != "z" or lengths.get("z", 1) > 1)


def read_levels(path: Path) -> ImageLevels:
    """Read the levels of an OME-Zarr image to which label images can be added.

    Raises:
        DataError: if the folder is not an OME-Zarr image of version 0.4 or 0.5, or is damaged.
    """
    try:
        folder = path
        attributes = ome_zarr.attributes_of(folder) if folder.is_dir() else {}
        if "bioformats2raw.layout" in attributes:
            folder = inside(path, "0")
            attributes = ome_zarr.attributes_of(folder)
        is_new = (folder / "zarr.json").exists()
        image = attributes["multiscales"][0]
        version = str(attributes.get("version") if is_new else image.get("version"))
        if version not in (("0.5",) if is_new else ("0.4",)):
            raise KeyError("version")
        labels = inside(folder, LABELS)
        listed_labels(labels)
        for group in {path, folder, labels}:
            read_listing(group, is_new=is_new)
        axes = [{key: own for key, own in one.items() if own is not None} for one in image["axes"]]
        kept = [n for n, axis in enumerate(axes) if axis["name"].lower() != "c"]
        found = [_read_array(folder, one["path"], is_new) for one in image["datasets"]]
        return ImageLevels(
            folder=folder,
            is_new=is_new,
            axes=tuple(axes[n] for n in kept),
            shapes=tuple(tuple(shape[n] for n in kept) for shape, _ in found),
            chunks=tuple(found[0][1][n] for n in kept),
            steps=tuple(
                _steps_along(kept, one["coordinateTransformations"]) for one in image["datasets"]
            ),
            common_steps=_steps_along(kept, image.get("coordinateTransformations") or ()),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OSError, RecursionError):
        raise DataError(
            f"{path} is not an OME-Zarr image of version 0.4 or 0.5, or is damaged, so label "
            "images cannot be added to it.",
            code="not_ome_zarr",
            hint="Predict without --zarr-labels, or convert the image, for example with "
            "bioformats2raw.",
        ) from None


def _read_array(folder: Path, name: Any, is_new: bool) -> tuple[list[int], list[int]]:
    """Return shape and chunks of a level, as stored."""
    info = ome_zarr.read_metadata(inside(folder, name) / ("zarr.json" if is_new else ".zarray"))
    shape, chunks = ome_zarr.size_of(info, is_new=is_new)
    return shape, (ome_zarr.chunks_in_shard(info) if is_new else None) or chunks


def _steps_along(kept: Sequence[int], steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return coordinate transformations along some axes only."""
    return tuple(
        {"type": step["type"], step["type"]: [float(step[step["type"]][n]) for n in kept]}
        for step in steps
        if step["type"] != "identity"
    )


def label_folders(path: Path, names: Sequence[str]) -> list[Path]:
    """Return where `open_label_writer` writes label images.

    Raises:
        DataError: if `read_levels` raises it, or a folder is a link out of the image.
    """
    folder = read_levels(path).folder
    return [inside(folder, f"{LABELS}/{name}") for name in names]


def read_made_by(label: Path) -> str:
    """Return the `made_by` of `LabelStyle` that a label image was written with; '' if unknown."""
    try:
        if (label / "zarr.json").exists():
            attributes = ome_zarr.read_metadata(label / "zarr.json")["attributes"]
        else:
            attributes = ome_zarr.read_metadata(label / ".zattrs")
        return str(attributes[MADE_BY]["made_by"])
    except (DataError, KeyError, TypeError, ValueError, OSError, RecursionError):
        return ""


@contextmanager
def open_label_writer(path: Path, name: str, dtype: str, style: LabelStyle) -> Iterator[BandWriter]:
    """Open a label image of an OME-Zarr image, to write it in bands; it appears when complete.

    Further levels are sampled from the one above at the nearest pixel. Axes, units and coordinate
    transformations are those of the image, except for its channels. A label image of this name is
    replaced.

    Args:
        path: Image; its pixels are not changed.
        name: Name of the label image.
        dtype: An integer type.

    Shapes:
        written: (*S), as `ome_zarr.read` returns the image.

    Raises:
        DataError: if `label_folders` raises it, if another process writes label images of the
            image, if a plane does not fit into memory, or rows are missing at the end.
    """
    zarr = require_package("zarr", "zarr", str(path))
    (target,), levels = label_folders(path, [name]), read_levels(path)
    labels = target.parent
    lengths = dict(zip(levels.names, levels.shapes[0], strict=True))
    shape = tuple(lengths[axis] for axis in levels.space)
    layout = RowLayout(
        path=target, shape=shape, dtype=np.dtype(dtype), axes="".join(levels.space).upper()
    )
    chunks = _chunks_of(levels, layout)
    rows = chunks[levels.names.index(levels.space[0])]
    check_memory(
        path,
        3 * rows * math.prod(shape[1:]) * layout.dtype.itemsize,
        f"an image of {size_text(shape)} pixels",
    )
    with _alone_in(labels):
        with replacing_folder(target) as folder:
            group = zarr.open_group(store=str(folder), mode="w", zarr_format=2 + levels.is_new)
            group.attrs.update(_metadata(levels, name, style))
            stored = [
                create_array(
                    group, str(n), own, list(map(min, own, chunks)), layout.dtype, levels.names
                )
                for n, own in enumerate(levels.shapes)
            ]
            writer = BandWriter(layout, _sink_of(stored[0], levels), np.asarray)
            yield writer
            writer.finish()
            for above, below in itertools.pairwise(stored):
                _sample(above, below, levels)
        list_label(labels, name, is_new=levels.is_new)
        for folder in {path, levels.folder, labels}:
            update_listing(folder, labels, name, is_new=levels.is_new)


@contextmanager
def _alone_in(labels: Path) -> Iterator[None]:
    """Lock the group of the label images, and remove what killed processes left there."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(labels))
        except RunError as error:
            raise DataError(error.message, code="labels_not_writable", hint=error.hint) from None
        remove_leftovers(labels, ".*")
        yield


def _chunks_of(levels: ImageLevels, layout: RowLayout) -> list[int]:
    """Return chunks that are at most those of the image, along the axes of the levels."""
    plane_bytes = math.prod(layout.shape[-2:]) * layout.dtype.itemsize
    planes = max(1, min(MAX_PLANES, BLOCK_BYTES // plane_bytes))
    largest = {"y": ZARR_CHUNK, "x": ZARR_CHUNK, "z": planes}
    return [
        min(size, own, largest.get(name, 1))
        for name, size, own in zip(levels.names, levels.shapes[0], levels.chunks, strict=True)
    ]


def _sink_of(stored: Any, levels: ImageLevels) -> RowSink:
    """Return a sink of rows (n, *S[1:]) into the array of a level."""
    names, first = levels.names, levels.names.index(levels.space[0])
    others = [axis for axis in names if axis not in levels.space]
    order = [[*others, *levels.space].index(axis) for axis in names]
    done = 0

    def put(rows: np.ndarray) -> None:
        nonlocal done
        place: list[slice] = [slice(None)] * len(names)
        place[first] = slice(done, done + len(rows))
        stored[tuple(place)] = rows.reshape((1,) * len(others) + rows.shape).transpose(order)
        done += len(rows)

    return RowSink(put, stored.chunks[first])


def _sample(above: Any, below: Any, levels: ImageLevels) -> None:
    """Fill a level with the nearest pixels of the one above, block by block."""
    first = levels.names.index(levels.space[0])
    indices = [
        np.minimum((2 * np.arange(n) + 1) * of // (2 * n), of - 1)
        for n, of in zip(below.shape, above.shape, strict=True)
    ]
    row_bytes = math.prod(above.shape) // above.shape[first] * above.dtype.itemsize

    def pick(own: np.ndarray) -> np.ndarray:
        source: list[slice] = [slice(None)] * len(indices)
        source[first] = slice(int(own[0]), int(own[-1]) + 1)
        picked = [*indices[:first], own - own[0], *indices[first + 1 :]]
        return np.asarray(above[tuple(source)])[np.ix_(*picked)]

    rows, step = indices[first], below.chunks[first]
    for start in range(0, len(rows), step):
        own = rows[start : start + step]
        parts = -(-int(own[-1] + 1 - own[0]) * row_bytes // BLOCK_BYTES)
        target = [slice(None)] * len(indices)
        target[first] = slice(start, start + len(own))
        picked = [pick(part) for part in np.array_split(own, min(parts, len(own)))]
        below[tuple(target)] = np.concatenate(picked, axis=first)


def _metadata(levels: ImageLevels, name: str, style: LabelStyle) -> dict[str, Any]:
    """Return the attributes of a label image."""
    multiscale: dict[str, Any] = {
        "name": name,
        "axes": list(levels.axes),
        "datasets": [
            {"path": str(n), "coordinateTransformations": list(steps)}
            for n, steps in enumerate(levels.steps)
        ],
    }
    if levels.common_steps:
        multiscale["coordinateTransformations"] = list(levels.common_steps)
    label: dict[str, Any] = {"source": {"image": "../../"}}
    if style.colors:
        label["colors"] = [
            {"label-value": value, "rgba": [*color, 255]} for value, color in style.colors.items()
        ]
    if style.names:
        label["properties"] = [
            {"label-value": value, "class": own} for value, own in style.names.items()
        ]
    own = {MADE_BY: {"made_by": style.made_by}} if style.made_by else {}
    if levels.is_new:
        return {"ome": {"version": "0.5", "multiscales": [multiscale], "image-label": label}, **own}
    return {
        "multiscales": [{"version": "0.4", **multiscale}],
        "image-label": {"version": "0.4", **label},
        **own,
    }
