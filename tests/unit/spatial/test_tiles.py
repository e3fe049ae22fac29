import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ushape.errors import ConfigError
from ushape.spatial.tiles import TileAccumulator, TilingConfig, blend_window, tile_starts


@given(st.integers(1, 500), st.integers(1, 200), st.floats(0, 0.9))
def test_tiles_cover_everything_and_stay_inside(size, tile, overlap):
    starts = tile_starts(size, tile, overlap)
    covered = np.zeros(max(size, tile), dtype=bool)
    for start in starts:
        assert 0 <= start <= max(0, size - tile)
        covered[start : start + tile] = True
    assert covered[:size].all()
    assert starts == sorted(set(starts))


def test_tiles_by_hand():
    assert tile_starts(10, 4, 0.5) == [0, 2, 4, 6]
    assert tile_starts(4, 4, 0.5) == [0]
    assert tile_starts(3, 4, 0.5) == [0]


@pytest.mark.parametrize("blend", ["gaussian", "uniform"])
@pytest.mark.parametrize("shape", [(8, 8), (5, 12), (4, 6, 5)])
def test_an_image_cut_up_and_blended_is_the_image_again(blend, shape):
    whole_shape = tuple(size * 2 + 3 for size in shape)
    whole = np.random.default_rng(0).random((2, *whole_shape), dtype=np.float32)
    accumulator = TileAccumulator(2, whole_shape, blend_window(shape, blend))
    axes = [tile_starts(s, t, 0.25) for s, t in zip(whole_shape, shape, strict=True)]
    for start in np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(shape)):
        cut = tuple(slice(s, s + t) for s, t in zip(start, shape, strict=True))
        accumulator.add(whole[(slice(None), *cut)], tuple(start))
    np.testing.assert_allclose(accumulator.result(), whole, atol=1e-5)


def test_the_centre_of_a_tile_is_trusted_most():
    window = blend_window((9, 9), "gaussian")
    assert window[4, 4] == window.max() == 1
    assert window.min() > 0


def test_impossible_overlap():
    with pytest.raises(ConfigError, match=r"overlap_fraction is 1.0, outside \[0, 1\)"):
        TilingConfig(overlap_fraction=1.0)


@given(st.integers(1, 500), st.integers(1, 100), st.floats(0, 0.9))
def test_neighbours_overlap_as_far_as_promised(size, tile, overlap):
    steps = np.diff(tile_starts(size, tile, overlap))
    assert (steps <= max(1, tile * (1 - overlap))).all()
    # Evenly spread: no two tiles lie much closer than others.
    assert steps.size == 0 or steps.max() - steps.min() <= 1


def test_trust_falls_as_a_gaussian_an_eighth_of_the_tile_wide():
    window = blend_window((33,), "gaussian")
    # 33 / 8 pixels are one standard deviation; the centre is pixel 16.
    assert window[16 + 8] == pytest.approx(np.exp(-0.5 * (8 / (33 / 8)) ** 2), rel=1e-5)
    assert (window == window[::-1]).all()


def test_what_all_tiles_agree_on_is_kept():
    accumulator = TileAccumulator(1, (10, 10), blend_window((6, 6), "gaussian"))
    for y in (0, 4):
        for x in (0, 2, 4):
            accumulator.add(np.full((1, 6, 6), 0.3, np.float32), (y, x))
    np.testing.assert_allclose(accumulator.result(), 0.3, rtol=1e-6)


def test_two_tiles_meet_by_their_trust():
    # One axis, windows [1, 3]: the shared pixel is (3 * 0 + 1 * 1) / 4.
    accumulator = TileAccumulator(1, (3,), np.array([1.0, 3.0], np.float32))
    accumulator.add(np.zeros((1, 2), np.float32), (0,))
    accumulator.add(np.ones((1, 2), np.float32), (1,))
    assert accumulator.result().tolist() == [[0.0, 0.25, 1.0]]
