"""Backends that compute a trained network. To add one, write an opener and list it in BACKENDS."""

from __future__ import annotations

import importlib.util
import os
import shutil
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ushape.errors import PlanError
from ushape.inference.backends.export import open_onnx
from ushape.inference.backends.openvino import open_int8, open_openvino
from ushape.inference.network import (
    BackendOptions,
    Network,
    Precision,
    TorchNetwork,
    compiler_error,
    input_of,
    prepare,
)
from ushape.planning.hardware import memory_format

DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp32": torch.float32}

COMPILERS = ("g++", "clang++", "c++", "cl")


def open_torch(module: nn.Module, options: BackendOptions) -> TorchNetwork:
    """Open the network in PyTorch: batch norms folded, channels-last, bf16 weights.

    Measured against autocast of the trained network, both channels-last, in turns, on 2 busy cores
    of a Zen 5 (medians, 32-wide, 5 levels, batch norm): 0.97 of its time on a tile of 512 x 512,
    0.90 on 2048 x 2048. Folded under autocast instead: 0.99 and 0.92.
    """
    layout = memory_format(input_of(module)[1], channels_last=True)
    prepared = prepare(module).to(options.device, DTYPES[options.precision])
    return TorchNetwork(prepared.to(memory_format=layout), layout)  # type: ignore[call-overload]


def open_compiled(module: nn.Module, options: BackendOptions) -> TorchNetwork:
    """Open the network with torch.compile, its weights frozen into the code.

    Raises:
        PlanError: if there is no compiler.
    """
    if options.device == "cpu" and not has_compiler():
        raise compiler_error(f"none of {', '.join(COMPILERS)} is installed")
    eager = open_torch(module, options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Modules of torch that are imported here warn.
        compiled: Any = torch.compile(eager.module, dynamic=False, options={"freezing": True})
    return replace(eager, module=compiled, name="compile")


def has_compiler() -> bool:
    """Return whether there is a C++ compiler, which torch.compile needs on a CPU."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), *COMPILERS) if name)


@dataclass(frozen=True)
class Backend:
    """Function that opens a network, and the optional packages that it needs."""

    open: Callable[[nn.Module, BackendOptions], Network]
    packages: tuple[str, ...] = ()


BACKENDS = {
    "torch": Backend(open_torch),
    "compile": Backend(open_compiled),
    "onnx": Backend(open_onnx, ("onnx", "onnxruntime", "onnxscript")),
    "openvino": Backend(open_openvino, ("openvino",)),
    "openvino-int8": Backend(open_int8, ("openvino", "nncf")),
}


def installed() -> list[str]:
    """Return the backends whose packages are installed, without importing them."""
    return [
        name
        for name, backend in BACKENDS.items()
        if all(importlib.util.find_spec(package) for package in backend.packages)
        and (name != "compile" or has_compiler())
    ]


def open_backend(
    name: str,
    module: nn.Module,
    *,
    device: str = "cpu",
    precision: Precision = "fp32",
    folder: Path | None = None,
    calibration: Iterable[np.ndarray] = (),
) -> Network:
    """Open a trained network for prediction.

    Args:
        name: Name of a backend in BACKENDS.
        module: Network with `margin` and `legal_size`; it is copied or exported, never changed.
        precision: bf16 only if the device computes it in hardware; onnx always computes in fp32.
        folder: Folder in which exported files are kept, named by the digest of the weights;
            required by onnx and openvino.
        calibration: Normalized tiles (B, C, *T), float32, for openvino-int8; read only if the
            folder has no quantized network of these weights.

    Raises:
        PlanError: if the name is unknown, a package or a compiler is missing, the backend does
            not run on the device, or the network cannot be exported.
    """
    if name not in BACKENDS:
        raise PlanError(
            f"Backend {name} is unknown.",
            code="unknown_backend",
            hint=f"Known backends: {', '.join(BACKENDS)}.",
        )
    options = BackendOptions(
        device=device, precision=precision, folder=folder, calibration=calibration
    )
    return BACKENDS[name].open(module, options)
