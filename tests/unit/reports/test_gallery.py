import json
from dataclasses import replace

import numpy as np
import pytest

from reports import make_case, make_cases
from ushape.evaluation.scores import dice_by_case
from ushape.evaluation.volume_views import make_views
from ushape.labels import LabelSpace
from ushape.reports.gallery import class_stills, make_gallery


@pytest.fixture(scope="module")
def cases():
    return [make_case(f"case<{n}>", 32, n, group=f"g{n % 3}") for n in range(7)]


def test_make_gallery_puts_lowest_median_and_highest_first(cases):
    pictures = [case.picture for case in cases]
    dice = {"case<0>": 0.5, "case<1>": 0.1, "case<2>": 0.9, "case<3>": 0.2, "case<4>": 0.7}
    gallery = make_gallery(pictures, dice)
    assert [(one.label, one.case) for one in gallery.highlights] == [
        ("Lowest Dice", "case<1>"),
        ("Median Dice", "case<0>"),
        ("Highest Dice", "case<2>"),
    ]
    order = [picture["case"] for picture in gallery.pictures]
    assert order == [f"case<{n}>" for n in (1, 0, 2, 3, 4, 5, 6)]
    assert [one.picture for one in gallery.highlights] == [0, 1, 2]


def test_make_gallery_takes_the_median_of_all_cases(cases):
    dice = {"case<0>": 0.1, "case<1>": 0.5, "case<2>": 0.8, "case<3>": 0.9, "a": 0.85, "b": 0.86}
    gallery = make_gallery([case.picture for case in cases[:4]], dice)
    assert [one.case for one in gallery.highlights] == ["case<0>", "case<2>", "case<3>"]


@pytest.mark.parametrize(
    ("shown", "labels"), [(0, []), (1, ["Lowest Dice"]), (2, ["Lowest Dice", "Highest Dice"])]
)
def test_make_gallery_has_fewer_highlights_of_fewer_cases(cases, shown, labels):
    pictures = [case.picture for case in cases[:shown]]
    gallery = make_gallery(pictures, {f"case<{n}>": n / 10 for n in range(shown)})
    assert [one.label for one in gallery.highlights] == labels


def test_make_gallery_reduces_pictures_and_then_their_number():
    cases = [make_case(f"c{n}", 256, n) for n in range(4)]
    pictures = [case.picture for case in cases]
    dice = dice_by_case([own for case in cases for own in case.scores])
    whole = sum(len(str(one)) for one in make_gallery(pictures, dice).pictures)
    smaller = make_gallery(pictures, dice, max_bytes=int(0.8 * whole))
    assert len(smaller.pictures) == 4
    assert sum(len(str(one)) for one in smaller.pictures) < 0.8 * whole
    fewer = make_gallery(pictures, dice, max_bytes=int(0.3 * whole))
    assert 1 <= len(fewer.pictures) < 4
    assert fewer.pictures[0]["case"] == min(dice, key=dice.__getitem__)


def test_make_gallery_shows_the_largest_false_positive(cases):
    pictures = [case.picture for case in cases[:4]]
    alarms = {"case<2>": 12, "case<3>": 40, "other": 99}
    gallery = make_gallery(pictures, {"case<0>": 0.5, "case<1>": 0.1}, alarms)
    last = gallery.highlights[-1]
    assert (last.label, last.case) == ("Largest false positive", "case<3>")
    assert last.result == "40 pixels predicted, none annotated"
    assert gallery.pictures[last.picture]["case"] == "case<3>"


def test_class_stills_rank_the_cases_of_each_class():
    space = LabelSpace(values=(0, 1, 2), names=("background", "edge", "core"))
    cases = [make_case(f"c{n}", 32, n, space, noise=0.3 + n / 9) for n in range(5)]
    scores = [score for case in cases for score in case.scores]
    found = class_stills([case.picture for case in cases], scores)
    assert list(found) == ["edge", "core"]
    for name, stills in found.items():
        dice = {one.case: one.dice for one in scores if one.class_name == name}
        assert [still.label for still in stills] == ["Lowest Dice", "Median Dice", "Highest Dice"]
        assert stills[0].case == min(dice, key=dice.__getitem__)
        assert stills[-1].dice == max(dice.values())
    assert found["edge"][0].data != found["core"][0].data


def test_class_stills_of_a_single_class_are_left_to_the_gallery():
    cases = make_cases()
    scores = [score for case in cases for score in case.scores]
    assert class_stills([case.picture for case in cases], scores) == {}


def test_make_gallery_keeps_the_views_of_volumes_that_fit(monkeypatch):
    made = [make_case(f"v{n}", 16, n) for n in range(3)]
    truth = np.stack([made[0].truth] * 2)
    views = make_views(truth[None], truth, truth, None)
    pictures = [replace(case.picture, views=views) for case in made]
    dice = {"v0": 0.1, "v1": 0.5, "v2": 0.9}
    gallery = make_gallery(pictures, dice)
    assert all(picture["views"] == views.as_json() for picture in gallery.pictures)
    assert [one.planes for one in gallery.highlights] == [views.planes] * 3
    monkeypatch.setattr(
        "ushape.reports.gallery.MAX_VIEWS_BYTES", 2 * len(json.dumps(views.as_json()))
    )
    kept = make_gallery(pictures, dice).pictures
    assert [picture["case"] for picture in kept if "views" in picture] == ["v0", "v1"]
