from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ushape.api._tune_run import MAX_MASK_PX, MAX_MASKS, MIN_MASKS, TrainingMasks
from ushape.labels import LabelSpace
from ushape.types import Case, CaseFacts

SPACE = LabelSpace(values=(0, 255), names=("background", "cell"))


def facts(*sizes_px):
    for number, size_px in enumerate(sizes_px):
        path = Path(f"{number}.png")
        case = Case(id=str(number), image=path, mask=path, group=str(number))
        yield CaseFacts(case, (size_px - size_px // 3, size_px // 3))


@pytest.mark.parametrize(
    ("sizes_px", "expected"),
    [
        ([1000] * 200, MAX_MASKS),
        ([1000] * 7, 7),
        # Volumes that are larger than all masks together may be, and one among small images.
        ([2 * MAX_MASK_PX] * 10, MIN_MASKS),
        ([2 * MAX_MASK_PX, *[1000] * 200], MAX_MASKS),
        ([], 0),
    ],
)
def test_some_training_masks_are_selected_by_number_and_size(sizes_px, expected):
    found = TrainingMasks.some_of(list(facts(*sizes_px)), SPACE)
    assert len(found.cases) == len({case.id for case in found.cases}) == expected
    again = TrainingMasks.some_of(list(facts(*sizes_px)), SPACE)
    assert found == again


def test_training_masks_are_read_in_each_iteration(tmp_path):
    codes = np.zeros((5, 6), np.uint8)
    codes[1:3, 2:5] = 255
    for name in ("image.png", "mask.png"):
        Image.fromarray(codes).save(tmp_path / name)
    case = Case(id="a", image=tmp_path / "image.png", mask=tmp_path / "mask.png", group="a")
    masks = TrainingMasks.some_of([CaseFacts(case, (24, 6))], SPACE)
    for _ in range(2):
        (found,) = masks
        np.testing.assert_array_equal(found, codes // 255)
