import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image

from codes import raises_code
from ushape.data.reading import find_true_objects, read_classes, read_image, read_objects
from ushape.errors import DataError
from ushape.labels import LabelSpace
from ushape.types import Case, CocoMask


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


@pytest.mark.parametrize("ids", [(5, 10**9), (1, 2**32 - 1), (7, 3)])
def test_read_objects_counts_from_1_however_large_the_ids_are(tmp_path, ids):
    codes = np.array([[0, ids[0], ids[0], 0, ids[1], 0]], np.uint32)
    tifffile.imwrite(tmp_path / "m.tif", codes)
    case = Case(id="a", image=tmp_path / "m.tif", mask=tmp_path / "m.tif")
    space = LabelSpace(values=(0, 255), names=("background", "cell"), threshold=1)
    found = read_objects(case, space)
    assert found.dtype == np.int32
    first, second = (1, 2) if ids[0] < ids[1] else (2, 1)
    assert found.tolist() == [[0, first, first, 0, second, 0]]
    objects = find_true_objects(case, read_classes(case, space), space)
    assert (objects == found).all()


def test_read_objects_leaves_out_pixels_without_annotation(tmp_path):
    codes = np.array([[0, 3, 3, 7, 65535, 65535]], np.uint16)
    Image.fromarray(np.zeros_like(codes)).save(tmp_path / "a.png")
    Image.fromarray(codes).save(tmp_path / "m.png")
    case = Case(id="a", image=tmp_path / "a.png", mask=tmp_path / "m.png")
    space = LabelSpace(values=(0, 255), names=("back", "cell"), ignore=65535, threshold=1)
    assert read_objects(case, space).tolist() == [[0, 1, 1, 2, 0, 0]]
    assert read_classes(case, space).tolist() == [[0, 1, 1, 1, 255, 255]]
