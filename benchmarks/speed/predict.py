"""Speed and memory of prediction, against MONAI and against a plain loop.

    python benchmarks/speed/predict.py [--rounds 3] [--backend torch] [--only large same small ...]

A 32-wide U-Net of 5 levels with batch norm is trained for 200 steps on generated cells, which are
then laid side by side. Each side is a process of its own, and the sides take turns; "MONAI" is its
SlidingWindowInferer as in its tutorials: fp32, windows of 512 pixels, overlap 0.25.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WIDTHS = "[32,64,128,256,512]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--sizes", nargs="+", type=int, default=(4096, 16384), help="For memory.")
    parser.add_argument("--only", nargs="+", choices=TABLES)
    parser.add_argument("--keep", type=Path, help="Folder for the network and the images.")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="ushape-predict-"))
    make_network_and_images(folder)
    for name in options.only or TABLES:
        TABLES[name](folder, options)


def make_network_and_images(folder: Path) -> None:
    if (folder / "small").exists():
        return
    import ushape

    ushape.example(folder / "cells", count=48)
    ushape.train(
        folder / "cells",
        output=folder / "run",
        epochs=10,
        settings=[f"network.widths={WIDTHS}", "network.norm=batch", "train.steps_per_epoch=20"],
    )
    ushape.example(folder / "small", count=1000, seed=3)
    for size in (2048, 4096, 16384):
        write_mosaic(folder, size)


def write_mosaic(folder: Path, size: int) -> None:
    """The small images side by side, about so many pixels along each axis."""
    import tifffile
    from PIL import Image

    paths = sorted((folder / "small/images").iterdir())
    tiles, side = [np.asarray(Image.open(path)) for path in paths], -(-size // 256)
    tifffile.imwrite(
        folder / f"{size}.tif",
        (tiles[n % len(tiles)] for n in range(side * side)),
        shape=(side * 256, side * 256),
        dtype=np.uint8,
        tile=(256, 256),
        compression="zlib",
    )


def compare_large(folder: Path, options: argparse.Namespace) -> None:
    sides = {"MONAI": ["monai", "4096"], "ushape": ["ours", "4096", options.backend]}
    times = take_turns(folder, sides, options.rounds)
    report("4096 x 4096, Mpixel/s", {k: [16.78 / t["s"] for t in v] for k, v in times.items()})
    run_side(folder, ["whole", "4096"])
    whole = np.load(folder / "whole.npy")
    for side in ("ours", "monai"):
        changed = (np.load(folder / f"{side}.npy") != whole).mean()
        print(f"pixels of {side} that differ from fp32 in one pass: {changed:.4%}")
    outside = [1 - t["network_s"] / t["s"] for t in times["ushape"]]
    print(f"time outside the network: {statistics.median(outside):.1%}\n")


def compare_same(folder: Path, options: argparse.Namespace) -> None:
    sides = {"MONAI": ["monai", "2048"], "ushape": ["same", "2048"]}
    times = take_turns(folder, sides, options.rounds)
    report("2048 x 2048, fp32, the same 25 windows, s", lists(times), faster_is_less=True)
    difference = np.load(folder / "same-p.npy") - np.load(folder / "monai-p.npy")
    print(f"largest difference of probabilities: {np.abs(difference).max():.1e}\n")


def compare_small(folder: Path, options: argparse.Namespace) -> None:
    sides = {"plain loop": ["loop", "0"], "ushape predict": ["many", options.backend]}
    times = take_turns(folder, sides, options.rounds)
    report("1,000 images of 256 x 256 from file to file, s", lists(times), faster_is_less=True)
    print()


def compare_memory(folder: Path, options: argparse.Namespace) -> None:
    for size in options.sizes:
        if not (folder / f"{size}.tif").exists():
            write_mosaic(folder, size)
        found = run_side(folder, ["file", str(size), options.backend])
        print(
            f"ushape predict, {size} x {size} gray: peak {found['gb']:.2f} GB, {found['s']:.0f} s"
        )


def measure_start(folder: Path, options: argparse.Namespace) -> None:
    found = [run_side(folder, ["start", options.backend])["s"] for _ in range(options.rounds)]
    print(f"from the command to the first tile: {statistics.median(found):.1f} s\n")


def lists(times: dict[str, list[dict[str, float]]]) -> dict[str, list[float]]:
    return {name: [one["s"] for one in own] for name, own in times.items()}


def take_turns(
    folder: Path, sides: dict[str, list[str]], rounds: int
) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, arguments in sides.items():
            found[name].append(run_side(folder, arguments))
    return found


def run_side(folder: Path, arguments: list[str]) -> dict[str, float]:
    command = [sys.executable, __file__, "--side", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def report(what: str, values: dict[str, list[float]], *, faster_is_less: bool = False) -> None:
    print(what)
    for name, own in values.items():
        print(
            f"  {name}: {', '.join(f'{v:.2f}' for v in own)}; median {statistics.median(own):.2f}"
        )
    first, second = values.values()
    ratios = [b / a for a, b in zip(first, second, strict=True)]
    ratio = statistics.median(ratios)
    print(f"  ratio, median of rounds: {1 / ratio if faster_is_less else ratio:.2f}", flush=True)


# The sides, each in a process of its own.


def side_monai(folder: Path, size: str) -> None:
    import tifffile
    import torch
    from monai.inferers import SlidingWindowInferer

    from ushape.planning.run import Run

    run = Run(folder / "run")
    network = run.load_network(run.load_plan())
    image = torch.from_numpy(scaled(run, tifffile.imread(folder / f"{size}.tif")))[None]
    inferer = SlidingWindowInferer(roi_size=(512, 512), sw_batch_size=4, overlap=0.25)
    with torch.inference_mode():
        network(image[..., :512, :512])
        started = time.perf_counter()
        probabilities = inferer(image, lambda tile: network(tile).sigmoid())[0].numpy()
        classes = (probabilities[0] >= 0.5).astype(np.uint8)
        took = time.perf_counter() - started
    np.save(folder / "monai.npy", classes)
    np.save(folder / "monai-p.npy", probabilities)
    print(json.dumps({"s": took}))


def side_ours(folder: Path, size: str, backend: str) -> None:
    import tifffile

    from ushape.inference.predictor import Predictor
    from ushape.inference.sliding_window import ArrayRows, sliding_bands
    from ushape.planning.run import Run

    predictor = Predictor.open(folder / "run", "cpu", backend=backend)
    member, space = predictor.members[0], predictor.plan.preprocessing.space
    image = scaled(Run(folder / "run"), tifffile.imread(folder / f"{size}.tif"))
    network = Timed(member.network)
    list(sliding_bands(network, ArrayRows(image[:, :1024, :1024]), space, member.settings))
    network.seconds = 0.0
    started = time.perf_counter()
    bands = sliding_bands(network, ArrayRows(image), space, member.settings)
    classes = np.concatenate([space.decode(band) for band in bands])
    took = time.perf_counter() - started
    np.save(folder / "ours.npy", classes)
    print(json.dumps({"s": took, "network_s": network.seconds}))


def side_whole(folder: Path, size: str) -> None:
    """The whole image at once, in fp32."""
    import tifffile
    import torch

    from ushape.planning.run import Run

    run = Run(folder / "run")
    network = run.load_network(run.load_plan()).to(memory_format=torch.channels_last)
    image = torch.from_numpy(scaled(run, tifffile.imread(folder / f"{size}.tif")))[None]
    with torch.inference_mode():
        probabilities = network(image.to(memory_format=torch.channels_last)).sigmoid()
    np.save(folder / "whole.npy", (probabilities[0, 0].numpy() >= 0.5).astype(np.uint8))
    print(json.dumps({"s": 0.0}))


def side_same(folder: Path, size: str) -> None:
    import tifffile

    from ushape.inference.backends import open_backend
    from ushape.inference.predictor import Predictor
    from ushape.inference.sliding_window import TileSettings, sliding_window
    from ushape.planning.run import Run

    predictor = Predictor.open(folder / "run", "cpu")
    run = Run(folder / "run")
    module = run.load_network(predictor.plan)
    network = open_backend("torch", module)
    image = scaled(run, tifffile.imread(folder / f"{size}.tif"))
    settings = TileSettings(shape=(512, 512), overlap_fraction=0.25, blend="uniform", stretch=1.0)
    space = predictor.plan.preprocessing.space
    sliding_window(network, image[:, :512, :512], space, settings)
    started = time.perf_counter()
    probabilities = sliding_window(network, image, space, settings)
    took = time.perf_counter() - started
    np.save(folder / "same-p.npy", probabilities)
    print(json.dumps({"s": took}))


def side_loop(folder: Path, _: str) -> None:
    """What a user writes: read, predict, write, one after another."""
    import torch
    from PIL import Image

    from ushape.planning.run import Run

    run = Run(folder / "run")
    network = run.load_network(run.load_plan())
    with tempfile.TemporaryDirectory() as target, torch.inference_mode():
        paths = sorted((folder / "small/images").iterdir())
        started = time.perf_counter()
        for path in paths:
            image = torch.from_numpy(scaled(run, np.asarray(Image.open(path))))[None]
            mask = network(image).sigmoid()[0, 0] >= 0.5
            Image.fromarray(255 * mask.numpy().astype(np.uint8)).save(Path(target, path.name))
        print(json.dumps({"s": time.perf_counter() - started}))


def side_many(folder: Path, backend: str) -> None:
    import ushape

    images = folder / "small/images"
    with tempfile.TemporaryDirectory() as target:
        ushape.load(folder / "run", backend=backend).predict(next(images.iterdir()))
        started = time.perf_counter()
        ushape.predict(folder / "run", images, output=target, backend=backend)
        print(json.dumps({"s": time.perf_counter() - started}))


def side_file(folder: Path, size: str, backend: str) -> None:
    import ushape

    with tempfile.TemporaryDirectory() as target:
        started = time.perf_counter()
        ushape.predict(folder / "run", folder / f"{size}.tif", output=target, backend=backend)
        took = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"s": took, "gb": peak / 1e9}))


def side_start(folder: Path, backend: str) -> None:
    code = (
        "import sys, time, ushape.inference.sliding_window as tiled\n"
        "def first(*arguments):\n"
        "    print(time.time()); sys.stdout.flush(); import os; os._exit(0)\n"
        "tiled._tile_probabilities = first\n"
        "from ushape.__main__ import main\n"
        "main()\n"
    )
    image = next((folder / "small/images").iterdir())
    with tempfile.TemporaryDirectory() as target:
        started = time.time()
        arguments = ["predict", folder / "run", image, "-o", target, "--backend", backend]
        command = [sys.executable, "-c", code, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        print(json.dumps({"s": float(done.stdout.splitlines()[-1]) - started}))


class Timed:
    """A network that notes how long it computes."""

    def __init__(self, network: Any):
        self.network, self.seconds = network, 0.0
        self.name, self.margin = network.name, network.margin
        self.legal_size, self.legal_shape = network.legal_size, network.legal_shape

    def logits(self, tiles: Any) -> Any:
        started = time.perf_counter()
        found = self.network.logits(tiles)
        self.seconds += time.perf_counter() - started
        return found


def scaled(run: Any, image: np.ndarray) -> np.ndarray:
    """(1, y, x) as the network takes it."""
    from ushape.types import Case

    sample = run.load_plan().preprocessing.place(Case(id="x", image=Path("x")), image[None], None)
    return sample.normalization.apply(sample.image)


TABLES: dict[str, Callable[[Path, argparse.Namespace], None]] = {
    "large": compare_large,
    "same": compare_same,
    "small": compare_small,
    "memory": compare_memory,
    "start": measure_start,
}
SIDES: dict[str, Callable[..., None]] = {
    name.removeprefix("side_"): function
    for name, function in list(globals().items())
    if name.startswith("side_")
}


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--side":
        SIDES[sys.argv[3]](Path(sys.argv[2]), *sys.argv[4:])
    else:
        main()
