"""Plan the prediction of a large image: levels, blocks, intensities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ushape.distributed.block_prediction import memory_of_block
from ushape.distributed.block_task import BlockTask, task_folder
from ushape.distributed.grid import choose_block
from ushape.distributed.sampled_intensities import measure_once
from ushape.errors import ConfigError, DataError, check_range
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
        DataError: if the model separates or cleans objects.
    """
    _check_decisions(predictor, str(bands.path), objects=objects)
    plan, shape = predictor.plan, bands.shape[1:]
    chunks, shards = _division(shape, chunk, shard, ome_version)
    has_codes = plan.encoding.kind not in ("colors", "alpha")
    dtype = stored_dtype(plan.encoding) if has_codes else "uint8"
    mask = Pyramid(
        path=output,
        version=ome_version,
        shape=shape,
        dtype="uint8" if np.dtype(dtype).kind == "b" else str(dtype),
        chunk=chunks,
        shard=shards,
        spacing_mm=bands.spacing_mm,
        attributes={"ushape": {"classes": _class_names(predictor, has_codes=has_codes)}},
    )
    shares = Pyramid(
        path=probabilities_path(output),
        version=ome_version,
        shape=shape,
        dtype="uint8",
        chunk=chunks,
        shard=shards,
        channels=plan.preprocessing.space.channels,
        spacing_mm=bands.spacing_mm,
        attributes={"ushape": {"channels": list(plan.preprocessing.space.channel_names)}},
    )
    numbers = Pyramid(
        path=output / LABELS / OBJECT_IMAGE,
        version=ome_version,
        shape=shape,
        dtype="uint32",
        chunk=chunks,
        shard=shards,
        spacing_mm=bands.spacing_mm,
        label={"source": {"image": "../../"}},
    )
    measured = [measure_once(bands, one.plan.preprocessing) for one in predictor.members]
    return BlockTask(
        folder=task_folder(output),
        image=bands.path,
        runs=tuple(runs),
        recipe=recipe,
        backend=backend,
        settings=tuple(settings),
        block=choose_block(
            shape,
            mask.unit,
            lambda block: memory_of_block(predictor, bands, mask.unit, block),
            int(memory_gb * 1e9),
        ),
        output=mask,
        states_codes=has_codes,
        probabilities=shares if probabilities else None,
        objects=numbers if objects else None,
        smallest_px=plan.recipe.predict.objects.smallest_px,
        background=int(plan.preprocessing.space.values[0]) if has_codes else 0,
        normalizations=tuple(own for own, _ in measured),
        measured=next((text for _, text in measured if text), ""),
        origin=origin,
    )


def probabilities_path(output: Path) -> Path:
    """Return the path of the probabilities beside the mask."""
    return output.with_name(f"{output.stem}_probabilities.zarr")


def _division(
    shape: tuple[int, ...], chunk: int | None, shard: int | None, version: OmeVersion
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Return the sizes of chunks and shards along each axis; None: there are no shards."""
    length = CHUNK[len(shape)] if chunk is None else chunk
    check_range("chunk", length, 1, hint="It is a length in pixels, for example 128.")
    chunks = tuple(min(length, size) for size in shape)
    if shard is None:
        shard = 0 if version == "0.4" else max(1, SHARD[len(shape)] // length) * length
    if shard and version == "0.4":
        raise ConfigError(
            "OME-Zarr 0.4 has no shards.",
            code="shards_unsupported",
            hint="Omit --shard, or write --ome-version 0.5.",
        )
    if shard % length:
        raise ConfigError(
            f"Shards of {shard} pixels are no multiple of chunks of {length}.",
            code="shard_not_multiple",
            hint=f"Choose a multiple, for example --shard {4 * length}, or 0 for none.",
        )
    if not shard:
        return chunks, None
    # Shards are no longer than the image, in whole chunks.
    return chunks, tuple(
        min(shard // length, -(-size // own)) * own for size, own in zip(shape, chunks, strict=True)
    )


def _check_decisions(predictor: Predictor, name: str, *, objects: bool) -> None:
    how = predictor.plan.recipe.predict.objects
    needed = settings_for_bands(predictor)
    needed += ["predict.objects.corners_connect=false"] if how.corners_connect else []
    if objects and needed:
        raise DataError(
            f"{name}: predict.objects splits, fills or connects objects in a way that is not "
            "supported in blocks.",
            code="objects_in_blocks",
            hint=f"Omit --objects, or set {' and '.join(needed)}.",
        )
    if predictor.separates:
        raise DataError(
            f"{name}: the model separates objects, which is not supported in blocks.",
            code="objects_in_blocks",
            hint="Predict the classes alone with --set predict.objects.split=none.",
        )
    if predictor.tuning.rule.cleans:
        raise DataError(
            f"{name}: the validation of the model chose to clean its masks, which is not supported "
            "in blocks.",
            code="cleaning_in_blocks",
            hint="Predict parts of the image with `ushape predict`.",
        )


def _class_names(predictor: Predictor, *, has_codes: bool) -> dict[str, str]:
    """Return the class of each value of the output."""
    space = predictor.plan.preprocessing.space
    values = space.values if has_codes else range(len(space.names))
    return {str(value): name for value, name in zip(values, space.names, strict=True)}
