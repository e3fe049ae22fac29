from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ushape.data.preprocessing import Preprocessing, PreprocessingConfig, measure_group
from ushape.labels import LabelSpace
from ushape.normalization import Normalization
from ushape.transforms.resampling import find_box, restore_probabilities
from ushape.types import Case

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


def test_the_box_is_what_is_brighter_than_a_tenth():
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
def test_what_was_placed_comes_back_on_the_file_s_own_grid(tmp_path, settings, space):
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


def test_a_group_shares_its_box_and_its_numbers(tmp_path):
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


def test_companions_of_another_size_do_not_crop_beyond_the_image(tmp_path):
    small, large = brain(np.s_[4:9, 7:20]), brain(np.s_[30:40, 50:60], (50, 70))
    paths = [write(tmp_path, "a", small), write(tmp_path, "b", large)]
    cases = [Case(id=path.stem, image=path) for path in paths]
    sample = prepare(crop=True).load(cases[0], cases)
    assert sample.image.shape[1:] == small.shape


def test_channels_in_several_files_are_cropped_and_scaled_together(tmp_path):
    first, second = brain(np.s_[4:9, 7:20]), brain(np.s_[2:6, 10:25])
    files = [write(tmp_path, "a", first), write(tmp_path, "b", second)]
    case = Case(id="a", image=files[0], channels=(files[1],))
    sample = replace(prepare(crop=True, intensity="group"), channels=2).load(case)
    assert sample.geometry.box == ((2, 9), (7, 25))
    assert sample.normalization == Normalization.measure(
        np.stack([image[2:9, 7:25].ravel() for image in (first, second)]), (0.5, 99.5)
    )


def test_min_max_by_hand():
    normalization = Normalization.min_max(np.array([[2.0, 4.0, 10.0], [5.0, 5.0, np.nan]]))
    image = np.array([[[2.0, 4.0, 10.0, 12.0]], [[5.0, 5.0, 5.0, 6.0]]])
    np.testing.assert_allclose(normalization.apply(image), [[[0, 0.25, 1, 1]], [[0, 0, 0, 1]]])
