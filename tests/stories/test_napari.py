"""The plug-in of napari with a trained run, without napari."""

import shutil

import numpy as np

from ushape.napari_plugin.layers import Origin
from ushape.napari_plugin.prediction import predict_layer
from ushape.napari_plugin.reader import get_reader
from ushape.napari_plugin.writer import save_annotation, write_labels


def test_layers_are_predicted_and_saved_as_the_command_does(trained, cells, tmp_path, ushape):
    image = tmp_path / "images" / "new.png"
    image.parent.mkdir()
    shutil.copy(sorted((cells / "images").iterdir())[0], image)
    assert ushape("predict", trained, image, "-o", tmp_path / "out").code == 0
    [(pixels, _, _), (codes, stored, kind)] = get_reader(str(tmp_path / "out"))(tmp_path / "out")
    assert (kind, pixels.shape[:2]) == ("labels", codes.shape)

    given = {"name": "new", "metadata": Origin(image=image).metadata, "rgb": pixels.ndim == 3}
    (classes, properties, _), *shares = predict_layer(pixels, given, trained, probabilities=True)
    assert ((classes > 0) == (codes > 0)).all()
    assert all(share[0].shape == classes.shape for share in shares)
    write_labels(str(tmp_path / "mask.png"), classes, properties)
    assert (tmp_path / "mask.png").read_bytes() == (tmp_path / "out" / "new.png").read_bytes()
    target = save_annotation(codes, Origin.of(stored), tmp_path / "masks")
    assert target.read_bytes() == (tmp_path / "out" / "new.png").read_bytes()

    del given["metadata"]
    [(alone, _, _)] = predict_layer(pixels, given, trained)
    assert (alone == classes).all()
    [(stack, _, _)] = predict_layer(np.stack([pixels, pixels]), given, trained)
    assert (stack == classes).all()
