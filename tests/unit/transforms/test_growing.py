"""Compare linear resampling of parts with that of the whole image."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from ushape.transforms.growing import grow_bands, resample_probabilities, source_box

rng = np.random.default_rng(0)


@pytest.mark.parametrize("old", [(9,), (1, 7), (5, 6, 4)])
@pytest.mark.parametrize("factor", [1, 1.5, 2, 3.7, 0.5])
def test_resample_probabilities_is_linear_interpolation_between_centers(old, factor):
    new = tuple(max(1, round(factor * size)) for size in old)
    values = rng.random((3, *old), np.float32)
    modes = {1: "linear", 2: "bilinear", 3: "trilinear"}
    expected = functional.interpolate(torch.from_numpy(values)[None], new, mode=modes[len(old)])
    found = resample_probabilities(values, new)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected[0].numpy(), atol=1e-6)


def test_resample_probabilities_places_pixels_far_from_the_origin_exactly():
    # In single precision, positions beyond 262,144 are multiples of 1/32.
    line = np.zeros((1, 1, 300_000), np.float32)
    line[..., -2] = 1
    found = resample_probabilities(line, (1, 900_000))[0, 0, -8:]
    np.testing.assert_allclose(found, [0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3, 0, 0], atol=1e-6)


@given(
    old=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    grow=st.lists(st.integers(0, 30), min_size=3, max_size=3),
    cuts=st.lists(st.integers(1, 11), max_size=4),
    ends=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=3),
)
def test_grown_part_equals_that_of_the_whole_bit_for_bit(old, grow, cuts, ends):
    new = [size + more for size, more in zip(old, grow, strict=False)]
    values = rng.random((2, *old), np.float32)
    box = []
    for size, edge in zip(new, ends, strict=False):
        first = int(min(edge) * (size - 1))
        box.append((first, max(first + 1, round(max(edge) * size))))
    source = source_box(box, old, new)
    part = values[(slice(None), *(slice(*edge) for edge in source))]
    edges = sorted({0, *(cut for cut in cuts if cut < part.shape[1]), part.shape[1]})
    bands = [part[:, a:b] for a, b in itertools.pairwise(edges)]
    found = np.concatenate(list(grow_bands(bands, old, new, tuple(box))), axis=1)
    whole = resample_probabilities(values, new)
    assert np.array_equal(found, whole[(slice(None), *(slice(*edge) for edge in box))])
