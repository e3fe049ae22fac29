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
