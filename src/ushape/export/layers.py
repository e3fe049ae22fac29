"""Steps of the preprocessing as modules that graphs of other programs can express.

Sizes are unknown when a graph is built, and so is the device on which it will be run. Both are
therefore handled as in `ushape.export.sizes`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ushape.data.intensities import SAMPLED_PX
from ushape.export.sizes import count_up, divided_size, larger, size_like, smaller
from ushape.io.reducing import HALF_ERROR, HALF_ERROR_SHARE
from ushape.models.layers import LINEAR_MODE
from ushape.normalization import Normalization

MOST_SAMPLED_PX = 1 << 18
"""Largest number of pixels by which an image is normalized. `thin_out` takes at most 17 times
SAMPLED_PX of them, unless the width is a multiple of 30030, the product of the primes to 13."""

TRIED_STEPS = 40
"""Number of steps between pixels among which one shares no factor with the width: of 40 consecutive
numbers, this is true of at least one for all widths below 200 million."""

GCD_ROUNDS = 24
"""Rounds of Euclid's algorithm, enough for steps up to 46,000, which is 760 million pixels."""

LARGEST = torch.finfo(torch.float32).max


class FixedIntensities(nn.Module):
    """Clip and standardize with constants, as `Normalization.apply` does.

    Shapes:
        x: (B, C, *S) -> (B, C, *S); NaN becomes 0.
    """

    def __init__(self, normalization: Normalization, dims: int):
        super().__init__()

        def column(values: Sequence[float]) -> nn.Buffer:
            return nn.Buffer(torch.tensor(values, dtype=torch.float32).reshape(1, -1, *[1] * dims))

        self.low, self.high = column(normalization.low), column(normalization.high)
        self.mean, self.std = column(normalization.mean), column(normalization.std)

    def forward(self, x: Tensor) -> Tensor:
        is_missing = torch.isnan(x)
        clipped = x.masked_fill(is_missing, 0.0).maximum(self.low).minimum(self.high)
        return ((clipped - self.mean) / self.std).masked_fill(is_missing, 0.0)


class MeasuredIntensities(nn.Module):
    """Clip and standardize each image by its own pixels, as `Normalization.measure` does.

    The pixels that count are those that `thin_out` takes.

    Args:
        percentiles: Percentiles at which intensities are clipped; None: scale the range to [0, 1].

    Shapes:
        x: (B, C, *S) -> (B, C, *S); NaN becomes 0.
    """

    def __init__(self, percentiles: tuple[float, float] | None):
        super().__init__()
        self.percentiles = percentiles

    def forward(self, x: Tensor) -> Tensor:
        pixels, is_known = sample_pixels(x)
        count = is_known.sum(dim=-1, keepdim=True).to(torch.float32)
        if self.percentiles is None:
            low = pixels.masked_fill(~is_known, LARGEST).amin(dim=-1, keepdim=True)
            high = pixels.masked_fill(~is_known, -LARGEST).amax(dim=-1, keepdim=True)
        else:
            low, high = _percentiles_of(pixels, is_known, count, self.percentiles)
        low, high = torch.where(count > 0, low, 0.0), torch.where(count > 0, high, 0.0)
        if self.percentiles is None:
            mean, std = low - low, high - low
        else:
            mean, std = _moments(pixels, is_known, count, low, high)
        std = torch.where(std > 0, std, 1.0)  # Of a constant image, as in `Normalization`.
        column = [*x.shape[:2], *[1] * (x.dim() - 2)]
        low, high, mean, std = (one.reshape(column) for one in (low, high, mean, std))
        is_missing = torch.isnan(x)
        clipped = x.masked_fill(is_missing, 0.0).maximum(low).minimum(high)
        return ((clipped - low - mean) / std).masked_fill(is_missing, 0.0)


def _moments(
    pixels: Tensor, is_known: Tensor, count: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
    """Return mean - low and the standard deviation of clipped pixels, both exact if constant."""
    above = pixels.maximum(low).minimum(high) - low
    most = count.clamp(min=1.0)
    mean = above.masked_fill(~is_known, 0.0).sum(dim=-1, keepdim=True) / most
    square = (above - mean).square().masked_fill(~is_known, 0.0)
    return mean, (square.sum(dim=-1, keepdim=True) / most).sqrt()


def _percentiles_of(
    pixels: Tensor, is_known: Tensor, count: Tensor, percentiles: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Return two percentiles, interpolated linearly between pixels as NumPy does.

    The rank of the upper one is counted from the largest pixel, since float32 would not hold it.
    """
    ordered = pixels.masked_fill(~is_known, LARGEST).sort(dim=-1).values
    last = (count - 1).clamp(min=0.0)
    ends = []
    for share, is_from_top in ((percentiles[0], False), (100 - percentiles[1], True)):
        rank = last * (share / 100)
        whole = rank.floor()
        near, far = whole, (whole + 1).minimum(last)
        if is_from_top:
            near, far = last - near, last - far
        first = ordered.gather(-1, near.to(torch.int64))
        second = ordered.gather(-1, far.to(torch.int64))
        ends.append(first + (second - first) * (rank - whole))
    return ends[0], ends[1]


def sample_pixels(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pixels of each image that `thin_out` takes, and which of them count.

    Shapes:
        x: (B, C, *S).
        returns: (B, C, N) twice, N = min(pixels, MOST_SAMPLED_PX); the second is True for finite
            pixels that are taken.
    """
    flat = x.flatten(2)
    pixels = size_like(x, flat.shape[2])
    step = _thinning_step(pixels, size_like(x, x.shape[-1]))
    places = count_up(x, smaller(flat.shape[2], MOST_SAMPLED_PX)) * step
    taken = flat.index_select(2, places.minimum(pixels - 1))
    is_finite = taken.abs() <= LARGEST  # False for NaN.
    return taken.masked_fill(~is_finite, 0.0), is_finite & (places < pixels)


def _thinning_step(pixels: Tensor, width: Tensor) -> Tensor:
    """Return the largest step up to pixels // SAMPLED_PX that shares no factor with the width."""
    most = (pixels // SAMPLED_PX).clamp(min=1)
    steps = (most - count_up(pixels, TRIED_STEPS)).clamp(min=1)
    divisor, rest = steps, width % steps
    for _ in range(GCD_ROUNDS):
        divisor, rest = (
            torch.where(rest > 0, rest, divisor),
            divisor % rest.clamp(min=1),
        )
    return torch.where(divisor == 1, steps, 1).max()


class Reduce(nn.Module):
    """Average areas, as `resample_image` does where an image shrinks by given factors.

    Args:
        factors: Factor along each axis of S, at least 1.
        rounds: Whether values are rounded if all pixels of an image are whole numbers, since the
            averages of files of integers are rounded.

    Shapes:
        x: (B, C, *S) -> (B, C, *S'), as in `PreprocessingConfig.working_shape`.
    """

    def __init__(self, factors: Sequence[Fraction], *, rounds: bool = True):
        super().__init__()
        self.factors, self.rounds = tuple(factors), rounds

    def forward(self, x: Tensor) -> Tensor:
        averaged = x
        for axis, factor in enumerate(self.factors, start=2):
            if factor != 1:
                new = divided_size(x.shape[axis], factor)
                averaged = _average(averaged, axis, new, factor)
        return torch.where(_is_whole(x), _round(averaged), averaged) if self.rounds else averaged


def _is_whole(x: Tensor) -> Tensor:
    """Return for each image whether all pixels are whole numbers, (B, 1, ...)."""
    return (x == x.round()).flatten(1).all(dim=1).reshape(-1, *[1] * (x.dim() - 1))


def _round(x: Tensor) -> Tensor:
    """Round to whole numbers as `resample_image` does: halves to even, within rounding errors."""
    halves = (2 * x).round() / 2
    is_half = (x - halves).abs() <= HALF_ERROR + HALF_ERROR_SHARE * x.abs()
    return torch.where(is_half, halves, x).round()


def _average(x: Tensor, axis: int, new: Any, factor: Fraction) -> Tensor:
    """Average over `new` equal intervals of an axis; a divided pixel counts in proportion."""
    old = x.shape[axis]
    index = count_up(x, new)
    start, end = index * old, (index + 1) * old  # In pixels, times `new`.
    first, last = start // new, (end + new - 1) // new - 1
    total: Tensor | None = None
    # A size is rounded to at least 1: an interval is at most 1.5 times as long as the factor.
    for tap in range(int(factor * 3 / 2) + 2):
        pixel = first + tap
        inside = (end.minimum((pixel + 1) * new) - start.maximum(pixel * new)).clamp(min=0)
        share = inside.to(torch.float32) / old
        share = share.reshape([-1 if place == axis else 1 for place in range(x.dim())])
        part = x.index_select(axis, pixel.minimum(last)) * share
        part = part.masked_fill(share == 0, 0.0)  # Of infinity, the product is NaN.
        total = part if total is None else total + part
    assert total is not None
    return total


class ResizeTo(nn.Module):
    """Resample to a fixed shape: areas are averaged where an axis shrinks, else linear.

    Args:
        shape: Size along the last axes of S.
        rounds: As for `Reduce`.

    Shapes:
        x: (B, C, *S) -> (B, C, *S'); sizes of earlier axes are kept.
    """

    def __init__(self, shape: Sequence[int], *, rounds: bool = True):
        super().__init__()
        self.shape, self.rounds = tuple(shape), rounds

    def forward(self, x: Tensor) -> Tensor:
        resized = x
        for axis, new in enumerate(self.shape, start=x.dim() - len(self.shape)):
            along = resized.transpose(axis, -1)
            resized = _resize_last(along, *_resize_weights(x, axis, new)).transpose(axis, -1)
        return torch.where(_is_whole(x), _round(resized), resized) if self.rounds else resized


def _resize_last(x: Tensor, weights: Tensor, is_used: Tensor) -> Tensor:
    """Resample the last axis; NaN and infinity reach only the pixels that are computed from them.

    In a product of matrices, they would reach all pixels, since their product with 0 is NaN.
    """
    is_missing = torch.isnan(x)
    is_finite = x.abs() <= LARGEST
    used = is_used.to(torch.float32)
    infinite = x.masked_fill(is_finite | is_missing, 0.0).sign() @ used
    found = x.masked_fill(~is_finite, 0.0) @ weights
    found = found.masked_fill(infinite > 0, math.inf).masked_fill(infinite < 0, -math.inf)
    return found.masked_fill(is_missing.to(torch.float32) @ used > 0, math.nan)


def _resize_weights(x: Tensor, axis: int, new: int) -> tuple[Tensor, Tensor]:
    """Return the weight of each pixel along an axis in each of `new` ones, and whether it is used.

    In linear interpolation, the upper pixel is used even if its weight is 0.

    Shapes:
        returns: (old, new) float32 and bool.
    """
    size, index = size_like(x, x.shape[axis]), count_up(x, new)
    pixel = count_up(x, x.shape[axis])[:, None]
    end = ((index + 1) * size).minimum((pixel + 1) * new)
    inside = (end - (index * size).maximum(pixel * new)).clamp(min=0)
    averaged = inside.to(torch.float32) / size
    place = (size / new) * (index + 0.5) - 0.5
    place = place.clamp(min=0.0).minimum((size - 1).to(torch.float32))
    linear = (1 - (place - pixel).abs()).clamp(min=0.0)
    above = pixel - place.floor()
    is_between = (above == 0) | ((above == 1) & (size != new))
    return (
        torch.where(size > new, averaged, linear),
        torch.where(size > new, averaged > 0, is_between),
    )


class PadToSquare(nn.Module):
    """Pad the shorter of the last two axes with zeros, equally before and after."""

    def forward(self, x: Tensor) -> Tensor:
        side = larger(x.shape[-2], x.shape[-1])
        for axis in (x.dim() - 2, x.dim() - 1):
            size = size_like(x, x.shape[axis])
            places = count_up(x, side) - (size_like(x, side) - size) // 2
            is_inside = (places >= 0) & (places < size)
            column = [-1 if place == axis else 1 for place in range(x.dim())]
            x = x.index_select(axis, places.clamp(min=0).minimum(size - 1))
            x = x.masked_fill(~is_inside.reshape(column), 0.0)
        return x


def crop_square(x: Tensor, shape: Sequence[Any]) -> Tensor:
    """Undo `PadToSquare`: (B, K, *S') to (B, K, *shape)."""
    for axis, size in enumerate(shape, start=2):
        x = x.narrow(axis, (x.shape[axis] - size) // 2, size)
    return x


def enlarge(probabilities: Tensor, shape: Sequence[Any]) -> Tensor:
    """Resample probabilities linearly, as `resample_probabilities` does: (B, K, *S) -> *shape."""
    mode = LINEAR_MODE[len(shape)]
    return functional.interpolate(probabilities, list(shape), mode=mode, align_corners=False)


class PadMirrored(nn.Module):
    """Mirror an image at its edges to a legal size of the network, as the sliding window does.

    Args:
        margin: Pixels that the network loses on each side.
        first: Smallest legal size along each axis.
        steps: Difference between a legal size and the next one along each axis.

    Shapes:
        x: (B, C, *S) -> (B, C, *S'), S' >= S + 2 margin.
    """

    def __init__(self, margin: int, first: Sequence[int], steps: Sequence[int]):
        super().__init__()
        self.margin, self.first, self.steps = margin, tuple(first), tuple(steps)

    def forward(self, x: Tensor) -> Tensor:
        for axis, (first, step) in enumerate(zip(self.first, self.steps, strict=True), start=2):
            size = x.shape[axis]
            # No image is so small that the first legal size would have to be chosen for it.
            legal = first + (size + 2 * self.margin - first + step - 1) // step * step
            places = count_up(x, legal) - self.margin
            period = (2 * size_like(x, size) - 2).clamp(min=1)
            folded = places % period
            x = x.index_select(axis, folded.minimum(period - folded))
        return x
