"""A large OME-Zarr image on workers of Dask that are killed, and the speed of the workers.

1. The image is predicted by one process with one thread.
2. It is predicted by `--workers`, each with one thread. From time to time a worker is killed with
   SIGKILL. The output must have the same bytes, and no worker may exceed `--limit-gb`.
3. A smaller image is predicted by the workers and by one process with as many threads, alternately.
   Compared are the pixels per second while blocks are computed, and the time of the whole commands.

The exit status is 1 if a bar was missed. The processes run on as many cores as there are workers.

    python benchmarks/scale/zarr_blocks.py --gigabytes 8 --output FOLDER
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from large_image import train_small_model, write_image

BAR = 0.9
"""Least throughput of the workers, as a share of that of one process with as many threads."""


@dataclass
class Measured:
    """What was seen while a command ran."""

    seconds: float = 0.0
    counts: list[tuple[float, int]] = field(default_factory=list)
    """Number of finished blocks of the first stage, and when it was seen."""

    peaks: dict[int, int] = field(default_factory=dict)
    """Largest memory of each worker process in bytes."""

    killed: list[int] = field(default_factory=list)

    @property
    def blocks_per_s(self) -> float:
        """Speed from the first to the last block that was seen to end."""
        seen: dict[int, float] = {}
        for when, count in self.counts:
            seen.setdefault(count, when)
        first, last = min(filter(None, seen), default=0), max(seen, default=0)
        if last <= first:
            sys.exit("Too few blocks to measure a speed; take a larger image.")
        return (last - first) / (seen[last] - seen[first])


def predict(
    run: Path,
    image: Path,
    output: Path,
    *,
    block: int,
    workers: int,
    threads: int,
    kill_at: Sequence[int] = (),
) -> Measured:
    """Predict an image and watch the processes; workers=0 is one process without Dask.

    Args:
        block: Length of a block along each axis in pixels.
        kill_at: Numbers of finished blocks at which a worker is killed.

    Raises:
        SystemExit: if the command fails.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ushape", "predict-zarr", str(run), str(image), "-o",
               str(output), "--chunk", "512", "--shard", str(block), "--memory-gb", "0.001",
               "--device", "cpu"]  # fmt: skip
    command += ["--workers", str(workers)] if workers else []
    found, left, log = Measured(), sorted(kill_at), output.with_suffix(".log")
    with log.open("wb") as file:
        started = time.monotonic()
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        try:
            while child.poll() is None:
                watch(child.pid, output, found, time.monotonic() - started, left)
                time.sleep(0.2)
        finally:
            child.terminate()
        found.seconds = time.monotonic() - started
    if child.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{log.read_text()[-2000:]}")
    return found


def watch(parent: int, output: Path, found: Measured, now: float, kill_at: list[int]) -> None:
    """Note finished blocks and memory, and kill a worker if its time has come."""
    done, own = count_markers(output), worker_processes(parent)
    found.counts.append((now, done))
    for process in own:
        found.peaks[process.pid] = max(found.peaks.get(process.pid, 0), peak(process))
    if kill_at and done >= kill_at[0] and own:
        kill_at.pop(0)
        # The one with most memory computes; another one may just have been started.
        max(own, key=lambda one: found.peaks[one.pid]).send_signal(signal.SIGKILL)
        found.killed.append(done)


def count_markers(output: Path) -> int:
    """Return how many blocks of the first stage are finished, or 0 once the stage is closed."""
    folder = output.with_name(f"{output.name}.blocks") / "done"
    return sum(1 for _ in folder.glob("*/predict/*/*"))


def worker_processes(parent: int) -> list[psutil.Process]:
    """Return the worker processes that the nannies of a command have started."""
    found = []
    for process in psutil.Process(parent).children(recursive=True):
        try:
            if any("spawn_main" in one for one in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def peak(process: psutil.Process) -> int:
    """Return the largest memory of a process so far in bytes, or that of now if it is unknown."""
    try:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return process.memory_info().rss
    except (OSError, psutil.Error):
        return 0


def differing_files(one: Path, other: Path) -> list[str]:
    """Return the names of the files that are not in both folders with the same bytes."""
    names = {str(p.relative_to(f)) for f in (one, other) for p in f.rglob("*") if p.is_file()}
    return [
        name
        for name in sorted(names)
        if not ((one / name).is_file() and (other / name).is_file())
        or (one / name).read_bytes() != (other / name).read_bytes()
    ]


def check_killed(options: argparse.Namespace, run: Path) -> bool:
    """Compare workers that are killed with one process; return whether all bars are met."""
    folder = options.output
    image = folder / "image.zarr"
    started = time.monotonic()
    side, _ = write_image(image, options.gigabytes)
    blocks = (-(-side // options.block)) ** 2
    print(
        f"image of 4 x {side} x {side} values of 16 bits, {8 * side * side / 1e9:.2f} GB, "
        f"{blocks} blocks; written in {time.monotonic() - started:.0f} s",
        flush=True,
    )
    serial = predict(
        run, image, folder / "serial" / "mask.zarr", block=options.block, workers=0, threads=1
    )
    print(f"one process with 1 thread: {serial.seconds:.0f} s", flush=True)
    kill_at = [(blocks * n) // (options.kills + 1) for n in range(1, options.kills + 1)]
    killed = predict(
        run, image, folder / "workers" / "mask.zarr", block=options.block,
        workers=options.workers, threads=1, kill_at=kill_at,
    )  # fmt: skip
    print(
        f"{options.workers} workers with 1 thread each: {killed.seconds:.0f} s; killed "
        f"{len(killed.killed)} workers, when {', '.join(map(str, killed.killed))} of {blocks} "
        "blocks were finished"
    )
    for pid, most in killed.peaks.items():
        print(f"  worker {pid}: at most {most / 1e9:.2f} GB")
    wrong = differing_files(folder / "serial" / "mask.zarr", folder / "workers" / "mask.zarr")
    count = sum(1 for path in (folder / "serial" / "mask.zarr").rglob("*") if path.is_file())
    print(f"files that differ: {len(wrong)} of {count} {wrong[:3] or ''}", flush=True)
    most = max(killed.peaks.values(), default=0) / 1e9
    if len(killed.killed) < options.kills:
        print(f"MISSED: only {len(killed.killed)} workers were killed")
    is_met = not wrong and most < options.limit_gb and len(killed.killed) == options.kills
    print(f"{'met' if is_met else 'MISSED'}: same bytes, memory under {options.limit_gb} GB")
    return is_met


def compare_speed(options: argparse.Namespace, run: Path) -> bool:
    """Compare workers with the threads of one process; return whether the bar is met."""
    folder = options.output / "speed"
    image = folder / "image.zarr"
    write_image(image, options.speed_gigabytes)
    speeds: dict[str, list[float]] = {"workers": [], "threads": []}
    times: dict[str, list[float]] = {"workers": [], "threads": []}
    print("blocks/s     workers  threads   (whole command, s)")
    for _ in range(options.repeats):
        for name in speeds:
            output = folder / name / "mask.zarr"
            shutil.rmtree(folder / name, ignore_errors=True)
            own = {"workers": options.workers, "threads": 1}
            one = {"workers": 0, "threads": options.workers}
            found = predict(
                run, image, output, block=options.block, **(own if name == "workers" else one)
            )
            speeds[name].append(found.blocks_per_s)
            times[name].append(found.seconds)
        print(
            f"             {speeds['workers'][-1]:7.2f}  {speeds['threads'][-1]:7.2f}   "
            f"({times['workers'][-1]:.0f}, {times['threads'][-1]:.0f})",
            flush=True,
        )
    middle = {name: statistics.median(own) for name, own in speeds.items()}
    ratio = middle["workers"] / middle["threads"]
    whole = statistics.median(times["threads"]) / statistics.median(times["workers"])
    print(f"median       {middle['workers']:7.2f}  {middle['threads']:7.2f}")
    print(
        f"{'met' if ratio >= BAR else 'MISSED'}: {options.workers} workers have {ratio:.2f} times "
        f"the throughput of {options.workers} threads (bar {BAR}); whole commands {whole:.2f}"
    )
    return ratio >= BAR


def main() -> int:
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--gigabytes", type=float, default=8.0, help="size of the image")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--block", type=int, default=2048, help="length of a block in pixels")
    parser.add_argument("--kills", type=int, default=3, help="number of workers to kill")
    parser.add_argument("--limit-gb", type=float, default=1.5, help="memory of a worker")
    parser.add_argument("--speed-gigabytes", type=float, default=0.8, help="size for the speed")
    parser.add_argument("--repeats", type=int, default=3, help="comparisons; 0: none")
    parser.add_argument(
        "--run", type=Path, help="run for images of 4 channels (default: train one)"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder, which is emptied")
    options = parser.parse_args()
    shutil.rmtree(options.output, ignore_errors=True)
    options.output.mkdir(parents=True)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.workers])
    run = (options.run or train_small_model(options.output)).resolve()
    is_met = check_killed(options, run) if options.gigabytes else True
    if options.repeats:
        is_met &= compare_speed(options, run)
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
