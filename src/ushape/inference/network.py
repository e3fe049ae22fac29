"""A trained network as what tiles are shown to: in torch as it is, or by a backend."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ushape.inference.backends import Backend
from ushape.planning.step_time import precision_context


@dataclass(frozen=True)
class Eager:
    """A network computed by torch, as it is; safe to use from several threads."""

    module: nn.Module
    """With `margin` and `legal_size`, on its device."""

    precision: str
    layout: torch.memory_format

    def __post_init__(self) -> None:
        assert not self.module.training, "normalization and dropout must be set to prediction"

    @property
    def margin(self) -> int:
        return int(self.module.margin)  # type: ignore[arg-type]

    def legal_size(self, at_least: int) -> int:
        return int(self.module.legal_size(at_least))  # type: ignore[operator]

    @torch.inference_mode()
    def logits(self, tiles: Tensor) -> Tensor:
        weight = next(self.module.parameters())
        batch = tiles.to(weight.device, weight.dtype, memory_format=self.layout)
        with precision_context(weight.device.type, self.precision):
            return self.module(batch).float().cpu()


class Slot:
    """Room for one opened backend, that which was asked last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: tuple[Swapped, Backend] | None = None

    def logits(self, asked: Swapped, tiles: Tensor) -> Tensor:
        with self._lock:
            if self._held is None or self._held[0] is not asked:
                self._held = None  # Before the next one is opened.
                self._held = asked, asked.open()
            return self._held[1].logits(tiles)


@dataclass(frozen=True, eq=False)
class Swapped:
    """A backend that is opened whenever another one had its slot in between: of many networks, one
    is in memory at a time."""

    name: str
    slot: Slot
    open: Callable[[], Backend]

    def logits(self, tiles: Tensor) -> Tensor:
        return self.slot.logits(self, tiles)


@dataclass(frozen=True)
class Computed:
    """A network computed by a backend."""

    backend: Backend
    margin: int
    legal_size: Callable[[int], int]

    @property
    def name(self) -> str:
        return self.backend.name

    def logits(self, tiles: Tensor) -> Tensor:
        return self.backend.logits(tiles).cpu()
