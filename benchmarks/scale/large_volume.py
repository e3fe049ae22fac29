"""Memory of a training and a prediction on a volume that is larger than the memory allowed.

For each format, a volume of blobs and its mask are written plane by plane. `ushape train` and
`ushape predict` then run in processes of their own, whose memory is measured twice a second: the
proportional set size of the process and all of its children, in which a page that several
processes share counts once. The result is a table; the exit status is 1 if a limit was exceeded.

    python benchmarks/scale/large_volume.py --gigabytes 4 --limit-gb 3 --output FOLDER
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import tifffile
import zarr

FORMATS = ("zarr", "tif", "nii")
SIDE, PERIOD = 1024, 64
"""Height and width of the volume, and the number of planes after which the blobs repeat."""


def make_block(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return planes of dark noise with bright balls, (PERIOD, SIDE, SIDE), and their mask."""
    image = rng.integers(90, 110, (PERIOD, SIDE, SIDE), dtype=np.uint16)
    mask = np.zeros(image.shape, dtype=np.uint8)
    z, y, x = np.ogrid[-12:13, -12:13, -12:13]
    ball = z**2 + y**2 + x**2 <= 12**2
    for _ in range(60):
        corner = [int(rng.integers(0, size - 25)) for size in image.shape]
        part = tuple(slice(start, start + 25) for start in corner)
        image[part][ball] += np.uint16(60)
        mask[part][ball] = 1
    return image, mask


def planes(block: np.ndarray, depth: int) -> Iterator[np.ndarray]:
    for plane in range(depth):
        yield block[plane % PERIOD]


def write_volume(path: Path, block: np.ndarray, depth: int) -> None:
    shape = (depth, *block.shape[1:])
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zarr":
        chunks = (64, 128, 128)
        stored = zarr.create_array(
            str(path), shape=shape, chunks=chunks, dtype=block.dtype, zarr_format=2
        )
        for first in range(0, depth, PERIOD):
            stored[first : first + PERIOD] = block[: min(PERIOD, depth - first)]
    elif path.suffix == ".tif":
        pages = planes(block, depth)
        tifffile.imwrite(path, pages, shape=shape, dtype=block.dtype, bigtiff=True)
    else:
        write_nifti(path, block, depth)


def write_nifti(path: Path, block: np.ndarray, depth: int) -> None:
    import nibabel

    header = nibabel.Nifti1Header()
    header.set_data_dtype(block.dtype)
    header.set_data_shape((*block.shape[:0:-1], depth))
    header.set_zooms((1.0, 1.0, 1.0))
    header.set_sform(np.eye(4), 1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    with path.open("wb") as file:
        file.write(header.binaryblock + bytes(4))
        for plane in planes(block, depth):
            file.write(plane.tobytes())


def run_measured(arguments: list[str], log: Path) -> tuple[float, float]:
    """Run a command of ushape; return its largest memory in GB and its time in seconds.

    Raises:
        SystemExit: if the command fails.
    """
    started, peak = time.monotonic(), 0
    with log.open("wb") as file:
        command = [sys.executable, "-m", "ushape", *arguments]
        child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        process = psutil.Process(child.pid)
        while child.poll() is None:
            peak = max(peak, memory_of(process))
            time.sleep(0.5)
    if child.returncode:
        sys.exit(f"{' '.join(arguments)} failed, see {log}:\n{log.read_text()[-2000:]}")
    return peak / 1e9, time.monotonic() - started


def memory_of(process: psutil.Process) -> int:
    """Return the memory of a process and its children in bytes; 0 if it has just ended."""
    total = 0
    try:
        for one in [process, *process.children(recursive=True)]:
            info = one.memory_full_info()
            total += getattr(info, "pss", info.uss)
    except psutil.Error:
        return total
    return total


def main() -> int:
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--gigabytes", type=float, default=4.0, help="size of the image on disk")
    parser.add_argument("--limit-gb", type=float, default=3.0, help="memory that is allowed")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--steps", type=int, default=4, help="training steps")
    parser.add_argument("--set", dest="settings", nargs="*", default=[], help="further settings")
    parser.add_argument("--output", type=Path, required=True, help="folder, emptied per format")
    options = parser.parse_args()
    depth = max(3 * PERIOD, round(options.gigabytes * 1e9 / (2 * SIDE * SIDE)))
    image, mask = make_block(np.random.default_rng(0))
    settings = [f"train.steps_per_epoch={options.steps}", "train.patch_source=files"]
    is_within = True
    print(f"volume of {depth} x {SIDE} x {SIDE} voxels, {depth * SIDE * SIDE * 2 / 1e9:.2f} GB")
    print("format  train GB  train s  predict GB  predict s")
    for name in options.formats:
        folder = options.output / name
        shutil.rmtree(folder, ignore_errors=True)
        write_volume(folder / "data" / "images" / f"a.{name}", image, depth)
        write_volume(folder / "data" / "masks" / f"a.{name}", mask, depth)
        run = folder / "run"
        chosen = [f"--set={one}" for one in (*settings, *options.settings)]
        data = str(folder / "data")
        training = run_measured(
            ["train", data, "-o", str(run), "--epochs", "1", "--device", "cpu", *chosen],
            options.output / f"{name}-train.log",
        )
        predicting = run_measured(
            ["predict", str(run), str(folder / "data" / "images" / f"a.{name}"),
             "-o", str(folder / "masks"), "--device", "cpu"],
            options.output / f"{name}-predict.log",
        )  # fmt: skip
        is_within &= max(training[0], predicting[0]) <= options.limit_gb
        (train_gb, train_s), (predict_gb, predict_s) = training, predicting
        row = f"{name:6}  {train_gb:8.2f}  {train_s:7.0f}  {predict_gb:10.2f}  {predict_s:9.0f}"
        print(row, flush=True)
        shutil.rmtree(folder)
    return 0 if is_within else 1


if __name__ == "__main__":
    sys.exit(main())
