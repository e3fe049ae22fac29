"""Cases of different spacings on a common grid, and back on that of their files."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK

from codes import raises_code
from ushape.data.cache import fits_in_memory
from ushape.data.preprocessing import Preprocessing
from ushape.data.preprocessing_config import PreprocessingConfig
from ushape.data.spacing import (
    check_spacing,
    choose_common,
    coarse_axes,
    enlargement,
    is_common,
    resampled_shape,
)
from ushape.errors import DataError
from ushape.labels import IGNORE, LabelSpace
from ushape.types import Case, CaseFacts

SPACE = LabelSpace(values=(0, 1), names=("background", "ball"))


def write(path, array, spacing):
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing[::-1])
    SimpleITK.WriteImage(image, str(path))
    return path


def ball(shape, spacing, radius=12.0):
    """Return a ball in the middle of a volume, in the same place in mm for each spacing."""
    axes = [(np.arange(n) + 0.5 - n / 2) * step for n, step in zip(shape, spacing, strict=True)]
    grid = np.meshgrid(*axes, indexing="ij")
    return (sum(axis**2 for axis in grid) <= radius**2).astype(np.uint8)


def prepare(target, **changes):
    settings = {"downscale": 1, "intensity": "image", "target_spacing_mm": target, **changes}
    config = PreprocessingConfig(**settings)
    return Preprocessing(channels=1, config=config, space=SPACE, normalization=None)


def make_case(folder, name, shape, spacing):
    classes = ball(shape, spacing)
    image = write(folder / f"{name}.nii.gz", (100 * classes).astype(np.int16), spacing)
    mask = write(folder / f"{name}_mask.nii.gz", classes, spacing)
    return Case(id=name, image=image, mask=mask)


def test_choose_common_is_the_median_along_each_axis():
    spacings = [(2, 1, 1), (2.5, 0.5, 1), (3, 2, 2)]
    assert choose_common(spacings, [(50, 60, 60)] * 3) == (2.5, 1, 1)
    assert choose_common([(0.5, 0.4), (0.7, 0.2)], [(90, 80)] * 2) == (0.6, 0.3)
    nanometers = [(4.123e-6, 4.123e-6), (4.123e-6, 8e-6), (4.123e-6, 2e-6)]
    assert choose_common(nanometers, [(90, 80)] * 3) == (4.123e-6, 4.123e-6)


def test_choose_common_takes_the_tenth_percentile_along_thick_slices():
    spacings = [(z, 0.7, 0.7) for z in (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)]
    assert choose_common(spacings, [(20, 200, 200)] * 11) == (4, 0.7, 0.7)
    # With more than a third of the pixels of the others, the median is kept.
    assert choose_common(spacings, [(90, 200, 200)] * 11) == (8, 0.7, 0.7)
    # It is not below the spacing of the other axes.
    thin = [(z, 1, 1) for z in (0.5, 0.5, 0.5, 4, 5, 6, 7)]
    assert choose_common(thin, [(20, 200, 200)] * 7) == (1, 1, 1)


def test_is_common_allows_5_percent():
    assert is_common([(5, 0.7, 0.7), (5.2, 0.71, 0.7)])
    assert not is_common([(5, 0.7, 0.7), (5, 0.7, 0.75)])


def test_coarse_axes_before_or_after_resampling():
    assert coarse_axes((5, 1, 1), (1, 1, 1)) == (0,)
    assert coarse_axes((1, 1, 1), (1, 5, 1)) == (1,)
    assert coarse_axes((3, 1, 1), (2, 1, 1)) == ()
    assert coarse_axes((5, 5, 1), (5, 5, 1)) == ()
    assert coarse_axes((5, 1), (1, 1)) == ()
    assert coarse_axes((5, 1, 1), (1, 1)) == ()


def test_resampled_shape_by_hand():
    assert resampled_shape((10, 30, 40), (5, 1, 1), (2.5, 2, 0.5)) == (20, 15, 80)
    assert resampled_shape((10, 30), None, (2, 2)) == (10, 30)
    assert resampled_shape((10, 30, 40), (5, 1, 1), (2, 0.5)) == (10, 15, 80)
    assert resampled_shape((1, 1), (0.1, 0.1), (2, 2)) == (1, 1)


def test_check_spacing_names_what_is_wrong():
    assert check_spacing("a", [2, 1], (1, 1)) == (2, 1)
    assert check_spacing("volume by slice", (90, 2, 1), (1, 1)) == (90, 2, 1)
    for spacing in (None, (1,)):
        with raises_code(DataError, "missing_spacing"):
            check_spacing("a", spacing, (1, 1))
    with raises_code(DataError, "implausible_spacing"):
        check_spacing("a", (1000, 1), (1, 1))


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((12, 48, 48), (4, 1, 1)),
        ((24, 33, 41), (2, 1.4, 1.2)),
        ((60, 60, 60), (0.8, 0.8, 0.8)),
        ((9, 96, 96), (5.5, 0.5, 0.5)),
    ],
)
def test_cases_of_any_spacing_have_the_same_size_and_return_to_their_grid(tmp_path, shape, spacing):
    preprocessing, target = prepare((2.0, 1.0, 1.0)), (2, 1, 1)
    sample = preprocessing.load(make_case(tmp_path, "a", shape, spacing))
    assert sample.image.shape[1:] == resampled_shape(shape, spacing, target)
    assert sample.classes.shape == sample.image.shape[1:]
    exact = ball(sample.classes.shape, target)
    assert int(sample.classes.sum()) == pytest.approx(int(exact.sum()), rel=0.12)
    back = preprocessing.restore(sample.classes[None].astype(np.float32), sample.geometry)
    assert back.shape == (1, *shape)
    found, truth = back[0] > 0.5, ball(shape, spacing) > 0
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.93
    # The ball stays in its place.
    centers = [np.argwhere(one).mean(axis=0) for one in (found, truth)]
    assert np.abs(centers[0] - centers[1]).max() < 0.1


def test_case_at_the_common_spacing_is_unchanged(tmp_path):
    case = make_case(tmp_path, "a", (12, 48, 40), (4, 1, 1))
    same, plain = prepare((4.0, 1.0, 1.0)).load(case), prepare(None).load(case)
    assert same.geometry.is_identity
    assert (same.image == plain.image).all()
    assert same.image.dtype == plain.image.dtype


def test_downscale_follows_the_common_spacing(tmp_path):
    case = make_case(tmp_path, "a", (12, 48, 40), (4, 1, 1))
    config = prepare((2.0, 1.0, 1.0), downscale=(1.0, 2.0, 2.0))
    assert config.load(case).image.shape == (1, 24, 24, 20)


def test_cases_without_a_spacing_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((8, 9, 9), np.uint8))
    with raises_code(DataError, "missing_spacing"):
        prepare((2.0, 1.0, 1.0)).load(Case(id="a", image=tmp_path / "a.npy"))
    assert prepare(None).load(Case(id="a", image=tmp_path / "a.npy")).image.shape == (1, 8, 9, 9)


def test_ignored_pixels_stay_ignored(tmp_path):
    case = make_case(tmp_path, "a", (12, 48, 48), (4, 1, 1))
    preprocessing = prepare((2.0, 0.5, 0.5))
    image = preprocessing.load(case).image[:, :12, :48, :48]
    classes = ball((12, 48, 48), (4, 1, 1))
    classes[:, :, :20] = IGNORE
    sample = preprocessing.place(case, image, classes, None, (4, 1, 1))
    assert (sample.classes[:, :, :40] == IGNORE).all()
    assert set(np.unique(sample.classes[:, :, 40:])) == {0, 1}


def test_memory_counts_resampled_pixels(tmp_path):
    case = make_case(tmp_path, "a", (12, 48, 48), (4, 1, 1))
    assert enlargement(case, (1.0, 1.0, 1.0)) == 4
    assert enlargement(case, None) == 1
    facts = [CaseFacts(case, (12 * 48 * 48, 0))]
    needed = 3 * 4 * 12 * 48 * 48
    for target, factor in (((1.0, 1.0, 1.0), 1), (None, 4)):
        preprocessing = prepare(target)
        assert fits_in_memory(facts, preprocessing, 3, 4 * needed / factor + 1)
        assert not fits_in_memory(facts, preprocessing, 3, 4 * needed / factor)


def test_memory_of_volumes_by_slice_counts_their_slices(tmp_path):
    case = make_case(tmp_path, "a", (12, 48, 48), (4, 1, 1))
    facts = [CaseFacts(case, (12 * 48 * 48, 0))]
    for changes, pixels in (
        ({"target": (0.5, 1.0)}, 2 * 12 * 48 * 48),  # Slices are not resampled along z.
        ({"target": None, "shape": (24, 16)}, 12 * 24 * 16),
    ):
        preprocessing = replace(prepare(slices=1, **changes), by_slice=True)
        sample = preprocessing.load(case)
        assert sample.classes.size == pixels
        assert fits_in_memory(facts, preprocessing, 3, 4 * 3 * pixels + 1)
        assert not fits_in_memory(facts, preprocessing, 3, 4 * 3 * pixels)


def test_slices_of_a_volume_are_resampled_and_return_to_its_grid(tmp_path):
    preprocessing = replace(prepare((2.0, 0.5), slices=1), by_slice=True)
    sample = preprocessing.load(make_case(tmp_path, "a", (5, 48, 40), (90, 1, 1)))
    assert sample.image.shape == (1, 5, 24, 80)
    back = preprocessing.restore(sample.classes[None].astype(np.float32), sample.geometry)
    assert back.shape == (1, 5, 48, 40)
