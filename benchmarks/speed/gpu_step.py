"""Images per second and share of the peak of a training step on a GPU.

    python benchmarks/speed/gpu_step.py [--peak 790]                     # by norm and layout
    python benchmarks/speed/gpu_step.py DATA ... [--minutes 5]           # as it is planned

Without data, each implementation of instance norm is timed in both memory layouts, in bf16 and for
a second each. With data folders, the step is that which `ushape train` plans for each, with random
patches: in the planned format and in the others, with and without cuDNN's search for the fastest
algorithms, which a training makes. Beside it stands the time in which one process loads a batch.
Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ushape.api.plan import TrainOptions, plan_data
from ushape.config import resolved
from ushape.console import Clock, Console
from ushape.models import build_model
from ushape.models.config import NetworkConfig
from ushape.models.layers import InstanceNorm
from ushape.planning.hardware import inspect_machine
from ushape.planning.loading import measure_loading_s
from ushape.planning.timing import Format, TrainingStep, typical_s, with_format

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
    parser.add_argument("data", nargs="*", type=Path)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--peak", type=float, default=790, help="TFLOP/s of bf16 on the GPU")
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    print(f"{torch.cuda.get_device_name()}\n")
    if args.data:
        print_planned_steps(args.data, args.minutes, args.peak)
    else:
        print_norms(args.peak)


def print_planned_steps(folders: list[Path], minutes: float, peak: float) -> None:
    """Time the steps that are planned for data sets."""
    print("| data | batch | format | cuDNN | first step, s | ms | patches/s | peak | loading, ms |")
    print("|---|---|---|---|---|---|---|---|---|")
    for folder in folders:
        options = TrainOptions.resolve(data=folder, minutes=minutes)
        machine = inspect_machine("cuda")
        found, planned = plan_data(folder, None, options, machine, Clock(), Console(quiet=True))
        plan = planned.plan
        recipe, preprocessing = plan.recipe, plan.preprocessing
        facts = [fact for fact in found.facts if fact.case.id in set(planned.splits.train)]
        loading_s = measure_loading_s(recipe, preprocessing, facts, machine, 5) or math.nan
        batch, patch = resolved(recipe.train.batch_size), resolved(recipe.sampling.patch_shape)
        chosen = Format(resolved(recipe.train.precision), resolved(recipe.train.channels_last))
        formats = dict.fromkeys((chosen, *(Format("bf16", last) for last in (False, True))))
        for one in formats:
            for search in (True, False):
                torch.backends.cudnn.benchmark = search
                step = TrainingStep(
                    with_format(recipe, one),
                    recipe.preprocessing.input_channels(preprocessing.channels),
                    preprocessing.space,
                    "cuda",
                )
                began = time.perf_counter()
                with FlopCounterMode(display=False) as counter:
                    step.run()
                first_s = time.perf_counter() - began
                seconds = typical_s(step.run, 3)
                print(
                    f"| {folder.name} | {batch} x {' x '.join(map(str, patch))} | {one} | "
                    f"{'searches' if search else 'default'} | {first_s:.1f} | "
                    f"{1000 * seconds:.1f} | "
                    f"{batch / seconds:.0f} | "
                    f"{counter.get_total_flops() / seconds / peak / 1e12:.1%} | "
                    f"{1000 * loading_s:.0f} |",
                    flush=True,
                )


def print_norms(peak: float) -> None:
    """Time a network of fixed widths with each implementation of instance norm."""
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
                    f"{flop / seconds / peak / 1e12:.0%} |",
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
