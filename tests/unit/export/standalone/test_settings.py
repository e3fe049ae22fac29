from dataclasses import replace
from types import SimpleNamespace

import pytest

from codes import raises_code
from probabilities import BINARY
from standalone import TEMPLATE, import_program
from ushape.data.preprocessing import Preprocessing
from ushape.data.preprocessing_config import PreprocessingConfig
from ushape.errors import PlanError
from ushape.export.standalone.comparison import READ_SUFFIXES
from ushape.export.standalone.settings import refuse_unsupported, settings_of
from ushape.inference.predictor import Predictor
from ushape.inference.sliding_window import TileSettings
from ushape.inference.tuning import Tuning
from ushape.instances.label import ObjectConfig
from ushape.types import MaskEncoding


class Network:
    margin = 0

    def legal_shape(self, at_least):
        return tuple(16 * max(1, -(-size // 16)) for size in at_least)


class Irregular(Network):
    def legal_shape(self, at_least):
        return tuple(size if size < 40 else 16 * -(-size // 16) for size in at_least)


def predictor_of(
    dims=2, channels=1, network=None, space=BINARY, encoding=None, objects=None, **changes
):
    config = PreprocessingConfig(**{"downscale": 1, "intensity": "image"} | changes)
    preprocessing = Preprocessing(channels=channels, config=config, space=space, normalization=None)
    plan = SimpleNamespace(
        preprocessing=preprocessing,
        image_dims=dims,
        encoding=encoding or MaskEncoding(),
        recipe=SimpleNamespace(predict=SimpleNamespace(objects=objects or ObjectConfig())),
    )
    member = SimpleNamespace(
        plan=plan, network=network or Network(), settings=TileSettings(shape=(64, 64))
    )
    return Predictor(members=(member,), tuning=Tuning(), device="cpu")


LEARNED = ObjectConfig(separation="learned_distance", h_distance=0.3)


@pytest.mark.parametrize(
    "changes",
    [
        {"dims": 3},
        {"channels": 5},
        {"crop": True},
        {"intensity": "group"},
        {"slices": 3},
        {"target_spacing_mm": (1.0, 1.0)},
        {"encoding": MaskEncoding(suffix=".nii.gz")},
        {"encoding": MaskEncoding(suffix=".png", dtype="int32")},
        {
            "space": replace(BINARY, has_distance=True),
            "objects": replace(LEARNED, max_hole_size_px=3),
        },
    ],
    ids=str,
)
def test_model_that_the_program_cannot_repeat_is_refused(changes):
    with raises_code(PlanError, "export_refused"):
        refuse_unsupported(predictor_of(**changes))


@pytest.mark.parametrize(
    "encoding",
    [
        MaskEncoding(),
        MaskEncoding(kind="colors"),
        MaskEncoding(suffix=".tif", dtype="int32"),
        MaskEncoding(suffix=".gif", kind="palette", palette=((0, 0, 0), (1, 2, 3))),
    ],
    ids=str,
)
def test_other_models_are_not_refused(encoding):
    refuse_unsupported(predictor_of(encoding=encoding))


def test_settings_contain_the_rule_of_the_objects():
    space = replace(BINARY, has_distance=True, threshold=1)
    settings = settings_of(predictor_of(space=space, objects=LEARNED), ["network.onnx"])
    assert settings["separation"]["h"] == 0.3
    assert settings["separation"]["writes_numbers"]
    assert settings["networks"][0]["tiling"]["legal_sizes"] == [{"smallest": 16, "step": 16}] * 2
    assert settings_of(predictor_of(), ["network.onnx"])["separation"] is None


def test_network_with_irregular_sizes_is_refused():
    with raises_code(PlanError, "export_refused"):
        settings_of(predictor_of(network=Irregular()), ["network.onnx"])


def test_suffixes_are_those_of_the_program():
    assert set(READ_SUFFIXES) == set(import_program("image_files").SUFFIXES)


def test_license_is_that_of_the_package():
    root = TEMPLATE.parents[4]
    assert (TEMPLATE / "LICENSE").read_text() == (root / "LICENSE").read_text()
