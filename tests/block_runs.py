"""Runs with random weights and large images, to compare blocks with the whole image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import tifffile
import torch
import zarr
from scipy import ndimage

import ushape
from ushape.distributed.block_task import BlockTask
from ushape.inference.tuning import Tuning, save_tuning
from ushape.io.streaming.ome_pyramid import Pyramid
from ushape.models import build_model
from ushape.planning.run import Run

COMMON = [
    "network.widths=[4,8]",
    "train.batch_size=2",
    "preprocessing.downscale=1",
]

KINDS = {
    "image": ((61, 83), "[16,16]", ["preprocessing.slices=null"]),
    "volume": ((21, 38, 43), "[16,16,16]", ["preprocessing.slices=null"]),
    "slices": ((21, 38, 43), "[16,16]", ["preprocessing.slices=3"]),
}
"""Shape of the large image, size of a tile, and settings of the run."""


def blobs(shape, seed):
    """An image of blobs with values of 16 bits, and their mask."""
    values = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    scaled = (values - values.min()) / np.ptp(values) * 60_000
    return scaled.astype(np.uint16), (values > np.quantile(values, 0.8)).astype(np.uint8) * 255


def make_plan(folder, kind, *settings):
    """Plan a training on images of blobs."""
    shape, tile, own = KINDS[kind]
    for number in range(4):
        for name, values in zip(("images", "masks"), blobs(shape, number), strict=True):
            path = folder / "data" / name / f"{number}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, values)
    tiles = [f"sampling.patch_shape={tile}", f"predict.tile_shape={tile}"]
    settings = [*COMMON, *own, *tiles, *settings]
    return ushape.plan(folder / "data", device="cpu", epochs=1, settings=settings, quiet=True)


def make_run(folder, plan, tuning=None, *, seed=2, **preprocessing):
    """Store a run whose network has random weights, with other settings of the preprocessing."""
    config = replace(plan.preprocessing.config, **preprocessing)
    plan = replace(plan, preprocessing=replace(plan.preprocessing, config=config))
    run = Run.create(folder)
    run.save_plan(plan)
    space = plan.preprocessing.space
    torch.manual_seed(seed)
    network = build_model(plan.recipe.network, plan.preprocessing.input_channels, space.outputs)
    run.save_weights(network.state_dict(), {"epoch": 1})
    if tuning is not None:
        save_tuning(run, Tuning(**tuning))
    return run.folder


def write_ome_zarr(path, values):
    """Write an OME-Zarr image with channel and time axes and a spacing of 0.5 micrometers."""
    group = zarr.open_group(store=str(path), mode="w", zarr_format=2)
    names = ["t", "c", *"zyx"[-values.ndim :]]
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in names]
    scale = {"type": "scale", "scale": [1.0, 1.0, *[0.5] * values.ndim]}
    levels = [{"path": "0", "coordinateTransformations": [scale]}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": levels}]
    chunks = (1, 1, *[16] * values.ndim)
    array = group.create_array("0", shape=(1, 1, *values.shape), dtype=values.dtype, chunks=chunks)
    array[...] = values[None, None]
    return path


def make_task(folder, shape, block, **values):
    """Store the description of a prediction with one chunk for each block; create its images."""

    def pyramid(name, dtype, levels=1):
        return Pyramid(
            path=folder / name,
            version="0.5",
            shape=shape,
            dtype=dtype,
            chunk=block,
            most_levels=levels,
        )

    steps = len(values.get("cleanings", ()))
    is_separated = values.pop("is_separated", False)
    task = BlockTask(
        **{
            "folder": folder,
            "image": folder / "image.zarr",
            "runs": (),
            "recipe": None,
            "backend": "torch",
            "settings": (),
            "block": block,
            "output": pyramid("mask.zarr", "uint8"),
            "values": (0, 10, 20, 30),
            "probabilities": None,
            "objects": pyramid("objects.zarr", "uint32"),
            "min_size_px": 0,
            "corners_connect": False,
            "cleanings": (),
            "classes": tuple(pyramid(f"{n}.zarr", "uint8") for n in range(steps + is_separated)),
            "distance": pyramid("distance.zarr", "float32") if is_separated else None,
            "labels": pyramid("labels.zarr", "int32") if is_separated else None,
            "window_px": 10_000,
            "normalizations": (),
            "measured": "",
            **values,
        }
    )
    task.save()
    for own in (*task.pyramids, *task.intermediates):
        own.create()
    return task
