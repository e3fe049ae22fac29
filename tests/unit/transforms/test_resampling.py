from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from ushape.data.intensities import measure_group
from ushape.data.preprocessing import Preprocessing
from ushape.data.preprocessing_config import PreprocessingConfig
from ushape.io.reducing import pixels_beneath
from ushape.labels import IGNORE, LabelSpace
from ushape.normalization import Normalization
from ushape.transforms.growing import resample_probabilities
from ushape.transforms.resampling import (
    find_box,
    mirror_indices,
    pad_mirrored,
    place_objects,
    resample_classes,
    resample_image,
    resample_to_spacing,
    restore_probabilities,
    shrink_part,
)
from ushape.types import Case, Geometry


def test_resample_image_halving_averages_each_square():
    image = np.array([[[0, 2, 10, 10], [4, 6, 10, 10]]], dtype=np.float32)
    assert resample_image(image, (1, 2)).tolist() == [[[3.0, 10.0]]]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_resample_image_keeps_integer_types(dtype):
    image = np.full((2, 9, 7), 200 if dtype == "uint8" else 1000, dtype=dtype)
    small = resample_image(image, (4, 3))
    assert small.dtype == image.dtype
    assert (small == image[0, 0, 0]).all()


def test_resample_image_keeps_mean_and_order_of_a_ramp():
    ramp = np.arange(31, dtype=np.float32)[None, None].repeat(8, axis=1)
    small = resample_image(ramp, (8, 7))
    assert (np.diff(small[0, 0]) > 0).all()
    assert small.mean() == pytest.approx(15.0, abs=0.5)


def test_resample_probabilities_stays_between_neighbors():
    up = resample_probabilities(np.array([[[0.0, 1.0]]]), (1, 4))
    assert up.tolist() == [[[0.0, 0.25, 0.75, 1.0]]]


def test_resample_classes_takes_the_majority():
    classes = np.array([[0, 0, 2, 2], [0, 1, 2, 255]], dtype=np.uint8)
    assert resample_classes(classes, (1, 2)).tolist() == [[0, 2]]
    back = resample_classes(classes, (5, 9))
    assert set(np.unique(back)) <= {0, 1, 2, 255}


def test_pad_mirrored_by_hand_also_beyond_the_image():
    padded = pad_mirrored(np.array([[[1, 2, 3]]]), (0, 4), (0, 2))
    assert padded.tolist() == [[[1, 2, 3, 2, 1, 2, 3, 2, 1]]]
    assert pad_mirrored(np.ones((1, 1, 1)), (2, 3), (2, 3)).shape == (1, 5, 7)


def average_by_repeating(line, new):
    """Each pixel `new` times over, then means of `old` neighbors: areas without fractions."""
    return line.repeat(new).reshape(new, len(line)).mean(axis=1)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 99))
def test_resample_image_averages_the_exact_area(old, new, seed):
    old, new = max(old, new), min(old, new)
    line = np.random.default_rng(seed).random(old, dtype=np.float32)
    expected = average_by_repeating(line, new)
    for image, shape in ((line[None, None], (1, new)), (line[None, :, None], (new, 1))):
        found = resample_image(image, shape).ravel()
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_resample_image_five_pixels_to_two_by_hand():
    # The middle pixel is shared: (0 + 1 + 2/2) / 2.5 and (2/2 + 3 + 4) / 2.5.
    image = np.arange(5, dtype=np.float32)[None, None]
    np.testing.assert_allclose(resample_image(image, (1, 2)), [[[0.8, 3.2]]], atol=1e-6)


@pytest.mark.parametrize("new", [480, 959, 100])
def test_resample_image_does_not_shift(new):
    # Were pixels moved, masks brought back to full size would be beside their objects.
    ramp = np.arange(1918, dtype=np.float32)[None, None]
    centers = (np.arange(new) + 0.5) * 1918 / new - 0.5
    # A pixel cut in two at both ends moves the mean by at most 2 / 8 of its share.
    at_most = 0.25 * new / 1918 + 1e-3
    np.testing.assert_allclose(resample_image(ramp, (1, new))[0, 0], centers, atol=at_most)


def test_resample_image_shrinks_and_grows_along_different_axes():
    stripes = np.array([[0, 90, 0], [0, 90, 0]], dtype=np.uint8).T[None]  # (1, 3, 2)
    assert resample_image(stripes, (1, 4)).tolist() == [[[30, 30, 30, 30]]]
    volume = np.full((1, 4, 9, 5), 77, dtype=np.uint16)
    assert (resample_image(volume, (6, 4, 5)) == 77).all()


def test_resample_image_to_the_same_shape_changes_only_float_types():
    assert resample_image(np.ones((1, 2, 2)), (2, 2)).dtype == np.float32
    assert resample_image(np.ones((1, 2, 2), np.uint16), (2, 2)).dtype == np.uint16


def test_resample_image_confines_nan_to_its_area():
    image = np.ones((1, 1, 10), dtype=np.float32)
    image[0, 0, 4] = np.nan  # In the second third of ten, 3.33 to 6.67.
    assert np.isnan(resample_image(image, (1, 3))).tolist() == [[[False, True, False]]]


@given(
    old=st.lists(st.integers(1, 40), min_size=2, max_size=3),
    factors=st.lists(st.sampled_from([1, 1.5, 2, 3, 4, 2.7]), min_size=3, max_size=3),
    ends=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=3),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
)
def test_shrunk_part_equals_that_of_the_whole_bit_for_bit(old, factors, ends, dtype):
    new = [max(1, round(size / own)) for size, own in zip(old, factors, strict=False)]
    image = (np.random.default_rng(sum(old)).random((2, *old)) * 255).astype(dtype)
    box = []
    for size, edge in zip(new, ends, strict=False):
        first = int(min(edge) * (size - 1))
        box.append((first, max(first + 1, round(max(edge) * size))))
    beneath = [pixels_beneath(*one) for one in zip(box, old, new, strict=True)]
    part = image[(slice(None), *(slice(*edge) for edge in beneath))]
    found, whole = shrink_part(part, tuple(box), old, new), resample_image(image, new)
    assert found.dtype == whole.dtype
    assert np.array_equal(found, whole[(slice(None), *(slice(*edge) for edge in box))])


def test_resample_classes_ignores_where_more_than_half_is_ignored():
    # Three of seven are ignored: the largest share, but class 1 leads among the four others.
    most_of_all = np.array([[255, 255, 255, 0, 1, 1, 2]], dtype=np.uint8)
    assert resample_classes(most_of_all, (1, 1)).tolist() == [[1]]
    three_of_five = np.array([[255, 255, 255, 1, 1]], dtype=np.uint8)
    assert resample_classes(three_of_five, (1, 1)).tolist() == [[255]]
    half = np.array([[255, 3]], dtype=np.uint8)
    assert resample_classes(half, (1, 1)).tolist() == [[3]]


def test_resample_classes_grows_by_nearest_pixel():
    classes = np.array([[0, 1, 255]], dtype=np.uint8)
    assert resample_classes(classes, (2, 7)).tolist() == [[0, 0, 1, 1, 1, 255, 255]] * 2


@pytest.mark.parametrize("new", [6, 9, 12, 16])
def test_images_and_restored_probabilities_have_the_same_pixel_centers(new):
    # A ramp that is shrunk by areas and enlarged linearly stays where it was: half a pixel of the
    # small image would be 0.75 to 2 here. Pixels that are cut in two move it by less than 0.1.
    ramp = np.arange(24, dtype=np.float32)[None, None]
    restored = resample_probabilities(resample_image(ramp, (1, new)), (1, 24))
    np.testing.assert_allclose(restored[..., 4:-4], ramp[..., 4:-4], atol=0.1)


def test_restored_border_is_kept_by_shares_and_moved_by_the_largest_area():
    # A border at 7 of 12 pixels, divided by 4: the shares are 0, 1/4 and 1. Pixel 7 lies 3/8
    # of the way from the second to the third: 1/4 + 3/8 * 3/4 = 0.53, but 3/8 without the 1/4.
    mask = np.repeat([0.0, 1.0], [7, 5]).astype(np.float32)[None, None]
    restored = resample_probabilities(resample_image(mask, (1, 3)), (1, 12))
    assert restored[0, 0, 7] == pytest.approx(0.53125)
    assert ((restored >= 0.5) == (mask == 1)).all()
    largest = resample_classes(mask[0].astype(np.uint8), (1, 3))[None].astype(np.float32)
    assert resample_probabilities(largest, (1, 12))[0, 0, 7] == 0.375


def test_resample_probabilities_accepts_read_only_memory():
    soft = np.array([[[0.0, 1.0]]], dtype=np.float32)
    soft.flags.writeable = False
    assert resample_probabilities(soft, (1, 2)).tolist() == soft.tolist()
    assert resample_image(soft, (1, 1)).tolist() == [[[0.5]]]


TWO = LabelSpace(values=(0, 255), names=("background", "foreground"))
THREE = LabelSpace(values=(0, 1, 2), names=("background", "a", "b"))
rng = np.random.default_rng(0)


def write(folder, name, array):
    path = folder / f"{name}.png"
    Image.fromarray(array).save(path)
    return path


def prepare(space=TWO, normalization=None, **settings):
    config = PreprocessingConfig(downscale=1, **{"intensity": "image", **settings})
    return Preprocessing(channels=1, config=config, space=space, normalization=normalization)


def brain(box, shape=(20, 30)):
    image = np.full(shape, 3, dtype=np.uint8)
    image[box] = rng.integers(100, 255, image[box].shape)
    return image


def test_find_box_contains_what_is_brighter_than_a_tenth():
    image = brain(np.s_[4:9, 7:20])[None]
    assert find_box(image) == ((4, 9), (7, 20))
    assert find_box(np.zeros((1, 5, 6))) == ((0, 5), (0, 6))


@pytest.mark.parametrize("space", [TWO, THREE])
@pytest.mark.parametrize(
    "settings",
    [
        {"crop": True},
        {"square": True},
        {"crop": True, "square": True},
        {"crop": True, "square": True, "shape": (39, 39)},  # 3 times the square of 13.
    ],
)
def test_restore_probabilities_undoes_place_image(tmp_path, settings, space):
    image = brain(np.s_[4:9, 7:20])
    path = write(tmp_path, "a", image)
    classes = np.zeros(image.shape, np.uint8)
    classes[5:8, 9:15] = len(space.values) - 1
    preprocessing = prepare(space, **settings)
    look = measure_group((Case(id="a", image=path),), (0.5, 99.5), settings.get("crop", False))
    sample = preprocessing.place(Case(id="a", image=path), image[None], classes, look)
    assert sample.image.shape[1:] == sample.classes.shape == sample.geometry.working_shape
    if settings.get("square"):
        assert len(set(sample.classes.shape)) == 1
    shown = range(len(space.values)) if space.channels > 1 else [1]
    probabilities = np.stack([sample.classes == k for k in shown]).astype(np.float32)
    back = restore_probabilities(probabilities, sample.geometry)
    assert (space.decode(back) == classes).all()


def test_preprocessing_shares_box_and_normalization_in_a_group(tmp_path):
    first, second = brain(np.s_[4:9, 7:20]), brain(np.s_[2:6, 10:25])
    paths = [write(tmp_path, "a", first), write(tmp_path, "b", second)]
    preprocessing = prepare(crop=True, intensity="group", percentiles=(10, 99))
    cases = [Case(id=path.stem, image=path) for path in paths]
    samples = [preprocessing.load(case, cases) for case in cases]
    assert samples[0].geometry.box == samples[1].geometry.box == ((2, 9), (7, 25))
    seen = np.concatenate([image[2:9, 7:25].ravel() for image in (first, second)])
    expected = Normalization.measure(seen[None], (10, 99))
    assert samples[0].normalization == samples[1].normalization == expected
    alone = preprocessing.load(Case(id="a", image=paths[0]))
    assert alone.geometry.box == ((4, 9), (7, 20))


def test_preprocessing_of_companions_of_another_size_stays_within_the_image(tmp_path):
    small, large = brain(np.s_[4:9, 7:20]), brain(np.s_[30:40, 50:60], (50, 70))
    paths = [write(tmp_path, "a", small), write(tmp_path, "b", large)]
    cases = [Case(id=path.stem, image=path) for path in paths]
    sample = prepare(crop=True).load(cases[0], cases)
    assert sample.image.shape[1:] == small.shape


def test_preprocessing_crops_and_scales_channels_of_several_files_together(tmp_path):
    first, second = brain(np.s_[4:9, 7:20]), brain(np.s_[2:6, 10:25])
    files = [write(tmp_path, "a", first), write(tmp_path, "b", second)]
    case = Case(id="a", image=files[0], channels=(files[1],))
    sample = replace(prepare(crop=True, intensity="group"), channels=2).load(case)
    assert sample.geometry.box == ((2, 9), (7, 25))
    assert sample.normalization == Normalization.measure(
        np.stack([image[2:9, 7:25].ravel() for image in (first, second)]), (0.5, 99.5)
    )


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_mirror_indices_agree_with_pad_mirrored(size):
    image = np.arange(size)[None]
    padded = pad_mirrored(image, [9], [11])[0]
    assert (mirror_indices(np.arange(-9, size + 11), size) == padded).all()


def test_resample_to_spacing_equals_the_splines_of_scipy():
    image = ndimage.gaussian_filter(rng.random((1, 24, 30)), (0, 2, 2)).astype(np.float32)
    expected = ndimage.zoom(image[0], (1.5, 1.7), order=3, mode="nearest", grid_mode=True)
    found = resample_to_spacing(image, (36, 51), ())[0]
    inner = np.s_[4:-4, 4:-4]  # The programs differ in what they assume beyond the edges.
    np.testing.assert_allclose(found[inner], expected[inner], atol=1e-3)
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_resample_to_spacing_repeats_thick_slices():
    image = rng.random((1, 3, 8, 8)).astype(np.float32)
    found = resample_to_spacing(image, (6, 8, 8), (0,))
    assert (found == image.repeat(2, axis=1)).all()


def test_resample_to_spacing_averages_areas_and_keeps_types():
    image = rng.integers(0, 255, (2, 8, 12), dtype=np.uint8)
    found = resample_to_spacing(image, (4, 12), ())
    assert (found == resample_image(image, (4, 12))).all()
    bright = np.full((1, 4, 4), 255, np.uint8)
    bright[0, 1] = 0
    enlarged = resample_to_spacing(bright, (9, 9), ())
    assert enlarged.dtype == np.uint8  # Splines overshoot, but values do not wrap around.
    assert enlarged[0, 0].min() > 200
    assert resample_to_spacing(bright[:, :1, :1], (3, 3), ()).tolist() == [[[255] * 3] * 3]


def test_resample_to_spacing_keeps_missing_values_in_their_place():
    image = rng.random((1, 6, 8)).astype(np.float32)
    image[0, 0, 0] = np.nan
    found = resample_to_spacing(image, (12, 16), ())
    assert np.isnan(found[0, 0, 0])
    assert np.isfinite(found[0, 4:, 4:]).all()


def test_resample_classes_linearly_by_class():
    classes = np.zeros((2, 9, 9), np.uint8)
    classes[:, 3:6, 3:6] = 2
    classes[1, 6:, 6:] = IGNORE
    found = resample_classes(classes, (4, 18, 18), nearest_axes=(0,))
    assert (found[:2] == found[0]).all()
    assert (found[0] == 2).sum() == 6 * 6
    assert (found[0, 6:12, 6:12] == 2).all()
    assert (found[2, 14:, 14:] == IGNORE).all()
    assert set(np.unique(found)) == {0, 2, IGNORE}


def test_resample_classes_keeps_areas_on_average():
    # Random discs: of halves of areas, as many become foreground as background.
    rng = np.random.default_rng(0)
    places = np.mgrid[:64, :64]
    before = after = numbered = 0
    for _ in range(60):
        center = rng.uniform(20, 44, 2)[:, None, None]
        disc = (((places - center) ** 2).sum(axis=0) < rng.uniform(4, 15) ** 2).astype(np.uint8)
        before += disc.sum() / 4
        after += resample_classes(disc, (32, 32)).sum()
        geometry = Geometry(
            file_shape=(64, 64),
            box=((0, 64), (0, 64)),
            padded_shape=(64, 64),
            working_shape=(32, 32),
        )
        numbered += (place_objects(disc, geometry) > 0).sum()
    assert after == pytest.approx(before, rel=0.004)
    assert numbered == pytest.approx(before, rel=0.004)


@pytest.mark.parametrize("factor", [2, 4])
def test_place_objects_does_not_shift_objects(factor):
    size = 16 * factor
    geometry = Geometry(
        file_shape=(size, size),
        box=((0, size), (0, size)),
        padded_shape=(size, size),
        working_shape=(16, 16),
    )
    columns = np.broadcast_to(np.arange(size), (size, size)).copy()
    placed = place_objects(columns, geometry)
    assert (placed + 0.5).mean() == pytest.approx(size / 2)
    assert np.abs((placed[0] + 0.5) / factor - (np.arange(16) + 0.5)).max() <= 0.5 / factor


@pytest.mark.parametrize("shape", [(120, 165), (160, 110), (7, 41)])
def test_resample_image_rounds_halves_to_even_in_any_order_of_the_sums(shape):
    image = np.random.default_rng(0).integers(0, 255, (1, 240, 330)).astype(np.uint8)
    exact = image[0].astype(float)
    for axis, (old, new) in enumerate(zip(exact.shape, shape, strict=True)):
        edges = np.arange(new + 1) * old
        pixels = np.arange(old + 1) * new
        ends = np.minimum(edges[1:, None], pixels[None, 1:])
        weights = (ends - np.maximum(edges[:-1, None], pixels[None, :-1])).clip(0)
        exact = np.moveaxis(np.moveaxis(exact, axis, -1) @ weights.T, -1, axis)  # Whole numbers.
    wanted = np.array([[round(Fraction(int(v), 240 * 330)) for v in row] for row in exact])
    assert np.array_equal(resample_image(image, shape)[0], wanted)
