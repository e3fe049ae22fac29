"""Add label images to an OME-Zarr image: in its group labels/, with as many levels as the image."""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ushape.errors import DataError, require_package
from ushape.io import ome_zarr
from ushape.io.files import damaged, real_path, remove_leftovers
from ushape.io.streaming import BandWriter
from ushape.io.streaming.sinks import ZARR_CHUNK, ZARR_LEVEL, RowLayout, RowSink, replacing_folder

Step = dict[str, Any]
"""A coordinate transformation of OME-Zarr."""

LABELS = "labels"
"""Name of the group that holds the label images of an image."""


@dataclass(frozen=True, kw_only=True)
class LabelStyle:
    """What a label image states about its values, besides its pixels."""

    names: Mapping[int, str]
    """Name of the class that a value shows."""

    colors: Mapping[int, tuple[int, int, int]]
    """Color of a value; viewers choose those of other values."""


@dataclass(frozen=True, kw_only=True)
class ImageLevels:
    """Resolution levels of an OME-Zarr image, without its channels."""

    folder: Path
    """Group of the image."""

    is_new: bool
    """Whether the image is of version 0.5 (Zarr 3) instead of 0.4 (Zarr 2)."""

    axes: tuple[dict[str, str], ...]
    shapes: tuple[tuple[int, ...], ...]
    """Shape of each level, along `axes`."""

    chunks: tuple[int, ...]
    """Chunks of the first level, along `axes`."""

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
    folder = path
    attributes = ome_zarr.attributes_of(folder) if folder.is_dir() else {}
    if "bioformats2raw.layout" in attributes:
        folder = path / "0"
        attributes = ome_zarr.attributes_of(folder)
    is_new = (folder / "zarr.json").exists()
    try:
        image = attributes["multiscales"][0]
        version = str(attributes.get("version") if is_new else image.get("version"))
        if version not in (("0.5",) if is_new else ("0.4",)):
            raise KeyError("version")
        axes = [{key: str(value) for key, value in axis.items()} for axis in image["axes"]]
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
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OSError):
        raise DataError(
            f"{path}: the folder is not an OME-Zarr image of version 0.4 or 0.5, so label images "
            "cannot be added to it.",
            code="not_ome_zarr",
            hint="Predict without --zarr-labels, or convert the image, for example with "
            "bioformats2raw.",
        ) from None


def _read_array(folder: Path, name: Any, is_new: bool) -> tuple[list[int], list[int]]:
    """Return shape and chunks of a level, as stored."""
    level = folder / str(name)
    if not real_path(level).is_relative_to(real_path(folder)):
        raise damaged(folder, f"the metadata name a folder outside the image ({name!r})")
    info = ome_zarr.read_metadata(level / ("zarr.json" if is_new else ".zarray"))
    grid = info["chunk_grid"]["configuration"]["chunk_shape"] if is_new else info["chunks"]
    return [int(length) for length in info["shape"]], [int(length) for length in grid]


def _steps_along(kept: Sequence[int], steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return coordinate transformations along some axes only."""
    return tuple(
        {"type": step["type"], step["type"]: [float(step[step["type"]][n]) for n in kept]}
        for step in steps
        if step["type"] != "identity"
    )


def label_folder(path: Path, name: str) -> Path:
    """Return where `open_label_writer` writes a label image; as `read_levels` it raises."""
    return read_levels(path).folder / LABELS / name


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
        DataError: if `read_levels` raises it, or rows are missing at the end.
    """
    zarr = require_package("zarr", "zarr", str(path))
    levels = read_levels(path)
    labels = levels.folder / LABELS
    remove_leftovers(labels)
    lengths = dict(zip(levels.names, levels.shapes[0], strict=True))
    shape = tuple(lengths[axis] for axis in levels.space)
    layout = RowLayout(
        path=labels / name, shape=shape, dtype=np.dtype(dtype), axes="".join(levels.space).upper()
    )
    version: Any = 3 if levels.is_new else 2
    with replacing_folder(layout.path) as folder:
        group = zarr.open_group(store=str(folder), mode="w", zarr_format=version)
        group.attrs.update(_metadata(levels, name, style))
        stored = [_create(group, str(n), levels, n, layout.dtype) for n in range(len(levels.steps))]
        writer = BandWriter(layout, _sink_of(stored[0], levels), np.asarray)
        yield writer
        writer.finish()
        for above, below in itertools.pairwise(stored):
            _sample(above, below, levels)
    _list_label(zarr, labels, name, levels)
    _consolidate_again(zarr, {path, levels.folder}, version)


def _create(group: Any, name: str, levels: ImageLevels, n: int, dtype: np.dtype) -> Any:
    """Create the array of a level; its chunks are at most those of the image."""
    options: dict[str, Any]
    if levels.is_new:
        options = {"dimension_names": levels.names}
    else:
        codecs = require_package("numcodecs", "zarr", name)
        options = {
            "compressors": codecs.Zlib(ZARR_LEVEL),
            "chunk_key_encoding": {"name": "v2", "separator": "/"},
        }
    largest = [
        ZARR_CHUNK if axis in "yx" else size
        for axis, size in zip(levels.names, levels.chunks, strict=True)
    ]
    limits = zip(levels.shapes[n], levels.chunks, largest, strict=True)
    return group.create_array(
        name,
        shape=levels.shapes[n],
        dtype=dtype,
        chunks=tuple(min(sizes) for sizes in limits),
        fill_value=0,
        # Without them, a large empty array looks to readers as if its chunks were lost.
        config={"write_empty_chunks": True},
        **options,
    )


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
    """Fill a level with the nearest pixels of the one above, chunk by chunk."""
    first = levels.names.index(levels.space[0])
    indices = [
        np.minimum((2 * np.arange(n) + 1) * of // (2 * n), of - 1)
        for n, of in zip(below.shape, above.shape, strict=True)
    ]
    rows, step = indices[first], below.chunks[first]
    for start in range(0, len(rows), step):
        own = rows[start : start + step]
        source: list[slice] = [slice(None)] * len(indices)
        target = list(source)
        source[first] = slice(int(own[0]), int(own[-1]) + 1)
        target[first] = slice(start, start + len(own))
        picked = [*indices[:first], own - own[0], *indices[first + 1 :]]
        below[tuple(target)] = np.asarray(above[tuple(source)])[np.ix_(*picked)]


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
    if levels.is_new:
        return {"ome": {"version": "0.5", "multiscales": [multiscale], "image-label": label}}
    return {
        "multiscales": [{"version": "0.4", **multiscale}],
        "image-label": {"version": "0.4", **label},
    }


def _list_label(zarr: Any, labels: Path, name: str, levels: ImageLevels) -> None:
    """Add a name to the list of the group of the label images."""
    group = zarr.open_group(
        store=str(labels), mode="a", zarr_format=3 if levels.is_new else 2, use_consolidated=False
    )
    ome = dict(group.attrs.get("ome") or {}) if levels.is_new else dict(group.attrs)
    listed = [*(ome.get(LABELS) or [])]
    if name in listed:
        return
    if levels.is_new:
        group.attrs["ome"] = {"version": "0.5", **ome, LABELS: [*listed, name]}
    else:
        group.attrs[LABELS] = [*listed, name]


def _consolidate_again(zarr: Any, folders: set[Path], version: Any) -> None:
    """Update the metadata of groups that also list those of the groups below them."""
    for folder in folders:
        listing = folder / ("zarr.json" if version == 3 else ".zmetadata")
        if not listing.exists():
            continue
        if version == 3 and not json.loads(listing.read_bytes()).get("consolidated_metadata"):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Zarr 3 does not define it yet.
            zarr.consolidate_metadata(str(folder), zarr_format=version)
