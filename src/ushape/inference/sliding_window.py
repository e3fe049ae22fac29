"""Sliding-window prediction: probabilities of an image, in one tile or in overlapping ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ushape.errors import DataError
from ushape.inference.network import Network
from ushape.labels import LabelSpace
from ushape.models import legal_shape
from ushape.transforms.resampling import mirror_indices, pad_mirrored
from ushape.transforms.tiling import STRETCH, Blend, Symmetry, TiledAxis, cut_axis, even_tile
from ushape.types import Box

BATCH_PX = 1 << 18
"""Number of pixels up to which small tiles are computed together."""

MAX_STRIP_PX = 1 << 23
"""Largest number of pixels in one row of tiles; the tiles of wider images are made lower."""

MIN_TILE = 256
"""Height below which tiles of wide images are not reduced."""

MAX_LAYER_VALUES = 1 << 28
"""Largest number of outputs of one layer of tiles of a volume; the tiles of volumes with a larger
cross-section are made lower."""

MIN_TILE_DEPTH = 96
"""Depth below which tiles of volumes with a large cross-section are not reduced."""

YIELDED_PX = 1 << 24
"""Number of pixels of a band that are passed on together."""


class Rows(Protocol):
    """A preprocessed image that is read in bands along the first axis of S."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *S)."""
        ...

    def read_box(self, box: Box) -> np.ndarray:
        """Return a part (C, *box) of any type."""
        ...

    def scale(self, part: np.ndarray) -> np.ndarray:
        """Return a part of what was read, (C, *T), as normalized float32."""
        ...


@dataclass(frozen=True)
class ArrayRows:
    """An image in memory."""

    image: np.ndarray
    """(C, *S) normalized float32."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.image.shape

    def read_box(self, box: Box) -> np.ndarray:
        return self.image[(slice(None), *(slice(*edge) for edge in box))]

    def scale(self, part: np.ndarray) -> np.ndarray:
        return part


@dataclass(frozen=True, kw_only=True)
class TileSettings:
    """How a large image is cut into tiles."""

    shape: tuple[int, ...]
    """Approximate size of a tile in pixels, without the margin of the network."""

    overlap_fraction: float = 0.25
    stretch: float = STRETCH
    """Factor by which a tile may be longer if fewer tiles then suffice."""

    blend: Blend = "gaussian"
    symmetries: tuple[Symmetry, ...] = (Symmetry(),)
    """Transformed versions of each tile whose predictions are averaged."""


def sliding_window(
    network: Network, image: np.ndarray, space: LabelSpace, settings: TileSettings
) -> np.ndarray:
    """Return the class probabilities of one normalized image.

    The image is mirrored at its edges to a legal size, and by the margin of a network that does
    not pad.

    Shapes:
        image: (C, *S) float32.
        returns: (K, *S) float32.
    """
    bands = list(sliding_bands(network, ArrayRows(image), space, settings))
    return bands[0] if len(bands) == 1 else np.concatenate(bands, axis=1)


def sliding_window_batch(
    network: Network, images: Sequence[np.ndarray], space: LabelSpace, settings: TileSettings
) -> list[np.ndarray]:
    """Return the class probabilities of images of one size.

    Images that fit into a single tile are computed together, others one after the other. The
    result of an image does not depend on the images it is computed with.

    Shapes:
        images: (C, *S) float32 each.
        returns: (K, *S) float32 each.
    """
    shape = images[0].shape[1:]
    axes = _cut(network, shape, space, settings)
    count = _padded_batch_size(len(images), math.prod(axis.tile for axis in axes))
    if count == 1 or any(len(axis.starts) > 1 for axis in axes):
        return [sliding_window(network, image, space, settings) for image in images]
    after = [axis.size - size + network.margin for axis, size in zip(axes, shape, strict=True)]
    padded = pad_mirrored(np.concatenate(images), [network.margin] * len(shape), after)
    tiles = padded.reshape(len(images), -1, *padded.shape[1:])
    tiles = tiles[np.arange(count) % len(images)]
    found = _tile_probabilities(network, tiles, space, settings)[: len(images)]
    return list(found[(slice(None), slice(None), *(slice(size) for size in shape))])


def _padded_batch_size(images: int, pixels: int) -> int:
    """Return the batch size for which the result of each image is that in any other batch.

    Libraries may sum in a different order for a batch of one (oneDNN on processors with AVX2), or
    for a batch that is not divided equally among the threads (group norm with channels last). Such
    a batch is padded with copies of its images; an image that is always computed alone is not.

    Args:
        pixels: Of the tile of each image.
    """
    together = BATCH_PX // pixels
    threads = max(2, torch.get_num_threads())
    return max(images, min(together, math.ceil(images / threads) * threads))


def sliding_bands(
    network: Network,
    rows: Rows,
    space: LabelSpace,
    settings: TileSettings,
    box: Box | None = None,
) -> Iterator[np.ndarray]:
    """Yield the class probabilities of an image in bands, from the first row to the last.

    The memory needed depends on the width of the image (and its height, if it is a volume), not on
    the length of the first axis: that of one strip of tiles.

    Args:
        box: Part of S to predict, by all tiles of the whole image that touch it; None: all of it.

    Shapes:
        yields: (K, n, *S[1:]), or (K, n, *box[1:]), float32, n >= 1 rows that follow the previous
            ones.
    """
    whole = _cut(network, rows.shape[1:], space, settings)
    box = box or tuple((0, size) for size in rows.shape[1:])
    origin, (first, *others) = _touching(whole, box)
    sizes = [first.tile, *(axis.size for axis in others)]
    band = np.zeros((space.outputs, *sizes), np.float32)
    inside = tuple(slice(a - o, b - o) for (a, b), o in zip(box[1:], origin[1:], strict=True))
    together = max(1, YIELDED_PX // math.prod(b - a for a, b in box[1:]))
    top, bottom = (edge - origin[0] for edge in box[0])
    for index, start in enumerate(first.starts):
        strip = _read_strip(rows, [origin[0] + start, *origin[1:]], sizes, network.margin)
        if len(first.starts) == 1 and all(len(axis.starts) == 1 for axis in others):
            band = _tile_probabilities(network, rows.scale(strip)[None], space, settings)[0]
        else:
            tiles = _TilesOfStrip(rows, strip, first.shares[index], others)
            _add_tiles(band, network, tiles, space, settings)
        last = index + 1 == len(first.starts)
        done = first.tile if last else first.starts[index + 1] - start
        del strip  # Frees its memory for what follows.
        np.minimum(band, 1, out=band)  # Weights in float32 may add up to slightly more than 1.
        end = min(done, bottom - start)
        for row in range(max(0, top - start), end, together):
            part = band[(slice(None), slice(row, min(end, row + together)), *inside)]
            yield part if last else part.copy()  # The band is used again.
        if not last:
            _move_up(band, done)


def touched_box(
    network: Network, shape: Sequence[int], space: LabelSpace, settings: TileSettings, box: Box
) -> Box:
    """Return the part of an image that `sliding_bands` reads to predict a part of it.

    Args:
        shape: (*S) of the whole image.
    """
    origin, axes = _touching(_cut(network, shape, space, settings), box)
    wanted = _mirrored(shape, origin, [axis.size for axis in axes], network.margin)
    return _enclose(wanted)


def _touching(axes: Sequence[TiledAxis], box: Box) -> tuple[list[int], list[TiledAxis]]:
    """Return the first pixel of the tiles that touch a part, and these tiles counted from there."""
    found = [axis.touching(*edge) for axis, edge in zip(axes, box, strict=True)]
    return [origin for origin, _ in found], [axis for _, axis in found]


def _move_up(band: np.ndarray, rows: int) -> None:
    """Remove the first rows of a band (K, n, ...), and append as many zeros; in place."""
    kept = band.shape[1] - rows
    for top in range(0, kept, rows):  # A part never overlaps the one that it is copied from.
        end = min(kept, top + rows)
        band[:, top:end] = band[:, top + rows : end + rows]
    band[:, kept:] = 0


def _cut(
    network: Network, shape: Sequence[int], space: LabelSpace, settings: TileSettings
) -> list[TiledAxis]:
    """Return the tiles along each axis, of sizes that are legal for the network."""
    margin, wanted = network.margin, []
    for place, (size, most) in enumerate(zip(shape, settings.shape, strict=True)):
        if place == 0 and len(shape) == 2:
            most = min(most, max(MIN_TILE, MAX_STRIP_PX // shape[1]))
        elif place == 0:
            layers = MAX_LAYER_VALUES // (space.outputs * math.prod(shape[1:]))
            most = min(most, max(MIN_TILE_DEPTH, layers))
        tile = even_tile(size, most, _overlap_of(settings, place, most), settings.stretch)
        wanted.append(tile + 2 * margin)
    legal = legal_shape(network, wanted)
    if any(symmetry.is_transposed for symmetry in settings.symmetries):
        *others, y, x = legal  # Each of the two must also be legal along the other axis.
        *_, x, y = legal_shape(network, (*others, x, y))
        legal = (*others, y, x)
    tiles = [size - 2 * margin for size in legal]
    # If the number of tiles is the same, tiles of a legal size overlap more than requested.
    return [
        cut_axis(size, tile, _overlap_of(settings, place, tile), settings.blend)
        for place, (size, tile) in enumerate(zip(shape, tiles, strict=True))
    ]


def _overlap_of(settings: TileSettings, axis: int, tile: int) -> float:
    """Return the fraction that gives tiles of another size the intended overlap in pixels.

    Smaller tiles overlap by at most half, or by the fraction that is set if it is larger.
    """
    fraction = settings.overlap_fraction
    return min(max(fraction, 0.5), fraction * settings.shape[axis] / tile)


def _read_strip(rows: Rows, starts: Sequence[int], sizes: Sequence[int], margin: int) -> np.ndarray:
    """Read (C, *sizes) with a margin on all sides, mirrored at the edges of the image."""
    wanted = _mirrored(rows.shape[1:], starts, sizes, margin)
    box = _enclose(wanted)
    strip = rows.read_box(box)
    for axis, (own, (first, last)) in enumerate(zip(wanted, box, strict=True), start=1):
        if len(own) != last - first or (np.diff(own) != 1).any():
            strip = strip.take(own - first, axis=axis)
    return strip


def _mirrored(
    shape: Sequence[int], starts: Sequence[int], sizes: Sequence[int], margin: int
) -> list[np.ndarray]:
    """Return the pixels along each axis that are read for tiles with a margin on both sides."""
    return [
        mirror_indices(np.arange(start - margin, start + size + margin), length)
        for start, size, length in zip(starts, sizes, shape, strict=True)
    ]


def _enclose(indices: Sequence[np.ndarray]) -> Box:
    """Return the smallest box that contains pixels with these indices along each axis."""
    return tuple((int(own.min()), int(own.max()) + 1) for own in indices)


@dataclass(frozen=True)
class _TilesOfStrip:
    """The tiles of one strip, with the weights of their pixels."""

    rows: Rows
    strip: np.ndarray
    """(C, tile + 2 margin, ...) as read, mirrored at the edges of the image."""

    shares: np.ndarray
    """(tile,) weight of each row."""

    others: Sequence[TiledAxis]

    @property
    def places(self) -> list[tuple[int, ...]]:
        """Indices of the tiles along the other axes."""
        return list(itertools.product(*(range(len(axis.starts)) for axis in self.others)))

    @property
    def pixels(self) -> int:
        """Number of pixels of one tile, without its margin."""
        return math.prod([len(self.shares), *(axis.tile for axis in self.others)])

    def cut(self, place: tuple[int, ...], reach: int = 0) -> tuple[slice, ...]:
        """Return where a tile lies along the other axes, with `reach` more pixels at its end."""
        return tuple(
            slice(axis.starts[k], axis.starts[k] + axis.tile + reach)
            for k, axis in zip(place, self.others, strict=True)
        )

    def read(self, place: tuple[int, ...], margin: int) -> np.ndarray:
        """Return a tile (C, *T) as normalized float32."""
        cut = self.cut(place, 2 * margin)
        return self.rows.scale(self.strip[(slice(None), slice(None), *cut)])

    def weigh(self, tile: np.ndarray, place: tuple[int, ...]) -> None:
        """Multiply the probabilities (K, *T') of a tile by the weights of its pixels."""
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
    """Compute the tiles of a strip and add them to the band with their weights."""
    places = tiles.places
    together = max(1, BATCH_PX // tiles.pixels)
    for some in (places[i : i + together] for i in range(0, len(places), together)):
        batch = np.stack([tiles.read(place, network.margin) for place in some])
        found = _tile_probabilities(network, batch, space, settings)
        for tile, place in zip(found, some, strict=True):
            tiles.weigh(tile, place)
            band[(slice(None), slice(None), *tiles.cut(place))] += tile


def _tile_probabilities(
    network: Network, tiles: np.ndarray, space: LabelSpace, settings: TileSettings
) -> np.ndarray:
    """Return the probabilities (B, K, *T') of tiles (B, C, *T), averaged over the symmetries."""
    total: np.ndarray | None = None
    for symmetry in settings.symmetries:
        turned = symmetry.apply(_merge(tiles))
        batch = torch.from_numpy(turned.reshape(*tiles.shape[:2], *turned.shape[1:]))
        found = space.probabilities_of(network.logits(batch).numpy())
        back = symmetry.undo(_merge(found))
        total = back.copy() if total is None else np.add(total, back, out=total)
    assert total is not None
    total /= np.float32(len(settings.symmetries))
    if not np.isfinite(total).all():
        raise DataError(
            "The network computes probabilities that are NaN.",
            code="probabilities_not_finite",
            hint="Its weights or the intensities of the image are extreme. Try --device cpu, or "
            "train again.",
        )
    return total.reshape(len(tiles), space.outputs, *total.shape[1:])


def _merge(batch: np.ndarray) -> np.ndarray:
    """Reshape (B, C, *S) to (B * C, *S)."""
    return batch.reshape(-1, *batch.shape[2:])
