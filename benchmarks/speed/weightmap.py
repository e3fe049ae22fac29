"""The border weight map against its definition: a distance transform of the whole per object.

python benchmarks/speed/weightmap.py [--size 512] [--objects 300] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from ushape.transforms.border_weights import border_weights, separate_touching

W0, SIGMA = 10.0, 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--objects", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    objects = touching_cells(options.size, options.objects)
    ours, theirs = [], []
    for _ in range(options.rounds):
        theirs.append(seconds(lambda: by_definition(objects)))
        ours.append(seconds(lambda: border_weights(objects, w0=W0, sigma=SIGMA)))
    found = border_weights(objects, w0=W0, sigma=SIGMA)
    difference = np.abs(by_definition(objects) - found).max()
    print(f"{options.size} x {options.size} pixels, {objects.max()} touching cells\n")
    print("| side | ms, each round | median |\n|---|---|---|")
    for name, times in (("definition", theirs), ("ushape", ours)):
        each = ", ".join(f"{1000 * t:.0f}" for t in times)
        print(f"| {name} | {each} | {1000 * statistics.median(times):.0f} |")
    ratio = statistics.median(a / b for a, b in zip(theirs, ours, strict=True))
    print(f"\nratio, median of rounds: {ratio:.0f}; largest difference {difference:.1e}")


def touching_cells(size: int, count: int) -> np.ndarray:
    """Every pixel belongs to its nearest seed; a line of background between them."""
    rng = np.random.default_rng(0)
    seeds = np.zeros((size, size), dtype=np.int32)
    places = rng.choice(size * size, size=count, replace=False)
    seeds.flat[places] = np.arange(1, count + 1)
    _, nearest = ndimage.distance_transform_edt(seeds == 0, return_indices=True)
    return separate_touching(seeds[tuple(nearest)])


def by_definition(objects: np.ndarray) -> np.ndarray:
    nearest = np.full(objects.shape, np.inf)
    second = nearest.copy()
    for index in range(1, objects.max() + 1):
        distance = ndimage.distance_transform_edt(objects != index)
        second = np.minimum(second, np.maximum(nearest, distance))
        nearest = np.minimum(nearest, distance)
    weights = W0 * np.exp(-((nearest + second) ** 2) / (2 * SIGMA**2))
    return np.asarray(np.where(objects == 0, weights, 0))


def seconds(job: Callable[[], object]) -> float:
    started = time.perf_counter()
    job()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
