"""The ways to mirror and turn an image that need no interpolation, and their inverses."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Average = Literal["none", "mirrored", "rotated_7", "all_8"]


@dataclass(frozen=True, kw_only=True)
class Symmetry:
    """Mirrored axes, after the last two were exchanged or not."""

    mirror_axes: tuple[int, ...] = ()
    """Axes of S, from 0, or from -1 backwards."""

    is_transposed: bool = False

    def apply(self, array: np.ndarray) -> np.ndarray:
        """(C, *S) -> (C, *S'), contiguous."""
        turned = array.swapaxes(-1, -2) if self.is_transposed else array
        return np.ascontiguousarray(np.flip(turned, self._axes))

    def undo(self, array: np.ndarray) -> np.ndarray:
        """(K, *S') -> (K, *S), pixel for pixel; a view."""
        turned = np.flip(array, self._axes)
        return turned.swapaxes(-1, -2) if self.is_transposed else turned

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(axis + 1 if axis >= 0 else axis for axis in self.mirror_axes)


def symmetries(average: Average, mirror_axes: Sequence[int], dims: int) -> tuple[Symmetry, ...]:
    """What is predicted and averaged; the image as it is comes first.

    Args:
        average: none; mirrored, along every combination of `mirror_axes`; all_8 symmetries of the
            square; rotated_7, seven of these: the four quarter turns, the two mirrorings, one
            transposition.
        dims: D; squares lie in the last two axes.
    """
    if average == "none":
        return (Symmetry(),)
    if average == "mirrored":
        return tuple(Symmetry(mirror_axes=axes) for axes in _subsets(mirror_axes))
    y, x = dims - 2, dims - 1
    every = tuple(
        Symmetry(mirror_axes=axes, is_transposed=is_transposed)
        for is_transposed in (False, True)
        for axes in _subsets((y, x))
    )
    return every if average == "all_8" else every[:-1]


def _subsets(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Every combination of axes, none of them first."""
    counts = range(len(axes) + 1)
    return [found for count in counts for found in itertools.combinations(axes, count)]
