"""One array, one network -> probabilities: whole where it fits, else in tiles."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ushape.labels import LabelSpace
from ushape.spatial.grid import pad_mirrored
from ushape.spatial.symmetry import Symmetry
from ushape.spatial.tiles import TileAccumulator, TilingConfig, blend_window, tile_starts


@dataclass(frozen=True, kw_only=True)
class TileSettings:
    """How a large image is cut up."""

    shape: tuple[int, ...]
    """What the network is shown at most at once, in pixels, its margin not counted."""

    tiling: TilingConfig
    symmetries: tuple[Symmetry, ...] = (Symmetry(),)
    """The image is predicted in each of these ways, all results averaged."""


def predict_probabilities(
    network: nn.Module,
    image: np.ndarray,
    space: LabelSpace,
    settings: TileSettings,
    *,
    layout: torch.memory_format = torch.contiguous_format,
) -> np.ndarray:
    """Class probabilities of one prepared image; the network must be in eval mode.

    Edges are mirrored to the network's legal size, and by its margin where it does not pad.

    Args:
        network: With `margin` and `legal_size`, on its device.
        layout: Memory format of the network's input.

    Shapes:
        image: (C, *S) float32, intensities scaled.
        returns: (K, *S) float32.
    """
    assert not network.training, "normalisation and dropout must be switched to prediction"
    total: np.ndarray | None = None
    for symmetry in settings.symmetries:
        turned = symmetry.apply(image)
        found = symmetry.undo(_predict_once(network, turned, space, settings, layout))
        total = found if total is None else total + found
    assert total is not None
    return np.ascontiguousarray(total / np.float32(len(settings.symmetries)))


def _predict_once(
    network: nn.Module,
    image: np.ndarray,
    space: LabelSpace,
    settings: TileSettings,
    layout: torch.memory_format,
) -> np.ndarray:
    """Pads the image, walks over its tiles, cuts the padding off again."""
    shape = image.shape[1:]
    margin, inner = _fit_tile(network, shape, settings.shape)
    # At least one whole tile, and the network's margin around it.
    padded_shape = [max(size, tile) for size, tile in zip(shape, inner, strict=True)]
    after = [padded - size + margin for padded, size in zip(padded_shape, shape, strict=True)]
    padded = pad_mirrored(image, [margin] * len(shape), after)

    starts = list(_tile_corners(padded_shape, inner, settings.tiling.overlap_fraction))
    if len(starts) == 1:
        result = _run_network(network, padded, space, layout)
    else:
        window = blend_window(inner, settings.tiling.blend)
        accumulator = TileAccumulator(space.channels, tuple(padded_shape), window)
        for start in starts:
            cut = tuple(
                slice(first, first + tile + 2 * margin)
                for first, tile in zip(start, inner, strict=True)
            )
            tile = np.ascontiguousarray(padded[(slice(None), *cut)])
            accumulator.add(_run_network(network, tile, space, layout), start)
        result = accumulator.result()
    return result[(slice(None), *(slice(size) for size in shape))]


def _fit_tile(
    network: nn.Module, shape: Sequence[int], tile_shape: Sequence[int]
) -> tuple[int, tuple[int, ...]]:
    """The network's margin, and the size that a tile gives back: the image's where it fits."""
    margin: int = network.margin  # type: ignore[assignment]
    legal_size = network.legal_size
    inner = tuple(
        legal_size(min(size, most) + 2 * margin) - 2 * margin  # type: ignore[operator]
        for size, most in zip(shape, tile_shape, strict=True)
    )
    return margin, inner


def _tile_corners(
    shape: Sequence[int], tile: Sequence[int], overlap_fraction: float
) -> Iterator[tuple[int, ...]]:
    axes = [tile_starts(size, t, overlap_fraction) for size, t in zip(shape, tile, strict=True)]
    return itertools.product(*axes)


def _run_network(
    network: nn.Module, tile: np.ndarray, space: LabelSpace, layout: torch.memory_format
) -> np.ndarray:
    """(C, *T) -> (K, *T'), probabilities in float32."""
    weight = next(network.parameters())
    batch: Tensor = torch.from_numpy(tile)[None]
    logits = network(batch.to(weight.device, weight.dtype, memory_format=layout))
    return space.probabilities(logits.float())[0].cpu().numpy()
