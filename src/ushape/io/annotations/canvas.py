"""Draw annotated objects one after another, with the class and the number of each pixel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ushape.types import Instances


class Canvas:
    """Codes and object numbers of an image; what is drawn later covers what was drawn before.

    Args:
        size: S of the image.
        highest: Largest code that is drawn.
    """

    def __init__(self, size: Sequence[int], highest: int):
        self.codes = np.zeros(tuple(size), np.min_scalar_type(highest))
        self._numbers = np.zeros(tuple(size), np.int32)
        self._stated, self._overlap_px = 0, 0

    def draw(
        self, box: tuple[slice, ...], inside: np.ndarray, code: int, *, number: int | None = None
    ) -> int:
        """Draw pixels, and return the number of their object.

        Args:
            box: Part of the image that contains the pixels, one slice along each axis of S.
            inside: (*B) bool, whether each pixel of the box is drawn.
            code: Code of the class; 0 for background.
            number: Number that an earlier call returned, if the pixels are another part of its
                object; None: they are a new object; 0: they do not belong to an object.
        """
        if code == 0:
            number = 0
        elif number is None:
            self._stated += 1
            number = self._stated
        numbers = self._numbers[box]
        if number:
            covered = inside & (numbers > 0) & (numbers != number)
            self._overlap_px += int(np.count_nonzero(covered))
        self.codes[box][inside] = code
        numbers[inside] = number
        return number

    @property
    def instances(self) -> Instances:
        """The objects drawn so far."""
        return Instances(numbers=self._numbers, stated=self._stated, overlap_px=self._overlap_px)
