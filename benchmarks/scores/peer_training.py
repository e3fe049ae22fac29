"""Programs that `peers.py` compares ushape with; it runs this script in their environment.

- smp-resnet18, smp-resnet34: the U-Net of segmentation_models_pytorch as an expert would train it:
  AdamW with a one-cycle rate, batches of 8 crops of 256 x 256, flips and quarter turns,
  cross-entropy and Dice, channels last, and bf16 where the processor has instructions for it.
- monai: the U-Net of MONAI's tutorial unet_training_dict.py: 8 crops of 96 x 96, half of them
  around foreground, quarter turns, Adam with a rate of 1e-3, Dice loss, fp32; the best weights on
  the validation images, predicted in windows of 96 x 96.
- plain: the U-Net of milesial/Pytorch-UNet with its defaults: 64 to 1,024 channels, RMSprop with a
  rate of 1e-5, single images of half the size, cross-entropy and Dice, fp32; the last weights.

A program has until the end of its minutes, including imports and the prediction of the test images.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peer_arrays import (
    Slices,
    crop,
    cross_entropy_and_dice,
    load_slices,
    predict_whole,
    stack,
    standardize,
    to_imagenet,
    to_unit,
    turned,
)
from peer_process import Deadline, one_cycle, read_options, reserve_prediction, save_cases
from scipy.special import expit, softmax
from torch import Tensor, nn
from torch.nn import functional

CROP, TUTORIAL_CROP, BATCH = 256, 96, 8


def has_bf16() -> bool:
    """Return whether the processor has instructions for bf16."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    network.eval()
    with torch.inference_mode():
        yield
    network.train()


Predict = Callable[[np.ndarray], np.ndarray]
"""Probabilities (K, *S) of an image (C, *S)."""


def train_smp(options: argparse.Namespace, deadline: Deadline, encoder: str) -> Outcome:
    """Train the U-Net of segmentation_models_pytorch as an expert would."""
    smp = import_smp()
    data = load_slices(options.arrays, to_imagenet if options.weights else standardize)
    channels = len(data.test[0])
    network = smp.Unet(encoder, encoder_weights=None, in_channels=channels, classes=data.classes)
    note = f"segmentation_models_pytorch {smp.__version__}"
    if options.weights:
        own = network.encoder.state_dict()
        found = torch.load(options.weights, map_location="cpu", weights_only=True)
        fitting = {key: value for key, value in found.items() if key in own}
        network.encoder.load_state_dict(fitting, strict=False)
        note += f", {len(fitting)} of {len(own)} tensors of the encoder loaded"
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=1e-2)
    bf16, rng, steps = has_bf16(), np.random.default_rng(options.seed), 0

    def run(image: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            scores: Tensor = network(image.to(memory_format=torch.channels_last))
        return scores

    def predict(image: np.ndarray) -> np.ndarray:
        with evaluating(network):
            return softmax(predict_whole(run, image), axis=0)

    reserve_prediction(deadline, predict, data.test)
    while (progress := deadline.progress) < 1:
        chosen = rng.integers(len(data.training), size=BATCH)
        crops = [crop(*data.training[i], (CROP, CROP), rng, around=False) for i in chosen]
        images, truth = stack([turned(pair, rng, flips=True) for pair in crops])
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(progress, 1e-3)
        optimizer.zero_grad()
        cross_entropy_and_dice(run(images), truth).backward()
        optimizer.step()
        steps += 1
    return Outcome(predict, data, steps, f"{note}, {'bf16' if bf16 else 'fp32'}")


def import_smp() -> Any:
    """Import segmentation_models_pytorch, also beside a PyTorch without CUDA.

    torchvision of PyPI is built for CUDA. Without its compiled operators, only the module that
    registers them cannot be imported, and nothing here needs it.
    """
    if not torch.version.cuda:
        name = "torchvision._meta_registrations"
        sys.modules[name] = types.ModuleType(name)
    import segmentation_models_pytorch

    return segmentation_models_pytorch


def train_monai(options: argparse.Namespace, deadline: Deadline) -> Outcome:
    """Train MONAI's U-Net as its tutorial unet_training_dict.py does."""
    import monai

    data = load_slices(options.arrays, to_unit, volumes=options.volumes)
    is_binary = data.classes == 2
    window = tutorial_window(data)
    batch = BATCH if len(window) == 2 else BATCH // 4
    network = monai.networks.nets.UNet(
        spatial_dims=len(window),
        in_channels=len(data.test[0]),
        out_channels=1 if is_binary else data.classes,
        channels=(16, 32, 64, 128, 256),
        strides=(2, 2, 2, 2),
        num_res_units=2,
    )
    loss_of = monai.losses.DiceLoss(
        sigmoid=is_binary, softmax=not is_binary, to_onehot_y=not is_binary
    )
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    rng = np.random.default_rng(options.seed)

    def predict(image: np.ndarray) -> np.ndarray:
        with evaluating(network):
            inputs = torch.from_numpy(image.astype(np.float32))[None]
            scores = monai.inferers.sliding_window_inference(inputs, window, 4, network)[0].numpy()
        if is_binary:
            foreground = expit(scores)
            return np.concatenate([1 - foreground, foreground])
        return softmax(scores, axis=0)

    def run_step() -> None:
        crops = draw_crops(data, window, batch, rng)
        images, truth = stack([turned(pair, rng, flips=False) for pair in crops])
        optimizer.zero_grad()
        loss_of(network(images), truth[:, None]).backward()
        optimizer.step()

    steps = train_to_best(network, run_step, predict, data, deadline)
    return Outcome(predict, data, steps, f"MONAI {monai.__version__}, fp32")


def draw_crops(
    data: Slices, window: Sequence[int], batch: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return random crops, up to four from each image, half of them around foreground."""
    chosen = np.repeat(rng.integers(len(data.training), size=max(1, batch // 4)), 4)[:batch]
    return [crop(*data.training[i], window, rng, around=bool(rng.integers(2))) for i in chosen]


def train_to_best(
    network: nn.Module,
    run_step: Callable[[], None],
    predict: Predict,
    data: Slices,
    deadline: Deadline,
) -> int:
    """Train until the deadline, and load the weights that were best on the validation images.

    Time for the prediction of the test images is reserved first. The weights are validated about
    ten times.

    Returns:
        The number of steps.
    """
    reserve_prediction(deadline, predict, data.test)
    steps, best, best_weights, next_validation = 0, -1.0, None, 0.1
    while (progress := deadline.progress) < 1:
        run_step()
        steps += 1
        if progress > next_validation:
            next_validation = progress + 0.1
            score = validation_dice(predict, data)
            if score > best:
                best = score
                best_weights = {k: v.clone() for k, v in network.state_dict().items()}
    if best_weights is not None:
        network.load_state_dict(best_weights)
    return steps


def tutorial_window(data: Slices) -> tuple[int, ...]:
    """Return the size of MONAI's crops: 96 a side, in flat volumes the least multiple of 16."""
    smallest = np.min([mask.shape for _, mask in data.training], axis=0)
    if len(smallest) == 2:
        return TUTORIAL_CROP, TUTORIAL_CROP
    z, *plane = covering_window(smallest, TUTORIAL_CROP)
    return z, min(plane), min(plane)


def covering_window(shape: Sequence[int], most: int) -> tuple[int, ...]:
    """Return the window of multiples of 16 that covers a shape, with at most so many a side."""
    return tuple(min(most, 16 * math.ceil(length / 16)) for length in shape)


def validation_dice(predict: Predict, data: Slices, most: int = 20) -> float:
    """Return the mean Dice of up to so many validation images over foreground classes."""
    places = np.unique(np.linspace(0, len(data.validation) - 1, most).round().astype(int))
    scores = []
    for place in places:
        image, truth = data.validation[place]
        found = predict(image).argmax(0)
        for index in np.unique(truth[truth > 0]):
            overlap = np.sum((found == index) & (truth == index))
            scores.append(2 * overlap / (np.sum(found == index) + np.sum(truth == index)))
    return float(np.mean(scores)) if scores else 0.0


def build_plain_unet(channels: int, classes: int) -> nn.Module:
    """Return the U-Net of milesial/Pytorch-UNet with transposed convolutions."""

    def double(before: int, after: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for inside in (before, after):
            layers += [
                nn.Conv2d(inside, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        return nn.Sequential(*layers)

    class PlainUNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = (64, 128, 256, 512, 1024)
            self.down = nn.ModuleList(
                double(before, after)
                for before, after in zip((channels, *widths), widths, strict=False)
            )
            pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
            self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairs)
            self.join = nn.ModuleList(double(a, b) for a, b in pairs)
            self.head = nn.Conv2d(widths[0], classes, 1)

        def forward(self, x: Tensor) -> Tensor:
            kept = []
            for level, block in enumerate(self.down):
                x = block(functional.max_pool2d(x, 2) if level else x)
                kept.append(x)
            for up, join, skip in zip(self.up, self.join, kept[-2::-1], strict=True):
                x = join(torch.cat([skip, up(x)], dim=1))
            scores: Tensor = self.head(x)
            return scores

    return PlainUNet()


def train_plain(options: argparse.Namespace, deadline: Deadline) -> Outcome:
    """Train the plain U-Net with the defaults of milesial/Pytorch-UNet."""
    data = load_slices(options.arrays, lambda image: image / 255 if image.max() > 1 else image)
    network = build_plain_unet(len(data.test[0]), data.classes)
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.RMSprop(
        network.parameters(), lr=1e-5, weight_decay=1e-8, momentum=0.999, foreach=True
    )
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", patience=5)
    rng, steps = np.random.default_rng(options.seed), 0
    every = max(1, len(data.training) // 5)

    def half(image: np.ndarray) -> Tensor:
        inputs = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None]
        size = [16 * max(1, round(length / 32)) for length in image.shape[1:]]
        return functional.interpolate(inputs, size=size, mode="bicubic", antialias=True)

    def predict(image: np.ndarray) -> np.ndarray:
        with evaluating(network):
            scores = network(half(image).to(memory_format=torch.channels_last))
            full = functional.interpolate(scores, size=image.shape[1:], mode="bilinear")
        return full[0].softmax(0).numpy()

    reserve_prediction(deadline, predict, data.test)
    while deadline.progress < 1:
        image, mask = data.training[rng.integers(len(data.training))]
        inputs = half(image)
        truth = torch.from_numpy(mask.astype(np.float32))[None, None]
        truth = functional.interpolate(truth, size=inputs.shape[2:], mode="nearest")[:, 0].long()
        optimizer.zero_grad(set_to_none=True)
        scores = network(inputs.to(memory_format=torch.channels_last))
        cross_entropy_and_dice(scores, truth).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        steps += 1
        if steps % every == 0 and deadline.progress < 1:
            plateau.step(validation_dice(predict, data, most=5))
    return Outcome(predict, data, steps, "milesial/Pytorch-UNet, own copy of its network, fp32")


@dataclass(frozen=True)
class Outcome:
    """A trained program."""

    predict: Predict
    data: Slices
    steps: int
    note: str


TrainPeer = Callable[[argparse.Namespace, Deadline], Outcome]

PEERS: dict[str, TrainPeer] = {
    "smp-resnet18": lambda options, deadline: train_smp(options, deadline, "resnet18"),
    "smp-resnet34": lambda options, deadline: train_smp(options, deadline, "resnet34"),
    "monai": train_monai,
    "plain": train_plain,
}


def predict_cases(outcome: Outcome) -> Iterator[np.ndarray]:
    """Predict the test images, with the slices of a volume joined: probabilities (K, *S)."""
    images = iter(outcome.data.test)
    for length in outcome.data.lengths:
        own = [outcome.predict(next(images)) for _ in range(max(1, length))]
        yield np.stack(own, axis=1) if length else own[0]


def train_and_save(train: TrainPeer, options: argparse.Namespace) -> None:
    """Train a program, save what it predicts for the test cases, and print facts as JSON."""
    torch.manual_seed(options.seed)
    outcome = train(options, Deadline(options.started, 60 * options.minutes))
    found = [probabilities.argmax(0).astype(np.uint8) for probabilities in predict_cases(outcome)]
    save_cases(options.found, found)
    print(json.dumps({"steps": outcome.steps, "note": outcome.note}))


def main() -> None:
    options = read_options(PEERS, __doc__)
    train_and_save(PEERS[options.peer], options)


if __name__ == "__main__":
    main()
