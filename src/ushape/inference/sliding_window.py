"""One image, one network -> probabilities: whole where it fits, else in tiles, band by band."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ushape.labels import LabelSpace
from ushape.transforms.resampling import mirror_indices, pad_mirrored
from ushape.transforms.tiling import STRETCH, Blend, Symmetry, TiledAxis, cut_axis, even_tile

BATCH_PX = 1 << 18
"""Small tiles are predicted together, about so many pixels at once."""


BAND_PX, MIN_TILE = 1 << 23, 256
"""Tiles of an image so wide that one row of them has more pixels are made lower, down to this."""


class Network(Protocol):
    """What predicts: a network, wherever and in whatever format it is computed."""

    @property
    def margin(self) -> int:
        """Pixels that it loses on each side."""
        ...

    def legal_size(self, at_least: int) -> int:
        """The smallest size, not smaller, that it takes."""
        ...

    def logits(self, tiles: Tensor) -> Tensor:
        """(B, C, *T) float32 on the CPU -> (B, K, *T') float32 on the CPU."""
        ...


class Rows(Protocol):
    """A prepared image, read in bands along the first axis of S."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *S)."""
        ...

    def read(self, first: int, last: int) -> np.ndarray:
        """(C, last - first, ...) of any type; 0 <= first < last <= S[0]."""
        ...

    def scale(self, part: np.ndarray) -> np.ndarray:
        """A part of what was read (C, *T), as float32, intensities scaled."""
        ...


@dataclass(frozen=True)
class ArrayRows:
    """An image that is in memory."""

    image: np.ndarray
    """(C, *S) float32, intensities scaled."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.image.shape

    def read(self, first: int, last: int) -> np.ndarray:
        return self.image[:, first:last]

    def scale(self, part: np.ndarray) -> np.ndarray:
        return part


@dataclass(frozen=True, kw_only=True)
class TileSettings:
    """How a large image is cut up."""

    shape: tuple[int, ...]
    """About what the network is shown at once, in pixels, its margin not counted."""

    overlap_fraction: float = 0.25
    stretch: float = STRETCH
    """A tile may be so many times longer, where fewer tiles then do."""

    blend: Blend = "gaussian"
    symmetries: tuple[Symmetry, ...] = (Symmetry(),)
    """Each tile is predicted in each of these ways, all results averaged."""


def predict_probabilities(
    network: Network, image: np.ndarray, space: LabelSpace, settings: TileSettings
) -> np.ndarray:
    """Class probabilities of one prepared image.

    Edges are mirrored to the network's legal size, and by its margin where it does not pad.

    Shapes:
        image: (C, *S) float32, intensities scaled.
        returns: (K, *S) float32.
    """
    bands = list(predict_bands(network, ArrayRows(image), space, settings))
    return bands[0] if len(bands) == 1 else np.concatenate(bands, axis=1)


def predict_bands(
    network: Network, rows: Rows, space: LabelSpace, settings: TileSettings
) -> Iterator[np.ndarray]:
    """The same from the first row to the last, in bands; memory follows the image's width, not
    its height.

    Shapes:
        yields: (K, n, *S[1:]) float32, n >= 1 rows that follow the last ones.
    """
    shape = rows.shape[1:]
    first, *others = _cut(network, shape, settings)
    band = np.zeros((space.channels, first.tile, *(axis.size for axis in others)), np.float32)
    inside = tuple(slice(size) for size in shape[1:])
    left = shape[0]
    for index, start in enumerate(first.starts):
        strip = _read_strip(rows, start, first.tile, [axis.size for axis in others], network.margin)
        if len(first.starts) == 1 and all(len(axis.starts) == 1 for axis in others):
            band = _predict_tiles(network, rows.scale(strip)[None], space, settings)[0]
        else:
            tiles = _TilesOfStrip(rows, strip, first.shares[index], others)
            _add_tiles(band, network, tiles, space, settings)
        last = index + 1 == len(first.starts)
        done = min(left, first.tile if last else first.starts[index + 1] - start)
        del strip  # What follows has its memory.
        np.minimum(band, 1, out=band)  # Shares in float32 add up to a little more than 1.
        yield band[(slice(None), slice(done), *inside)]
        left -= done
        rest = band[:, done:]
        band = np.zeros_like(band)
        band[:, : rest.shape[1]] = rest


def predict_alike(
    network: Network, images: np.ndarray, space: LabelSpace, settings: TileSettings
) -> np.ndarray | None:
    """Several images of one size at once; None where they do not fit into one tile.

    Shapes:
        images: (B, C, *S) -> (B, K, *S) float32.
    """
    shape = images.shape[2:]
    axes = _cut(network, shape, settings)
    if any(len(axis.starts) > 1 for axis in axes):
        return None
    after = [axis.size - size + network.margin for axis, size in zip(axes, shape, strict=True)]
    padded = pad_mirrored(_merge(images), [network.margin] * len(shape), after)
    tiles = padded.reshape(*images.shape[:2], *padded.shape[1:])
    found = _predict_tiles(network, tiles, space, settings)
    return found[(slice(None), slice(None), *(slice(size) for size in shape))]


def count_pixels(network: Network, shape: Sequence[int], settings: TileSettings) -> int:
    """Pixels that the network is shown in all for an image of this shape, margins included."""
    axes = _cut(network, shape, settings)
    each = math.prod(axis.tile + 2 * network.margin for axis in axes)
    return each * math.prod(len(axis.starts) for axis in axes) * len(settings.symmetries)


def _cut(network: Network, shape: Sequence[int], settings: TileSettings) -> list[TiledAxis]:
    """The tiles along each axis, of sizes that the network takes."""
    margin, axes = network.margin, []
    for place, (size, most) in enumerate(zip(shape, settings.shape, strict=True)):
        if place == 0 and len(shape) == 2:
            most = min(most, max(MIN_TILE, BAND_PX // shape[1]))
        tile = even_tile(size, most, _overlap_of(settings, place, most), settings.stretch)
        tile = network.legal_size(tile + 2 * margin) - 2 * margin
        # Tiles of a legal size overlap a little more than asked for, if that spares none.
        axes.append(cut_axis(size, tile, _overlap_of(settings, place, tile), settings.blend))
    return axes


def _overlap_of(settings: TileSettings, axis: int, tile: int) -> float:
    """The overlap in pixels that was meant, for tiles of another size."""
    return min(0.99, settings.overlap_fraction * settings.shape[axis] / tile)


def _read_strip(rows: Rows, start: int, tile: int, sizes: Sequence[int], margin: int) -> np.ndarray:
    """(C, tile + 2 margin, ...) from a row on, mirrored at the image's edges."""
    shape = rows.shape[1:]
    wanted = mirror_indices(np.arange(start - margin, start + tile + margin), shape[0])
    first, last = int(wanted.min()), int(wanted.max()) + 1
    strip = rows.read(first, last)
    if len(wanted) != last - first or (np.diff(wanted) != 1).any():
        strip = strip[:, wanted - first]
    after = [size - own + margin for size, own in zip(sizes, shape[1:], strict=True)]
    return pad_mirrored(strip, [0] + [margin] * len(after), [0, *after])


@dataclass(frozen=True)
class _TilesOfStrip:
    """The tiles of one strip, each as far as it counts."""

    rows: Rows
    strip: np.ndarray
    """(C, tile + 2 margin, ...) as read, mirrored at the image's edges."""

    shares: np.ndarray
    """(tile,) how much each row counts."""

    others: Sequence[TiledAxis]

    @property
    def places(self) -> list[tuple[int, ...]]:
        """Numbers of the tiles along the other axes."""
        return list(itertools.product(*(range(len(axis.starts)) for axis in self.others)))

    @property
    def pixels(self) -> int:
        """Of one tile, without its margin."""
        return math.prod([len(self.shares), *(axis.tile for axis in self.others)])

    def cut(self, place: tuple[int, ...], reach: int = 0) -> tuple[slice, ...]:
        """Where a tile lies along the other axes, with so many pixels more at its end."""
        return tuple(
            slice(axis.starts[k], axis.starts[k] + axis.tile + reach)
            for k, axis in zip(place, self.others, strict=True)
        )

    def read(self, place: tuple[int, ...], margin: int) -> np.ndarray:
        """(C, *T) float32, as the network sees it."""
        cut = self.cut(place, 2 * margin)
        return self.rows.scale(self.strip[(slice(None), slice(None), *cut)])

    def weigh(self, tile: np.ndarray, place: tuple[int, ...]) -> None:
        """Multiplies (K, *T') by how much each of its pixels counts."""
        shares = [
            self.shares,
            *(axis.shares[k] for k, axis in zip(place, self.others, strict=True)),
        ]
        for axis, own in enumerate(shares):
            tile *= own.reshape([-1 if a == axis else 1 for a in range(tile.ndim - 1)])


def _add_tiles(
    band: np.ndarray,
    network: Network,
    tiles: _TilesOfStrip,
    space: LabelSpace,
    settings: TileSettings,
) -> None:
    """Predicts the tiles of a strip and adds them, each as far as it counts."""
    places = tiles.places
    together = max(1, BATCH_PX // tiles.pixels)
    for some in (places[i : i + together] for i in range(0, len(places), together)):
        batch = np.stack([tiles.read(place, network.margin) for place in some])
        found = _predict_tiles(network, batch, space, settings)
        for tile, place in zip(found, some, strict=True):
            tiles.weigh(tile, place)
            band[(slice(None), slice(None), *tiles.cut(place))] += tile


def _predict_tiles(
    network: Network, tiles: np.ndarray, space: LabelSpace, settings: TileSettings
) -> np.ndarray:
    """(B, C, *T) -> (B, K, *T') probabilities, float32, averaged over the symmetries."""
    total: np.ndarray | None = None
    for symmetry in settings.symmetries:
        turned = symmetry.apply(_merge(tiles))
        batch = torch.from_numpy(turned.reshape(*tiles.shape[:2], *turned.shape[1:]))
        found = space.probabilities(network.logits(batch)).numpy()
        back = symmetry.undo(_merge(found))
        total = back.copy() if total is None else np.add(total, back, out=total)
    assert total is not None
    total /= np.float32(len(settings.symmetries))
    return total.reshape(len(tiles), space.channels, *total.shape[1:])


def _merge(batch: np.ndarray) -> np.ndarray:
    """(B, C, *S) -> (B * C, *S)."""
    return batch.reshape(-1, *batch.shape[2:])
