"""Intensities of an image that is too large to be read before it is predicted."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import qmc

from ushape.data.file_rows import FileRows
from ushape.data.intensities import SAMPLED_PX, thin_out, thinning_step
from ushape.data.preprocessing import Preprocessing
from ushape.formatting import size_text
from ushape.inference.streaming import working_shape
from ushape.io.streaming import Bands
from ushape.normalization import Normalization

READ_BYTES = 1 << 32
"""Size up to which the whole image is read, so that its intensities are those of `predict`."""

SAMPLES = 256
"""Number of places at which a larger image is read."""

SIDE_2D, SIDE_3D = 256, (16, 128, 128)
"""Size of the part that is read at each place, in pixels of the file."""


def measure_once(bands: Bands, preprocessing: Preprocessing) -> tuple[Normalization, str]:
    """Measure the normalization of an image, which all of its blocks share.

    If the network works on a reduced image, its pixels are measured.

    Returns:
        The normalization, and what it was measured from; '' if it is that of the training data.
    """
    if preprocessing.normalization is not None:
        return preprocessing.normalization, ""
    working = working_shape(preprocessing, bands)
    rows = FileRows(bands, (bands.shape[0], *working), None)
    which = "" if working == bands.shape[1:] else " of the reduced image"
    if math.prod(bands.shape) * bands.dtype.itemsize <= READ_BYTES:
        step = thinning_step(math.prod(working), working[-1])
        text = f"every {step}th pixel" if step > 1 else "all pixels"
        return preprocessing.measure(rows.take_pixels(step)), text + which
    side = (SIDE_2D, SIDE_2D) if len(working) == 2 else SIDE_3D
    size = tuple(
        min(new, max(1, round(own * new / old)))
        for own, new, old in zip(side, working, bands.shape[1:], strict=True)
    )
    found = []
    # A Halton sequence spreads any number of places evenly, the same ones each time.
    for place in qmc.Halton(len(working), scramble=False).random(SAMPLES):
        starts = [int(p * (n - own + 1)) for p, n, own in zip(place, working, size, strict=True)]
        box = tuple((first, first + own) for first, own in zip(starts, size, strict=True))
        found.append(thin_out(rows.read_box(box), SAMPLED_PX // 4))
    text = f"{SAMPLES} evenly distributed blocks of {size_text(size)} pixels{which}"
    return preprocessing.measure(np.concatenate(found, axis=1)), text
