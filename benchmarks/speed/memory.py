"""Memory of a training step: what the planner expects against what a process then claims.

    python benchmarks/speed/memory.py

Each row is a process of its own: network, loss, AdamW, three steps; the peak of its resident
memory, less what it had with everything imported and run once on a few pixels.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from typing import Any

import psutil

CASES: tuple[dict[str, Any], ...] = tuple(
    {"widths": widths, "norm": norm, "block": block, "half": half, "batch": batch, "patch": patch}
    for widths, norm, block, half, batch, patch in (
        ((16, 32, 64, 128, 256, 256), "batch", "plain", True, 1, (256, 256)),
        ((16, 32, 64, 128, 256, 256), "batch", "plain", True, 4, (256, 256)),
        ((16, 32, 64, 128, 256, 256), "instance", "plain", True, 12, (256, 256)),
        ((16, 32, 64, 128, 256, 256), "none", "plain", False, 4, (256, 256)),
        ((32, 64, 128, 256, 512), "batch", "plain", False, 4, (256, 256)),
        ((32, 64, 128, 256, 512), "instance", "plain", True, 2, (512, 512)),
        ((32, 64, 128, 256), "batch", "residual", True, 4, (256, 256)),
        ((64, 128, 256, 512, 1024), "none", "plain", True, 1, (512, 512)),
        ((16, 32, 64, 128), "instance", "plain", True, 2, (32, 96, 96)),
        ((16, 32, 64, 128), "batch", "plain", False, 2, (32, 96, 96)),
    )
)


def main() -> None:
    print("| widths | norm | block | format | batch | expected, GB | peak, GB | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for case in CASES:
        command = [sys.executable, __file__, json.dumps(case)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        expected, peak = json.loads(done.stdout.splitlines()[-1])
        size = " × ".join(map(str, (case["batch"], *case["patch"])))
        print(
            f"| {', '.join(map(str, case['widths']))} | {case['norm']} | {case['block']} "
            f"| {'bf16' if case['half'] else 'fp32'} | {size} | {expected / 1e9:.2f} "
            f"| {peak / 1e9:.2f} | {expected / peak:.2f} |",
            flush=True,
        )


def measure(case: dict[str, Any]) -> tuple[int, int]:
    """Expected and peak bytes of a step."""
    import torch

    from ushape.models import memory_estimate
    from ushape.models.config import NetworkConfig
    from ushape.planning.hardware import reuse_freed_memory

    reuse_freed_memory()
    patch = tuple(case["patch"])
    dtype = torch.bfloat16 if case["half"] else torch.float32
    kind = {"norm": case["norm"], "block": case["block"], "dims": len(patch)}
    train(NetworkConfig(widths=(2, 4), **kind), (1, 3, *[16] * len(patch)), dtype, steps=1)
    before = psutil.Process().memory_info().rss
    config = NetworkConfig(widths=tuple(case["widths"]), **kind)
    expected = memory_estimate(config, 3, case["batch"], patch, dtype=dtype)
    peak, is_done = [0], threading.Event()

    def watch() -> None:
        while not is_done.is_set():
            peak[0] = max(peak[0], psutil.Process().memory_info().rss)
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    train(config, (case["batch"], 3, *patch), dtype, steps=3)
    is_done.set()
    watcher.join()
    return expected, peak[0] - before


def train(config: Any, shape: tuple[int, ...], dtype: Any, *, steps: int) -> None:
    import torch

    from ushape.labels import LabelSpace
    from ushape.losses import LossConfig, build_loss
    from ushape.models import build_model
    from ushape.planning.hardware import memory_format

    layout = memory_format(config.dims, channels_last=True)
    network = build_model(config, shape[1], 1).to(memory_format=layout)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    space = LabelSpace(values=(0, 1), names=("background", "foreground"))
    loss = build_loss(LossConfig(), space, deep_supervision=False)
    image = torch.randn(shape).to(memory_format=layout)
    target, weight = torch.zeros(shape[0], 1, *shape[2:]), torch.ones(shape[0], 1, *shape[2:])
    for _ in range(steps):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            value = loss(network(image), target, weight)
        value.backward()
        optimizer.step()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(json.loads(sys.argv[1]))))
    else:
        main()
