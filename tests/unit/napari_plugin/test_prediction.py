"""Prediction of image layers, with a model that calls bright pixels foreground."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ushape import io
from ushape.labels import LabelSpace
from ushape.napari_plugin import prediction
from ushape.napari_plugin.layers import Origin
from ushape.napari_plugin.prediction import predict_layer
from ushape.napari_plugin.widgets import origin_of, properties_of
from ushape.types import MaskEncoding

SPACE = LabelSpace(values=(0, 255), names=("background", "cell"))


class BrightModel:
    """Says what it was given, and predicts pixels above 100."""

    def __init__(self):
        self.given = []

    def predict(self, image, *, spacing_mm=None):
        self.given.append((image, spacing_mm))
        pixels = image if isinstance(image, np.ndarray) else io.read(image).array[0]
        gray = pixels[..., 0] if pixels.shape[-1] == 3 else pixels
        classes = (gray > 100).astype(np.uint8)
        return SimpleNamespace(classes=classes, probabilities=classes[None].astype(np.float32))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Folder of a run of a given number of dimensions, and its model."""
    model, folder = BrightModel(), tmp_path / "run"
    folder.mkdir()
    (folder / "model.safetensors").touch()
    plan = SimpleNamespace(
        image_dims=2, encoding=MaskEncoding(), preprocessing=SimpleNamespace(space=SPACE)
    )
    monkeypatch.setattr(prediction, "load_plan", lambda run: plan)
    monkeypatch.setattr(prediction, "_load_model", lambda run, changed: model)
    return folder, plan, model


def layer(data, name="x", path=None, **properties):
    """The attributes of a layer of napari that the widgets use."""
    properties = {"name": name, "metadata": {}, "scale": (1.0,) * np.ndim(data), **properties}
    return SimpleNamespace(
        data=data,
        source=SimpleNamespace(path=path),
        as_layer_data_tuple=lambda: (data, properties, "image"),
    )


def test_pixels_of_a_layer_are_predicted_at_its_place(run):
    folder, _, model = run
    image = np.array([[0, 200, 200, 0], [0, 0, 200, 0]], np.uint8)
    given = properties_of(layer(image, scale=(0.5, 0.5), translate=(3, 4)))
    classes, probability = predict_layer(image, given, folder, probabilities=True)
    assert (classes[0] == (image > 100)).all()
    assert classes[2] == "labels"
    assert classes[1]["scale"] == (0.5, 0.5)
    assert classes[1]["translate"] == (3, 4)
    assert classes[1]["features"]["class"] == ["background", "cell"]
    assert Origin.of(classes[1]).run == folder
    assert probability[1]["name"] == "x (run): probability of cell"
    assert probability[0].shape == image.shape
    assert model.given[0][1] == (0.5, 0.5)


def test_stack_is_predicted_page_by_page(run):
    folder, plan, model = run
    stack = np.zeros((3, 4, 5), np.uint8)
    stack[1] = 200
    [found] = predict_layer(stack, properties_of(layer(stack)), folder)
    assert found[0].shape == stack.shape
    assert [one.shape for one, _ in model.given] == [(4, 5)] * 3
    colors = np.zeros((4, 5, 3), np.uint8)
    [found] = predict_layer(colors, properties_of(layer(colors, rgb=True)), folder)
    assert found[0].shape == (4, 5)
    plan.image_dims = 3
    [found] = predict_layer(stack, properties_of(layer(stack)), folder)
    assert found[0].shape == stack.shape
    assert model.given[-1][0].shape == stack.shape
    levels = [stack, stack[:, ::2, ::2]]
    given = {"name": "m", "multiscale": True}
    assert predict_layer(levels, given, folder)[0][0].shape == stack.shape


def test_layer_of_a_whole_file_is_predicted_from_the_file(run, tmp_path):
    folder, _, model = run
    path = tmp_path / "a.png"
    Image.fromarray(np.full((4, 5), 200, np.uint8)).save(path)
    image = np.full((4, 5), 0.8)  # Another program may have scaled the intensities.
    [found] = predict_layer(image, properties_of(layer(image, path=str(path))), folder)
    assert model.given == [(path, None)]
    assert found[0].all()
    assert Origin.of(found[1]) == Origin(image=path, run=folder)
    for other in (255 - 50 * np.eye(4, 5), -image):
        [found] = predict_layer(other, properties_of(layer(other, path=str(path))), folder)
        assert model.given[-1][0] is not path
        assert (found[0] == (other > 100)).all()
    part = np.zeros((2, 5))
    [found] = predict_layer(part, properties_of(layer(part, path=str(path))), folder)
    assert found[0].shape == (2, 5)


def test_photograph_that_is_shown_unturned_does_not_name_its_file(tmp_path):
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:3, :3] = 200
    picture = Image.fromarray(pixels)
    exif = picture.getexif()
    exif[274] = 3
    picture.save(tmp_path / "a.png", exif=exif)
    path = str(tmp_path / "a.png")
    assert Origin.of(properties_of(layer(pixels, path=path))).image is None
    turned = properties_of(layer(pixels[::-1, ::-1], path=path))
    assert Origin.of(turned).image == tmp_path / "a.png"


def test_chosen_image_and_run_overrule_the_origin_of_labels(tmp_path):
    Image.new("L", (5, 4)).save(tmp_path / "a.png")
    stored = Origin(image=tmp_path / "old.png", run=tmp_path / "old", mask=None)
    labels = layer(np.zeros((4, 5), int), metadata=stored.metadata)
    image = layer(np.zeros((4, 5)), path=str(tmp_path / "a.png"))
    assert origin_of(labels, None, None) == stored
    chosen = origin_of(labels, image, tmp_path / "new")
    assert chosen == Origin(image=tmp_path / "a.png", run=tmp_path / "new")
