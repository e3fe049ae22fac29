"""Numbers of objects of images larger than memory equal those of images in memory."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from codes import raises_code
from ushape import io
from ushape.data.inputs import Input
from ushape.errors import DataError
from ushape.inference.output import OutputConfig
from ushape.inference.output.writer import PredictionWriter
from ushape.inference.separation import SEPARATED, separate
from ushape.inference.streaming import StreamedPrediction
from ushape.instances.label import ObjectConfig, label_objects, label_prediction
from ushape.io.streaming import open_bands
from ushape.labels import LabelSpace
from ushape.transforms import morphology
from ushape.types import Case, MaskEncoding, Prediction

SPACE = LabelSpace(values=(0, 1, 2), names=("background", "a", "b"), threshold=1, has_distance=True)
SHAPES = {2: (60, 50), 3: (20, 18, 16)}


def fields(dims):
    """Classes with touching objects and small holes, and distance."""
    rng = np.random.default_rng(dims)
    noise = ndimage.gaussian_filter(rng.standard_normal((2, *SHAPES[dims])), (0, *[2] * dims))
    classes = np.where(noise[0] > 0, 1 + (noise[1] > 0), 0).astype(np.uint8)
    classes[rng.random(classes.shape) < 0.02] = 0
    return classes, (1 / (1 + np.exp(-20 * noise[1]))).astype(np.float32)


def predictor_of(dims, suffix, how, joins=False):
    separates = how.separation == "learned_distance"
    return SimpleNamespace(
        plan=SimpleNamespace(
            preprocessing=SimpleNamespace(space=SPACE),
            recipe=SimpleNamespace(predict=SimpleNamespace(objects=how)),
            encoding=MaskEncoding(suffix=suffix),
            image_dims=dims,
        ),
        codes_of=SPACE.values_of,
        expected_dice=lambda prediction: 0.5,
        tuning=SimpleNamespace(rule=SimpleNamespace(cleans=False)),
        separates=separates,
        objects=how,
        joins_objects=joins,
        reads_groups=False,
    )


def input_of(folder, dims, suffix):
    path = folder / f"x{suffix}"
    folder.mkdir(exist_ok=True)
    io.write_mask(path, np.zeros(SHAPES[dims], np.uint8), MaskEncoding(suffix=suffix))
    return Input(case=Case(id="x", image=path), below=Path(path.name))


def streamed(image, separates, fields_of_rows):
    classes, distance = fields_of_rows
    none = np.zeros((2, *classes.shape[1:]), np.float32)[:, None]
    bands = (
        (none, classes[row : row + 3], distance[row : row + 3] if separates else None)
        for row in range(0, len(classes), 3)
    )
    return StreamedPrediction(open_bands(image.case.image), bands)


HOWS = {
    "separated": replace(SEPARATED, min_size_px=4, max_hole_size_px=6),
    "connected": ObjectConfig(min_size_px=4, corners_connect=True),
}


@pytest.mark.parametrize("how", HOWS.values(), ids=HOWS)
@pytest.mark.parametrize(
    ("dims", "image_suffix", "mask_suffix", "name"),
    [
        (2, ".tif", ".png", "x_instances.tif"),
        (2, ".npy", ".tif", "x_instances.tif"),
        (3, ".tif", ".tif", "x_instances.tif"),
        (3, ".nii", ".nii.gz", "x_instances.nii.gz"),
        (3, ".tif", ".nii.gz", "x_instances.tif"),  # Its mask is a TIFF, too.
    ],
)
def test_instances_in_bands_equal_those_in_memory(
    how, dims, image_suffix, mask_suffix, name, monkeypatch, tmp_path
):
    monkeypatch.setattr(morphology, "BAND_PX", 700)
    classes, distance = fields(dims)
    image, out = input_of(tmp_path / "in", dims, image_suffix), tmp_path / "out"
    predictor = predictor_of(dims, mask_suffix, how)
    whole = Prediction(probabilities=np.zeros((3, *classes.shape)), classes=classes)
    if predictor.separates:
        own, labels = separate(classes, distance, SPACE, how)
        whole = replace(whole, classes=own, labels=labels)
    expected = label_prediction(whole, SPACE, how)
    assert len(expected) > 5
    config = OutputConfig(folder=out, instances=True)
    with PredictionWriter.open(config, predictor, [image], {}) as writer:
        assert writer.only_whole == []
        assert not writer.prefers_whole
        assert writer.keeps_distance
        prediction = streamed(image, predictor.separates, (classes, distance))
        mask = writer.write_streamed(image, prediction).path
    np.testing.assert_array_equal(io.read_mask(mask).codes, SPACE.values_of(whole.classes))
    found = io.read(out / name)
    assert found.array.dtype == np.uint16
    np.testing.assert_array_equal(found.array[0], expected.labels)
    assert sorted(path.name for path in out.iterdir() if path.name[0] != ".") == sorted(
        [mask.name, name]
    )
    with PredictionWriter.open(config, predictor, [image], {}) as writer:
        assert writer.is_done(image)
        assert writer.outputs_of(image) == [out / name, mask]
        assert writer.done[image.below] == [name, mask.name]


def test_instances_of_more_than_65535_objects_have_32_bits(tmp_path):
    image = tmp_path / "x.npy"
    np.save(image, np.zeros((520, 520), np.uint8))
    image = Input(case=Case(id="x", image=image), below=Path("x.npy"))
    classes = np.zeros((520, 520), np.uint8)
    classes[::2, ::2] = 1
    config = OutputConfig(folder=tmp_path / "out", instances=True)
    predictor = predictor_of(2, ".tif", ObjectConfig())
    with PredictionWriter.open(config, predictor, [image], {}) as writer:
        writer.write_streamed(image, streamed(image, False, (classes, None)))
    found = io.read(tmp_path / "out/x_instances.tif").array[0]
    assert found.dtype == np.uint32
    np.testing.assert_array_equal(found, label_objects(classes).labels)


def test_instances_that_need_the_whole_image_are_refused_with_the_settings(tmp_path):
    image = input_of(tmp_path / "in", 2, ".tif")
    predictor = predictor_of(2, ".tif", ObjectConfig(separation="distance_transform"))
    config = OutputConfig(folder=tmp_path / "out", instances=True)
    with PredictionWriter.open(config, predictor, [image], {}) as writer:
        assert writer.only_whole == ["instances"]
        assert writer.prefers_whole
        with raises_code(DataError, "image_too_large") as error:
            writer.write_streamed(image, streamed(image, False, fields(2)))
    assert "predict.objects.separation=none" in error.value.hint


def test_existing_instances_beside_a_mask_in_bands_are_kept(tmp_path):
    image, out = input_of(tmp_path / "in", 3, ".tif"), tmp_path / "out"
    predictor = predictor_of(3, ".nii.gz", HOWS["separated"])
    config = OutputConfig(folder=out, instances=True)
    with PredictionWriter.open(config, predictor, [image], {}) as writer:
        out.mkdir(exist_ok=True)
        (out / "x_instances.tif").write_bytes(b"mine")
        with raises_code(DataError, "streamed_output_exists"):
            writer.write_streamed(image, streamed(image, True, fields(3)))
    assert (out / "x_instances.tif").read_bytes() == b"mine"


@pytest.mark.parametrize("dims", [2, 3])
def test_instances_of_a_former_call_in_memory_are_replaced(dims, tmp_path):
    image, out = input_of(tmp_path / "in", dims, ".tif"), tmp_path / "out"
    suffix = {2: ".png", 3: ".nii.gz"}[dims]
    predictor = predictor_of(dims, suffix, HOWS["separated"], joins=True)
    classes, distance = fields(dims)
    whole = Prediction(
        probabilities=np.zeros((3, *classes.shape)),
        classes=classes,
        labels=separate(classes, distance, SPACE, predictor.objects)[1],
        source=io.read(image.case.image),
    )
    with PredictionWriter.open(OutputConfig(folder=out), predictor, [image], {}) as writer:
        writer.write(image, whole)
        assert writer.adds_instances
    config = OutputConfig(folder=out, overwrite=True)
    with PredictionWriter.open(config, predictor, [image], {"weights": 2}) as writer:
        writer.write_streamed(image, streamed(image, True, (classes, distance)))
    names = [path.name for path in out.iterdir() if path.name[0] != "."]
    assert sorted(names) == ["x.tif", "x_instances.tif"]
