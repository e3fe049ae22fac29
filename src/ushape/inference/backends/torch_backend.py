"""The trained network in PyTorch, made fast for prediction: folded, bf16 weights, channels-last.

Measured against autocast of the trained network, both channels-last, in turns, on 2 busy cores of
a Zen 5 (medians, 32-wide, 5 levels, batch norm): 0.97 of its time on a tile of 512 x 512, 0.90 on
2048 x 2048. Folded under autocast instead: 0.99 and 0.92.
"""

from __future__ import annotations

import copy
import itertools
import os
import shutil
import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ushape.errors import PlanError
from ushape.inference.backends.base import Precision, Request, input_of
from ushape.planning.step_time import memory_format

DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class TorchBackend:
    """Logits from a network that `prepare` made, perhaps compiled."""

    name: str
    network: nn.Module
    device: str
    dtype: torch.dtype
    layout: torch.memory_format

    @torch.inference_mode()
    def logits(self, tiles: Tensor) -> Tensor:
        # Cast before the journey: half as many bytes travel to an accelerator.
        batch = tiles.to(self.dtype).to(self.device)
        found: Tensor = self.network(batch.contiguous(memory_format=self.layout))
        return found.float()


def open_torch(request: Request) -> TorchBackend:
    """The network as it is, in PyTorch."""
    return _open(request, "torch", prepare(request.network))


def prepare(network: nn.Module) -> nn.Module:
    """A copy in float32 for prediction, its batch norms folded into the convolutions before."""
    prepared = copy.deepcopy(network).float().eval()
    for layer in prepared.modules():
        if isinstance(layer, nn.Sequential):
            _fold(layer)
    return prepared.requires_grad_(False)


def _open(request: Request, name: str, network: nn.Module) -> TorchBackend:
    dtype = DTYPES[request.precision]
    layout = memory_format(input_of(network)[1], channels_last=True)
    network.to(request.device, dtype).to(memory_format=layout)  # type: ignore[call-overload]
    return TorchBackend(name, network, request.device, dtype, layout)


def _fold(layers: nn.Sequential) -> None:
    """Takes the place of each convolution and the batch norm right after it."""
    for index, (layer, norm) in enumerate(itertools.pairwise(list(layers))):
        if isinstance(layer, nn.Conv2d | nn.Conv3d) and isinstance(
            norm, nn.BatchNorm2d | nn.BatchNorm3d
        ):
            layers[index] = fuse_conv_bn_eval(layer, norm)
            layers[index + 1] = nn.Identity()


COMPILERS = ("g++", "clang++", "c++", "cl")


@dataclass(frozen=True)
class CompiledBackend:
    """Says what to do where the compiler fails, which shows at the first tile only."""

    inner: TorchBackend
    name: str = "compile"

    def logits(self, tiles: Tensor) -> Tensor:
        try:
            return self.inner.logits(tiles)
        except Exception as error:
            # torch has no common parent for what its compilers raise.
            if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise _failed(str(error).strip().splitlines()[0]) from error
            raise


def has_compiler() -> bool:
    """A C++ compiler is there, as torch.compile needs it on a CPU."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), *COMPILERS) if name)


def open_compiled(request: Request) -> CompiledBackend:
    """torch.compile with the weights frozen into the code.

    Raises:
        PlanError: no compiler.
    """
    if request.device == "cpu" and not has_compiler():
        raise _failed(f"none of {', '.join(COMPILERS)} is there")
    inner = open_torch(request)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of torch's own modules, which are imported here.
        network: Any = torch.compile(inner.network, dynamic=False, options={"freezing": True})
    return CompiledBackend(replace(inner, name="compile", network=network))


def _failed(why: str) -> PlanError:
    return PlanError(
        f"torch.compile found no compiler that works: {why}.",
        hint="Install g++ or name a compiler in CXX; backend torch needs none.",
    )
