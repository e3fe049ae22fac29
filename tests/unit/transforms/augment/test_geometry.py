from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from codes import raises_code
from ushape.errors import ConfigError
from ushape.transforms.augment import STRENGTHS
from ushape.transforms.augment.geometry import GeometryConfig, Warp, cut, draw_warp

IDENTITY = Warp(np.eye(2), np.zeros(2), None, "linear")
STILL = {"rotation_probability": 0, "scale_probability": 0, "elastic_probability": 0}


@pytest.fixture
def picture():
    rng = np.random.default_rng(0)
    return rng.integers(256, size=(3, 40, 50), dtype=np.uint8)


def test_cut_without_warp_equals_the_file(picture):
    patch, classes = cut(picture, picture[0], (20, 25), (16, 20), IDENTITY)
    assert (patch == picture[:, 12:28, 15:35]).all()
    assert patch.dtype == np.float32
    assert (classes == picture[0, 12:28, 15:35]).all()


def test_cut_with_flips_only_moves_pixels(picture):
    warp = Warp(np.diag([-1.0, 1.0]), np.zeros(2), None, "linear")
    patch, classes = cut(picture, picture[1], (20, 25), (40, 50), warp)
    assert (patch == picture[:, ::-1]).all()
    assert (classes == picture[1, ::-1]).all()


def test_cut_with_quarter_turn_only_moves_pixels(picture):
    # By sine and cosine, as drawn: they are 1e-16 beside 0 and 1.
    sine, cosine = np.sin(np.pi / 2), np.cos(np.pi / 2)
    quarter = Warp(np.array([[cosine, sine], [-sine, cosine]]), np.zeros(2), None, "linear")
    # After a quarter turn, the image (40, 50) fills a patch of (50, 40).
    patch, classes = cut(picture, picture[2], (20, 25), (50, 40), quarter)
    assert (patch == np.rot90(picture, 1, (1, 2))).all()
    assert (classes == np.rot90(picture[2], 1)).all()


def test_cut_with_quarter_turn_of_a_volume():
    volume = np.random.default_rng(0).integers(256, size=(2, 6, 8, 10), dtype=np.uint8)
    # z stays; y of the patch runs along x of the volume, x against y.
    matrix = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    warp = Warp(matrix, np.zeros(3), None, "linear")
    patch, _ = cut(volume, None, (3, 4, 5), (6, 10, 8), warp)
    assert (patch == np.rot90(volume, -1, (2, 3))).all()


def test_cut_with_integer_shift(picture):
    warp = Warp(np.eye(2), np.array([3.0, -2.0]), None, "linear")
    assert warp.is_grid_aligned
    patch, _ = cut(picture, None, (20, 25), (8, 8), warp)
    assert (patch == picture[:, 19:27, 19:27]).all()


def test_cut_with_half_pixel_shift_averages_two_pixels(picture):
    warp = Warp(np.eye(2), np.array([0.0, 0.5]), None, "linear")
    assert not warp.is_grid_aligned
    patch, _ = cut(picture, None, (20, 25), (8, 8), warp)
    left, right = (picture[:, 16:24, x : x + 8].astype(float) for x in (21, 22))
    np.testing.assert_allclose(patch, (left + right) / 2, atol=0.02)


def is_identity(warp):
    return (warp.matrix == np.eye(len(warp.matrix))).all() and not warp.shift.any()


def test_warp_that_scales_is_not_grid_aligned():
    assert IDENTITY.is_grid_aligned
    assert not Warp(2 * np.eye(2), np.zeros(2), None, "linear").is_grid_aligned


@pytest.mark.parametrize("patch_shape", [(64, 64), (30, 30, 30), (8, 64, 64), (256, 256)])
def test_elastic_displacements_rarely_fold_small_patches(patch_shape):
    config = GeometryConfig(**{**STILL, "elastic_probability": 1})
    shape = [size + 100 for size in patch_shape]
    positions = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(np.float32)
    rng, pairs, folded = np.random.default_rng(0), 0, 0
    for _ in range(20):
        warp = draw_warp(config, patch_shape, rng)
        patch, _ = cut(positions, None, [size / 2 for size in shape], patch_shape, warp)
        for axis in range(len(patch_shape)):
            steps = np.diff(patch[axis], axis=axis)
            pairs, folded = pairs + steps.size, folded + (steps <= 0).sum()
    assert folded < 0.005 * pairs


def test_elastic_displacements_of_large_patches_have_the_stated_size():
    config = GeometryConfig(**{**STILL, "elastic_probability": 1}, elastic_px=6)
    rng = np.random.default_rng(0)
    drawn = [draw_warp(config, (256, 192), rng).elastic for _ in range(200)]
    assert np.std(drawn) == pytest.approx(6, rel=0.05)


def test_elastic_of_amount_0_is_the_identity(picture):
    still = Warp(np.eye(2), np.zeros(2), np.zeros((2, 4, 4)), "linear")
    patch, classes = cut(picture, picture[0], (20, 25), (16, 20), still)
    np.testing.assert_allclose(patch, picture[:, 12:28, 15:35], atol=0.02)
    assert (classes == picture[0, 12:28, 15:35]).all()
    config = GeometryConfig(**{**STILL, "elastic_probability": 1}, elastic_px=0)
    warp = draw_warp(config, (16, 20), np.random.default_rng(0))
    assert warp.is_grid_aligned
    assert is_identity(warp)


def test_cut_zoom_of_a_ramp_by_hand():
    ramp = np.arange(64, dtype=np.float32)[None, None].repeat(8, axis=1)
    twice = Warp(np.eye(2) / 2, np.zeros(2), None, "linear")
    patch, _ = cut(ramp, None, (4, 32), (4, 8), twice)
    # Eight pixels, half a pixel apart, about the center 31.5.
    np.testing.assert_allclose(patch[0, 0], 31.5 + 0.5 * (np.arange(8) - 3.5), atol=1e-3)


def test_cut_mirrors_edges():
    row = np.array([[[1, 2, 3]]], dtype=np.uint8)
    patch, classes = cut(row, row[0], (0.5, 1.5), (1, 7), IDENTITY)
    assert patch.tolist() == [[[3, 2, 1, 2, 3, 2, 1]]]
    assert classes.tolist() == [[3, 2, 1, 2, 3, 2, 1]]


@pytest.mark.parametrize("seed", range(6))
def test_cut_keeps_image_and_mask_aligned(seed):
    rng = np.random.default_rng(seed)
    blocks = rng.choice([0, 1, 2, 255], size=(8, 8)).astype(np.uint8).repeat(12, 0).repeat(12, 1)
    everything = GeometryConfig(
        flip_axes=(0, 1), rotation_probability=1, scale_probability=1, elastic_probability=1
    )
    warp = draw_warp(everything, (64, 64), rng)
    patch, classes = cut(blocks[None], blocks, (48, 48), (64, 64), warp)
    assert set(np.unique(classes)) <= {0, 1, 2, 255}
    # Away from the borders between blocks, the picture of the mask is the mask.
    assert (np.abs(patch[0] - classes) < 1).mean() > 0.7


def find_places(center, patch_shape, warp):
    """Source position of each pixel, computed independently in float64."""
    offsets = np.stack(
        np.meshgrid(*[np.arange(s) - (s - 1) / 2 for s in patch_shape], indexing="ij")
    )
    column = (-1, *[1] * len(patch_shape))
    places = np.tensordot(warp.matrix, offsets, 1)
    places += (np.asarray(center) - 0.5 + warp.shift).reshape(column)
    if warp.elastic is not None:
        places += torch.nn.functional.interpolate(
            torch.from_numpy(warp.elastic)[None],
            size=patch_shape,
            mode="bicubic",
            align_corners=True,
        )[0].numpy()
    return places


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("center", [(20, 25), (3.5, 47.0)])
def test_cut_agrees_with_scipy_also_beyond_the_edges(picture, center, seed):
    config = GeometryConfig(
        flip_axes=(1,), rotation_probability=1, scale_probability=1, elastic_probability=1
    )
    warp = draw_warp(config, (24, 31), np.random.default_rng(seed))
    patch, classes = cut(picture, picture[0], center, (24, 31), warp)
    places = find_places(center, (24, 31), warp)
    for channel, found in zip(picture.astype(float), patch, strict=True):
        expected = ndimage.map_coordinates(channel, places, order=1, mode="mirror")
        np.testing.assert_allclose(found, expected, atol=0.05)
    expected = ndimage.map_coordinates(picture[0], places, order=0, mode="mirror")
    # Half-way between two pixels, either is nearest.
    half_way = (np.abs(places % 1 - 0.5) < 1e-3).any(axis=0)
    assert (classes == expected)[~half_way].all()
    assert half_way.mean() < 0.05


def test_cut_is_as_precise_far_from_the_corner():
    # As places in the image, 100000.25 has steps of 1/128 in float32.
    wide = np.zeros((1, 2, 100_040), dtype=np.float32)
    wide[..., 1::2] = 1
    warp = Warp(np.eye(2), np.array([0.0, 0.251]), None, "linear")
    patch, _ = cut(wide, None, (1, 100_010), (2, 8), warp)
    np.testing.assert_allclose(patch[0, 0], [0.251, 0.749] * 4, atol=1e-4)


def test_cut_cubic_is_sharper_than_linear():
    dot = np.zeros((1, 9, 9), dtype=np.float32)
    dot[0, 4, 4] = 1
    shift = np.array([0.25, 0.0])
    linear, cubic = (
        cut(dot, None, (4.5, 4.5), (9, 9), Warp(np.eye(2), shift, None, how))[0].max()
        for how in ("linear", "cubic")
    )
    # Keys' kernel with a = -0.75, as torch has it: 1.25 t^3 - 2.25 t^2 + 1 at t = 0.25.
    assert linear == pytest.approx(0.75, abs=1e-4)
    assert cubic == pytest.approx(1.25 / 64 - 2.25 / 16 + 1, abs=1e-4)


@pytest.mark.parametrize("warp", [IDENTITY, Warp(np.eye(2) / 2, np.zeros(2), None, "linear")])
def test_cut_returns_a_copy_of_a_read_only_image(warp):
    image = np.random.default_rng(0).random((1, 12, 12), dtype=np.float32)
    mask = np.ones((12, 12), dtype=np.uint8)
    before = image.copy()
    image.flags.writeable = mask.flags.writeable = False
    patch, classes = cut(image, mask, (6, 6), (12, 12), warp)
    patch += 1
    classes += 1
    assert (image == before).all()
    assert (mask == 1).all()


def test_draw_warp_always_draws_equally_many_numbers():
    states = []
    for chance in (0, 1):
        config = GeometryConfig(
            rotation_probability=chance, scale_probability=chance, elastic_probability=chance
        )
        rng = np.random.default_rng(2)
        draw_warp(config, (8, 8), rng)
        states.append(rng.bit_generator.state)
    assert states[0] == states[1]


def test_draw_warp_scales_up_as_often_as_down():
    config = GeometryConfig(**{**STILL, "scale_probability": 1}, scale=0.5)
    rng = np.random.default_rng(0)
    logs = np.log([draw_warp(config, (8, 8), rng).matrix[0, 0] for _ in range(1000)])
    assert abs(logs.mean()) < 0.03
    assert -np.log(1.5) <= logs.min() < logs.max() <= np.log(1.5)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_strengths_keep_the_range_of_values(strength, picture):
    mask = (picture[0] > 128).astype(np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(10):
        warp = draw_warp(STRENGTHS[strength].geometry, (16, 16), rng)
        patch, classes = cut(picture, mask, (20, 25), (16, 16), warp)
        assert patch.min() >= picture.min()
        assert patch.max() <= picture.max()
        assert set(np.unique(classes)) <= {0, 1}
        if strength == "none":
            assert warp.is_grid_aligned
            assert is_identity(warp)


def test_draw_warp_is_reproducible(picture):
    config = GeometryConfig(flip_axes=(0, 1))
    warps = [draw_warp(config, (16, 16), np.random.default_rng(7)) for _ in range(2)]
    patches = [cut(picture, None, (20, 25), (16, 16), warp) for warp in warps]
    assert (patches[0][0] == patches[1][0]).all()


def test_draw_warp_angles_are_uniform():
    config = GeometryConfig(rotation_degrees=30, rotation_probability=1, scale_probability=0)
    rng = np.random.default_rng(0)
    matrices = [draw_warp(config, (8, 8), rng).matrix for _ in range(1000)]
    angles = np.degrees([np.arctan2(m[1, 0], m[0, 0]) for m in matrices])
    assert abs(angles.mean()) < 2
    assert -30 <= angles.min() < -28
    assert 28 < angles.max() <= 30


def test_draw_warp_without_changes_is_the_identity(picture):
    warp = draw_warp(GeometryConfig(**STILL), (16, 16), np.random.default_rng(0))
    assert warp.is_grid_aligned
    assert (warp.matrix == np.eye(2)).all()


def test_cut_of_volumes():
    volume = np.random.default_rng(0).integers(256, size=(1, 12, 20, 20), dtype=np.uint8)
    still = Warp(np.eye(3), np.zeros(3), None, "linear")
    patch, _ = cut(volume, None, (6, 10, 10), (8, 8, 8), still)
    assert (patch == volume[:, 2:10, 6:14, 6:14]).all()
    warp = draw_warp(GeometryConfig(rotation_probability=1), (8, 16, 16), np.random.default_rng(1))
    patch, classes = cut(volume, volume[0], (6, 10, 10), (8, 16, 16), warp)
    assert patch.shape == (1, 8, 16, 16)
    assert classes.shape == (8, 16, 16)


@pytest.mark.parametrize("center", [(6, 10, 10), (0.5, 19.3, 2)])
@pytest.mark.parametrize("seed", range(4))
def test_cut_of_planes_that_are_deformed_alike_equals_that_of_the_volume(seed, center):
    rng = np.random.default_rng(seed)
    volume = rng.integers(256, size=(2, 12, 20, 22), dtype=np.uint8)
    config = GeometryConfig(
        rotation_probability=1, scale_probability=seed % 2, elastic_probability=0, flip_axes=(0, 2)
    )
    planar = draw_warp(config, (8, 14, 16), rng)
    general = replace(planar, elastic=np.zeros((3, 4, 4, 4)))
    assert planar.is_planar
    assert not general.is_planar
    (image, classes), (other, other_classes) = (
        cut(volume, volume[0] // 64, center, (8, 14, 16), warp) for warp in (planar, general)
    )
    np.testing.assert_allclose(image / 255, other / 255, rtol=0, atol=1e-5)
    assert (classes == other_classes).all()


def test_geometry_config_refuses_impossible_settings():
    with raises_code(ConfigError, "value_out_of_range"):
        GeometryConfig(rotation_probability=2)
    with raises_code(ConfigError, "value_out_of_range"):
        GeometryConfig(elastic_grid=1)
    with raises_code(ConfigError, "value_out_of_range"):
        GeometryConfig(scale=-1.0)
    with raises_code(ConfigError, "unknown_axis"):
        draw_warp(GeometryConfig(flip_axes=(2,)), (8, 8), np.random.default_rng(0))


def test_cut_with_transposition_and_quarter_turns_only_moves_pixels():
    image = np.random.default_rng(0).integers(256, size=(1, 12, 12)).astype(np.uint8)
    config = GeometryConfig(**STILL, transpose_probability=1)
    warp = draw_warp(config, (12, 12), np.random.default_rng(0))
    found, _ = cut(image, None, (6, 6), (12, 12), warp)
    np.testing.assert_array_equal(found, image.swapaxes(1, 2))

    config = GeometryConfig(**STILL, rotate90_probability=1)
    turned = {np.rot90(image, k, axes=(1, 2)).astype(np.float32).tobytes() for k in (1, 2, 3)}
    draws = [draw_warp(config, (12, 12), np.random.default_rng(seed)) for seed in range(20)]
    assert {cut(image, None, (6, 6), (12, 12), warp)[0].tobytes() for warp in draws} == turned


def test_smoothed_displacements_have_the_expected_size():
    config = GeometryConfig(
        rotation_probability=0,
        scale_probability=0,
        elastic_probability=1,
        elastic_px=35,
        elastic_sigma_px=5,
    )
    warp = draw_warp(config, (200, 220), np.random.default_rng(0))
    assert warp.elastic.shape == (2, 200, 220)
    # Even noise has variance 1/3; a Gaussian keeps 1 / (4 pi sigma^2) of it.
    assert warp.elastic.std() == pytest.approx(35 * np.sqrt(1 / 3 / (4 * np.pi * 25)), rel=0.1)
    image = np.broadcast_to(np.arange(400.0)[:, None], (400, 400))[None]
    found, _ = cut(image, None, (200, 200), (200, 220), warp)
    places = np.arange(200.0)[:, None] + 100 + warp.elastic[0]
    np.testing.assert_allclose(found[0], places, atol=1e-2)


def test_geometry_config_refuses_a_sigma_of_0():
    with raises_code(ConfigError, "value_out_of_range"):
        GeometryConfig(elastic_sigma_px=0)


@pytest.mark.parametrize("still", [0, 2, -1])
def test_still_axis_is_only_mirrored(still):
    config = GeometryConfig(
        flip_axes=(0, 1, 2),
        still_axes=(still,),
        transpose_probability=0.5,
        rotate90_probability=0.5,
        rotation_probability=1,
        scale_probability=1,
        elastic_probability=1,
    )
    rng = np.random.default_rng(0)
    others = [axis for axis in range(3) if axis != still % 3]
    for _ in range(8):
        warp = draw_warp(config, (6, 12, 12), rng)
        assert abs(warp.matrix[still, still]) == 1
        assert not warp.matrix[still, others].any()
        assert not warp.matrix[others, still].any()
        assert not warp.elastic[still].any()
        assert warp.elastic[others].all()
        assert warp.matrix[np.ix_(others, others)].all()  # Rotated by any angle.


def test_still_axes_do_not_change_the_random_numbers_of_others():
    warps = []
    for still in ((), (0,)):
        config = GeometryConfig(still_axes=still, scale_probability=1, elastic_probability=1)
        warps.append(draw_warp(config, (6, 12, 12), np.random.default_rng(0)))
    assert (warps[0].matrix[1:, 1:] == warps[1].matrix[1:, 1:]).all()
    assert (warps[0].elastic[1:] == warps[1].elastic[1:]).all()


def test_still_axis_that_does_not_exist_is_refused():
    with raises_code(ConfigError, "unknown_axis"):
        draw_warp(GeometryConfig(still_axes=(2,)), (8, 8), np.random.default_rng(0))
