"""OpenVINO on a CPU: float32, bfloat16, and int8 by quantisation after training."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ushape.errors import PlanError
from ushape.inference.backends.base import (
    Precision,
    Request,
    need,
    refuse_accelerator,
    refuse_illegal,
)
from ushape.inference.backends.export import cached, loading, onnx_file

FILE = "model.xml"
HINTS: dict[Precision, str] = {"bf16": "bf16", "fp32": "f32"}


class OpenVinoBackend:
    """A compiled network; each thread has a request of its own, as OpenVINO wants it."""

    def __init__(self, network: nn.Module, path: Path, precision: Precision, name: str):
        self.name, self._network = name, network
        self._compiled = _compile(path, precision)
        self._of_thread = threading.local()

    def logits(self, tiles: Tensor) -> Tensor:
        refuse_illegal(self._network, tiles)
        if not hasattr(self._of_thread, "request"):
            self._of_thread.request = self._compiled.create_infer_request()
        found = self._of_thread.request.infer([tiles.float().cpu().numpy()])
        return torch.from_numpy(found[0])


def open_openvino(request: Request) -> OpenVinoBackend:
    """The network in OpenVINO, in the precision asked for.

    Raises:
        PlanError: not on a CPU; onnx or openvino not installed; not exportable.
    """
    path = _onnx_file(request, "openvino")
    return OpenVinoBackend(request.network, path, request.precision, "openvino")


def open_int8(request: Request) -> OpenVinoBackend:
    """The network with weights and activations of 8 bits, the rest in the precision asked for.

    Norms other than batch norm, the first and the last convolution are the rest.

    The quantised network is kept with the weights' digest; calibration tiles are read only where
    there is none yet.

    Raises:
        PlanError: as `open_openvino`; nncf not installed; no calibration tiles.
    """
    plain = _onnx_file(request, "openvino-int8")

    def build(folder: Path) -> None:
        _silent("openvino").save_model(
            _quantise(plain, request), folder / FILE, compress_to_fp16=False
        )

    path = cached(request, "int8", build) / FILE
    return OpenVinoBackend(request.network, path, request.precision, "openvino-int8")


def _onnx_file(request: Request, name: str) -> Path:
    refuse_accelerator(name, request.device)
    _silent("openvino")

    def reopen(path: Path) -> OpenVinoBackend:
        return OpenVinoBackend(request.network, path, "fp32", name)

    return onnx_file(request, reopen, "openvino")


def _compile(path: Path, precision: Precision) -> Any:
    core = _silent("openvino").Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": HINTS[precision],
    }
    with loading(path):
        return core.compile_model(core.read_model(path), "CPU", settings)


def _quantise(path: Path, request: Request) -> Any:
    """The OpenVINO model of an ONNX file in int8, ranges by the calibration tiles."""
    nncf = _silent("nncf")
    nncf.set_log_level(logging.ERROR)
    tiles = list(request.calibration)
    if not tiles:
        raise PlanError(
            "int8 needs tiles to calibrate on, and there are none.",
            hint="Give calibration tiles of training images, 8 batches are enough.",
        )
    model = _silent("openvino").Core().read_model(path)
    with contextlib.redirect_stdout(io.StringIO()):  # Its progress bars.
        return nncf.quantize(
            model,
            nncf.Dataset(tiles),
            subset_size=len(tiles),
            target_device=nncf.TargetDevice.CPU,
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=_first_and_last_convolution(model)),
        )


def _first_and_last_convolution(model: Any) -> list[str]:
    """Their names; they see the image and make the logits, so that rounding them costs most.

    Small U-Nets on synthetic cells, pixels whose class int8 changes: 0.14 instead of 0.23 % with
    batch norm, 0.23 instead of 0.24 % with instance norm, in the same time.
    """
    kinds = ("Convolution", "ConvolutionBackpropData")
    operations = model.get_ordered_ops()
    names = [each.get_friendly_name() for each in operations if each.get_type_name() in kinds]
    return sorted({names[0], names[-1]})


def _silent(package: str) -> Any:
    """OpenVINO or NNCF without its reports of use to a web service.

    Each sends reports, and writes an id of the user into the home folder when it is imported,
    unless openvino_telemetry is not there. NNCF also changes all loggers made after it.
    """
    logger_class = logging.getLoggerClass()
    reporter = sys.modules.get("openvino_telemetry")
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        return need(package, "openvino")
    finally:
        logging.setLoggerClass(logger_class)
        del sys.modules["openvino_telemetry"]
        if reporter is not None:
            sys.modules["openvino_telemetry"] = reporter
