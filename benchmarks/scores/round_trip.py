"""What masks lose when they are downscaled and enlarged again, as labels and as shares.

    python benchmarks/scores/round_trip.py MASKS [--factors 1.5 2 3 4] [--most 16]

Everything above the lowest value is foreground. Labels give each pixel the class with the largest
area in it, which is what training learns; shares keep the area of the foreground. Both are enlarged
linearly, as the probabilities of a prediction are, and decided at 0.5.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ushape import io
from ushape.transforms.growing import resample_probabilities
from ushape.transforms.resampling import resample_classes, resample_image

SHRINK: dict[str, Callable[[np.ndarray, tuple[int, ...]], np.ndarray]] = {
    "labels": lambda mask, shape: resample_classes(mask.astype(np.uint8), shape),
    "shares": lambda mask, shape: resample_image(mask[None].astype(np.float32), shape)[0],
}


def round_trip(mask: np.ndarray, factor: float, how: str) -> tuple[float, float]:
    """Return the Dice of a mask (*S) with what is restored of it, and the change of its area."""
    shape = tuple(max(1, round(size / factor)) for size in mask.shape)
    small = SHRINK[how](mask, shape)[None].astype(np.float32)
    restored = resample_probabilities(small, mask.shape)[0] >= 0.5
    area, found = int(mask.sum()), int(restored.sum())
    return 2 * int((restored & mask).sum()) / (area + found), found / area - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("masks", type=Path, help="folder with mask files")
    parser.add_argument("--factors", type=float, nargs="+", default=[1.5, 2, 3, 4])
    parser.add_argument("--most", type=int, default=16, help="about how many masks, evenly spaced")
    options = parser.parse_args()

    if not options.masks.is_dir() or options.most < 1 or min(options.factors) < 1:
        parser.error("MASKS must be a folder, factors at least 1, and --most at least 1.")
    files = [path for path in sorted(options.masks.iterdir()) if path.is_file()]
    codes = [io.read_mask(path).codes for path in files[:: max(1, len(files) // options.most)]]
    masks = [mask for mask in (one > one.min() for one in codes) if mask.any()]
    if not masks:
        parser.error(f"{options.masks} contains no mask with two values.")
    print(f"{len(masks)} masks; Dice, and change of the area")
    for factor in options.factors:
        for how in SHRINK:
            pairs = [round_trip(mask, factor, how) for mask in masks]
            dice, growth = np.mean(pairs, axis=0)
            print(f"1/{factor:<4g} {how:7} {dice:.4f}  {growth:+.2%}")


if __name__ == "__main__":
    main()
