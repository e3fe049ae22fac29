"""ONNX Runtime on a CPU, in float32."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ushape.inference.backends.base import Request, need, refuse_accelerator, refuse_illegal
from ushape.inference.backends.export import loading, onnx_file

FATAL = 4
"""ONNX Runtime's level of messages below which it keeps silent."""


@dataclass(frozen=True)
class OnnxBackend:
    """A session, which several threads may share."""

    network: nn.Module
    session: Any
    name: str = "onnx"

    def logits(self, tiles: Tensor) -> Tensor:
        refuse_illegal(self.network, tiles)
        image = tiles.float().cpu().numpy()
        return torch.from_numpy(self.session.run(None, {"image": image})[0])


def open_onnx(request: Request) -> OnnxBackend:
    """The network in ONNX Runtime; it computes in float32 whatever the precision asked for.

    Raises:
        PlanError: not on a CPU; onnx or onnxruntime not installed; not exportable.
    """
    refuse_accelerator("onnx", request.device)
    need("onnxruntime", "onnx")

    def reopen(path: Path) -> OnnxBackend:
        return OnnxBackend(request.network, _session(path))

    return reopen(onnx_file(request, reopen, "onnx"))


def _session(path: Path) -> Any:
    runtime = need("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = FATAL
    with loading(path):
        return runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
