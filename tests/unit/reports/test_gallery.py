import pytest

from reports import make_case
from ushape.evaluation.scores import dice_by_case
from ushape.reports.gallery import make_gallery


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
