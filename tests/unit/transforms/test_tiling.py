import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codes import raises_code
from ushape.errors import ConfigError
from ushape.transforms.tiling import (
    TilingConfig,
    blend_profile,
    cut_axis,
    even_tile,
    symmetries,
    tile_starts,
)


@given(st.integers(1, 500), st.integers(1, 200), st.floats(0, 0.9))
def test_tile_starts_cover_everything_and_stay_inside(size, tile, overlap):
    starts = tile_starts(size, tile, overlap)
    covered = np.zeros(max(size, tile), dtype=bool)
    for start in starts:
        assert 0 <= start <= max(0, size - tile)
        covered[start : start + tile] = True
    assert covered[:size].all()
    assert starts == sorted(set(starts))


def test_tile_starts_by_hand():
    assert tile_starts(10, 4, 0.5) == [0, 2, 4, 6]
    assert tile_starts(4, 4, 0.5) == [0]
    assert tile_starts(3, 4, 0.5) == [0]


@given(st.integers(1, 300), st.integers(1, 100), st.floats(0, 0.9))
def test_cut_axis_shares_add_up_to_one(size, tile, overlap):
    for blend in ("gaussian", "uniform"):
        axis = cut_axis(size, tile, overlap, blend)
        total = np.zeros(axis.size)
        for start, shares in zip(axis.starts, axis.shares, strict=True):
            assert (shares > 0).all()
            total[start : start + tile] += shares
        np.testing.assert_allclose(total, 1, atol=1e-6)


def test_blend_profile_is_largest_at_the_center():
    profile = blend_profile(9, "gaussian")
    assert profile[4] == profile.max() == 1
    assert profile.min() > 0


@given(st.integers(1, 3000), st.integers(8, 500), st.floats(0, 0.5))
def test_even_tile_is_within_its_limit(size, most, overlap):
    tile = even_tile(size, most, overlap)
    assert tile <= max(1, int(1.25 * most))
    count = len(tile_starts(size, tile, overlap * most / tile))
    assert count <= len(tile_starts(size, most, overlap))


def test_even_tile_by_hand():
    assert even_tile(4096, 1024, 1 / 16) == 1072  # (4096 + 3 * 64) / 4
    assert even_tile(1280, 1024, 1 / 16) == 1280
    assert even_tile(100, 1024, 0.25) == 100


@pytest.mark.parametrize("overlap", [-0.1, 0.9999, 1.0, float("nan")])
def test_tiling_config_refuses_overlaps_that_repeat_too_many_pixels(overlap):
    with raises_code(ConfigError, "value_out_of_range"):
        TilingConfig(overlap_fraction=overlap)


@given(st.integers(1, 500), st.integers(1, 100), st.floats(0, 0.9))
def test_tile_starts_overlap_as_requested(size, tile, overlap):
    steps = np.diff(tile_starts(size, tile, overlap))
    assert (steps <= max(1, tile * (1 - overlap))).all()
    # Evenly spread: no two tiles lie much closer than others.
    assert steps.size == 0 or steps.max() - steps.min() <= 1


def test_blend_profile_is_a_gaussian_of_an_eighth_of_the_tile():
    profile = blend_profile(33, "gaussian")
    # 33 / 8 pixels are one standard deviation; the center is pixel 16.
    assert profile[16 + 8] == pytest.approx(np.exp(-0.5 * (8 / (33 / 8)) ** 2), rel=1e-5)
    assert (profile == profile[::-1]).all()


def test_cut_axis_shares_a_pixel_of_two_tiles_by_weight():
    # Tiles of 3 pixels, trust 0.028..., 1, 0.028...: over the shared pixel both count the same.
    axis = cut_axis(5, 3, 1 / 3, "gaussian")
    assert axis.starts == (0, 2)
    np.testing.assert_allclose(axis.shares, [[1, 1, 0.5], [0.5, 1, 1]])


IMAGE = np.arange(24.0).reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("average", "count"), [("none", 1), ("mirrored", 4), ("rotated_7", 7), ("all_8", 8)]
)
def test_symmetries_are_distinct_and_invertible(average, count):
    found = symmetries(average, (0, 1), 2)
    versions = {(turned := s.apply(IMAGE)).tobytes() + bytes(turned.shape) for s in found}
    assert len(found) == len(versions) == count
    assert (found[0].apply(IMAGE) == IMAGE).all()
    for symmetry in found:
        assert (symmetry.undo(symmetry.apply(IMAGE)) == IMAGE).all()


def test_symmetries_all_8_are_rotations_and_reflections():
    turned = [np.rot90(IMAGE, quarter, axes=(1, 2)) for quarter in range(4)]
    expected = {array.tobytes() for array in (*turned, *(a[:, :, ::-1] for a in turned))}
    assert {s.apply(IMAGE).tobytes() for s in symmetries("all_8", (), 2)} == expected


def test_symmetries_of_negative_axes_and_volumes():
    volume = np.arange(48.0).reshape(2, 2, 3, 4)
    last = symmetries("mirrored", (-1,), 3)[1]
    assert (last.apply(volume) == volume[..., ::-1]).all()
    for symmetry in symmetries("all_8", (), 3):  # Planes stay where they are.
        assert symmetry.apply(volume)[:, 0].sum() == volume[:, 0].sum()
