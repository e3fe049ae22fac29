"""The network of `eager`, compiled: each new tile shape costs seconds once, then less time."""

from __future__ import annotations

import os
import shutil
import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ushape.errors import PlanError
from ushape.prediction.backends.backend import Request
from ushape.prediction.backends.eager import TorchBackend, open_torch

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
