"""Layers of image files and of folders of predictions."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from PIL import Image

from codes import raises_code
from dicoms import save_series
from ushape import io
from ushape.errors import DataError
from ushape.inference.output.manifest import Manifest
from ushape.napari_plugin.layers import Origin
from ushape.napari_plugin.reader import get_reader, read_image, read_predictions
from ushape.types import Case, MaskEncoding

VOLUME = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)


def save_volume(path, array):
    image = SimpleITK.GetImageFromArray(array, isVector=False)
    image.SetSpacing((0.5, 0.75, 4.0, 1.0)[: array.ndim])
    SimpleITK.WriteImage(image, str(path))
    return path


def test_volume_is_a_layer_at_its_spacing(tmp_path):
    path = save_volume(tmp_path / "a.nii.gz", VOLUME)
    [(data, properties, kind)] = get_reader(str(path))(str(path))
    assert (data == VOLUME).all()
    assert kind == "image"
    assert properties["name"] == "a"
    assert properties["scale"] == pytest.approx((4, 0.75, 0.5))
    assert Origin.of(properties) == Origin(image=path)


def test_time_points_and_channels(tmp_path):
    path = save_volume(tmp_path / "t.nii", np.stack([VOLUME, 2 * VOLUME, VOLUME]))
    [(data, properties, _)] = read_image(path)
    assert data.shape == (3, 2, 3, 4)
    assert properties["scale"] == pytest.approx((1, 4, 0.75, 0.5))
    np.save(tmp_path / "c.npy", np.zeros((5, 2, 3, 4), np.float32))
    [(data, properties, _)] = read_image(tmp_path / "c.npy")
    assert data.shape == (5, 2, 3, 4)
    assert properties["channel_axis"] == 0
    Image.new("RGB", (7, 5), (1, 2, 3)).save(tmp_path / "p.png")
    [(data, properties, _)] = read_image(tmp_path / "p.png")
    assert data.shape == (5, 7, 3)
    assert properties["rgb"]
    assert data[0, 0].tolist() == [1, 2, 3]


def test_only_folders_of_slices_and_predictions_are_opened(tmp_path):
    save_series(tmp_path / "ct")
    assert get_reader(str(tmp_path / "ct")) is read_image
    assert get_reader(str(tmp_path)) is None
    assert get_reader([str(tmp_path / "ct")]) is None
    (tmp_path / "notes.txt").write_text("x")
    assert get_reader(str(tmp_path / "notes.txt")) is None


def predict_into(folder, images):
    """Writes masks and their log as `ushape predict` does, with an overlay each."""
    folder.mkdir(exist_ok=True)
    log = Manifest(folder, {"weights": ["x"]})
    log.forget()
    for image in images:
        case, below = Case(id=image.stem, image=image), Path(image.name)
        mask = folder / f"{io.stem_of(image)}.png"
        codes = (np.asarray(Image.open(image))[..., 0] > 4).astype(np.uint8) * 255
        log.begin(below, case)
        io.write_mask(mask, codes, MaskEncoding())
        overlay = folder / f"{io.stem_of(image)}_overlay.png"
        Image.new("RGB", (7, 5)).save(overlay)
        log.finish(below, case, [mask, overlay], [{}])


def test_folder_of_predictions_gives_images_and_masks(tmp_path):
    images = []
    for name in ("a", "b"):
        images.append(tmp_path / f"{name}.png")
        Image.new("RGB", (7, 5), (9, 2, 3)).save(images[-1])
    predict_into(tmp_path / "out", images)
    assert get_reader(str(tmp_path / "out")) is read_predictions
    layers = read_predictions(tmp_path / "out")
    assert [(one[1]["name"], one[2]) for one in layers] == [
        ("a", "image"), ("a (mask)", "labels"), ("b", "image"), ("b (mask)", "labels"),
    ]  # fmt: skip
    assert (layers[1][0] == 255).all()
    origin = Origin.of(layers[1][1])
    assert origin == Origin(image=tmp_path / "a.png", mask=tmp_path / "out" / "a.png")
    images[0].unlink()
    assert next(one[1]["name"] for one in read_predictions(tmp_path / "out")) == "a (mask)"
    (tmp_path / "out" / "a.png").unlink()
    (tmp_path / "out" / "b.png").unlink()
    with raises_code(DataError, "no_masks"):
        read_predictions(tmp_path / "out")
