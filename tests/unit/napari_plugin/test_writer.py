"""Label layers as masks."""

from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK
from PIL import Image

from codes import raises_code
from ushape import io
from ushape.errors import DataError, RunError
from ushape.labels import LabelSpace
from ushape.napari_plugin import writer
from ushape.napari_plugin.layers import Origin, labels_of
from ushape.napari_plugin.writer import save_annotation, write_labels
from ushape.types import MaskEncoding

CLASSES = np.array([[0, 1, 2], [2, 1, 0]])


@pytest.fixture
def plan(monkeypatch):
    """Plan of a run whose masks are red and green."""
    space = LabelSpace(values=(0, 0xFF0000, 0x00FF00), names=("background", "red", "green"))
    found = SimpleNamespace(
        preprocessing=SimpleNamespace(space=space),
        encoding=MaskEncoding(kind="colors", suffix=".png"),
    )
    monkeypatch.setattr(writer, "load_plan", lambda run: found)
    return found


def test_classes_are_written_as_the_masks_of_the_run(plan, tmp_path):
    origin = Origin(run=tmp_path / "run")
    layer = labels_of(CLASSES, "x", origin, plan)
    target = str(tmp_path / "m.png")
    assert write_labels(target, layer[0], layer[1]) == [target]
    pixels = np.asarray(Image.open(target))
    assert pixels[0].tolist() == [[0, 0, 0], [255, 0, 0], [0, 255, 0]]
    assert layer[1]["colormap"][1] == (1, 0, 0, 1)
    with raises_code(DataError, "unknown_mask_value"):
        write_labels(target, CLASSES + 1, layer[1])


def test_values_of_a_mask_file_are_written_in_its_encoding(tmp_path):
    picture = Image.fromarray(CLASSES.astype(np.uint8), mode="P")
    picture.putpalette([9, 9, 9, 255, 0, 0, 0, 0, 255])
    picture.save(tmp_path / "mask.png")
    properties = {"metadata": Origin(mask=tmp_path / "mask.png").metadata}
    write_labels(str(tmp_path / "again.png"), CLASSES, properties)
    with Image.open(tmp_path / "again.png") as again:
        assert again.mode == "P"
        assert again.getpalette()[:9] == [9, 9, 9, 255, 0, 0, 0, 0, 255]


def test_labels_without_origin_are_written_as_they_are(tmp_path):
    write_labels(str(tmp_path / "m.tif"), 300 * CLASSES, {"name": "new"})
    assert (io.read_mask(tmp_path / "m.tif").codes == 300 * CLASSES).all()


def test_labels_that_no_mask_can_store_are_refused(tmp_path):
    for name, labels, code in (
        ("m.png", 70_000 * CLASSES, "unwritable_format"),
        ("m.tif", -CLASSES, "unknown_mask_value"),
    ):
        with raises_code(DataError, code):
            write_labels(str(tmp_path / name), labels, {"name": "new"})
    assert not list(tmp_path.iterdir())
    Image.new("L", (3, 2)).save(tmp_path / "x.png")
    target = save_annotation(70_000 * CLASSES, Origin(image=tmp_path / "x.png"), tmp_path / "masks")
    assert (io.read_mask(target).codes == 70_000 * CLASSES).all()


def test_labels_of_another_size_are_refused(plan, tmp_path):
    Image.new("L", (3, 2)).save(tmp_path / "x.png")
    origin = Origin(image=tmp_path / "x.png", run=tmp_path / "run")
    target = save_annotation(CLASSES, origin, tmp_path / "masks")
    before = target.read_bytes()
    for other in (CLASSES.T, CLASSES[:, :2], np.stack([CLASSES, CLASSES])):
        with raises_code(DataError, "mask_size_mismatch"):
            save_annotation(other, origin, tmp_path / "masks", overwrite=True)
    assert target.read_bytes() == before


def test_classes_are_not_written_as_masks_that_number_objects(plan, tmp_path):
    plan.preprocessing.space = LabelSpace(values=(0, 1), names=("background", "cell"), threshold=1)
    with raises_code(DataError, "numbered_masks"):
        save_annotation(CLASSES, Origin(image=tmp_path / "x", run=tmp_path / "run"), tmp_path)


def test_annotation_lies_on_the_image_and_has_its_name(tmp_path):
    image = SimpleITK.GetImageFromArray(np.zeros((2, 3, 4), np.int16))
    image.SetSpacing((0.5, 0.75, 4.0))
    image.SetOrigin((7, 8, 9))
    path = tmp_path / "images" / "p1.nii.gz"
    path.parent.mkdir()
    SimpleITK.WriteImage(image, str(path))
    labels = np.ones((2, 3, 4), np.uint8)
    target = save_annotation(labels, Origin(image=path), tmp_path / "masks")
    assert target == tmp_path / "masks" / "p1.nii.gz"
    assert io.read_grid(target) == io.read_grid(path)
    with raises_code(RunError, "output_exists"):
        save_annotation(labels, Origin(image=path), tmp_path / "masks")
    save_annotation(0 * labels, Origin(image=path), tmp_path / "masks", overwrite=True)
    assert not io.read_mask(target).codes.any()
    with raises_code(RunError, "output_is_input"):
        save_annotation(labels, Origin(image=path), path.parent, overwrite=True)
    with raises_code(DataError, "image_unknown"):
        save_annotation(labels, Origin(), tmp_path / "masks")


def test_annotation_of_a_turned_photograph_is_stored_as_the_masks_of_the_run(plan, tmp_path):
    picture = Image.fromarray(np.zeros((3, 2), np.uint8))
    exif = picture.getexif()
    exif[274] = 6
    picture.save(tmp_path / "x.jpg", exif=exif)
    origin = Origin(image=tmp_path / "x.jpg", run=tmp_path / "run")
    plan.encoding = MaskEncoding(kind="colors", suffix=".png", orientation="stored")
    target = save_annotation(CLASSES, origin, tmp_path / "masks")
    assert io.read_size(target) == (3, 2)
    plan.encoding = MaskEncoding(kind="colors", suffix=".png")
    target = save_annotation(CLASSES, origin, tmp_path / "masks", overwrite=True)
    assert io.read_size(target) == (2, 3)


def test_annotation_of_a_stack_has_a_format_for_volumes(plan, tmp_path):
    plan.encoding = MaskEncoding(suffix=".png")
    plan.preprocessing.space = LabelSpace(values=(0, 255), names=("background", "cell"))
    origin = Origin(image=tmp_path / "s.tif", run=tmp_path / "run")
    target = save_annotation(np.ones((3, 4, 5), int), origin, tmp_path / "masks")
    assert target.name == "s.tif"
    assert (io.read_mask(target).codes == 255).all()
