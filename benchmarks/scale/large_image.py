"""A large image of fluorescent cells as OME-Zarr, and a small model for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
import zarr

CHANNELS, CHUNK = 4, 1024
RADII = (6, 15)
"""Smallest and largest radius of a cell in pixels."""

PATTERNS = 8
"""Number of different chunks, each of which appears shifted and with other brightness."""


def make_pattern(rng: np.random.Generator, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of bright discs on noise, (CHANNELS, side, side) uint16, and its mask."""
    mask = np.zeros((side, side), dtype=np.uint8)
    y, x = np.ogrid[:side, :side]
    for _ in range(side * side // 4000):
        radius = int(rng.integers(*RADII))
        top, left = rng.integers(radius, side - radius, 2)
        box = (
            slice(top - radius, top + radius + 1),
            slice(left - radius, left + radius + 1),
        )
        mask[box] |= (y[box[0]] - top) ** 2 + (x[:, box[1]] - left) ** 2 <= radius**2
    image = rng.integers(900, 1100, (CHANNELS, side, side), dtype=np.uint16)
    for channel in range(CHANNELS):
        image[channel][mask > 0] += np.uint16(400 * (channel + 1))
    return image, mask


def side_of(gigabytes: float) -> int:
    """Return the side in pixels of a square image of a size, in whole chunks."""
    return max(2, round((gigabytes * 1e9 / (2 * CHANNELS)) ** 0.5 / CHUNK)) * CHUNK


def write_image(path: Path, gigabytes: float) -> tuple[int, int]:
    """Write an image of a size chunk by chunk as OME-Zarr 0.5, and return its shape."""
    rng = np.random.default_rng(0)
    patterns = [make_pattern(rng, CHUNK)[0] for _ in range(PATTERNS)]
    side = side_of(gigabytes)
    group = zarr.open_group(store=str(path), mode="w", zarr_format=3)
    axes = [
        {"name": "c", "type": "channel"},
        {"name": "y", "type": "space"},
        {"name": "x", "type": "space"},
    ]
    scale = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    level = {"path": "0", "coordinateTransformations": scale}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [level]}]}
    array = group.create_array(
        "0", shape=(CHANNELS, side, side), chunks=(1, CHUNK, CHUNK), dtype="uint16"
    )
    for top, left in corners(side):
        shift = rng.integers(0, CHUNK, 2)
        chunk = np.roll(patterns[rng.integers(PATTERNS)], shift, axis=(1, 2))
        chunk = chunk + rng.integers(0, 50, (CHANNELS, 1, 1), dtype=np.uint16)
        array[:, top : top + CHUNK, left : left + CHUNK] = chunk
    return side, side


def corners(side: int) -> Iterator[tuple[int, int]]:
    for top in range(0, side, CHUNK):
        for left in range(0, side, CHUNK):
            yield top, left


def train_small_model(folder: Path) -> Path:
    """Train a small network for a few seconds, and return its run folder."""
    rng = np.random.default_rng(1)
    for number in range(8):
        image, mask = make_pattern(rng, 256)
        for name, values in (("images", image), ("masks", mask)):
            path = folder / "data" / name / f"{number}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            axes = "CYX" if values.ndim == 3 else "YX"
            tifffile.imwrite(path, values, metadata={"axes": axes}, photometric="minisblack")
    settings = (
        "network.widths=[8,16,32]",
        "train.steps_per_epoch=20",
        "preprocessing.downscale=1",
        "predict.objects.separation=none",
        "predict.tune=false",
    )
    run = folder / "run"
    command = ["train", str(folder / "data"), "-o", str(run), "--epochs", "1", "--device", "cpu"]
    call_ushape(command + [f"--set={one}" for one in settings])
    return run


def call_ushape(arguments: list[str]) -> None:
    """Run a command of ushape.

    Raises:
        SystemExit: if it fails.
    """
    command = [sys.executable, "-m", "ushape", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(f"ushape {' '.join(arguments)} failed:\n{ended.stdout}{ended.stderr}")
