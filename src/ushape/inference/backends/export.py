"""A network as an ONNX file: exported once, checked against the network, kept on disk."""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from ushape.errors import PlanError
from ushape.inference.backends.base import Backend, Request, input_of, need
from ushape.inference.backends.torch_backend import prepare
from ushape.models.layers import InstanceNorm

FORMAT = 1
"""To be raised whenever the exported graph changes, so that older files are not taken for it."""

TOLERANCE = 1e-3
"""Share of the largest logit by which an exported network may differ."""

FILE = "model.onnx"

Reopen = Callable[[Path], Backend]


class InstanceNormOfBatch(nn.Module):
    """Instance norm as one operation on the whole batch, which ONNX has a word for.

    Shapes:
        x: (B, C, *S) -> (B, C, *S).
    """

    def __init__(self, norm: InstanceNorm):
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        # functional.instance_norm is the same but refuses a single pixel.
        return torch.instance_norm(
            x, self.weight, self.bias, None, None, True, 0.0, self.eps, False
        )


def onnx_file(request: Request, reopen: Reopen, extra: str) -> Path:
    """The ONNX file of a network, exported where the folder has none of these very weights.

    Batch and spatial axes are free, batch norms folded; input (B, C, *T), output (B, K, *T').

    Args:
        reopen: Opens the file in float32, for comparison with the network.
        extra: The extra of ushape that brings what is missing.

    Raises:
        PlanError: a network that ONNX cannot say, or a folder that cannot be written to.
    """

    def build(folder: Path) -> None:
        path = folder / FILE
        _export(request.network, path, extra)
        _check(request.network, reopen(path))

    return cached(request, "onnx", build) / FILE


def cached(request: Request, kind: str, build: Callable[[Path], None]) -> Path:
    """A folder made of a network: as it was left last time, or made now, whole or not at all.

    Args:
        kind: First part of the folder's name; the second is the digest of the network.
        build: Fills an empty folder.

    Raises:
        PlanError: no folder given, or it cannot be written to.
    """
    if request.folder is None:
        raise PlanError(
            f"Nowhere to keep the {kind} file.", hint="Open the backend with folder=<a folder>."
        )
    final = request.folder / f"{kind}-{digest(request.network)[:16]}"
    if final.is_dir():
        return final
    with _writing(request.folder):
        request.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{kind}-", dir=request.folder) as temporary:
            part = Path(temporary) / kind
            part.mkdir()
            build(part)
            _put(part, final)
    return final


def digest(network: nn.Module) -> str:
    """Names the weights and the layers of a network, in hexadecimal digits."""
    found = hashlib.sha256(f"{FORMAT} {network!r} {getattr(network, 'config', '')}".encode())
    for name, value in network.state_dict().items():
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        # Bytes, because NumPy has no bfloat16.
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


@contextmanager
def loading(path: Path) -> Iterator[None]:
    """Says which file is damaged; runtimes raise anything on one."""
    try:
        yield
    except PlanError:
        raise
    except Exception as error:
        raise PlanError(
            f"{path}: cannot be loaded: {str(error).strip().splitlines()[-1][:300]}.",
            hint=f"Delete {path.parent}: it is made again from the weights.",
        ) from error


def _export(network: nn.Module, path: Path, extra: str) -> None:
    """Writes the ONNX file.

    By tracing, deprecated in favour of torch.export: that takes 2 to 9 s for each of our small
    networks instead of 0.2 s, and fails at the crops of valid convolutions (torch 2.13).
    """
    need("onnx", extra)
    prepared = _with_whole_instance_norm(prepare(network).cpu())
    free = [0, *range(2, 2 + input_of(network)[1])]
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # Of the deprecation, and of sizes compared in Python.
            torch.onnx.export(
                prepared,
                (_example(network, 1),),
                path,
                dynamo=False,
                input_names=["image"],
                output_names=["logits"],
                dynamic_axes={"image": free, "logits": free},
            )
    except OSError:
        raise  # A full disk says nothing of the network.
    except Exception as error:
        raise _inexpressible(network, str(error).strip().splitlines()[0]) from error


def _check(network: nn.Module, exported: Backend) -> None:
    """Other sizes and another batch than the traced ones must give what the network gives."""
    tiles = _example(network, 3, larger=True)
    with torch.inference_mode():
        wanted: Tensor = prepare(network).cpu()(tiles)
    found = exported.logits(tiles)
    if found.shape != wanted.shape:
        shapes = f"{tuple(found.shape)} instead of {tuple(wanted.shape)}"
        raise _inexpressible(network, f"for tiles {tuple(tiles.shape)} it gives {shapes}")
    error = float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1))
    if not error <= TOLERANCE:
        raise _inexpressible(network, f"its logits differ by a share of {error:.2g}")


def _example(network: nn.Module, batch: int, *, larger: bool = False) -> Tensor:
    """Noise of the smallest legal size that fills a few pixels; larger: of two others."""
    channels, dims = input_of(network)
    legal = network.legal_size
    sizes = [legal(16)]  # type: ignore[operator]
    while len(sizes) < dims + 1:
        sizes.append(legal(sizes[-1] + 1))  # type: ignore[operator]
    chosen = sizes[1:] if larger else sizes[:1] * dims
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, *chosen, generator=generator)


def _with_whole_instance_norm(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, InstanceNorm):
            setattr(module, name, InstanceNormOfBatch(child))
        else:
            _with_whole_instance_norm(child)
    return module


def _put(part: Path, final: Path) -> None:
    """Gives a finished folder its name, unless another process was faster."""
    for path in part.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    try:
        part.rename(final)
    except OSError:
        if not final.is_dir():
            raise


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PlanError(
            f"{folder}: cannot be written to: {error.strerror or error}.",
            hint="Exported networks are kept there: make room, copy the run, or take torch.",
        ) from error


def _inexpressible(network: nn.Module, why: str) -> PlanError:
    return PlanError(
        f"This {type(network).__name__} cannot be exported to ONNX: {why}.",
        hint="Backends torch and compile take any network.",
    )
