"""Predicted time for a million images and for a Zarr of 100 TB on 1 to 1000 workers.

A worker is one core like those of this machine. The parts are measured in seconds of processor
time, which other programs on the machine change little:

- reading, computing and writing a block of an image of 4 channels of 16 bits, for each pixel;
- predicting an image, from runs with few and with more images;
- starting `ushape predict`, and starting a worker of Dask, without opening the model;
- sending a task through Dask: the scheduler and the client together, with two workers.

The time for n items on w workers is

    start + max(n (read + compute + write) / w,  bytes / bandwidth,  n overhead) + one item

where the second term is the shared storage, whose bandwidth is an option, and the third one exists
only with Dask, because its scheduler is a single process. Printed is also which term decides.

    python benchmarks/scale/cost_model.py --output FOLDER [--bandwidth-gb 1]
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
import torch
from large_image import CHANNELS, call_ushape, make_pattern, train_small_model, write_image
from zarr_blocks import worker_processes

from ushape.distributed import block_task, blocks
from ushape.distributed.scheduling import dask_executor
from ushape.io.streaming.ome_pyramid import write_box

WORKERS = (1, 10, 100, 1000)
IMAGES, IMAGE_PX = 10**6, 1024**2
ZARR_BYTES, BLOCK_PX = 100e12, 4096**2
BYTES_PX = 2 * CHANNELS + 1
"""Bytes of a pixel that are read and written, without compression."""


@dataclass(frozen=True)
class Parts:
    """What was measured, in seconds of processor time."""

    read_px: float
    compute_px: float
    write_px: float
    image: float
    """Seconds for an image of IMAGE_PX pixels, with reading and writing."""

    task: float
    """Seconds of scheduler and client for a task."""

    worker_start: float
    command_start: float


def processor_s(work: Callable[[], object]) -> float:
    """Return the processor time of this process, of all its threads, while it does something."""
    started = time.process_time()
    work()
    return time.process_time() - started


def children_s(arguments: list[str]) -> float:
    """Return the processor time of a command of ushape."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    call_ushape(arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure_block(folder: Path, run: Path, gigabytes: float) -> tuple[float, float, float]:
    """Return the seconds to read, compute and write one pixel of a block."""
    image, output = folder / "image.zarr", folder / "mask.zarr"
    write_image(image, gigabytes)
    command = ["predict-zarr", str(run), str(image), "-o", str(output), "--device", "cpu"]
    call_ushape([*command, "--chunk", "512", "--shard", "2048", "--memory-gb", "0.001"])
    place = block_task.task_folder(output)
    task = block_task.open_task(place)
    (
        place / "done" / task.token / "predict.all"
    ).unlink()  # So that blocks are computed again, here.
    stage, box = "predict", task.grid("predict").box(0)
    px = int(np.prod([last - first for first, last in box]))
    _, bands = blocks._open_model(str(place), "cpu", task.token)
    mask = task.output.open()
    values = mask[tuple(slice(*edge) for edge in box)]
    blocks.run_block(str(place), task.token, "cpu", stage, 0)  # Warm.
    task.marker(stage, 0).unlink()
    whole = processor_s(lambda: blocks.run_block(str(place), task.token, "cpu", stage, 0))
    read = processor_s(lambda: bands.read_box(box))
    write = processor_s(lambda: write_box(mask, box, values))
    return read / px, max(0.0, whole - read - write) / px, write / px


def measure_images(folder: Path, run: Path, few: int, many: int) -> tuple[float, float]:
    """Return the seconds for an image of IMAGE_PX pixels, and to start the command."""
    rng, times = np.random.default_rng(2), {}
    for count in (few, many):
        images = folder / f"images{count}"
        images.mkdir(parents=True)
        for number in range(count):
            image, _ = make_pattern(rng, int(IMAGE_PX**0.5))
            path = images / f"{number}.tif"
            tifffile.imwrite(path, image, metadata={"axes": "CYX"}, photometric="minisblack")
        output = str(folder / f"masks{count}")
        times[count] = children_s(["predict", str(run), str(images), "-o", output])
    each = (times[many] - times[few]) / (many - few)
    return each, max(0.0, times[few] - few * each)


def nothing(index: int) -> int:
    return index


def measure_dask(tasks: int) -> tuple[float, float]:
    """Return the seconds of scheduler and client for a task, and of starting one worker.

    The scheduler of a local cluster and the client are threads of this process.
    """
    with dask_executor(workers=2) as execute:
        list(execute(nothing, range(20)))
        times = [one.cpu_times() for one in worker_processes(os.getpid())]
        start = sum(one.user + one.system for one in times) / len(times)
        each = processor_s(lambda: list(execute(nothing, range(tasks)))) / tasks
    return each, start


def predicted_s(
    *, items: float, work: float, gigabytes: float, bandwidth: float, start: float, workers: int,
    overhead: float = 0.0,
) -> tuple[float, str]:  # fmt: skip
    """Return the predicted seconds, and what decides them."""
    terms = {
        "workers": items * work / workers,
        "storage": gigabytes / bandwidth,
        "scheduler": items * overhead,
    }
    name = max(terms, key=lambda one: terms[one])
    return start + terms[name] + work, name


def duration(seconds: float) -> str:
    for limit, size, unit in ((90, 1, "s"), (5400, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.1f} days"


def print_table(parts: Parts, bandwidth: float) -> None:
    pixels = ZARR_BYTES / (2 * CHANNELS)
    block = BLOCK_PX * (parts.read_px + parts.compute_px + parts.write_px)
    images = {
        "items": IMAGES, "work": parts.image, "gigabytes": IMAGES * IMAGE_PX * BYTES_PX / 1e9,
        "start": parts.command_start,
    }  # fmt: skip
    zarr_parts = {
        "items": pixels / BLOCK_PX, "work": block, "gigabytes": pixels * BYTES_PX / 1e9,
        "start": parts.command_start,
    }  # fmt: skip
    zarr_dask = {**zarr_parts, "start": parts.worker_start, "overhead": parts.task}
    print(f"\n| workers | {IMAGES:,} images, --part | 100 TB, --part | 100 TB, Dask |")
    print("|---|---|---|---|")
    for workers in WORKERS:
        cells = []
        for values in (images, zarr_parts, zarr_dask):
            seconds, name = predicted_s(**values, bandwidth=bandwidth, workers=workers)
            cells.append(f"{duration(seconds)} ({name})")
        print(f"| {workers} | {' | '.join(cells)} |")
    print(f"\nblocks of 100 TB: {pixels / BLOCK_PX:,.0f} of {BLOCK_PX:,} pixels")


def main() -> None:
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--run", type=Path, help="run of 4 channels (default: train one)")
    parser.add_argument("--gigabytes", type=float, default=0.14, help="size of the image")
    parser.add_argument("--images", type=int, nargs=2, default=(2, 12), metavar=("FEW", "MANY"))
    parser.add_argument("--tasks", type=int, default=500, help="tasks sent through Dask")
    parser.add_argument(
        "--bandwidth-gb", type=float, default=1.0, help="shared storage, GB/s, assumed"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder, which is emptied")
    options = parser.parse_args()
    shutil.rmtree(options.output, ignore_errors=True)
    options.output.mkdir(parents=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    run = (options.run or train_small_model(options.output)).resolve()
    read, compute, write = measure_block(options.output, run, options.gigabytes)
    print("processor time for each megapixel of a block (4 channels of 16 bits):")
    print(f"  read {read * 1e9:.1f} ms, compute {compute * 1e9:.1f} ms, write {write * 1e9:.1f} ms")
    image, command = measure_images(options.output, run, *options.images)
    print(f"an image of 1 megapixel: {image * 1e3:.0f} ms; start of the command: {command:.1f} s")
    task, worker = measure_dask(options.tasks)
    print(
        f"a task of Dask: {task * 1e3:.2f} ms, so {1 / task:.0f} tasks/s; a worker: {worker:.1f} s"
    )
    print(f"shared storage: {options.bandwidth_gb} GB/s (assumed)", flush=True)
    parts = Parts(read, compute, write, image, task, worker, command)
    print_table(parts, options.bandwidth_gb)


if __name__ == "__main__":
    sys.exit(main())
