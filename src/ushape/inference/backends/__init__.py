"""Backends: what computes a trained network's logits. A new one is an opener and a line here."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from ushape.errors import PlanError
from ushape.inference.backends.base import Backend, Precision, Request
from ushape.inference.backends.onnx import open_onnx
from ushape.inference.backends.openvino import open_int8, open_openvino
from ushape.inference.backends.torch_backend import has_compiler, open_compiled, open_torch

__all__ = [
    "BACKENDS",
    "Backend",
    "Difference",
    "Precision",
    "Request",
    "compare",
    "installed",
    "measure_speed",
    "open_backend",
]


@dataclass(frozen=True)
class Kind:
    """How a backend is opened, and the packages without which it cannot be."""

    open: Callable[[Request], Backend]
    packages: tuple[str, ...] = ()


BACKENDS = {
    "torch": Kind(open_torch),
    "compile": Kind(open_compiled),
    "onnx": Kind(open_onnx, ("onnx", "onnxruntime")),
    "openvino": Kind(open_openvino, ("onnx", "openvino")),
    "openvino-int8": Kind(open_int8, ("onnx", "openvino", "nncf")),
}


def installed() -> list[str]:
    """The backends whose packages are here; none of them is imported."""
    return [
        name
        for name, kind in BACKENDS.items()
        if all(importlib.util.find_spec(package) for package in kind.packages)
        and (name != "compile" or has_compiler())
    ]


def open_backend(
    name: str,
    network: nn.Module,
    *,
    device: str = "cpu",
    precision: Precision = "fp32",
    folder: Path | None = None,
    calibration: Iterable[np.ndarray] = (),
) -> Backend:
    """A trained network, ready to predict.

    Args:
        name: One of BACKENDS.
        network: With `legal_size`; it is copied or exported, never changed.
        precision: bf16 only where the device has it in hardware; onnx computes in fp32 always.
        folder: Where exported files are kept, by the weights' digest: onnx and openvino need it.
        calibration: Tiles (B, C, *T), float32 and scaled as for the network, for openvino-int8;
            read only where the folder has no quantised network of these weights.

    Raises:
        PlanError: an unknown name, a package or a compiler that is missing, a device that the
            backend does not run on, a network that cannot be exported.
    """
    if name not in BACKENDS:
        raise PlanError(f"There is no backend {name}.", hint=f"Known are {', '.join(BACKENDS)}.")
    request = Request(
        network=network,
        device=device,
        precision=precision,
        folder=folder,
        calibration=calibration,
    )
    return BACKENDS[name].open(request)
