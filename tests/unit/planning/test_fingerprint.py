import numpy as np
import pytest
from PIL import Image

from ushape.data.scan import scan_dataset
from ushape.labels import LabelConfig, LabelSpace
from ushape.planning.fingerprint import (
    ClassFacts,
    find_symmetry,
    round_trip_dice,
    take_fingerprint,
)


@pytest.mark.parametrize("noise", [0, 3])
def test_take_fingerprint_measures_each_class(tmp_path, noise):
    """Values between the classes, as JPEG leaves them, are no parts of their own."""
    rng = np.random.default_rng(0)
    for name in "abcdef":
        codes = np.zeros((40, 60), np.uint8)
        codes[20:, :] = 100  # 60 long, in all cases.
        if name in "ab":
            codes[2:6, 2:4] = codes[2:6, 12:14] = 200  # Two parts, 4 long.
        codes[30, 30] += noise
        for folder, pixels in (("images", rng.integers(0, 255, codes.shape)), ("masks", codes)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / folder / f"{name}.png")
    labels = LabelConfig(values=(0, 100, 200), names=("no", "road", "pole"), nearest=bool(noise))
    stats = scan_dataset(tmp_path, None, labels, workers=1)
    found = take_fingerprint(stats, {"a", "b", "c", "d"}).classes
    assert found == (
        ClassFacts(name="road", cases=1, pixels=0.5, object_size=60, objects_per_case=1),
        ClassFacts(name="pole", cases=0.5, pixels=16 * 2 / 9600, object_size=4, objects_per_case=2),
    )


def test_find_symmetry_of_random_and_upright_images():
    rng = np.random.default_rng(0)
    random = rng.standard_normal((40, 32, 32))
    groups = [str(index) for index in range(40)]
    assert find_symmetry(random, groups) == ((0, 1), True)
    upright = random + 2 * np.linspace(-1, 1, 32)[None, :, None]
    assert find_symmetry(upright, groups) == ((1,), False)
    # Forty slices of two patients are not enough evidence.
    assert find_symmetry(upright, ["a", "b"] * 20) == ((0, 1), True)


def test_round_trip_dice_by_hand():
    space = LabelSpace(values=(0, 1), names=("a", "b"))
    blocks = np.zeros((16, 16), np.uint8)
    blocks[4:12, 4:12] = 1
    assert round_trip_dice(blocks, 2, space) > 0.95
    lines = np.zeros((16, 16), np.uint8)
    lines[:, ::4] = 1  # One pixel thin: half of a coarse pixel, lost.
    assert round_trip_dice(lines, 2, space) < 0.9
    assert round_trip_dice(np.zeros((8, 8), np.uint8), 2, space) == 0
