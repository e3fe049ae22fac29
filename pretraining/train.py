"""Train the initial weights of short trainings on generated scenes only, and write them.

python pretraining/train.py OUT.safetensors --device cuda --seconds 300
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from scenes import STRUCTURES, SceneGenerator
from torch import Tensor, nn
from torch.nn import functional

from ushape.models.pretrained import SYNTHETIC_CONFIG
from ushape.models.unet import UNet

DEPTH_SHARES = {5: 0.4, 4: 0.45, 3: 0.15}
"""Share of the steps that use a number of levels."""

SIZES = {128: 0.75, 256: 0.25}
"""Share of the steps with scenes of a size in pixels, at an equal number of pixels."""

PEAK_RATE, WARMUP = 3e-3, 0.03


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="file of weights to write")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--seconds", type=float, default=300, help="duration of the training")
    parser.add_argument("--batch", type=int, default=96, help="scenes of 128 x 128 pixels a step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="file of weights to continue from")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    network = UNet(SYNTHETIC_CONFIG, 3, len(STRUCTURES)).to(
        args.device, memory_format=torch.channels_last
    )
    if args.start is not None:
        network.load_state_dict({k: v.float() for k, v in load_file(args.start).items()})
    steps = train(network, args.device, args.seconds, args.batch, args.seed)
    scores = validate(network, args.device)
    print(f"{steps} steps; Dice on new scenes: {scores}", flush=True)
    rescale_kernels(network)
    tensors = {name: value.half().cpu() for name, value in network.state_dict().items()}
    save_file({name: value.contiguous() for name, value in tensors.items()}, args.out)


def train(network: UNet, device: str, seconds: float, batch: int, seed: int) -> int:
    """Train for a number of seconds with a rate that falls to zero, and return the steps."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, weight_decay=1e-4, fused=True)
    chance = torch.Generator().manual_seed(seed)
    scenes = SceneGenerator(device, seed)
    began, steps, told = time.perf_counter(), 0, 0.0
    while (progress := (time.perf_counter() - began) / seconds) < 1:
        rise, fall = progress / WARMUP, 0.5 + 0.5 * math.cos(math.pi * progress)
        for group in optimizer.param_groups:
            group["lr"] = PEAK_RATE * min(rise + 1e-3, fall)
        size = draw(SIZES, chance)
        drawn = scenes.draw(max(1, batch * 128**2 // size**2), size)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            logits = run_levels(network, drawn.images, draw(DEPTH_SHARES, chance))
        loss = overlap_and_entropy(logits.float(), drawn.masks)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        steps += 1
        if progress - told > 0.1:
            told = progress
            print(f"{steps} steps, loss {loss.item():.3f}", flush=True)
    return steps


@torch.no_grad()
def rescale_kernels(network: UNet) -> None:
    """Give each kernel before a norm the size of its random initial values.

    The norm removes the size of a kernel, which grew two to five times. The larger it is, the less
    a step of the optimizer turns the kernel: otherwise, a network learns new images more slowly.
    """
    for block in (*network.encoder.blocks, *network.decoder.blocks):
        for layer in block.modules():
            if isinstance(layer, nn.Conv2d):
                fan_in = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
                layer.weight *= math.sqrt(2 / fan_in) / layer.weight.pow(2).mean().sqrt()


def draw(shares: dict[int, float], chance: torch.Generator) -> int:
    """Draw a key with the probability that is its value."""
    weights = torch.tensor(list(shares.values()))
    return list(shares)[int(torch.multinomial(weights, 1, generator=chance))]


def run_levels(network: UNet, images: Tensor, levels: int) -> Tensor:
    """Return logits (B, K, S, S) of the network without its coarsest levels."""
    x = functional.pixel_unshuffle(images, network.factor)
    x = x.contiguous(memory_format=torch.channels_last)
    encoder, decoder = network.encoder, network.decoder
    features = [encoder.blocks[0](x)]
    for down, block in zip(
        list(encoder.downs)[: levels - 1], list(encoder.blocks)[1:levels], strict=True
    ):
        features.append(block(down(features[-1])))
    skipped = len(encoder.blocks) - levels
    x = features[-1]
    parts = zip(
        list(decoder.ups)[skipped:], list(decoder.blocks)[skipped:], features[-2::-1], strict=True
    )
    for up, block, skip in parts:
        x = block(torch.cat([skip, up(x)], dim=1))
    return functional.pixel_shuffle(network.heads[0](x), network.factor)


def overlap_and_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the sum of binary cross-entropy and, for structures that are present, 1 - Dice."""
    entropy = functional.binary_cross_entropy_with_logits(logits, masks)
    guess = logits.sigmoid()
    common, total = (guess * masks).sum((2, 3)), guess.sum((2, 3)) + masks.sum((2, 3))
    present = (masks.sum((2, 3)) > 0).float()
    overlap = 1 - (2 * common + 1) / (total + 1)
    return entropy + (overlap * present).sum() / present.sum().clamp(min=1)


@torch.no_grad()
def validate(network: UNet, device: str) -> dict[str, dict[int, float]]:
    """Return the Dice of each structure on 256 new scenes, by the number of levels."""
    scores: dict[str, dict[int, float]] = {name: {} for name in STRUCTURES}
    for levels in DEPTH_SHARES:
        scenes = SceneGenerator(device, 10**6)
        common, total = torch.zeros(2, len(STRUCTURES), device=device).unbind()
        for _ in range(16):
            drawn = scenes.draw(16, 128)
            guess = run_levels(network, drawn.images, levels) > 0
            common += (guess * drawn.masks).sum((0, 2, 3))
            total += guess.sum((0, 2, 3)) + drawn.masks.sum((0, 2, 3))
        for name, value in zip(STRUCTURES, (2 * common / total).tolist(), strict=True):
            scores[name][levels] = round(value, 4)
    return scores


if __name__ == "__main__":
    main()
