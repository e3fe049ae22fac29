import numpy as np
import pytest
from PIL import Image

from ushape.data.scan import scan_dataset
from ushape.labels import LabelConfig, LabelSpace
from ushape.planning.fingerprint import (
    ClassFacts,
    find_symmetry,
    round_trip_dice,
    shared_direction,
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


@pytest.mark.parametrize("groups", [3, 4, 6, 10])
def test_find_symmetry_detects_a_clear_direction_of_few_groups(groups):
    rng = np.random.default_rng(groups)
    names = [str(index % groups) for index in range(5 * groups)]
    noise = rng.standard_normal((len(names), 32, 32))
    upright = noise + 2 * np.linspace(-1, 1, 32)[None, :, None]
    assert find_symmetry(upright, names) == ((1,), False)
    # Along x, it says that images cannot be rotated, but left and right are exchanged as usual.
    assert find_symmetry(upright.transpose(0, 2, 1), names) == ((0, 1), False)


@pytest.mark.parametrize("groups", [3, 4, 6, 10, 40])
def test_find_symmetry_rarely_detects_a_direction_by_chance(groups):
    # Gradients of illumination with a random direction in each group, as in microscopy.
    rng = np.random.default_rng(groups)
    x = np.linspace(-1, 1, 16)
    found = 0
    for _ in range(200):
        angles = rng.uniform(0, 2 * np.pi, groups)
        ramps = np.cos(angles)[:, None, None] * x[:, None] + np.sin(angles)[:, None, None] * x
        images = rng.standard_normal((groups, 16, 16)) + ramps
        found += find_symmetry(images, [str(index) for index in range(groups)]) != ((0, 1), True)
    assert found <= 10


def test_shared_direction_by_hand():
    tops = np.array([[[1.0, 1.0], [-1.0, -1.0]]] * 3)
    assert shared_direction(tops, np.flip(tops, 1)) == pytest.approx(1)
    # Two groups in opposite directions: the mean difference is 0.
    opposite = np.concatenate([tops[:1], -tops[:1]])
    assert shared_direction(opposite, np.flip(opposite, 1)) == pytest.approx(-1)
    # Differences of 4, 4 and -4 sum to 4: (4/3)^2 / (16/3) is a third, and (1/3 - 1) / 2 = -1/3.
    mixed = np.concatenate([tops[:2], -tops[:1]])
    assert shared_direction(mixed, np.flip(mixed, 1)) == pytest.approx(-1 / 3)
    assert shared_direction(np.zeros((3, 2, 2)), np.zeros((3, 2, 2))) == 0


def test_round_trip_dice_by_hand():
    space = LabelSpace(values=(0, 1), names=("a", "b"))
    blocks = np.zeros((16, 16), np.uint8)
    blocks[4:12, 4:12] = 1
    assert round_trip_dice(blocks, 2, space) > 0.95
    lines = np.zeros((16, 16), np.uint8)
    lines[:, ::4] = 1  # One pixel thin: half of a coarse pixel, lost.
    assert round_trip_dice(lines, 2, space) < 0.9
    assert round_trip_dice(np.zeros((8, 8), np.uint8), 2, space) == 0
