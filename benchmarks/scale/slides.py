"""Memory of a training and a prediction on whole-slide images that are larger than memory.

Three slides like those of Aperio, of disks on a pale ground, are written tile by tile with their
masks. `ushape train` and `ushape predict` then run in processes of their own, whose memory is
measured twice a second. The result is a table; the exit status is 1 if a limit was exceeded.

    python benchmarks/scale/slides.py --width 40000 --height 30000 --limit-gb 1.5 --output FOLDER
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from large_volume import run_measured

BLOCK, TILE = 2048, 256
"""Side of the square that repeats, and of a tile, in pixels."""

FINEST_MPP = 0.25

NAMES = ("north", "south", "west")


def make_block(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a square of the slide (BLOCK, BLOCK, 3), and its mask."""
    y, x = np.ogrid[:BLOCK, :BLOCK]
    mask = np.zeros((BLOCK, BLOCK), dtype=np.uint8)
    for _ in range(40):
        row, column = rng.integers(100, BLOCK - 100, 2)
        mask[(y - row) ** 2 + (x - column) ** 2 < rng.integers(20, 90) ** 2] = 1
    image = np.where(mask[..., None] > 0, (180, 90, 160), (235, 225, 230))
    noisy = image + rng.normal(0, 8, image.shape)
    return noisy.clip(0, 255).astype(np.uint8), mask


def tiles(block: np.ndarray, shape: tuple[int, int]) -> Iterator[np.ndarray]:
    """Yield the tiles of an image that repeats a block."""
    side = len(block)
    for top in range(0, shape[0], TILE):
        for left in range(0, shape[1], TILE):
            rows = np.arange(top, top + TILE) % side
            columns = np.arange(left, left + TILE) % side
            yield block[np.ix_(rows, columns)]


def write_slide(path: Path, block: np.ndarray, shape: tuple[int, int]) -> None:
    """Write a slide with levels that are 4 and 16 times smaller."""
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = f"Aperio Image Library v11.2.1 \r\n{shape[1]}x{shape[0]}|MPP = {FINEST_MPP}"
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for factor in (1, 4, 16):
            side = BLOCK // factor
            small = block.reshape(side, factor, side, factor, 3).mean(axis=(1, 3))
            size = (shape[0] // factor, shape[1] // factor)
            file.write(
                tiles(small.astype(np.uint8), size),
                shape=(*size, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="rgb",
                compression="jpeg",
                description=facts,
                metadata=None,
                maxworkers=1,
            )
            if factor == 1:  # The second image of Aperio's files is an overview.
                overview = small.astype(np.uint8)[::16, ::16]
                options = {"photometric": "rgb", "compression": "jpeg", "metadata": None}
                file.write(overview, description=facts, rowsperstrip=16, **options)


def write_mask(path: Path, block: np.ndarray, shape: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"tile": (TILE, TILE), "compression": "zlib", "maxworkers": 1}
    stored = tiles(block, shape)
    tifffile.imwrite(path, stored, shape=shape, dtype=np.uint8, bigtiff=True, **options)


def main() -> int:
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--width", type=int, default=40_000)
    parser.add_argument("--height", type=int, default=30_000)
    parser.add_argument("--mpp", type=float, default=1.0, help="resolution of the network")
    parser.add_argument("--limit-gb", type=float, default=1.5, help="memory that is allowed")
    parser.add_argument("--steps", type=int, default=4, help="training steps")
    parser.add_argument("--output", type=Path, required=True, help="folder, emptied first")
    options = parser.parse_args()
    shutil.rmtree(options.output, ignore_errors=True)
    data, shape = options.output / "data", (options.height, options.width)
    for seed, name in enumerate(NAMES):
        image, mask = make_block(np.random.default_rng(seed))
        write_slide(data / "images" / f"{name}.svs", image, shape)
        write_mask(data / "masks" / f"{name}.tif", mask, shape)
    stored = sum(path.stat().st_size for path in data.rglob("*.svs")) / 1e9
    pixels = len(NAMES) * 3 * shape[0] * shape[1] / 1e9
    size = f"{shape[0]} x {shape[1]} pixels"
    print(f"{len(NAMES)} slides of {size}, {stored:.2f} GB, {pixels:.1f} GB unpacked", flush=True)
    run = options.output / "run"
    training = run_measured(
        ["train", str(data), "-o", str(run), "--epochs", "1", "--device", "cpu",
         f"--set=preprocessing.slide_mpp={options.mpp}", "--set=train.patch_source=files",
         f"--set=train.steps_per_epoch={options.steps}"],
        options.output / "train.log",
    )  # fmt: skip
    predicting = run_measured(
        ["predict", str(run), str(data / "images" / "north.svs"), "--device", "cpu",
         "-o", str(options.output / "masks"), "--contours", "geojson"],
        options.output / "predict.log",
    )  # fmt: skip
    print("command  memory GB  seconds")
    for name, (memory_gb, seconds) in (("train", training), ("predict", predicting)):
        print(f"{name:7}  {memory_gb:9.2f}  {seconds:7.0f}")
    return 0 if max(training[0], predicting[0]) <= options.limit_gb else 1


if __name__ == "__main__":
    sys.exit(main())
