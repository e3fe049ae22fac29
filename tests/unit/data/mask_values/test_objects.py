"""Whether the shapes of annotations are objects."""

from dataclasses import dataclass

import pytest

from ushape.data.mask_stats import InstanceStats
from ushape.data.mask_values.objects import find_overlaps, state_objects
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
