"""StarDist, trained from scratch; `objects.py` runs this script in an environment with it.

StarDist2D and StarDist3D with the settings of StarDist's examples: 32 rays and a grid of 2 x 2 in
images; in volumes 96 rays, and an anisotropy and grid by the extents of the objects. Intensities
are normalized to the percentiles 1 and 99.8 of each channel, patches are turned, mirrored, and
changed in intensity, and the weights with the least validation loss are kept. For a few minutes on
a CPU, patches have 128 x 128 pixels instead of 256 x 256 if they are at least three objects wide,
which allows four times as many steps, and the rate of Adam follows one cycle by the clock.

StarDist has until the end of its minutes, including imports, `optimize_thresholds` on validation
images (the loop over the overlaps ends earlier if there is no time), and the prediction of the test
images.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import stardist
import tensorflow as tf
from csbdeep.utils import normalize
from peer_process import Deadline, one_cycle, read_options, reserve_prediction, save_cases
from stardist.models import Config2D, Config3D, StarDist2D, StarDist3D
from stardist.utils import optimize_threshold

STEPS_PER_EPOCH = 20
HIGHEST_RATE = 1e-3
THRESHOLD_SHARE = 0.08
"""Share of the time for the choice of thresholds, beside the predictions of validation images."""

MAX_TUNED = 4
"""Largest number of validation images for the thresholds."""


@dataclass(frozen=True)
class Part:
    """Normalized images (*S) or (*S, C), and their objects (*S), of a part of the split."""

    images: list[np.ndarray]
    objects: list[np.ndarray]


def load_parts(path: Path) -> dict[str, Part]:
    """Load the arrays of `objects.py`; test images have no objects."""
    parts = {name: Part([], []) for name in ("train", "validation", "test")}
    with np.load(path) as arrays:
        for name in sorted(key for key in arrays.files if key.endswith("/image")):
            part = parts[name.partition("/")[0]]
            image = np.moveaxis(arrays[name].astype(np.float32), 0, -1)
            axes = tuple(range(image.ndim - 1))
            image = normalize(image, 1, 99.8, axis=axes)
            part.images.append(image[..., 0] if image.shape[-1] == 1 else image)
            if "test" not in name:
                objects = arrays[name.replace("/image", "/objects")].astype(np.int32)
                part.objects.append(stardist.fill_label_holes(objects))
    return parts


def build_model(train: Part, folder: str) -> Any:
    """Return a model with the settings of StarDist's examples, and patches that fit the images."""
    dims = train.objects[0].ndim
    channels = 1 if train.images[0].ndim == dims else train.images[0].shape[-1]
    smallest = np.min([objects.shape for objects in train.objects], axis=0)
    settings: dict[str, Any] = {
        "n_channel_in": channels,
        "train_tensorboard": False,
        "train_reduce_lr": None,
        "train_learning_rate": HIGHEST_RATE,
    }
    extents = stardist.calculate_extents(train.objects)
    if dims == 2:
        side = 128 if 3 * extents.max() <= 128 else 256
        patch = fitting_patch(smallest, (side, side), (16, 16))
        config = Config2D(n_rays=32, grid=(2, 2), train_patch_size=patch, **settings)
        return StarDist2D(config, name="model", basedir=folder)
    anisotropy = tuple(float(one) for one in extents.max() / extents)
    grid = tuple(1 if one > 1.5 else 2 for one in anisotropy)
    patch = fitting_patch(smallest, (48, 96, 96), tuple(4 * one for one in grid))
    config = Config3D(
        rays=stardist.Rays_GoldenSpiral(96, anisotropy=anisotropy),
        grid=grid,
        anisotropy=anisotropy,
        train_patch_size=patch,
        train_batch_size=2,
        **settings,
    )
    return StarDist3D(config, name="model", basedir=folder)


def fitting_patch(
    smallest: np.ndarray, wanted: tuple[int, ...], multiple: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the wanted size, reduced to what the smallest image and the network allow."""
    sides = zip(smallest.tolist(), wanted, multiple, strict=True)
    return tuple(
        max(factor, min(length, most) // factor * factor) for length, most, factor in sides
    )


def make_augmenter(
    rng: np.random.Generator,
) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return the augmentation of StarDist's examples: turns, mirroring, intensity and noise.

    Volumes are turned around the z axis only.
    """

    def augment(image: np.ndarray, objects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first = objects.ndim - 2  # The axes y and x; a channel axis follows them.
        plane = (first, first + 1)
        if objects.shape[first] == objects.shape[first + 1]:
            quarters = int(rng.integers(4))
            image, objects = (np.rot90(one, quarters, plane) for one in (image, objects))
        for axis in range(objects.ndim):
            if rng.integers(2):
                image, objects = np.flip(image, axis), np.flip(objects, axis)
        image = image * rng.uniform(0.6, 2) + rng.uniform(-0.2, 0.2)
        image = image + 0.02 * rng.uniform(0, 1) * rng.normal(0, 1, image.shape)
        return image, objects

    return augment


class Clock(keras.callbacks.Callback):
    """Set the rate by the clock, count the steps, and stop when the time is over."""

    def __init__(self, deadline: Deadline):
        super().__init__()
        self.deadline, self.steps = deadline, 0

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        rate = one_cycle(min(1.0, self.deadline.progress), HIGHEST_RATE, warm_up=0.1)
        self.model.optimizer.learning_rate = rate

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.steps += 1
        if self.deadline.progress >= 1:
            self.model.stop_training = True


def train(
    options: argparse.Namespace, deadline: Deadline, folder: str
) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Train, choose thresholds, and predict the test images: label images, and facts."""
    parts = load_parts(options.arrays)
    model = build_model(parts["train"], folder)
    validation = parts["validation"]
    places = np.linspace(0, len(validation.images) - 1, MAX_TUNED).round().astype(int)
    tuned = [(validation.images[i], validation.objects[i]) for i in np.unique(places)]
    reserve_prediction(deadline, model.predict, parts["test"].images)
    test_s = deadline.reserved_s
    reserve_prediction(deadline, model.predict, [image for image, _ in tuned])
    deadline.reserve(THRESHOLD_SHARE * 60 * options.minutes)
    model.prepare_for_training()
    clock = Clock(deadline)
    model.callbacks.append(clock)
    model.train(
        parts["train"].images,
        parts["train"].objects,
        validation_data=(validation.images, validation.objects),
        augmenter=make_augmenter(np.random.default_rng(options.seed)),
        epochs=10_000,
        steps_per_epoch=STEPS_PER_EPOCH,
    )
    until = Deadline(options.started, (1 - THRESHOLD_SHARE / 2) * 60 * options.minutes)
    until.reserve(test_s)
    choose_thresholds(model, tuned, until)
    found = [model.predict_instances(image)[0] for image in parts["test"].images]
    note = f"StarDist {stardist.__version__}, TensorFlow {tf.__version__}, fp32, patches of "
    note += " x ".join(map(str, model.config.train_patch_size))
    return found, {"steps": clock.steps, "note": note, "thresholds": model.thresholds._asdict()}


def choose_thresholds(
    model: Any, tuned: list[tuple[np.ndarray, np.ndarray]], deadline: Deadline
) -> None:
    """Choose the thresholds as `optimize_thresholds` does, as long as there is time."""
    predicted = [model.predict(image)[:2] for image, _ in tuned]
    best = -1.0
    for overlap in (0.4, 0.3, 0.5):
        if best >= 0 and deadline.progress >= 1:
            return
        probability, score = optimize_threshold(
            [objects for _, objects in tuned], predicted, model, overlap, verbose=0
        )
        if score > best:
            best, model.thresholds = score, {"prob": float(probability), "nms": overlap}


def main() -> None:
    options = read_options(["stardist"], __doc__)
    deadline = Deadline(options.started, 60 * options.minutes)
    keras.utils.set_random_seed(options.seed)
    with (
        tempfile.TemporaryDirectory(prefix="stardist-") as folder,
        contextlib.redirect_stdout(sys.stderr),
    ):
        found, facts = train(options, deadline, folder)
    save_cases(options.found, found)
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
