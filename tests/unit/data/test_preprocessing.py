import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK
from PIL import Image

from codes import raises_code
from ushape.data.preprocessing import (
    Preprocessing,
    PreprocessingConfig,
    find_true_objects,
    read_classes,
    read_image,
    read_objects,
    thin_out,
)
from ushape.errors import DataError
from ushape.labels import LabelSpace
from ushape.normalization import Normalization
from ushape.types import Case, CocoMask

SPACE = LabelSpace(values=(0, 255), names=("background", "foreground"))
rng = np.random.default_rng(0)


def prepare(downscale=1, normalization=None, channels=1):
    config = PreprocessingConfig(
        downscale=downscale, intensity="data" if normalization else "image"
    )
    return Preprocessing(channels=channels, config=config, space=SPACE, normalization=normalization)


@pytest.fixture
def case(tmp_path):
    Image.fromarray(rng.integers(256, size=(31, 42), dtype=np.uint8)).save(tmp_path / "i.png")
    mask = np.zeros((31, 42), np.uint8)
    mask[8:24, 10:30] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    return Case(id="a", image=tmp_path / "i.png", mask=tmp_path / "m.png")


def test_normalization_by_hand():
    normalization = Normalization(low=(0.0,), high=(10.0,), mean=(4.0,), std=(2.0,))
    image = np.array([[[-5, 0, 4, 10, 99]]], dtype=np.float32)
    assert normalization.apply(image).tolist() == [[[-2, -2, 0, 3, 3]]]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_normalization_measured_on_any_dtype_standardizes(dtype):
    pixels = (rng.random((3, 5000)) * 250 * np.array([[0.2], [0.5], [1]])).astype(dtype)
    scaled = Normalization.measure(pixels).apply(pixels[:, :, None])
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.mean(axis=(1, 2)), 0, atol=0.02)
    np.testing.assert_allclose(scaled.std(axis=(1, 2)), 1, atol=0.02)


def test_normalization_of_constant_and_broken_channels_is_zero():
    pixels = np.array([[7.0] * 9, [np.nan] * 9, [np.inf] + [1.0] * 8])
    scaled = Normalization.measure(pixels).apply(pixels[:, :, None])
    assert np.isfinite(scaled).all()
    assert not scaled[0].any()


@pytest.mark.parametrize("downscale", [1, 2, 3])
def test_restore_returns_to_the_grid_of_the_file(case, downscale):
    preprocessing = prepare(downscale)
    sample = preprocessing.load(case)
    assert sample.geometry.file_shape == (31, 42)
    assert sample.image.shape[1:] == sample.classes.shape == sample.geometry.working_shape
    back = preprocessing.restore(sample.classes[None].astype(np.float32), sample.geometry)
    assert back.shape == (1, 31, 42)
    truth = prepare().load(case).classes
    guess = SPACE.decode(back)
    assert 2 * (truth & guess).sum() / (truth.sum() + guess.sum()) > 0.9


def test_preprocessing_is_the_same_in_training_and_prediction(case):
    normalization = Normalization.measure(rng.random((1, 99)) * 255)
    annotated = prepare(2, normalization).load(case)
    plain = prepare(2, normalization).load(Case(id="a", image=case.image))
    assert plain.classes is None
    assert (plain.image == annotated.image).all()


def test_preprocessing_normalizes_each_image_by_its_own_statistics(case):
    sample = prepare(normalization=None).load(case)
    scaled = sample.normalization.apply(sample.image)
    assert scaled.mean() == pytest.approx(0, abs=0.05)
    assert scaled.std() == pytest.approx(1, abs=0.05)


def test_preprocessing_names_the_file_with_other_channels_or_values(case):
    with pytest.raises(DataError) as error:
        prepare(channels=2).load(case)
    assert error.value.code == "channel_count_mismatch"
    Image.fromarray(np.full((31, 42), 7, np.uint8)).save(case.mask)
    with pytest.raises(DataError, match=r"m\.png: .* not classes: 7 in 1302 pixels"):
        prepare().load(case)


def test_thin_out_spreads_pixels_over_all_columns():
    image = np.broadcast_to(np.arange(64), (1, 64, 64))
    thin = thin_out(image, at_most=256)
    assert 256 <= thin.shape[1] <= 512
    assert len(np.unique(thin)) > 32


def test_channels_on_other_grids_are_refused(tmp_path):
    for number, direction in enumerate(("LPS", "LPS", "RAS")):
        volume = SimpleITK.GetImageFromArray(np.zeros((3, 4, 5), np.int16))
        volume.SetOrigin((1, 2, 3))
        turned = SimpleITK.DICOMOrient(volume, direction)
        SimpleITK.WriteImage(turned, str(tmp_path / f"{number}.nii"))
    first, same, other = (tmp_path / f"{number}.nii" for number in range(3))
    assert read_image(Case(id="a", image=first, channels=(same,))).shape == (2, 3, 4, 5)
    with raises_code(DataError, "channel_grid_mismatch"):
        read_image(Case(id="a", image=first, channels=(other,)))


def test_objects_are_the_numbers_of_a_mask_or_its_connected_parts(tmp_path):
    mask = np.zeros((4, 9), np.uint8)
    mask[:, :2], mask[:, 4:6], mask[:, 7] = 3, 3, 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    case = Case(id="a", image=tmp_path / "m.png", mask=tmp_path / "m.png")
    space = LabelSpace(values=(0, 1), names=("background", "cell"), threshold=1, ignore=255)
    # One value beside the ignored one does not number objects.
    assert read_objects(case, space) is None
    objects = find_true_objects(case, read_classes(case, space), space)
    assert objects[0].tolist() == [1, 1, 0, 0, 2, 2, 0, 0, 0]

    mask[:, 5] = 9
    Image.fromarray(mask).save(tmp_path / "m.png")
    objects = find_true_objects(case, read_classes(case, space), space)
    assert objects[0].tolist() == [1, 1, 0, 0, 1, 2, 0, 0, 0]


def test_stated_objects_keep_their_numbers_and_crowds_get_further_ones(tmp_path):
    def annotation(first, last, **more):
        counts = [2 * first, 2 * (last - first), 2 * (8 - last)]
        return {
            "id": first,
            "image_id": 1,
            "category_id": 1,
            "segmentation": {"counts": counts, "size": [2, 8]},
            **more,
        }

    content = {
        "images": [{"id": 1, "file_name": "x.png", "height": 2, "width": 8}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [annotation(0, 2), annotation(2, 4), annotation(6, 8, iscrowd=1)],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    case = Case(id="x", image=tmp_path / "x.png", mask=CocoMask(tmp_path / "a.json", 1))
    space = LabelSpace(values=(0, 1), names=("background", "cell"), has_instances=True)
    assert read_objects(case, space)[0].tolist() == [1, 1, 2, 2, 0, 0, 3, 3]
    assert read_objects(case, replace(space, has_instances=False)) is None
    classes = np.array([[0, 1, 1, 1, 0, 0, 1, 1]] * 2, np.uint8)  # Cropped by an ignored pixel.
    assert find_true_objects(case, classes, space)[0].tolist() == [0, 1, 2, 2, 0, 0, 3, 3]
