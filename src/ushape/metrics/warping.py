"""Warping error: what of a difference is topology, and not a border a little elsewhere."""

from __future__ import annotations

import numpy as np

SUBLATTICES = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Of rows and columns modulo 2: a pixel has no neighbor, straight or diagonal, on its own."""


def warping_error(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Share of pixels that still differ after the truth was warped towards the prediction.

    Not one to choose by alone: borders may move any distance, so that with an image of membrane
    only every cell shrinks to one pixel, which is all it costs. The table of ISBI 2012 counts
    otherwise: not pixels, but regions of them that split or merge cells, over all pixels.

    Shapes:
        predicted, truth: (y, x) bool, true inside cells.

    Source:
        Jain et al. 2010 (CVPR), doi 10.1109/CVPR.2010.5539950.
    """
    return float((warp(predicted, truth) != predicted).mean())


def warp(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The truth, deformed towards the prediction while its topology stays.

    Flips pixels that differ, as long as one is simple: to flip it changes neither the number of
    cells (4-connected) nor that of membranes (8-connected). Outside the image is membrane.
    Pixels of one sublattice cannot touch, so all its simple ones flip at once. Fiji takes them
    one by one, the surest prediction first; which few pixels are left depends on the order.

    Shapes:
        predicted, truth: (y, x) bool, true inside cells.
        returns: (y, x) bool.
    """
    assert predicted.shape == truth.shape, (predicted.shape, truth.shape)
    goal, warped = np.pad(predicted, 1), np.pad(truth, 1)
    step = warped.shape[1]
    around = np.array([-step, 1 - step, 1, step + 1, step, step - 1, -1, -step - 1])
    wrong = np.flatnonzero(goal != warped)
    flat = warped.reshape(-1)
    while True:
        for row, column in SUBLATTICES:
            own = wrong[(wrong // step % 2 == row) & (wrong % step % 2 == column)]
            neighbors = np.packbits(flat[own[:, None] + around], axis=1, bitorder="little")
            flat[own[SIMPLE[neighbors[:, 0]]]] ^= True
        left = wrong[flat[wrong] != goal.reshape(-1)[wrong]]
        if len(left) == len(wrong):
            return warped[1:-1, 1:-1]
        wrong = left


def _find_simple() -> np.ndarray:
    """Whether a pixel is simple, for each state of its neighbors.

    Shapes:
        returns: (256,) bool; bit 0 of the index is the neighbor above, the others follow
            clockwise, 1 inside cells.

    Source:
        Yokoi, Toriwaki and Fukumura 1975: the 4-connectivity number is 1.
    """
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    side, corner = bits[:, 0::2], bits[:, 1::2]
    following = np.roll(side, -1, axis=1)
    return (side * (1 - corner * following)).sum(axis=1) == 1


SIMPLE = _find_simple()
