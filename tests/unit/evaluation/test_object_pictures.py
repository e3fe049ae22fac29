"""Pictures of objects with errors, on small label maps."""

import numpy as np
import pytest

from codes import edit_sealed_json
from ushape.errors import RunError
from ushape.evaluation.object_pictures import (
    KINDS,
    OUTCOME_COLORS,
    PER_KIND,
    ObjectSelection,
    load_object_pictures,
    save_object_pictures,
)
from ushape.metrics.instance import match_objects

FOUND, WRONG, MERGED, SPLIT = OUTCOME_COLORS


def field(shape=(40, 40)):
    """Annotated squares of 10 pixels: found, missed, two that are merged, and a split one."""
    truth, guess = np.zeros(shape, int), np.zeros(shape, int)
    truth[2:12, 2:12] = guess[2:12, 2:12] = 1
    truth[2:12, 20:30] = 2
    truth[15:25, 2:12], truth[15:25, 14:24], guess[15:25, 2:24] = 3, 4, 2
    truth[28:38, 2:12], guess[28:33, 2:12], guess[33:38, 2:12] = 5, 3, 4
    guess[30:36, 28:36] = 5
    return truth, guess


def select(truth, guess, case="a", selection=None):
    selection = selection or ObjectSelection()
    image = np.zeros((1, *truth.shape), np.uint8)
    selection.add(case, image, "cell", guess, truth, match_objects(guess, truth))
    return selection


def color_at(picture, y, x, side=40):
    """Color at the upper left corner of a pixel, which is part of the outline there."""
    factor = len(picture) // side
    return tuple(picture[y * factor, x * factor].tolist())


def test_object_pictures_have_the_color_of_each_outcome():
    (picture,) = select(*field()).pictures
    assert (picture.case, picture.class_name, picture.part) == ("a", "cell", "")
    assert [getattr(picture, kind) for kind in KINDS] == [1, 2, 1, 1]
    assert picture.annotated.shape == picture.predicted.shape == (360, 360, 3)
    annotated = [color_at(picture.annotated, *at) for at in ((2, 2), (2, 20), (15, 2), (28, 2))]
    assert annotated == [FOUND, WRONG, MERGED, SPLIT]
    predicted = [color_at(picture.predicted, *at) for at in ((2, 2), (30, 28), (15, 2), (33, 2))]
    assert predicted == [FOUND, WRONG, MERGED, SPLIT]
    # Touching parts are separated by an outline, inside is a tint, and outside the image.
    assert color_at(picture.predicted, 20, 13) != MERGED
    assert color_at(picture.predicted, 39, 39) == color_at(picture.annotated, 13, 13) == (0, 0, 0)


def test_object_pictures_show_the_part_with_the_most_errors():
    truth, guess = (np.pad(one, ((500, 0), (700, 0))) for one in field())
    (picture,) = select(truth, guess).pictures
    assert picture.part == "rows 401 to 540, columns 601 to 740"
    volumes = [np.stack([0 * one, one, 0 * one]) for one in (truth, guess)]
    (picture,) = select(*volumes).pictures
    assert picture.part.endswith("of slice 2 of 3") or picture.part.endswith("slice 2 of 3")


def test_object_selection_keeps_the_cases_with_the_most_errors_of_each_kind():
    truth, guess = field()
    selection = ObjectSelection()
    select(truth, truth, "right", selection)
    assert selection.pictures == []
    for number in range(1, 6):  # Number of missed objects.
        wanted = np.zeros((40, 40), int)
        for place in range(number):
            wanted[0:4, 6 * place : 6 * place + 4] = place + 1
        select(wanted, 0 * wanted, f"missed {number}", selection)
    select(truth, guess, "all kinds", selection)
    assert [one.case for one in selection.pictures] == ["missed 5", "all kinds", "missed 4"]
    assert sum(one.missed > 1 for one in selection.pictures) == PER_KIND


def test_object_selection_recognizes_many_touching_objects():
    truth, _ = field()
    assert not select(truth, truth).are_many_touching
    tiles = np.arange(1, 17).reshape(4, 4).repeat(10, axis=0).repeat(10, axis=1)
    assert select(tiles, tiles).are_many_touching
    apart = np.where(np.indices(tiles.shape).max(axis=0) % 10 > 3, 0, tiles)
    apart[:, np.arange(40) % 10 > 3] = 0
    apart[np.arange(40) % 10 > 3] = 0
    assert not select(apart, apart).are_many_touching


def test_object_pictures_of_one_pixel_and_of_an_object_that_fills_the_image():
    one, full = np.zeros((30, 50), int), np.ones((30, 50), int)
    one[29, 49] = 2**31 - 1
    (picture,) = select(one, full).pictures
    assert (picture.missed, picture.false_positives) == (1, 1)
    assert color_at(picture.annotated, 29, 49, side=30) == WRONG
    assert select(one, one).pictures == select(0 * one, 0 * one).pictures == []


def test_object_pictures_are_restored(tmp_path):
    pictures = select(*field()).pictures
    save_object_pictures(tmp_path, pictures)
    (found,) = load_object_pictures(tmp_path)
    assert vars(found).keys() == vars(pictures[0]).keys()
    assert (found.case, found.missed, found.merged) == ("a", 1, 2)
    difference = found.annotated.astype(int) - pictures[0].annotated
    assert np.abs(difference).mean() < 10  # Lossy.
    assert load_object_pictures(tmp_path / "none") == []
    (file,) = tmp_path.glob("*.json")
    edit_sealed_json(file, annotated="data:image/webp;base64,AAAA")
    with pytest.raises(RunError) as error:
        load_object_pictures(tmp_path)
    assert error.value.code == "invalid_picture"
