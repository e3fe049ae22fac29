"""File with the weights of a network, and a checksum of them in its header."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ushape.errors import RunError
from ushape.io.files import write_bytes

CHECKSUM = "sha256"
"""Name of the checksum among the facts in the header; missing in older files."""

PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""First bytes of the files that torch.save writes: a zip archive or a pickle."""

COPY_AGAIN = "Copy the complete run folder again."


def save_weights(path: Path, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write the weights completely or not at all, with the facts in the header of the file."""
    plain = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    # A single entry, because safetensors writes several in any order: equal weights give equal
    # files.
    stored = {**facts, CHECKSUM: _checksum_of(plain)}
    header = {"ushape": json.dumps(stored, sort_keys=True)}
    write_bytes(path, safetensors.torch.save(plain, header))


def read_facts(path: Path) -> dict[str, Any]:
    """Return what is stored with the weights.

    Raises:
        RunError: if the file is damaged.
    """
    return {key: value for key, value in _read_header(path)[0].items() if key != CHECKSUM}


def load_weights(path: Path, expected: nn.Module) -> dict[str, Tensor]:
    """Load weights, once their names and sizes are those of a network.

    Args:
        expected: The network, possibly without data: nothing is allocated for weights that do not
            fit.

    Raises:
        RunError: if the weights are damaged, not finite, or do not belong to the network.
    """
    shapes = read_shapes(path)
    wanted = {name: tuple(value.shape) for name, value in expected.state_dict().items()}
    for name in sorted(wanted.keys() | shapes.keys()):
        if wanted.get(name) != shapes.get(name):
            raise damaged_weights(
                path,
                f"it does not fit plan.json: {name} has the shape {shapes.get(name, 'none')} "
                f"instead of {wanted.get(name, 'none')}",
            )
    return read_weights(path)


def read_weights(path: Path, hint: str = COPY_AGAIN) -> dict[str, Tensor]:
    """Read all weights of a file.

    Args:
        hint: What to do if they cannot be used.

    Raises:
        RunError: if the weights are damaged or not finite.
    """
    facts, _ = _read_header(path, hint)
    try:
        weights = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise damaged_weights(path, _first_line(error), hint) from None
    if broken := [name for name, value in weights.items() if not value.isfinite().all()]:
        raise RunError(
            f"{path} contains NaN or infinite weights in {broken[0]}: the network cannot predict.",
            code="weights_not_finite",
            hint=f"{hint.removesuffix('.')}, or train again.",
        )
    if facts.get(CHECKSUM, _checksum_of(weights)) != _checksum_of(weights):
        problem = "the weights were changed after training (their checksum differs)"
        raise damaged_weights(path, problem, hint)
    return weights


def read_shapes(path: Path, hint: str = COPY_AGAIN) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight of a file, without reading the weights.

    Args:
        hint: What to do if the file cannot be used.

    Raises:
        RunError: if the file is damaged.
    """
    return _read_header(path, hint)[1]


def checksum_of_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_header(
    path: Path, hint: str = COPY_AGAIN
) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """Return the facts in the header, and the shape of each weight."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("ushape", "{}"))
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        problem = f"it is not a complete file in the format safetensors ({_first_line(error)})"
        raise damaged_weights(path, problem, hint) from None
    except (OSError, ValueError, RecursionError) as error:
        raise damaged_weights(path, _first_line(error), hint) from None
    if not isinstance(facts, dict):
        raise damaged_weights(path, "its header does not describe the training", hint)
    return facts, shapes


def _checksum_of(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the names, types, shapes and bytes of all weights."""
    found = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name]
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(":.")


def damaged_weights(path: Path, problem: str, hint: str = COPY_AGAIN) -> RunError:
    """Return the error for a file of weights that cannot be used."""
    return RunError(f"{path} cannot be used: {problem}.", code="damaged_weights", hint=hint)
