"""How long it takes to measure one pair of 512 x 512 pixels, and an interval over 1,000 groups.

    python benchmarks/speed/scores.py [--rounds 7]

Three kinds of pairs: a lesion, cells that fill the image, and noise as the worst case. One thread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from scipy import ndimage

from ushape.evaluation.case_metrics import CaseTruth, compute_case_metrics
from ushape.evaluation.scores import score_case
from ushape.instances.label import ObjectConfig
from ushape.labels import LabelSpace
from ushape.metrics.stats import bootstrap_mean
from ushape.metrics.topology import score_section
from ushape.types import Prediction

SIDE = 512
SPACE = LabelSpace(values=(0, 1), names=("background", "object"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    print("| pair | all of a case, ms | topology, ms | together |")
    print("|---|---|---|---|")
    for name, sigma, cut in (("lesion", 40, 1.5), ("cells", 8, -0.3), ("noise", 0, 0.0)):
        prediction, truth = make_pair(rng, sigma, cut)
        case = measure(rounds, lambda p=prediction, t=truth: measure_all(p, t))
        guess, wanted = prediction.classes > 0, truth > 0
        topology = measure(rounds, lambda g=guess, w=wanted: score_section(g, w))
        print(f"| {name} | {case:.0f} | {topology:.0f} | {case + topology:.0f} |")
    values = rng.beta(8, 1, 1000).tolist()
    interval = measure(rounds, lambda: bootstrap_mean(values, seed=0))
    print(f"\nInterval over 1,000 groups, 10,000 resamples: {interval:.0f} ms")


def make_pair(rng: np.random.Generator, sigma: float, cut: float) -> tuple[Prediction, np.ndarray]:
    def field() -> np.ndarray:
        raw = rng.normal(size=(SIDE, SIDE))
        smooth = ndimage.gaussian_filter(raw, sigma) if sigma else raw
        return smooth / smooth.std()

    truth_field = field()
    guess_field = truth_field + 0.3 * field()
    shares = (1 / (1 + np.exp(-4 * (guess_field - cut)))).astype(np.float32)
    classes = (shares >= 0.5).astype(np.uint8)
    return Prediction(probabilities=shares[None], classes=classes), (truth_field > cut).astype("u1")


def measure_all(prediction: Prediction, truth: np.ndarray) -> None:
    compute_case_metrics(prediction, CaseTruth(classes=truth), SPACE, how=ObjectConfig())
    score_case("x", "x", prediction.classes, truth, SPACE)


def measure(rounds: int, work: Callable[[], object]) -> float:
    """Median milliseconds."""
    times = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[1:])


if __name__ == "__main__":
    main()
