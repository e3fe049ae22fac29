"""Options, wall time and results of the processes of the programs that ushape is compared with."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np


def read_options(peers: Iterable[str], description: str | None) -> argparse.Namespace:
    """Read the options of a process."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("peer", choices=tuple(peers))
    parser.add_argument("arrays", type=Path)
    parser.add_argument("found", type=Path)
    parser.add_argument("--started", type=float, default=time.time())
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", type=Path)
    text = "Train with whole volumes, if the program can, instead of slices."
    parser.add_argument("--volumes", action="store_true", help=text)
    text = "Spacing of the volumes, for a program that resamples them."
    parser.add_argument("--spacing-mm", nargs=3, type=float, metavar=("Z", "Y", "X"), help=text)
    return parser.parse_args()


def save_cases(path: Path, found: Iterable[np.ndarray]) -> None:
    """Save what was predicted for the test cases, numbered in their order."""
    np.savez(path, **{f"{index:05d}": one for index, one in enumerate(found)})


class Deadline:
    """The wall time of a program.

    Args:
        started: Time at which its process was started.
        seconds: Seconds that it has.

    Attributes:
        reserved_s: Seconds of these that are left for what follows the training.
    """

    def __init__(self, started: float, seconds: float):
        self.end, self._began = started + seconds, time.time()
        self.reserved_s = 0.0

    def reserve(self, seconds: float) -> None:
        """Leave time for what follows the training."""
        self.end -= seconds
        self.reserved_s += seconds

    @property
    def progress(self) -> float:
        """Fraction of the training time that is over; at least 1 at the end."""
        return (time.time() - self._began) / max(1e-6, self.end - self._began)


def reserve_prediction(
    deadline: Deadline, predict: Callable[[np.ndarray], object], images: Sequence[np.ndarray]
) -> None:
    """Time one prediction, and leave time for all."""
    began = time.time()
    largest = max(images, key=lambda image: image.size)
    predict(largest)
    each = (time.time() - began) / largest.size
    deadline.reserve(1.2 * each * sum(image.size for image in images) + 1)


def one_cycle(progress: float, highest: float, warm_up: float = 0.3) -> float:
    """Return the learning rate of PyTorch's OneCycleLR at a fraction of the training."""
    first, last = highest / 25, highest / 25e4
    if progress < warm_up:
        return highest + (first - highest) * (1 + math.cos(math.pi * progress / warm_up)) / 2
    rest = min(1.0, (progress - warm_up) / (1 - warm_up))
    return last + (highest - last) * (1 + math.cos(math.pi * rest)) / 2
