"""Requests and answers of the KServe V2 inference protocol, with its extension for binary tensors.

Source: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ushape._version import __version__
from ushape.inference.predictor import Predictor
from ushape.serving.limits import ARRAY_BYTES
from ushape.serving.memory import needed_bytes
from ushape.serving.refusals import Refusal
from ushape.types import Prediction

HEADER_LENGTH = "inference-header-content-length"
"""Header with the number of bytes of the JSON in front of binary tensors."""

JSON_BYTES = 1 << 24
"""Largest size of the JSON of a request."""

JSON_VALUE_BYTES = 80
"""Memory of a value in JSON while it is parsed or written."""

VERSION = "1"
"""Version of the model."""

INPUT, MASK, PROBABILITIES = "image", "mask", "probabilities"

DATA_TYPES = {
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
"""Types of pixels that are accepted, little-endian."""


@dataclass(frozen=True)
class InferRequest:
    """Images to predict, and the wanted outputs."""

    images: np.ndarray
    """(B, C, *S)."""

    outputs: Mapping[str, bool]
    """Whether each output is binary, by its name."""

    id: str = ""

    def needed_bytes(self, predictor: Predictor) -> int:
        """Return the memory that the predictions and the answer take."""
        pixels = self.images[:, 0].size
        channels = {MASK: 1, PROBABILITIES: predictor.plan.preprocessing.space.channels}
        values = sum(
            pixels * channels[name] for name, is_binary in self.outputs.items() if not is_binary
        )
        return needed_bytes(predictor, pixels) + values * JSON_VALUE_BYTES


def describe_server() -> dict[str, Any]:
    """Return the metadata of the server."""
    return {"name": "ushape", "version": __version__, "extensions": ["binary_tensor_data"]}


def received_bytes(length: str, header_length: str) -> int:
    """Return the memory that the body of a request takes while it is received and parsed.

    Args:
        length: Header Content-Length; '' if it is missing.
        header_length: Header `HEADER_LENGTH`; '' if all of the body is JSON.
    """
    body = min(int(length[:20]), ARRAY_BYTES) if length.isdecimal() else ARRAY_BYTES
    text = int(header_length[:20]) if header_length.isdecimal() else body
    # A value has at least two characters, as in "0,".
    return 2 * body + min(text, body, JSON_BYTES) // 2 * JSON_VALUE_BYTES


def describe_tensors(name: str, predictor: Predictor) -> dict[str, Any]:
    """Return the metadata of the model; lengths that may vary are -1."""
    plan = predictor.plan
    size = [-1] * plan.image_dims
    channels = len(plan.preprocessing.space.channel_names)
    return {
        "name": name,
        "versions": [VERSION],
        "platform": "ushape",
        "inputs": [
            {"name": INPUT, "datatype": "FP32", "shape": [-1, plan.preprocessing.channels, *size]}
        ],
        "outputs": [
            {"name": MASK, "datatype": "INT32", "shape": [-1, *size]},
            {"name": PROBABILITIES, "datatype": "FP32", "shape": [-1, channels, *size]},
        ],
    }


def parse_request(
    body: bytes, header_length: str, predictor: Predictor, max_px: int
) -> InferRequest:
    """Return the content of an inference request.

    Args:
        header_length: Header `HEADER_LENGTH`; '' if all of the body is JSON.
        max_px: Largest number of pixels of all images.

    Raises:
        Refusal: if the request is invalid.
    """
    length = len(body) if not header_length else -1
    if header_length.isdecimal():
        length = int(header_length[:12])
    if not 0 <= length <= len(body):
        raise _invalid(f"the header {HEADER_LENGTH} is {header_length[:20]!r}")
    if length > JSON_BYTES:
        raise Refusal(
            413,
            "body_too_large",
            f"The JSON of the request has more than {JSON_BYTES} bytes.",
            "Send the pixels as a binary tensor.",
        )
    try:
        values = json.loads(body[:length])
        (tensor,) = values["inputs"]
        name, shape = tensor["name"], [int(one) for one in tensor["shape"]]
        dtype = DATA_TYPES[tensor["datatype"]]
        size = tensor.get("parameters", {}).get("binary_data_size")
        outputs = _outputs_of(values)
        request_id = str(values.get("id", ""))[:200]
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError):
        known = ", ".join(DATA_TYPES)
        raise _invalid(f"it must have one input with name, shape and datatype ({known})") from None
    shape = _full_shape(shape, predictor)
    count = int(np.prod([shape[0], *shape[2:]], dtype=object))
    if name != INPUT:
        raise _invalid(f"its input is not named {INPUT}")
    if count > max_px:
        raise Refusal(
            413, "image_too_large", f"The request has {count} pixels; the limit is {max_px}."
        )
    kind = np.dtype(dtype).newbyteorder("<")
    try:
        flat = (
            _values_of(tensor["data"], dtype)
            if size is None
            else np.frombuffer(body[length:], dtype=kind).astype(dtype)
        )
        images = flat.reshape(shape)
    except (ValueError, KeyError, TypeError, OverflowError):
        raise _invalid("its values do not match their datatype or their shape") from None
    return InferRequest(images, outputs, request_id)


def _values_of(data: Any, dtype: DTypeLike) -> np.ndarray:
    """Return the values of JSON in a datatype, flat.

    Raises:
        ValueError: if they are not numbers, or if the datatype cannot hold one of them.
    """
    given = np.asarray(data).ravel()
    if given.dtype.kind not in "biuf":
        raise ValueError("not numbers")
    with np.errstate(over="ignore", invalid="ignore"):
        values = given.astype(dtype)
    is_kept = values == given if values.dtype.kind in "iu" else np.isfinite(values)
    if not (is_kept | ~np.isfinite(given) & (values.dtype.kind == "f")).all():
        raise ValueError("out of range")
    return values


def build_answer(
    name: str, request: InferRequest, predictions: Sequence[Prediction], predictor: Predictor
) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of the answer."""
    outputs, tail = [], b""
    for output, is_binary in request.outputs.items():
        if output == MASK:
            array = np.stack([predictor.codes_of(one.classes) for one in predictions])
            array, datatype = array.astype("<i4"), "INT32"
        else:
            array = np.stack([one.probabilities for one in predictions]).astype("<f4")
            datatype = "FP32"
        tensor: dict[str, Any] = {"name": output, "datatype": datatype, "shape": array.shape}
        if is_binary:
            content = array.tobytes()
            tensor["parameters"] = {"binary_data_size": len(content)}
            tail += content
        else:
            tensor["data"] = array.ravel().tolist()
        outputs.append(tensor)
    values = {"model_name": name, "model_version": VERSION, "outputs": outputs}
    head = json.dumps({**values, "id": request.id} if request.id else values).encode()
    if not tail:
        return head, {"content-type": "application/json"}
    return head + tail, {
        "content-type": "application/octet-stream",
        HEADER_LENGTH: str(len(head)),
    }


def _outputs_of(values: Mapping[str, Any]) -> dict[str, bool]:
    """Return whether each wanted output is binary; by default the mask, as JSON."""
    default = bool(values.get("parameters", {}).get("binary_data_output", False))
    found = {
        str(one["name"]): bool(one.get("parameters", {}).get("binary_data", default))
        for one in values.get("outputs", [])
    }
    unknown = set(found) - {MASK, PROBABILITIES}
    if unknown:
        raise _invalid(f"it has no output {min(unknown)[:50]!r}, only {MASK} and {PROBABILITIES}")
    return found or {MASK: default}


def _full_shape(shape: list[int], predictor: Predictor) -> list[int]:
    """Return (B, C, *S) for a shape without a batch, or without batch and channel."""
    dims, channels = predictor.plan.image_dims, predictor.plan.preprocessing.channels
    full = [*[1] * (dims + 2 - len(shape)), *shape]
    is_possible = len(shape) >= dims and (len(shape) > dims or channels == 1)
    if not is_possible or len(full) != dims + 2 or min(full) < 1 or full[1] != channels:
        axes = "(batch, channel, z, y, x)" if dims == 3 else "(batch, channel, y, x)"
        raise _invalid(f"the shape of its input is not {axes} with {channels} channels")
    return full


def _invalid(problem: str) -> Refusal:
    return Refusal(400, "invalid_tensor", f"The inference request is invalid: {problem}.")
