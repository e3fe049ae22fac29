"""Corrected copies of masks, compared with the true ones."""

import json

import numpy as np
import pytest
from PIL import Image

from ushape import io
from ushape.data.checks import check_dataset
from ushape.data.checks.fix import write_fixed_copy
from ushape.data.scan import scan_dataset
from ushape.data.splits import SplitConfig
from ushape.labels import LabelConfig

COLORS = np.array([(0, 0, 0), (0, 0, 255), (0, 255, 0), (255, 0, 0)], np.uint8)
CLOSE = np.array([(0, 0, 0), (255, 255, 255), (128, 128, 128), (255, 0, 0)], np.uint8)


def bands(number, count):
    """Classes (y, x) uint8: rectangles of all classes below each other."""
    classes = np.zeros((160, 160), np.uint8)
    for index in range(1, count):
        top = 48 * (index - 1) + 8
        classes[top : top + 30, 20 + number : 120 + 3 * number] = index
    return classes


def fixed_copy(folder, colors, quality):
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / "data" / name).mkdir(parents=True)
    for number in range(8):
        noise = rng.integers(0, 255, (160, 160), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "data" / "images" / f"n{number}.png")
        mask = Image.fromarray(colors[bands(number, len(colors))])
        mask.save(folder / "data" / "masks" / f"n{number}.jpg", quality=quality)
    stats = scan_dataset(folder / "data", None, LabelConfig(), workers=1)
    result = check_dataset(stats, split=SplitConfig(), seed=0)
    return write_fixed_copy(result, folder / "copy")


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("quality", [75, 95])
def test_masks_of_colors_saved_as_jpeg_are_restored(tmp_path, count, quality):
    changes = fixed_copy(tmp_path, COLORS[:count], quality)
    assert len(changes) == 8
    for number in range(8):
        mask = io.read_mask(tmp_path / "copy" / "masks" / f"n{number}.png")
        found = np.searchsorted(np.unique(mask.codes), mask.codes)
        assert (found != bands(number, count)).mean() < 0.002


def test_ambiguous_masks_are_copied_unchanged(tmp_path):
    assert fixed_copy(tmp_path, CLOSE, 75) == []
    for number in range(8):
        before = tmp_path / "data" / "masks" / f"n{number}.jpg"
        after = tmp_path / "copy" / "masks" / f"n{number}.jpg"
        assert after.read_bytes() == before.read_bytes()


def test_copy_of_coco_states_how_many_objects_it_joins(tmp_path):
    images, annotations, rng = [], [], np.random.default_rng(0)
    for number in range(6):
        noise = rng.integers(0, 255, (20, 20), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"n{number}.png")
        images.append({"id": number, "file_name": f"n{number}.png", "height": 20, "width": 20})
        # Two objects side by side, and one apart, counted down the columns.
        for start in (20, 40, 120):
            runs = {"counts": [start + number, 20, 380 - start - number], "size": [20, 20]}
            entry = {"image_id": number, "category_id": 1, "segmentation": runs}
            annotations.append({"id": len(annotations)} | entry)
    coco = {"images": images, "annotations": annotations}
    coco["categories"] = [{"id": 1, "name": "cell"}]
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    stats = scan_dataset(tmp_path, None, LabelConfig(), workers=1)
    result = check_dataset(stats, split=SplitConfig(), seed=0)
    changes = write_fixed_copy(result, tmp_path.parent / f"{tmp_path.name}-copy")
    assert len(changes) == 6
    assert all(change.what.startswith("2 objects that touch") for change in changes)
