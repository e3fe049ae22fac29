"""Plan the prediction of a large image: levels, blocks, intensities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ushape.distributed.block_cleaning import cleaning_steps
from ushape.distributed.block_prediction import memory_of_block
from ushape.distributed.block_task import BlockTask, task_folder
from ushape.distributed.grid import choose_block
from ushape.distributed.sampled_intensities import measure_once
from ushape.errors import ConfigError, DataError, check_range
from ushape.inference.band_separation import OPEN_PX_BYTES
from ushape.inference.output.streamed_objects import settings_for_bands
from ushape.inference.predictor import Predictor
from ushape.io.mask_encoding import stored_dtype
from ushape.io.streaming import Bands
from ushape.io.streaming.ome_listing import LABELS
from ushape.io.streaming.ome_pyramid import OmeVersion, Pyramid

OBJECT_IMAGE = "objects"
"""Name of the label image of objects."""

CHUNK = {2: 1024, 3: 128}
"""Length of a chunk along each axis, by the number of axes of S."""

SHARD = {2: 4096, 3: 256}
"""Length of a shard along each axis: about 16 million pixels."""


def plan_task(
    predictor: Predictor,
    bands: Bands,
    *,
    runs: Sequence[Path],
    output: Path,
    recipe: str | None,
    backend: str,
    settings: Sequence[str],
    origin: Mapping[str, Any],
    probabilities: bool,
    objects: bool,
    ome_version: OmeVersion,
    chunk: int | None,
    shard: int | None,
    memory_gb: float,
) -> BlockTask:
    """Divide an image into blocks and measure its intensities.

    Raises:
        ConfigError: if the sizes of chunks and shards do not fit.
        DataError: if the definition of objects needs the whole image.
    """
    _check_decisions(predictor, str(bands.path), objects=objects)
    chunks, shards = _division(bands.shape[1:], chunk, shard, ome_version)
    folder, space = task_folder(output), predictor.plan.preprocessing.space
    images = _Images(predictor, bands, ome_version, chunks, shards)
    has_codes = predictor.plan.encoding.kind not in ("colors", "alpha")
    steps = cleaning_steps(space.scored, predictor.cleanings)
    mask, separates = images.mask(output, has_codes=has_codes), predictor.separates
    measured = [measure_once(bands, one.plan.preprocessing) for one in predictor.members]
    block = choose_block(
        mask.shape,
        mask.unit,
        lambda size: memory_of_block(predictor, bands, mask.unit, size),
        int(memory_gb * 1e9),
    )
    how = predictor.objects if separates else predictor.plan.recipe.predict.objects
    return BlockTask(
        folder=folder,
        image=bands.path,
        runs=tuple(runs),
        recipe=recipe,
        backend=backend,
        settings=tuple(settings),
        block=block,
        output=mask,
        values=_values(predictor, has_codes=has_codes),
        probabilities=images.probabilities(output) if probabilities else None,
        objects=images.objects(output) if objects else None,
        min_size_px=how.min_size_px,
        corners_connect=how.corners_connect,
        cleanings=steps,
        classes=tuple(
            images.intermediate(folder / f"classes_{number}.zarr", "uint8")
            for number in range(len(steps) + separates)
        ),
        distance=images.intermediate(folder / "distance.zarr", "float32") if separates else None,
        labels=(
            images.intermediate(folder / "labels.zarr", "int32") if separates and objects else None
        ),
        window_px=max(int(memory_gb * 1e9) // OPEN_PX_BYTES, math.prod(block)),
        normalizations=tuple(own for own, _ in measured),
        measured=next((text for _, text in measured if text), ""),
        origin=origin,
    )


@dataclass(frozen=True)
class _Images:
    """The images that are written, all of which are divided in the same way."""

    predictor: Predictor
    bands: Bands
    version: OmeVersion
    chunk: tuple[int, ...]
    shard: tuple[int, ...] | None

    def mask(self, path: Path, *, has_codes: bool) -> Pyramid:
        """Return the image of the mask values, or of class indices."""
        dtype = stored_dtype(self.predictor.plan.encoding) if has_codes else np.dtype("uint8")
        values = _values(self.predictor, has_codes=has_codes)
        names = self.predictor.plan.preprocessing.space.names
        classes = {str(value): name for value, name in zip(values, names, strict=True)}
        return replace(
            self._pyramid(path, "uint8" if np.dtype(dtype).kind == "b" else str(dtype)),
            attributes={"ushape": {"classes": classes}},
        )

    def probabilities(self, output: Path) -> Pyramid:
        """Return the image of the class probabilities next to the mask."""
        space = self.predictor.plan.preprocessing.space
        return replace(
            self._pyramid(probabilities_path(output), "uint8"),
            channels=space.channels,
            attributes={"ushape": {"channels": list(space.channel_names)}},
        )

    def objects(self, output: Path) -> Pyramid:
        """Return the label image of the objects within the mask."""
        return replace(
            self._pyramid(output / LABELS / OBJECT_IMAGE, "uint32"),
            label={"source": {"image": "../../"}},
        )

    def intermediate(self, path: Path, dtype: str) -> Pyramid:
        """Return an image of a single level that later stages read."""
        return replace(self._pyramid(path, dtype), most_levels=1)

    def _pyramid(self, path: Path, dtype: str) -> Pyramid:
        return Pyramid(
            path=path,
            version=self.version,
            shape=self.bands.shape[1:],
            dtype=dtype,
            chunk=self.chunk,
            shard=self.shard,
            spacing_mm=self.bands.spacing_mm,
        )


def probabilities_path(output: Path) -> Path:
    """Return the path of the probabilities next to the mask."""
    return output.with_name(f"{output.stem}_probabilities.zarr")


def _division(
    shape: tuple[int, ...], chunk: int | None, shard: int | None, version: OmeVersion
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Return the sizes of chunks and shards along each axis; None: there are no shards."""
    length = CHUNK[len(shape)] if chunk is None else chunk
    check_range("chunk", length, 1, hint="Specify a length in pixels, for example 128.")
    chunks = tuple(min(length, size) for size in shape)
    if shard is None:
        shard = 0 if version == "0.4" else max(1, SHARD[len(shape)] // length) * length
    if shard and version == "0.4":
        raise ConfigError(
            "OME-Zarr 0.4 does not support shards.",
            code="shards_unsupported",
            hint="Omit --shard, or use --ome-version 0.5.",
        )
    if shard % length:
        raise ConfigError(
            f"The shard size ({shard}) is not a multiple of the chunk size ({length}).",
            code="shard_not_multiple",
            hint=f"Choose a multiple, for example --shard {4 * length}, or 0 for no shards.",
        )
    if not shard:
        return chunks, None
    # Shards are no longer than the image, in whole chunks.
    return chunks, tuple(
        min(shard // length, -(-size // own)) * own for size, own in zip(shape, chunks, strict=True)
    )


def _check_decisions(predictor: Predictor, name: str, *, objects: bool) -> None:
    """Raise DataError if objects are defined by more than their own pixels."""
    if predictor.separates and predictor.objects.max_hole_size_px:
        raise DataError(
            f"{name}: the holes of objects are filled before they are separated, which is not "
            "supported in blocks.",
            code="objects_in_blocks",
            hint="Set predict.objects.max_hole_size_px=0, or join objects that touch with "
            "--set predict.objects.separation=none.",
        )
    if objects and (needed := settings_for_bands(predictor)):
        raise DataError(
            f"{name}: predict.objects splits objects by the distance or the probability, assigns "
            "borders or fills holes, which is not supported in blocks.",
            code="objects_in_blocks",
            hint=f"Omit --objects, or set {' and '.join(needed)}.",
        )


def _values(predictor: Predictor, *, has_codes: bool) -> tuple[int, ...]:
    """Return the value of the output for each class index."""
    space = predictor.plan.preprocessing.space
    return tuple(space.values) if has_codes else tuple(range(len(space.names)))
