"""Draw annotated objects one after another, with the class and the number of each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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

    def draw(self, where: Any, code: int, *, number: int | None = None) -> None:
        """Draw pixels.

        Args:
            where: Index of the pixels in an array (*S).
            code: Code of the class; 0 for background.
            number: Number of the object that the pixels belong to, from 1, if several drawings make
                one object; None: each drawing is an object; 0: the pixels belong to no object.
        """
        if code == 0:
            number = 0
        elif number is None:
            number = self._stated + 1
        before = self._numbers[where]
        if number:
            self._overlap_px += int(((before > 0) & (before != number)).sum())
        self._stated = max(self._stated, number)
        self.codes[where] = code
        self._numbers[where] = number

    @property
    def instances(self) -> Instances:
        """The objects drawn so far."""
        return Instances(numbers=self._numbers, stated=self._stated, overlap_px=self._overlap_px)
