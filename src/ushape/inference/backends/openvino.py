"""OpenVINO on a CPU: float32, bfloat16, and int8 by quantization after training."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ushape.errors import PlanError, require_package
from ushape.inference.backends.export import (
    ExportedNetwork,
    cached_export,
    check_export,
    example_tiles,
    export_error,
    for_export,
    loading,
)
from ushape.inference.backends.signal_stack import signal_stack_kept
from ushape.inference.network import BackendOptions, Network, Precision

OPENVINO_FILE = "model.xml"

PRECISION_HINTS: dict[Precision, str] = {"bf16": "bf16", "fp32": "f32"}


def open_openvino(module: nn.Module, options: BackendOptions) -> Network:
    """Open the network in OpenVINO, in the requested precision.

    Raises:
        PlanError: if the device is not the CPU, openvino is not installed, or the network cannot
            be converted.
    """
    path = _converted_file(module, options, "openvino")
    return _open_file(module, path, options.precision, "openvino")


def open_int8(module: nn.Module, options: BackendOptions) -> Network:
    """Open the network with 8-bit weights and activations.

    Norms other than batch norm, the first and the last convolution keep the requested precision.
    The quantized network is kept in the folder; calibration tiles are read only if there is none.

    Raises:
        PlanError: if `open_openvino` raises it, nncf is not installed, or there are no calibration
            tiles.
    """
    plain = _converted_file(module, options, "openvino-int8")

    def build(folder: Path) -> None:
        quantized = _quantize(plain, options)
        import_silently("openvino").save_model(
            quantized, folder / OPENVINO_FILE, compress_to_fp16=False
        )

    path = cached_export(module, options, "int8", build) / OPENVINO_FILE
    return _open_file(module, path, options.precision, "openvino-int8")


def _converted_file(module: nn.Module, options: BackendOptions, name: str) -> Path:
    """Return the OpenVINO file of a network, converted if the folder has none of these weights."""
    options.require_cpu(name)
    openvino = import_silently("openvino")

    def build(folder: Path) -> None:
        path = folder / OPENVINO_FILE
        openvino.save_model(_convert(module), path, compress_to_fp16=False)
        check_export(module, _open_file(module, path, "fp32", name), "OpenVINO")

    return cached_export(module, options, "openvino", build) / OPENVINO_FILE


def _convert(module: nn.Module) -> Any:
    try:
        return convert_model(for_export(module), example_tiles(module, 1))
    except Exception as error:
        raise export_error(module, "OpenVINO", str(error).strip().splitlines()[0]) from error


def convert_model(module: nn.Module, example: Tensor) -> Any:
    """Return a module as an OpenVINO model whose batch and spatial axes are free.

    Args:
        example: Input (B, C, *S).

    Raises:
        MissingPackageError: if openvino is not installed.
        Exception: of any class, if the module cannot be expressed in OpenVINO.
    """
    free = [-1, example.shape[1], *[-1] * (example.ndim - 2)]
    with warnings.catch_warnings(), torch.no_grad():
        # Tracing is deprecated, and warns of sizes that are compared in Python.
        warnings.simplefilter("ignore")
        return import_silently("openvino").convert_model(
            module, example_input=example, input=[free]
        )


def _open_file(module: nn.Module, path: Path, precision: Precision, name: str) -> ExportedNetwork:
    core = import_silently("openvino").Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": PRECISION_HINTS[precision],
    }
    with loading(path):
        compiled = compile_file(core, path, settings)
    of_thread = threading.local()

    def run(image: np.ndarray) -> np.ndarray:
        if not hasattr(of_thread, "request"):  # OpenVINO requires one request per thread.
            of_thread.request = compiled.create_infer_request()
        return np.asarray(of_thread.request.infer([image])[0])

    return ExportedNetwork(name, module, run)


def compile_file(core: Any, path: Path, settings: dict[str, Any]) -> Any:
    """Compile the OpenVINO model of a file for the CPU.

    Args:
        core: `openvino.Core`, with the extensions that the file needs.
        settings: Properties of the CPU plug-in.

    Raises:
        RuntimeError: if the file is damaged or cannot be compiled.
    """
    with signal_stack_kept():
        return core.compile_model(core.read_model(path), "CPU", settings)


def _quantize(path: Path, options: BackendOptions) -> Any:
    """Return the OpenVINO model of a file in int8, with ranges from the calibration tiles."""
    nncf = import_silently("nncf")
    nncf.set_log_level(logging.ERROR)
    tiles = list(options.calibration)
    if not tiles:
        raise PlanError(
            "Quantization to int8 requires calibration tiles, but there are none.",
            code="missing_calibration_tiles",
            hint="Pass tiles of training images as calibration; 8 batches are enough.",
        )
    model = import_silently("openvino").Core().read_model(path)
    hidden = contextlib.redirect_stdout(io.StringIO())  # NNCF prints progress bars.
    with signal_stack_kept(), hidden:
        return nncf.quantize(
            model,
            nncf.Dataset(tiles),
            subset_size=len(tiles),
            target_device=nncf.TargetDevice.CPU,
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=_first_and_last_convolution(model)),
        )


def _first_and_last_convolution(model: Any) -> list[str]:
    """Return the names of the first and last convolution, where rounding changes most pixels.

    Small U-Nets on synthetic cells, pixels whose class int8 changes: 0.14 instead of 0.23% with
    batch norm, 0.23 instead of 0.24% with instance norm, in the same time.
    """
    kinds = ("Convolution", "ConvolutionBackpropData")
    operations = model.get_ordered_ops()
    names = [each.get_friendly_name() for each in operations if each.get_type_name() in kinds]
    return sorted({names[0], names[-1]})


def import_silently(package: str) -> Any:
    """Import OpenVINO or NNCF without its telemetry.

    On import, each sends usage reports and writes a user id into the home folder, unless
    openvino_telemetry is missing. NNCF also changes the class of all loggers created after it.
    """
    logger_class = logging.getLoggerClass()
    reporter = sys.modules.get("openvino_telemetry")
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        return require_package(package, "openvino", "This backend")
    finally:
        logging.setLoggerClass(logger_class)
        del sys.modules["openvino_telemetry"]
        if reporter is not None:
            sys.modules["openvino_telemetry"] = reporter
