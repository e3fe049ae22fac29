"""What a backend is: one trained network, ready to give logits on one kind of hardware."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from torch import Tensor, nn

from ushape.errors import PlanError

Precision = Literal["bf16", "fp32"]


class Backend(Protocol):
    """A network that several threads may ask at once."""

    @property
    def name(self) -> str:
        """As in BACKENDS."""

    def logits(self, tiles: Tensor) -> Tensor:
        """Raw scores of some tiles.

        Shapes:
            tiles: (B, C, *T) float32 on the CPU or the backend's device, T legal.
            returns: (B, K, *T') float32 on the backend's device, T' = T - 2 margin.

        Raises:
            PlanError: an illegal size.
        """


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a backend is opened with."""

    network: nn.Module
    """Trained, with `legal_size`; it is copied or exported, never changed."""

    device: str = "cpu"
    precision: Precision = "fp32"
    """What convolutions are computed in; bf16 only where the machine has it in hardware."""

    folder: Path | None = None
    """Where exported files are kept for the next time."""

    calibration: Iterable[np.ndarray] = ()
    """Tiles (B, C, *T) that show the range of each layer; read only where int8 is made anew."""


def need(module: str, extra: str) -> Any:
    """An optional package, imported now.

    Raises:
        PlanError: it is not installed; says which extra of ushape brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise PlanError(
            f"This backend needs {module}, which is not installed.",
            hint=f'pip install "ushape[{extra}]" installs it; backend torch needs nothing more.',
        ) from None


def refuse_accelerator(name: str, device: str) -> None:
    """These backends run on the CPU only."""
    if device != "cpu":
        raise PlanError(
            f"Backend {name} runs on the CPU, not on {device}.",
            hint="Take --device cpu, or backend torch or compile.",
        )


def refuse_illegal(network: nn.Module, tiles: Tensor) -> None:
    """Exported graphs fail on an illegal size in words of their own, or not at all."""
    for size in tiles.shape[2:]:
        if (legal := network.legal_size(size)) != size:  # type: ignore[operator]
            raise PlanError(
                f"The network cannot take tiles of {' × '.join(map(str, tiles.shape[2:]))} "
                f"pixels: {size} is not legal.",
                hint=f"The next legal size is {legal}.",
            )


def input_of(network: nn.Module) -> tuple[int, int]:
    """Channels C and spatial dimensions of a network's input, by its first convolution."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            return layer.in_channels, layer.weight.ndim - 2
    raise PlanError(
        f"{type(network).__name__} has no convolution that shows how many channels it takes.",
        hint="Predict with such a network in training precision, without a backend.",
    )
