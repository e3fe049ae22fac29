"""Export networks to files that are checked and cached, and run them with ONNX Runtime."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ushape.errors import PlanError, require_package
from ushape.inference.network import (
    BackendOptions,
    Network,
    check_tile_size,
    input_of,
    prepare,
)
from ushape.io.files import flush_file
from ushape.models import legal_shape
from ushape.models.layers import InstanceNorm

FORMAT = 1
"""Version of the exported graphs; a new version makes files of older ones obsolete."""

TOLERANCE = 1e-3
"""Largest difference of an exported network's logits, as a share of the largest logit."""

ONNX_FILE = "model.onnx"

ONNX_FATAL = 4
"""Level of ONNX Runtime's log at which it prints fatal errors only."""


@dataclass(frozen=True)
class ExportedNetwork:
    """A network that another library computes on the CPU."""

    name: str
    module: nn.Module
    """Network that was exported; it determines the legal sizes."""

    run: Callable[[np.ndarray], np.ndarray]
    """Function of a batch, safe to call from several threads."""

    @property
    def margin(self) -> int:
        return int(self.module.margin)  # type: ignore[arg-type]

    def legal_size(self, at_least: int) -> int:
        return int(self.module.legal_size(at_least))  # type: ignore[operator]

    def legal_shape(self, at_least: Sequence[int]) -> tuple[int, ...]:
        return legal_shape(self.module, at_least)

    def logits(self, tiles: Tensor) -> Tensor:
        check_tile_size(self.module, tiles)
        return torch.from_numpy(self.run(tiles.float().cpu().numpy()))


def open_onnx(module: nn.Module, options: BackendOptions) -> Network:
    """Open the network in ONNX Runtime, which computes in float32 at any requested precision.

    Raises:
        PlanError: if the device is not the CPU, onnx or onnxruntime is not installed, or the
            network cannot be exported.
    """
    options.require_cpu("onnx")
    require_package("onnxruntime", "onnx", "Backend onnx")

    def build(folder: Path) -> None:
        _export_onnx(module, folder / ONNX_FILE)
        check_export(module, _open_network(module, folder / ONNX_FILE), "ONNX")

    return _open_network(module, cached_export(module, options, "onnx", build) / ONNX_FILE)


def cached_export(
    module: nn.Module, options: BackendOptions, kind: str, build: Callable[[Path], None]
) -> Path:
    """Return the folder of an exported network: the cached one, or a new one, created atomically.

    Args:
        kind: First part of the folder's name; the second is the digest of the network.
        build: Function that fills an empty folder.

    Raises:
        PlanError: if no folder is given, or it cannot be written to.
    """
    if options.folder is None:
        raise PlanError(
            f"No folder for the {kind} file was specified.",
            code="missing_export_folder",
            hint="Open the backend with folder=<a folder>.",
        )
    final = options.folder / f"{kind}-{network_digest(module)[:16]}"
    if final.is_dir():
        return final
    with _writing(options.folder):
        options.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{kind}-", dir=options.folder) as temporary:
            part = Path(temporary) / kind
            part.mkdir()
            build(part)
            _move_into_place(part, final)
    return final


def network_digest(module: nn.Module) -> str:
    """Return a checksum of the weights and the layers of a network, in hexadecimal digits."""
    found = hashlib.sha256(f"{FORMAT} {module!r} {getattr(module, 'config', '')}".encode())
    for name, value in module.state_dict().items():
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        # As bytes, because NumPy has no bfloat16.
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def check_export(module: nn.Module, exported: Network, target: str) -> None:
    """Compare logits for another batch size and other tile sizes than those of the export.

    Raises:
        PlanError: if the exported network gives other logits than the network.
    """
    tiles = example_tiles(module, 3, larger=True)
    with torch.inference_mode():
        expected: Tensor = prepare(module).cpu()(tiles)
    found = exported.logits(tiles)
    if found.shape != expected.shape:
        shapes = f"{tuple(found.shape)} instead of {tuple(expected.shape)}"
        raise export_error(module, target, f"tiles {tuple(tiles.shape)} give logits {shapes}")
    error = float((found - expected).abs().max() / expected.abs().max().clamp(min=1))
    if not error <= TOLERANCE:
        raise export_error(module, target, f"the relative difference of its logits is {error:.2g}")


def example_tiles(module: nn.Module, batch: int, *, larger: bool = False) -> Tensor:
    """Return noise of the smallest legal size from 16 pixels; with `larger`, of other sizes."""
    channels, dims = input_of(module)
    legal = module.legal_size
    sizes = [legal(16)]  # type: ignore[operator]
    while len(sizes) < dims + 1:
        sizes.append(legal(sizes[-1] + 1))  # type: ignore[operator]
    chosen = sizes[1:] if larger else sizes[:1] * dims
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, *chosen, generator=generator)


def for_export(module: nn.Module) -> nn.Module:
    """Return a copy on the CPU whose layers can be expressed by graphs of fixed operations."""
    return _with_whole_instance_norm(prepare(module).cpu())


def export_error(module: nn.Module, target: str, why: str) -> PlanError:
    """Return the error for a network that cannot be exported."""
    return PlanError(
        f"This {type(module).__name__} cannot be exported to {target}: {why}.",
        code="export_failed",
        hint="Use backend torch or compile, which support all networks.",
    )


@contextmanager
def loading(path: Path) -> Iterator[None]:
    """Convert every exception of a runtime into a PlanError that names the damaged file."""
    try:
        yield
    except PlanError:
        raise
    except Exception as error:
        raise PlanError(
            f"{path}: cannot be loaded: {str(error).strip().splitlines()[-1][:300]}.",
            code="export_unreadable",
            hint=f"Delete {path.parent}; it is created again from the weights.",
        ) from error


class InstanceNormOfBatch(nn.Module):
    """Instance norm as one operation on the whole batch, which ONNX and OpenVINO can express.

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


def _with_whole_instance_norm(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, InstanceNorm):
            setattr(module, name, InstanceNormOfBatch(child))
        else:
            _with_whole_instance_norm(child)
    return module


def _export_onnx(module: nn.Module, path: Path) -> None:
    """Write an ONNX file: input (B, C, *T), output (B, K, *T'), batch and spatial axes dynamic."""
    try:
        write_onnx(for_export(module), example_tiles(module, 2), path, output="logits")
    except (OSError, PlanError):
        raise  # A full disk is not caused by the network.
    except Exception as error:
        raise export_error(module, "ONNX", str(error).strip().splitlines()[0]) from error


def write_onnx(
    module: nn.Module,
    example: Tensor,
    path: Path,
    *,
    output: str,
) -> None:
    """Write a module as one ONNX file with the input "image"; batch and spatial axes are free.

    The exporter of `torch.export` takes 3 to 4 s of processor time for a U-Net of 3 or 5 padded
    levels in 2D or 3D, and 13 s for one of 5 levels without padding (PyTorch 2.13, AMD EPYC). That
    by tracing takes 0.1 s, but is deprecated and will be removed. `predict` keeps what it exports.

    Args:
        example: Input (B, C, *S) with at least two images and different sizes along each axis.
        output: Name of the output.

    Raises:
        MissingPackageError: if onnx or onnxscript is not installed.
        Exception: of any class, if the module cannot be expressed in ONNX.
    """
    for package in ("onnx", "onnxscript"):
        require_package(package, "onnx", "An ONNX file")
    with _silent_exporter():
        program = torch.onnx.export(
            export_program(module, example),
            dynamo=True,
            input_names=["image"],
            output_names=[output],
            verbose=False,
        )
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.clear()  # The lines of the source, with paths of this computer.
    program.save(path, external_data=False)


def export_program(module: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """Return a module as a program of `torch.export`; batch and spatial axes are free.

    Args:
        example: Input (B, C, *S) with at least two images and different sizes along each axis.
    """
    free = {axis: torch.export.Dim.DYNAMIC for axis in range(example.dim()) if axis != 1}
    with torch.no_grad():
        program = torch.export.export(module, (example,), dynamic_shapes=(free,), strict=False)
    for node in list(program.graph.nodes):
        node.meta.pop("stack_trace", None)  # The lines of the source, with paths of this computer.
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            program.graph.erase_node(node)  # It refuses tensors on another device than this one.
    program.graph_module.recompile()
    return program


@contextmanager
def _silent_exporter() -> Iterator[None]:
    """Suppress warnings of the exporter about missing packages and its own deprecated code."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def open_session(path: Path) -> Any:
    """Return an ONNX Runtime session with as many threads as PyTorch has.

    Raises:
        PlanError: if onnxruntime is not installed, or the file cannot be loaded.
    """
    runtime = require_package("onnxruntime", "onnx", "An ONNX file")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = ONNX_FATAL
    with loading(path):
        return runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _open_network(module: nn.Module, path: Path) -> ExportedNetwork:
    session = open_session(path)
    return ExportedNetwork("onnx", module, lambda image: session.run(None, {"image": image})[0])


def _move_into_place(part: Path, final: Path) -> None:
    """Rename a finished folder, unless another process has already created it."""
    for path in part.iterdir():
        flush_file(path)
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
            code="export_folder_unwritable",
            hint="Exported networks are stored there. Free some space, or use backend torch.",
        ) from error
