"""Repeat `ushape predict` on a folder whose images are all finished, and measure the call.

python benchmarks/scale/million_outputs.py RUN IMAGES --count 1000000 --work FOLDER

A few images of the folder IMAGES are predicted by a real call. Its inputs, outputs and the lines of
its log are then multiplied: each copy is a file of its own, with a name, a modification time and
lines in the log of its own, as if all of them had been predicted. The plain command is repeated,
and then with --part 1/4. Both must find that nothing is left to do, and leave the outputs and the
log as they are. With the same --work, the folder of an earlier call is used again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ushape.inference.output.manifest import MANIFEST_FILE
from ushape.io import is_image
from ushape.io.lock import LOCK_FILE


@dataclass(frozen=True)
class Sample:
    """An image that was predicted, with what is copied."""

    image: bytes
    suffix: str
    mask: bytes
    mask_suffix: str
    lines: list[dict[str, object]]
    """Lines of the log about the image."""


def command_of(run: Path, work: Path, *more: str) -> list[str]:
    """Return the command that predicts the folder."""
    start = [sys.executable, "-m", "ushape", "predict", str(run), str(work / "images")]
    return [*start, "-o", str(work / "masks"), *more]


def predict_samples(run: Path, images: list[Path], work: Path) -> list[Sample]:
    """Copy a few images, predict them by a real call, and return what it has left."""
    folder, masks = work / "images", work / "masks"
    folder.mkdir(parents=True)
    for number, path in enumerate(images):
        (folder / name_of(number, path.suffix)).write_bytes(path.read_bytes())
    subprocess.run(command_of(run, work), check=True)
    lines = [json.loads(line) for line in (masks / MANIFEST_FILE).read_text().splitlines()[1:]]
    samples = []
    for number, path in enumerate(images):
        name = name_of(number, path.suffix)
        own = [line for line in lines if line["image"] == name]
        (mask,) = own[-1]["files"]
        suffix = Path(mask).suffix
        samples.append(
            Sample(path.read_bytes(), path.suffix, (masks / mask).read_bytes(), suffix, own)
        )
    return samples


def name_of(number: int, suffix: str) -> str:
    """Return the name of an image."""
    return f"image_{number:07d}{suffix}"


def multiply(samples: list[Sample], count: int, folders: int, work: Path) -> None:
    """Write the copies, and append their lines to the log."""
    images, masks = work / "images", work / "masks"
    with (masks / MANIFEST_FILE).open("a") as log:
        for number in range(len(samples), count):
            sample = samples[number % len(samples)]
            below = Path(f"plate_{number % folders:04d}" if folders else "")
            if folders and number < len(samples) + folders:
                (images / below).mkdir(exist_ok=True)
                (masks / below).mkdir(exist_ok=True)
            image = images / below / name_of(number, sample.suffix)
            mask = below / name_of(number, sample.mask_suffix)
            image.write_bytes(sample.image)
            (masks / mask).write_bytes(sample.mask)
            for line in copied_lines(sample, image, mask, image.relative_to(images)):
                log.write(json.dumps(line) + "\n")


def copied_lines(
    sample: Sample, image: Path, mask: Path, name: Path
) -> Iterator[dict[str, object]]:
    """Yield the lines of the log about a copy of a sample."""
    found = image.stat()
    source = [os.path.realpath(image), [found.st_size, found.st_mtime_ns]]
    for line in sample.lines:
        own = {**line, "image": name.as_posix(), "source": source}
        if "files" in line:
            (mark,) = dict(line["files"]).values()  # type: ignore[call-overload]
            own["files"] = {mask.as_posix(): mark}
        yield own


@dataclass(frozen=True)
class Measured:
    """A call that has ended."""

    seconds: float
    processor_s: float
    memory_gb: float
    text: str

    @property
    def skipped(self) -> int:
        """Number of images that were finished."""
        found = re.search(r"Skipping (\d+) images", self.text)
        return int(found[1]) if found else 0


def measure(command: list[str]) -> Measured:
    """Run a command."""
    begin = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        text = process.stdout.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - begin
    if process.returncode:
        sys.exit(f"The command has failed: {' '.join(command)}\n{text}")
    unit = 1 if sys.platform == "darwin" else 1024
    used = usage.ru_utime + usage.ru_stime
    return Measured(seconds, used, usage.ru_maxrss * unit / 1e9, text)


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and modification time of the log and of all outputs."""
    found: dict[str, tuple[int, int]] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                found |= state_of(Path(entry.path))
            elif entry.name != LOCK_FILE:
                facts = entry.stat()
                found[entry.path] = (facts.st_size, facts.st_mtime_ns)
    return found


def main() -> int:
    """Make the folder and repeat the call; the exit status is 1 if a call was not idle."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path, help="folder with at least one image")
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--samples", type=int, default=8, help="images that are really predicted")
    parser.add_argument("--folders", type=int, default=0, help="subfolders of the images")
    parser.add_argument("--work", type=Path, required=True, help="new folder, which is kept")
    options = parser.parse_args()
    run, work = options.run, options.work
    if not (work / "complete").exists():
        begin = time.monotonic()
        images = sorted(path for path in options.images.iterdir() if is_image(path))
        samples = predict_samples(run, images[: options.samples], work)
        multiply(samples, options.count, options.folders, work)
        (work / "complete").touch()
        print(f"made {options.count} images and masks in {time.monotonic() - begin:.0f} s")
    before, is_idle = state_of(work / "masks"), True
    for more, low, high in (
        ([], options.count, options.count),
        (["--part", "1/4"], 0.2 * options.count, 0.3 * options.count),
    ):
        found = measure(command_of(run, work, *more))
        is_idle &= low <= found.skipped <= high
        print(
            f"{' '.join(more) or 'plain call'}: {found.seconds:.1f} s, {found.processor_s:.1f} s "
            f"of processor time, {found.memory_gb:.2f} GB, {found.skipped} images skipped",
            flush=True,
        )
    if state_of(work / "masks") != before:
        print("Outputs or the log have changed.")
        is_idle = False
    return int(not is_idle)


if __name__ == "__main__":
    sys.exit(main())
