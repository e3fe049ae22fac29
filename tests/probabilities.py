"""Label spaces of all three kinds, and drawn probabilities for them, in tests of decisions."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ushape.labels import LabelSpace, Region

BINARY = LabelSpace(values=(0, 255), names=("background", "lesion"))


THREE = LabelSpace(values=(0, 1, 2), names=("background", "cell", "nucleus"))


NESTED = LabelSpace(
    values=(0, 1, 2),
    names=("background", "oedema", "tumour"),
    regions=(Region(name="whole", classes=(1, 2)), Region(name="core", classes=(2,))),
)


SPACES = {"binary": BINARY, "softmax": THREE, "regions": NESTED}


# Tenths equal thresholds of the grid and each other, so that ties are common.
TENTHS = st.integers(0, 10).map(lambda tenth: tenth / 10)


def probabilities_for(space, shape=(4, 5), dtype=np.float32):
    return arrays(dtype, (space.channels, *shape), elements=TENTHS.map(lambda x: float(dtype(x))))


def softmax(raw):
    total = raw.sum(axis=0, keepdims=True)
    return np.divide(raw, total, out=np.full_like(raw, 1 / len(raw)), where=total > 0)
