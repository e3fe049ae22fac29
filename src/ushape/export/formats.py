"""File formats of exported graphs. To add one, write its two functions and list it in FORMATS."""

from __future__ import annotations

import errno
import importlib.util
import io
import json
import os
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ushape.errors import PlanError, require_package
from ushape.export.graph import SegmentationGraph
from ushape.inference.backends.export import export_program, loading, open_session, write_onnx
from ushape.inference.backends.openvino import compile_file, convert_model, import_silently

FULL_DISK_BYTES = 1 << 16
"""Free space below which a failure to write is that of a full disk."""

INPUT = "image"
"""Name of the input of a graph."""

METADATA = "ushape.json"
"""Name of the metadata in a TorchScript or PT2 file; ONNX and OpenVINO files have properties."""

WRITER_FOLDER = ".data/"
"""Folder that PyTorch writes into every PT2 file."""

Opened = Callable[[np.ndarray], np.ndarray]
"""Function of raw pixels (B, C, *S) float32 that returns the output of the graph."""


@dataclass(frozen=True)
class Format:
    """How a graph is written to a file and computed from it."""

    suffix: str
    write: Callable[[SegmentationGraph, Path], None]
    open: Callable[[Path], Opened]
    annotate: Callable[[Path, Mapping[str, str]], None]
    """Function that adds texts to a written file."""

    packages: tuple[str, ...] = ()
    """Optional packages that the two functions need."""

    extra: str = ""
    """Extra of ushape that installs these packages."""


def example_images(graph: SegmentationGraph, batch: int, sizes: tuple[int, ...]) -> Tensor:
    """Return generated images whose pixels have the values of photographs, (B, C, *sizes)."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(batch, graph.channels, *sizes, generator=generator).mul(255).round()


def _example(graph: SegmentationGraph) -> Tensor:
    """Return images by which a graph is traced: their sizes differ, and none is special."""
    return example_images(graph, 2, (37, 43, 51)[-graph.dims :])


def _write_onnx(graph: SegmentationGraph, path: Path) -> None:
    write_onnx(graph, _example(graph), path, output=graph.source.options.output)


def _open_onnx(path: Path) -> Opened:
    session = open_session(path)
    return lambda images: np.asarray(session.run(None, {INPUT: images})[0])


def _annotate_onnx(path: Path, texts: Mapping[str, str]) -> None:
    onnx = require_package("onnx", "onnx", "An ONNX file")
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {f"ushape.{key}": text for key, text in texts.items()})
    onnx.save(model, path)


def _write_torchscript(graph: SegmentationGraph, path: Path) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        # Tracing is deprecated, and warns of sizes that are compared in Python.
        warnings.simplefilter("ignore")
        module = torch.jit.trace(graph, _example(graph), check_trace=False)
    _save_torchscript(module, path, {})


def _save_torchscript(module: Any, path: Path, extra: dict[str, str]) -> None:
    """Save a module without the lines of its source, which contain paths of this computer."""
    content = io.BytesIO()  # On a full disk, torch.jit.save would end the process.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(module, content, _extra_files=extra)
    with zipfile.ZipFile(content) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            if not name.endswith(".debug_pkl"):
                target.writestr(name, source.read(name))


def _load_torchscript(path: Path) -> Any:
    with loading(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It is deprecated, but what most programs can run.
        return torch.jit.load(path, map_location="cpu")


def _annotate_torchscript(path: Path, texts: Mapping[str, str]) -> None:
    _save_torchscript(_load_torchscript(path), path, {METADATA: json.dumps(texts)})


def _write_pt2(graph: SegmentationGraph, path: Path) -> None:
    _save_pt2(export_program(graph, _example(graph)), path, {})


def _save_pt2(program: torch.export.ExportedProgram, path: Path, extra: dict[str, str]) -> None:
    content = io.BytesIO()  # As for TorchScript.
    torch.export.save(program, content, extra_files=extra)
    path.write_bytes(content.getvalue())


def _load_pt2(path: Path) -> torch.export.ExportedProgram:
    with loading(path):
        return torch.export.load(path)


def _annotate_pt2(path: Path, texts: Mapping[str, str]) -> None:
    description = json.dumps(texts)
    try:
        from torch.export.pt2_archive import PT2ArchiveReader, PT2ArchiveWriter
        from torch.export.pt2_archive.constants import EXTRA_DIR
    except ImportError:  # An older PyTorch.
        _save_pt2(_load_pt2(path), path, {METADATA: description})
        return
    content, extra = io.BytesIO(), f"{EXTRA_DIR}{METADATA}"
    with PT2ArchiveReader(str(path)) as source, PT2ArchiveWriter(content) as target:
        for name in source.get_file_names():  # Loading the graph would take up to a minute.
            if not name.startswith(WRITER_FOLDER) and name != extra:
                target.write_bytes(name, source.read_bytes(name))
        target.write_string(extra, description)
    path.write_bytes(content.getvalue())


def _opened_by_torch(module: Callable[[Tensor], Tensor]) -> Opened:
    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return module(torch.from_numpy(images)).numpy()

    return run


def _write_openvino(graph: SegmentationGraph, path: Path) -> None:
    model = convert_model(graph, _example(graph))
    model.inputs[0].get_tensor().set_names({INPUT})
    model.outputs[0].get_tensor().set_names({graph.source.options.output})
    import_silently("openvino").save_model(model, path, compress_to_fp16=False)


def _open_openvino(path: Path) -> Opened:
    core = import_silently("openvino").Core()
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
    }
    with loading(path):
        compiled = compile_file(core, path, settings)
    return lambda images: np.asarray(compiled([images])[0])


def _annotate_openvino(path: Path, texts: Mapping[str, str]) -> None:
    openvino = import_silently("openvino")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        for suffix in (".xml", ".bin"):  # The weights are read while the model is saved.
            shutil.copy(path.with_suffix(suffix), copy.with_suffix(suffix))
        model = openvino.Core().read_model(copy)
        for key, text in texts.items():
            model.set_rt_info(text, ["ushape", key])
        openvino.save_model(model, path, compress_to_fp16=False)
        del model


FORMATS: dict[str, Format] = {
    "onnx": Format(
        ".onnx",
        _write_onnx,
        _open_onnx,
        _annotate_onnx,
        ("onnx", "onnxscript", "onnxruntime"),
        "onnx",
    ),
    "torchscript": Format(
        ".pt",
        _write_torchscript,
        lambda path: _opened_by_torch(_load_torchscript(path)),
        _annotate_torchscript,
    ),
    "openvino": Format(
        ".xml", _write_openvino, _open_openvino, _annotate_openvino, ("openvino",), "openvino"
    ),
    "pt2": Format(
        ".pt2",
        _write_pt2,
        lambda path: _opened_by_torch(_load_pt2(path).module()),
        _annotate_pt2,
    ),
}


def annotate(name: str, path: Path, values: Mapping[str, Any]) -> None:
    """Store a description in the file of a graph; values other than texts are stored as JSON."""
    texts = {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()
    }
    with _writing(name, path):
        FORMATS[name].annotate(path, texts)


def onnx_opset(path: Path) -> int:
    """Return the version of the operators of an ONNX file."""
    onnx = require_package("onnx", "onnx", "An ONNX file")
    model = onnx.load(path, load_external_data=False)
    return next(int(own.version) for own in model.opset_import if not own.domain)


def write_format(name: str, graph: SegmentationGraph, path: Path) -> None:
    """Write a graph in one of FORMATS.

    Raises:
        MissingPackageError: if a package that the format needs is not installed.
        PlanError: if the graph cannot be expressed in the format.
        OSError: if the file cannot be written.
    """
    own = FORMATS[name]
    for package in own.packages:
        if importlib.util.find_spec(package) is None:  # OpenVINO must not be imported here.
            require_package(package, own.extra, f"Export to {name}")
    with _writing(name, path):
        own.write(graph, path)


@contextmanager
def _writing(name: str, path: Path) -> Iterator[None]:
    """Convert every exception of an exporter into a PlanError, except for errors of the disk."""
    try:
        yield
    except (OSError, PlanError):
        raise
    except Exception as error:
        if shutil.disk_usage(path.parent).free < FULL_DISK_BYTES:  # OpenVINO does not tell.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PlanError(
            f"This network cannot be expressed in the format {name}: {reason}",
            code="export_failed",
            hint="Export it to another format; torchscript supports the most operations.",
        ) from error
