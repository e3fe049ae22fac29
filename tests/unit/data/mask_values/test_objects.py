"""Whether the shapes of annotations are objects."""

from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from ushape.data.mask_stats import InstanceStats
from ushape.data.mask_values.objects import _are_anywhere, find_overlaps, state_objects
from ushape.data.scan import describe_dataset, scan_dataset, with_labels
from ushape.labels import LabelConfig
from ushape.types import Case


@dataclass
class Stats:
    case: Case
    instances: InstanceStats | None


def stats_of(*, visible=6, parts=6, recurring=6, **more):
    known = {"stated": visible, "size": 9.0, "joined": 0, "overlap_px": 0} | more
    own = InstanceStats(visible=visible, parts=parts, recurring=recurring, **known)
    return Stats(Case(id="a", image=None), own)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, True),
        ({"parts": 60}, False),  # Areas of many parts, such as all vessels of an image.
        ({"recurring": 0}, False),  # One shape for each class.
    ],
)
def test_shapes_are_objects_if_they_are_whole_and_recur(own, expected):
    cases = [stats_of(**own), Stats(Case(id="b", image=None), None)]
    assert state_objects(cases, None) is expected
    assert state_objects(cases, True) is True
    assert state_objects(cases, False) is False
    assert state_objects(cases[1:], True) is False


@dataclass
class Centers:
    centers: dict[int, tuple[float, ...]]


def centers_of(*factors, cases=12):
    """Random centers of 20 values in several masks, in the middle of an axis with factor 0."""
    rng = np.random.default_rng(0)
    scale = np.array(factors)
    return [
        Centers({value: 0.5 + scale * (rng.random(len(factors)) - 0.5) for value in range(1, 21)})
        for _ in range(cases)
    ]


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ((1, 1), True),
        ((0, 1), True),  # Numbered in the order of the first axis.
        ((0.3, 0.3), False),
        ((0, 0), False),
        ((0, 1, 1), True),
        ((1, 0.3, 0.3), False),  # Organs in scans of different ranges.
    ],
)
def test_values_are_anywhere_if_they_spread_over_all_axes_but_one(factors, expected):
    assert _are_anywhere(centers_of(*factors)) is expected


def test_values_of_images_beside_volumes_are_not_compared():
    assert not _are_anywhere([*centers_of(1, 1), *centers_of(1, 1, 1)])
    assert not _are_anywhere(centers_of(1, 1, cases=1))


def test_overlaps_and_objects_that_are_covered_are_noted():
    assert find_overlaps([stats_of()]) == []
    (note,) = find_overlaps([stats_of(overlap_px=30, stated=8), stats_of()])
    assert (note.check, note.cases) == ("overlap", ("a",))
    assert "30 pixels" in note.text
    assert "2 objects" in note.text


def test_objects_without_a_pixel_are_noted_although_none_overlap():
    (note,) = find_overlaps([stats_of(stated=7), stats_of()])
    assert (note.check, note.cases) == ("overlap", ("a",))
    assert "overlap" not in note.text
    assert "1 object without" in note.text


def masks_of(tmp_path, place):
    """Write 8 masks with the values 1 to 6 at places (y, x) of a function, and scan them."""
    rng = np.random.default_rng(0)
    for number in range(8):
        codes = np.zeros((96, 96), np.uint8)
        for value, (y, x) in enumerate(place(rng), start=1):
            codes[y : y + 8, x : x + 8] = value
        for folder, array in (("images", rng.integers(0, 99, codes.shape)), ("masks", codes)):
            (tmp_path / folder).mkdir(exist_ok=True)
            np.save(tmp_path / folder / f"{number}.npy", array.astype(np.uint8))
    return scan_dataset(tmp_path, None, LabelConfig(), workers=0)


def notes_of(stats):
    return [note.check for note in stats.value_notes]


def anywhere(rng):
    cells = rng.permutation(64)[:6]
    return [(12 * (cell // 8), 12 * (cell % 8)) for cell in cells]


def test_few_numbers_at_changing_places_are_classes_with_a_note(tmp_path):
    stats = masks_of(tmp_path, anywhere)
    assert stats.space.values == (0, 1, 2, 3, 4, 5, 6)
    assert notes_of(stats) == ["possible_object_ids"]
    (line,) = [line for line in describe_dataset(stats) if line.startswith("Note: ")]
    assert "--set labels.instances=true" in line
    assert notes_of(with_labels(stats, LabelConfig(instances=False))) == []
    united = with_labels(stats, LabelConfig(instances=True))
    assert (united.space.values, notes_of(united)) == ((0, 255), [])
    (line,) = [line for line in describe_dataset(united) if line.startswith("Mask values")]
    assert "1 to 6 = foreground, as numbers of objects" in line
    assert "255" not in line


@pytest.mark.parametrize("is_object", [True, False])
def test_colors_that_most_masks_do_not_share_have_a_note(tmp_path, is_object):
    rng = np.random.default_rng(0)
    palette = rng.integers(20, 236, (6, 3))
    for number in range(8):
        colors = rng.integers(20, 236, (6, 3)) if is_object else palette
        mask = np.zeros((96, 96, 3), np.uint8)
        for color, (y, x) in zip(colors, anywhere(rng), strict=True):
            mask[y : y + 8, x : x + 8] = color
        for folder, array in (("images", rng.integers(0, 99, (96, 96))), ("masks", mask)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(tmp_path / folder / f"{number}.png")
    stats = scan_dataset(tmp_path, None, LabelConfig(), workers=0)
    assert notes_of(stats) == (["possible_object_ids"] if is_object else [])
    if is_object:
        (line,) = [line for line in describe_dataset(stats) if line.startswith("Note: ")]
        assert "The 48 colors of the masks" in line
        united = with_labels(stats, LabelConfig(instances=True))
        assert (united.space.values, notes_of(united)) == ((0, 255), [])


def test_labels_at_a_constant_place_have_no_note(tmp_path):
    stats = masks_of(tmp_path, lambda rng: [(12 * n + rng.integers(4), 12 * n) for n in range(6)])
    assert notes_of(stats) == []


def test_values_of_several_parts_have_no_note(tmp_path):
    """Each value is drawn at several places, as classes are."""
    stats = masks_of(tmp_path, anywhere)
    for path in (tmp_path / "masks").iterdir():
        codes = np.load(path)
        np.save(path, np.maximum(codes, np.roll(codes, (30, 6), axis=(0, 1))))
    stats = scan_dataset(tmp_path, None, LabelConfig(), workers=0)
    assert notes_of(stats) == []
