"""Whether the shapes of annotations are objects."""

from dataclasses import dataclass

import numpy as np
import pytest

from ushape.data.mask_stats import InstanceStats
from ushape.data.mask_values.objects import _are_anywhere, find_overlaps, state_objects
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
