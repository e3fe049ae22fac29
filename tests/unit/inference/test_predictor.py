from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from codes import raises_code
from slides import blobs, write_svs
from ushape.data.preprocessing import Preprocessing
from ushape.data.preprocessing_config import PreprocessingConfig
from ushape.errors import DataError
from ushape.inference import predictor as predictor_module
from ushape.inference.decision_rule import ClassRule, DecisionRule
from ushape.inference.predictor import Predictor, PreparedImage, check_dimensions
from ushape.inference.streaming import StreamedImage
from ushape.inference.tuning import Tuning
from ushape.inference.uncertainty import Calibration
from ushape.labels import LabelSpace
from ushape.planning.recipe import PredictConfig
from ushape.types import Case, MaskEncoding, Pixels, Prediction

SPACE = LabelSpace(values=(0, 255), names=("background", "cell"))


def member(*probabilities):
    """A member of an ensemble that predicts these probabilities for every image."""
    fixed = np.array([[probabilities]], np.float32)
    return SimpleNamespace(
        plan=SimpleNamespace(preprocessing=SimpleNamespace(space=SPACE, needs_group=False)),
        network=SimpleNamespace(name="torch"),
        probabilities=lambda samples: [fixed.copy() for _ in samples],
    )


def predictor_of(*members, **tuning):
    return Predictor(members=members, tuning=Tuning(**tuning), device="cpu")


def image(count):
    sample = SimpleNamespace(missing_px=2, image=np.zeros((1, 1, 3)))
    return PreparedImage((sample,) * count, Pixels(array=np.zeros((1, 1, 3))))


def test_predictor_averages_members_and_applies_the_rule():
    members = member(0.0, 0.4, 1.0), member(0.2, 0.5, 1.0)
    (found,) = predictor_of(*members).predict([image(2)])
    assert found.probabilities[0, 0] == pytest.approx([0.1, 0.45, 1.0])
    assert found.classes.tolist() == [[0, 0, 1]]
    assert found.missing_px == 2
    assert found.disagreement.shape == (1, 3)
    rule = DecisionRule(classes={"cell": ClassRule(threshold=0.45)})
    (found,) = predictor_of(*members, rule=rule).predict([image(2)])
    assert found.classes.tolist() == [[0, 1, 1]]


def test_predictor_of_several_images_equals_one_by_one():
    predictor = predictor_of(member(0.0, 0.4, 1.0), member(0.2, 0.5, 1.0))
    both = predictor.predict([image(2), image(2)])
    (alone,) = predictor.predict([image(2)])
    assert all((one.probabilities == alone.probabilities).all() for one in both)


def test_predictor_with_one_member_has_no_disagreement():
    predictor = predictor_of(member(0.0, 0.4, 1.0))
    (found,) = predictor.predict([image(1)])
    assert found.disagreement is None
    assert predictor.backends == ["torch"]
    assert predictor.codes_of(found.classes).tolist() == [[0, 0, 255]]


def test_predictor_averages_the_expected_dice_of_the_calibrations():
    calibrations = tuple(
        Calibration(confidence=(0.0, 1.0), dice=(0.0, top), cases=5, rank_correlation=None)
        for top in (1.0, 0.5)
    )
    prediction = Prediction(probabilities=np.zeros(1), classes=np.zeros(1), confidence=0.5)
    found = predictor_of(member(0.5), calibrations=calibrations).expected_dice(prediction)
    assert found == pytest.approx((0.5 + 0.25) / 2)
    assert predictor_of(member(0.5)).expected_dice(prediction) is None


def test_prepared_image_batch_key_is_the_shape():
    assert image(1).batch_key == ((1, 1, 3),)
    assert image(1).pixels == 3


def test_check_dimensions_refuses_volumes_for_image_models():
    check_dimensions("x", 2, 2)
    with raises_code(DataError, "dimension_mismatch"):
        check_dimensions("x", 3, 2)


def reader(channels=1, dims=2, orientation="displayed", slide_mpp=None, **changes):
    """A predictor that only reads images, with one member."""
    config = PreprocessingConfig(**{"downscale": 1, "intensity": "image", **changes})
    preprocessing = Preprocessing(channels=channels, config=config, space=SPACE, normalization=None)
    plan = SimpleNamespace(
        preprocessing=preprocessing,
        image_dims=dims,
        encoding=MaskEncoding(orientation=orientation),
        recipe=SimpleNamespace(predict=PredictConfig(slide_mpp=slide_mpp)),
    )
    return predictor_of(SimpleNamespace(plan=plan, network=None, settings=None))


@pytest.fixture
def write(tmp_path):
    """Writes an image as TIFF and returns its case."""

    def written(shape, **options):
        path = tmp_path / "x.ome.tif"
        pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
        tifffile.imwrite(path, pixels, photometric="minisblack", **options)
        return Case(id="x", image=path)

    return written


MILLIMETERS = {"axes": "YX", "PhysicalSizeX": 2000, "PhysicalSizeY": 2000}  # Micrometers.


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"target_spacing_mm": (1.0, 2.0)}, (1, 60, 40)),  # A finer grid than that of the file.
        ({"slices": 3}, (3, 30, 40)),
        ({"shape": (20, 20)}, (1, 20, 20)),
        ({"crop": True}, (1, 30, 40)),
        ({"channels": 3}, (3, 30, 40)),  # A gray image for a model of color images.
    ],
)
def test_large_images_that_cannot_be_streamed_are_read_whole(write, monkeypatch, changes, size):
    case = write((30, 40), metadata=MILLIMETERS)
    predictor = reader(**changes)
    found = predictor.preprocess_or_stream(case, [case], 1)
    assert found.samples[0].image.shape == size
    # Above a share of the main memory, they are refused when they are predicted.
    monkeypatch.setattr(predictor_module, "MAX_SHARE", 0)
    found = predictor.preprocess_or_stream(case, [case], 1)
    assert isinstance(found, StreamedImage)
    with found.bands, pytest.raises(DataError) as error:
        next(iter(predictor.stream(found).bands))
    assert error.value.code in ("image_too_large", "channel_count_mismatch")


def test_large_images_are_streamed_if_they_can_be(write):
    case = write((30, 40), metadata=MILLIMETERS)
    for changes in ({}, {"downscale": 2}, {"target_spacing_mm": (4.0, 4.0)}):
        found = reader(**changes).preprocess_or_stream(case, [], 1)
        assert isinstance(found, StreamedImage)
        found.bands.close()
        found = reader(**changes).preprocess_or_stream(case, [], 1 << 20)
        assert isinstance(found, PreparedImage)
    # A missing spacing is named, instead of the size.
    case = write((30, 40), metadata={"axes": "YX"})
    predictor = reader(target_spacing_mm=(1.0, 2.0))
    found = predictor.preprocess_or_stream(case, [], 1)
    with found.bands, raises_code(DataError, "missing_spacing"):
        next(iter(predictor.stream(found).bands))


def test_large_turned_images_are_read_whole_if_masks_are_turned_back(write):
    case = write((30, 40), metadata=None, extratags=[(274, "H", 1, 6, True)])
    found = reader(orientation="stored").preprocess_or_stream(case, [], 1)
    assert isinstance(found, PreparedImage)
    assert found.source.orientation == 6
    found = reader().preprocess_or_stream(case, [], 1)
    assert isinstance(found, StreamedImage)
    found.bands.close()


@pytest.mark.parametrize("max_bytes", [1, 1 << 30])
@pytest.mark.parametrize(
    ("shape", "dims", "changes"),
    [
        ((30, 40), 3, {"downscale": (1.0, 2.0, 2.0)}),
        ((30, 40), 3, {"target_spacing_mm": (5.0, 1.0, 1.0)}),
        ((5, 30, 40), 2, {"downscale": (2.0, 2.0)}),
        ((5, 30, 40), 2, {"target_spacing_mm": (1.0, 1.0)}),
    ],
)
def test_images_with_other_axes_are_refused_by_their_dimensions(
    write, max_bytes, shape, dims, changes
):
    axes = "ZYX"[-len(shape) :]
    sizes = {f"PhysicalSize{axis}": 2000 for axis in axes}
    case = write(shape, metadata={"axes": axes, **sizes})
    with raises_code(DataError, "dimension_mismatch"):
        reader(dims=dims, **changes).preprocess_or_stream(case, [], max_bytes)


def test_planes_are_channels_if_the_model_reads_as_many(write):
    case = write((3, 30, 40), metadata={"axes": "ZYX"})
    found = reader(channels=3, downscale=(2.0, 1.0)).preprocess_or_stream(case, [], 1)
    assert found.samples[0].image.shape == (3, 15, 40)


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"slices": 3}, "--set preprocessing.slices=null"),
        ({"intensity": "group"}, "--set preprocessing.intensity=image"),
        ({"crop": True}, "--set preprocessing.crop=false"),
    ],
)
def test_arrays_are_refused_by_models_that_read_groups(changes, hint):
    predictor = reader(**changes)
    assert predictor.reads_groups
    with raises_code(DataError, "model_needs_groups") as error:
        predictor.preprocess_array(np.zeros((1, 8, 8), np.uint8))
    assert error.value.hint.endswith(f"train with {hint}.")
    assert not reader().reads_groups


def test_slides_are_streamed_at_the_resolution_of_the_model_or_of_the_call(tmp_path):
    path = write_svs(tmp_path / "a.svs", blobs()[0])
    case = Case(id="a", image=path)
    for changes, size in (
        ({}, (600, 800)),
        ({"slide_mpp": 0.5}, (300, 400)),
        ({"target_spacing_mm": (0.001, 0.001)}, (150, 200)),
        ({"target_spacing_mm": (0.001, 0.001), "slide_mpp": 0.5}, (300, 400)),
    ):
        found = reader(channels=3, **changes).preprocess_or_stream(case, [], 1 << 30)
        assert isinstance(found, StreamedImage)
        with found.bands as bands:
            assert bands.shape == (3, *size)
