"""What the rules for several classes are worth, on generated tissue with six classes.

    python benchmarks/scores/rare_classes.py [--steps 400] [--seeds 3] [--only "random patches"]

The classes cover 40 % to 1 % of the pixels and differ in brightness and texture. All variants
train for as many steps, on patches of 64 x 64 in images of 256 x 256.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from scipy.spatial import KDTree
from torch import Tensor

import ushape
from ushape.losses import LOSSES
from ushape.losses.overlap import DiceLoss, measure_areas

SHARES = (0.26, 0.4, 0.19, 0.09, 0.035, 0.015, 0.01)
"""Share of the cells of each class, background first."""

SIZE, CELL_PX, DISHES, IMAGES = 256, 22, 10, 40


class DiceOfAllClasses(DiceLoss):
    """The Dice loss as it was before: absent classes are part of the mean, and are pushed down."""

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        areas = measure_areas(self.space, logits, target, weight, per_image=self.per_image)
        above, below = self.fraction(areas)
        return 1 - ((above + self.smooth) / (below + self.smooth)).mean()


LOSSES["dice_of_all_classes"] = lambda space, config: DiceOfAllClasses(space, config.smooth)
RANDOM, EQUAL = "sampling.foreground_fraction=0", "sampling.foreground_fraction=0.33"
PUSHED = "loss.terms={cross_entropy: 1, dice_of_all_classes: 1}"
WEIGHTED = "pixel_weights.class_weights=inverse_log"
VARIANTS = {
    "random patches, absent classes pushed down (before)": [RANDOM, PUSHED],
    "rare classes sought, absent classes pushed down": [PUSHED],
    "a third on classes in equal shares, absent classes left out": [EQUAL],
    "rare classes sought, absent classes left out (now)": [],
    "the same, with inverse_log class weights": [WEIGHTED],
}


def make_tissue(dish: np.random.Generator, field: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Return image and mask, each (y, x) uint8."""
    axis = np.arange(-CELL_PX, SIZE + CELL_PX, CELL_PX)
    centers = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2).astype(float)
    centers += field.uniform(-0.45, 0.45, centers.shape) * CELL_PX
    places = np.stack(np.indices((SIZE, SIZE)), -1).astype(float)
    owner = KDTree(centers).query(places)[1]
    classes = field.choice(len(SHARES), len(centers), p=SHARES)[owner].astype(np.uint8)
    light = 0.35 + 0.05 * classes + dish.normal(0, 0.03)
    for index in range(1, len(SHARES)):
        angle = np.pi * index / 6
        wave = places @ np.array([np.sin(angle), np.cos(angle)]) * 2 * np.pi / (4 + index % 3)
        light = np.where(classes == index, light + 0.12 * np.sin(wave), light)
    light = ndimage.gaussian_filter(light, 0.7) + field.normal(0, 0.06, light.shape)
    return (255 * light.clip(0, 1)).astype(np.uint8), classes


def write_tissue(folder: Path, seed: int) -> None:
    """Write images and masks of several dishes."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for index in range(IMAGES):
        dish, number = index % DISHES, index // DISHES
        pixels = make_tissue(
            np.random.default_rng([seed, dish]), np.random.default_rng([seed, dish, number + 1])
        )
        for name, array in zip(("images", "masks"), pixels, strict=True):
            Image.fromarray(array).save(folder / name / f"dish{dish:02d}_{number}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=VARIANTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="ushape-classes-"))
    found: dict[str, list[list[float]]] = {}
    for seed in range(options.seeds):
        write_tissue(folder / f"data{seed}", seed)
        for place, name in enumerate([options.only] if options.only else VARIANTS):
            result = ushape.train(
                folder / f"data{seed}",
                output=folder / f"run{seed}-{place}",
                epochs=4,
                seed=seed,
                settings=[
                    f"train.steps_per_epoch={options.steps // 4}",
                    "train.batch_size=4",
                    "sampling.patch_shape=[64,64]",
                    "network.widths=[16,32,64]",
                    "predict.tune=false",
                    *VARIANTS[name],
                ],
                quiet=True,
            )
            dice = [own.mean_dice or 0.0 for own in result.summary.classes]
            found.setdefault(name, []).append(dice)
            print(seed, name, np.round(dice, 3), round(float(np.mean(dice)), 4), flush=True)
    print("\n| variant | mean Dice of the seeds | mean | two rarest classes |\n|---|---|---|---|")
    for name, rows in found.items():
        means = ", ".join(f"{np.mean(row):.3f}" for row in rows)
        rare = np.mean([row[-2:] for row in rows])
        print(f"| {name} | {means} | {np.mean(rows):.3f} | {rare:.3f} |")


if __name__ == "__main__":
    main()
