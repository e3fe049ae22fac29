"""Programs that `volumes.py` compares ushape with; it runs this script in their environment.

- monai-spleen: the U-Net of MONAI's tutorial spleen_segmentation_3d.ipynb: 16 to 256 channels with
  strides of 2, two residual units, batch norm; Adam with a rate of 1e-4, Dice loss of the softmax,
  fp32; 4 crops of 96 x 96 x 96 from each of 2 volumes, half of them around foreground, without
  augmentation; predicted in windows of 160 x 160 x 160, with the weights that were best on the
  validation volumes. Slices are resampled until they are 4/3 as far apart as their pixels, as in
  the tutorial's 2 x 1.5 x 1.5 mm; their size in pixels remains.
- monai-spleen-grid: the same on the grid of the files.
- monai: the U-Net of the tutorial unet_training_dict.py, as in `peer_training.py`, with whole
  volumes on the grid of the files: instance norm, a rate of 1e-3, 2 crops, quarter turns.

Crops and windows are at most as large as the least multiple of 16 that covers a volume. In place of
the tutorial's range for CT, the values of a volume are clipped at the percentiles 0.5 and 99.5.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import numpy as np
import torch
from peer_arrays import load_slices, stack
from peer_process import Deadline, read_options
from peer_training import (
    BATCH,
    Outcome,
    TrainPeer,
    covering_window,
    draw_crops,
    evaluating,
    train_and_save,
    train_monai,
    train_to_best,
    tutorial_window,
)
from scipy.special import softmax
from torch.nn import functional

WIDEST_WINDOW = 160

PROPORTION = 2 / 1.5
"""Distance of the slices in pixels of a slice, after resampling."""


def train_spleen(
    options: argparse.Namespace, deadline: Deadline, *, resampled: bool = True
) -> Outcome:
    """Train MONAI's U-Net as its tutorial spleen_segmentation_3d does.

    Args:
        resampled: Whether the volumes are resampled by their spacing.
    """
    import monai

    data = load_slices(options.arrays, clip_to_unit, volumes=True)
    factor = slice_factor(options.spacing_mm) if resampled else 1.0
    near = [
        (resize(image, factor), resize(mask[None], factor, "nearest-exact")[0])
        for image, mask in data.training
    ]
    resized = replace(data, training=near)
    window = tutorial_window(resized)
    network = monai.networks.nets.UNet(
        spatial_dims=3,
        in_channels=len(data.test[0]),
        out_channels=data.classes,
        channels=(16, 32, 64, 128, 256),
        strides=(2, 2, 2, 2),
        num_res_units=2,
        norm="batch",
    )
    loss_of = monai.losses.DiceLoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    rng = np.random.default_rng(options.seed)

    def predict(image: np.ndarray) -> np.ndarray:
        inputs = torch.from_numpy(resize(image, factor))[None]
        roi = covering_window(inputs.shape[2:], WIDEST_WINDOW)
        with evaluating(network):
            scores = monai.inferers.sliding_window_inference(inputs, roi, 4, network)
            scores = functional.interpolate(scores, image.shape[1:], mode="trilinear")
        return softmax(scores[0].numpy(), axis=0)

    def run_step() -> None:
        images, truth = stack(draw_crops(resized, window, BATCH, rng))
        optimizer.zero_grad()
        loss_of(network(images), truth[:, None]).backward()
        optimizer.step()

    steps = train_to_best(network, run_step, predict, data, deadline)
    note = f"MONAI {monai.__version__}, fp32, slices resampled by {factor:.3g}"
    return Outcome(predict, data, steps, f"{note}, crops of {' x '.join(map(str, window))}")


def clip_to_unit(image: np.ndarray) -> np.ndarray:
    """Scale a volume (C, *S) to [0, 1] by its percentiles 0.5 and 99.5, and clip it."""
    low, high = np.percentile(image, (0.5, 99.5))
    return np.clip((image - low) / max(high - low, 1e-8), 0, 1).astype(np.float32)


def slice_factor(spacing_mm: tuple[float, float, float]) -> float:
    """Return by how much the number of slices is multiplied, so that they have PROPORTION."""
    z, y, x = spacing_mm
    return z / min(y, x) / PROPORTION


def resize(volume: np.ndarray, factor: float, mode: str = "trilinear") -> np.ndarray:
    """Multiply the number of slices of a volume (C, *S) by a factor."""
    if factor == 1:
        return volume
    size = [max(1, round(factor * volume.shape[1])), *volume.shape[2:]]
    return functional.interpolate(torch.from_numpy(volume)[None], size, mode=mode)[0].numpy()


PEERS: dict[str, TrainPeer] = {
    "monai-spleen": train_spleen,
    "monai-spleen-grid": lambda options, deadline: train_spleen(options, deadline, resampled=False),
    "monai": train_monai,
}


def main() -> None:
    options = read_options(PEERS, __doc__)
    options.volumes = True
    with np.load(options.arrays) as arrays:
        if arrays["test/00000/image"].ndim != 4:
            sys.exit("These programs are trained with volumes, but the set has images.")
    train_and_save(PEERS[options.peer], options)


if __name__ == "__main__":
    main()
