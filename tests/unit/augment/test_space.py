import numpy as np
import pytest

from ushape.augment.space import SpaceConfig, Warp, cut, draw_warp
from ushape.errors import ConfigError

IDENTITY = Warp(np.eye(2), np.zeros(2), None, "linear")
STILL = {"rotation_probability": 0, "scale_probability": 0, "elastic_probability": 0}


@pytest.fixture
def picture():
    rng = np.random.default_rng(0)
    return rng.integers(256, size=(3, 40, 50), dtype=np.uint8)


def test_without_a_warp_the_patch_is_what_the_file_holds(picture):
    patch, classes = cut(picture, picture[0], (20, 25), (16, 20), IDENTITY)
    assert (patch == picture[:, 12:28, 15:35]).all()
    assert patch.dtype == np.float32
    assert (classes == picture[0, 12:28, 15:35]).all()


def test_flips_move_pixels_and_mix_none(picture):
    warp = Warp(np.diag([-1.0, 1.0]), np.zeros(2), None, "linear")
    patch, classes = cut(picture, picture[1], (20, 25), (40, 50), warp)
    assert (patch == picture[:, ::-1]).all()
    assert (classes == picture[1, ::-1]).all()


def test_quarter_turn_equals_rot90(picture):
    square = picture[:, :40, :40]
    quarter = Warp(np.array([[0.0, 1.0], [-1.0, 0.0]]), np.zeros(2), None, "linear")
    patch, classes = cut(square, square[2], (20, 20), (40, 40), quarter)
    np.testing.assert_allclose(patch, np.rot90(square, 1, (1, 2)), atol=1e-2)
    assert (classes == np.rot90(square[2], 1)).all()


def test_shift_reads_from_further_on(picture):
    warp = Warp(np.eye(2), np.array([3.0, -2.0]), None, "linear")
    patch, _ = cut(picture, None, (20, 25), (8, 8), warp)
    np.testing.assert_allclose(patch, picture[:, 19:27, 19:27], atol=1e-2)


def test_zoom_of_a_ramp_by_hand():
    ramp = np.arange(64, dtype=np.float32)[None, None].repeat(8, axis=1)
    twice = Warp(np.eye(2) / 2, np.zeros(2), None, "linear")
    patch, _ = cut(ramp, None, (4, 32), (4, 8), twice)
    # Eight pixels, half a pixel apart, about the centre 31.5.
    np.testing.assert_allclose(patch[0, 0], 31.5 + 0.5 * (np.arange(8) - 3.5), atol=1e-3)


def test_edges_are_mirrored():
    row = np.array([[[1, 2, 3]]], dtype=np.uint8)
    patch, classes = cut(row, row[0], (0.5, 1.5), (1, 7), IDENTITY)
    assert patch.tolist() == [[[3, 2, 1, 2, 3, 2, 1]]]
    assert classes.tolist() == [[3, 2, 1, 2, 3, 2, 1]]


@pytest.mark.parametrize("seed", range(6))
def test_image_and_mask_stay_together_and_no_value_is_new(seed):
    rng = np.random.default_rng(seed)
    blocks = rng.choice([0, 1, 2, 255], size=(8, 8)).astype(np.uint8).repeat(12, 0).repeat(12, 1)
    everything = SpaceConfig(
        flip_axes=(0, 1), rotation_probability=1, scale_probability=1, elastic_probability=1
    )
    warp = draw_warp(everything, (64, 64), rng)
    patch, classes = cut(blocks[None], blocks, (48, 48), (64, 64), warp)
    assert set(np.unique(classes)) <= {0, 1, 2, 255}
    # Away from the borders between blocks, the picture of the mask is the mask.
    assert (np.abs(patch[0] - classes) < 1).mean() > 0.7


def test_the_same_seed_draws_the_same_patch(picture):
    config = SpaceConfig(flip_axes=(0, 1))
    warps = [draw_warp(config, (16, 16), np.random.default_rng(7)) for _ in range(2)]
    patches = [cut(picture, None, (20, 25), (16, 16), warp) for warp in warps]
    assert (patches[0][0] == patches[1][0]).all()


def test_angles_are_drawn_evenly_to_both_sides():
    config = SpaceConfig(rotation_degrees=30, rotation_probability=1, scale_probability=0)
    rng = np.random.default_rng(0)
    matrices = [draw_warp(config, (8, 8), rng).matrix for _ in range(1000)]
    angles = np.degrees([np.arctan2(m[1, 0], m[0, 0]) for m in matrices])
    assert abs(angles.mean()) < 2
    assert -30 <= angles.min() < -28
    assert 28 < angles.max() <= 30


def test_what_is_switched_off_leaves_the_patch_alone(picture):
    warp = draw_warp(SpaceConfig(**STILL), (16, 16), np.random.default_rng(0))
    assert warp.is_mirroring
    assert (warp.matrix == np.eye(2)).all()


def test_volumes():
    volume = np.random.default_rng(0).integers(256, size=(1, 12, 20, 20), dtype=np.uint8)
    still = Warp(np.eye(3), np.zeros(3), None, "linear")
    patch, _ = cut(volume, None, (6, 10, 10), (8, 8, 8), still)
    assert (patch == volume[:, 2:10, 6:14, 6:14]).all()
    warp = draw_warp(SpaceConfig(rotation_probability=1), (8, 16, 16), np.random.default_rng(1))
    patch, classes = cut(volume, volume[0], (6, 10, 10), (8, 16, 16), warp)
    assert patch.shape == (1, 8, 16, 16)
    assert classes.shape == (8, 16, 16)


def test_impossible_settings():
    with pytest.raises(ConfigError, match="rotation_probability is 2"):
        SpaceConfig(rotation_probability=2)
    with pytest.raises(ConfigError, match="elastic_grid is 1"):
        SpaceConfig(elastic_grid=1)
