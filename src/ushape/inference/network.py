"""Protocol of a trained network for prediction, and its implementation in PyTorch."""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ushape.errors import PlanError
from ushape.models import legal_shape
from ushape.planning.hardware import precision_context

Precision = Literal["bf16", "fp32"]
"""Number format in which convolutions are computed."""


class Network(Protocol):
    """A trained network. Several threads may use it at the same time."""

    @property
    def name(self) -> str:
        """Name of the backend, as in `backends.BACKENDS`."""
        ...

    @property
    def margin(self) -> int:
        """Number of pixels that the output lacks on each side of the input."""
        ...

    def legal_size(self, at_least: int) -> int:
        """Return the smallest size, legal along every axis, that is not below `at_least`."""
        ...

    def legal_shape(self, at_least: Sequence[int]) -> tuple[int, ...]:
        """Return the smallest legal input size along each axis that is not smaller."""
        ...

    def logits(self, tiles: Tensor) -> Tensor:
        """Compute the raw scores of some tiles.

        Shapes:
            tiles: (B, C, *T) float32 on the CPU, T legal.
            returns: (B, K, *T') float32 on the CPU, T' = T - 2 margin.

        Raises:
            PlanError: if a size is not legal.
        """
        ...


@dataclass(frozen=True)
class TorchNetwork:
    """A network computed by PyTorch, possibly compiled."""

    module: nn.Module
    """Module in evaluation mode, on its device, with `margin` and `legal_size`."""

    layout: torch.memory_format
    autocast: str = "fp32"
    """Precision of autocast; bf16 for a module with float32 weights."""

    name: str = "torch"

    def __post_init__(self) -> None:
        assert not self.module.training, "normalization and dropout must be set to prediction"

    @property
    def margin(self) -> int:
        return int(self.module.margin)  # type: ignore[arg-type]

    def legal_size(self, at_least: int) -> int:
        return int(self.module.legal_size(at_least))  # type: ignore[operator]

    def legal_shape(self, at_least: Sequence[int]) -> tuple[int, ...]:
        return legal_shape(self.module, at_least)

    @torch.inference_mode()
    def logits(self, tiles: Tensor) -> Tensor:
        weight = next(self.module.parameters())
        # Converted before the transfer: an accelerator then receives half as many bytes of bf16.
        batch = tiles.to(weight.dtype).to(weight.device).contiguous(memory_format=self.layout)
        try:
            with precision_context(weight.device.type, self.autocast):
                return self.module(batch).float().cpu()
        except Exception as error:
            # PyTorch has no common base class for the errors of its compilers.
            if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise compiler_error(str(error).strip().splitlines()[0]) from error
            raise


def prepare(module: nn.Module) -> nn.Module:
    """Return a float32 copy for prediction, batch norms folded into the preceding convolutions."""
    prepared = copy.deepcopy(module).float().eval()
    for layer in prepared.modules():
        if isinstance(layer, nn.Sequential):
            _fold_batch_norms(layer)
    return prepared.requires_grad_(False)


def _fold_batch_norms(layers: nn.Sequential) -> None:
    """Replace each convolution and the batch norm right after it by one convolution."""
    for index, (layer, norm) in enumerate(itertools.pairwise(list(layers))):
        if isinstance(layer, nn.Conv2d | nn.Conv3d) and isinstance(
            norm, nn.BatchNorm2d | nn.BatchNorm3d
        ):
            layers[index] = fuse_conv_bn_eval(layer, norm)
            layers[index + 1] = nn.Identity()


@dataclass
class Slot:
    """Place for one loaded network, shared by several lazy ones."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    owner: LazyNetwork | None = None
    network: Network | None = None


@dataclass(frozen=True, eq=False)
class LazyNetwork:
    """A network that is loaded when it is used and replaces the previous one in the slot."""

    name: str
    margin: int
    legal_size: Callable[[int], int]
    legal_shape: Callable[[Sequence[int]], tuple[int, ...]]
    load: Callable[[], Network]
    slot: Slot

    def logits(self, tiles: Tensor) -> Tensor:
        slot = self.slot
        with slot.lock:
            if slot.owner is not self or slot.network is None:
                slot.owner = slot.network = None  # Frees its memory before the next is loaded.
                slot.owner, slot.network = self, self.load()
            return slot.network.logits(tiles)


@dataclass(frozen=True, kw_only=True)
class BackendOptions:
    """Options with which a backend opens a network."""

    device: str = "cpu"
    precision: Precision = "fp32"
    """Precision of convolutions; bf16 only if the machine computes it in hardware."""

    folder: Path | None = None
    """Folder in which exported files are kept."""

    calibration: Iterable[np.ndarray] = ()
    """Tiles (B, C, *T) that show the range of each layer; read only to quantize a network."""

    def require_cpu(self, name: str) -> None:
        """Raise PlanError if a backend that computes on the CPU is to use another device."""
        if self.device != "cpu":
            raise PlanError(
                f"Backend {name} runs on the CPU, not on {self.device}.",
                code="backend_needs_cpu",
                hint="Use --device cpu, or backend torch or compile.",
            )


def check_tile_size(network: object, tiles: Tensor) -> None:
    """Raise PlanError if a size is not legal; exported graphs fail unclearly, or not at all."""
    shape = tiles.shape[2:]
    for size, legal in zip(shape, legal_shape(network, shape), strict=True):
        if legal != size:
            raise PlanError(
                f"The network cannot process tiles of {' × '.join(map(str, tiles.shape[2:]))} "
                f"pixels: {size} is not a legal size.",
                code="illegal_size",
                hint=f"The next legal size is {legal}.",
            )


def input_of(module: nn.Module) -> tuple[int, int]:
    """Return channels C and spatial dimensions of a network's input, by its first convolution.

    A network whose stem turns pixels into channels specifies C itself, as `in_channels`.

    Raises:
        PlanError: if the network has no convolution.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            return int(getattr(module, "in_channels", layer.in_channels)), layer.weight.ndim - 2
    raise PlanError(
        f"{type(module).__name__} has no convolution that shows its number of input channels.",
        code="network_without_convolution",
        hint="Such a network cannot be used for prediction.",
    )


def compiler_error(why: str) -> PlanError:
    """Return the error for a missing or failing C++ compiler."""
    return PlanError(
        f"torch.compile found no working compiler: {why}.",
        code="missing_compiler",
        hint="Install g++, set CXX to a compiler, or use backend torch.",
    )
