"""Images per second and share of the peak of a training step on a GPU, by norm and layout.

    python benchmarks/speed/gpu_step.py [--peak 790]

The batch and the network are those that the planner chooses on a GPU. Each implementation of
instance norm is timed in both memory layouts, in bf16 and for a second each. Prints a Markdown
table.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ushape.models import build_model
from ushape.models.config import NetworkConfig
from ushape.models.layers import InstanceNorm

SHAPES = {
    (12, 3, 512, 512): (32, 64, 128, 256, 512, 512),
    (12, 3, 256, 256): (32, 64, 128, 256, 512),
}
"""Batches, and the channels of the levels of their network."""


def by_image(norm: InstanceNorm, x: Tensor) -> Tensor:
    """Compute the norm of each image separately, as on a CPU."""
    return torch.cat([norm._norm_channels(image) for image in x.split(1)])


def by_torch(norm: InstanceNorm, x: Tensor) -> Tensor:
    return functional.instance_norm(x, weight=norm.weight, bias=norm.bias, eps=norm.eps)


def by_groups(norm: InstanceNorm, x: Tensor) -> Tensor:
    return functional.group_norm(x, x.shape[1], norm.weight, norm.bias, norm.eps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peak", type=float, default=790, help="TFLOP/s of bf16 on the GPU")
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    print(f"{torch.cuda.get_device_name()}\n")
    print("| batch | instance norm | layout | ms | images/s | share of the peak |")
    print("|---|---|---|---|---|---|")
    for shape, widths in SHAPES.items():
        config = NetworkConfig(widths=widths, stem=1, norm="instance")
        for norm in (by_image, by_torch, by_groups):
            for layout in (torch.contiguous_format, torch.channels_last):
                seconds, flop = time_step(config, shape, norm, layout)
                name = "channels last" if layout == torch.channels_last else "channels first"
                print(
                    f"| {' x '.join(map(str, shape))} | {norm.__name__} | {name} | "
                    f"{1000 * seconds:.1f} | {shape[0] / seconds:.0f} | "
                    f"{flop / seconds / args.peak / 1e12:.0%} |",
                    flush=True,
                )


def time_step(
    config: NetworkConfig,
    shape: tuple[int, ...],
    norm: Callable[[InstanceNorm, Tensor], Tensor],
    layout: torch.memory_format,
) -> tuple[float, int]:
    """Return the seconds of a training step, and its floating-point operations."""
    InstanceNorm.forward = norm  # type: ignore[assignment]
    network = build_model(config, shape[1], 2).cuda().to(memory_format=layout)  # type: ignore[call-overload]
    images = torch.randn(shape, device="cuda").to(memory_format=layout)
    truth = torch.randint(0, 2, (shape[0], *shape[2:]), device="cuda")
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            logits = network(images)
        loss = functional.cross_entropy(logits.float(), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        torch.cuda.synchronize()

    with FlopCounterMode(display=False) as counter:
        step()
    for _ in range(5):
        step()
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < 1:
        step()
        steps += 1
    return (time.perf_counter() - began) / steps, counter.get_total_flops()


if __name__ == "__main__":
    main()
