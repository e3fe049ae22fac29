from types import SimpleNamespace

import numpy as np

from ushape.evaluation.case_images import MAX_DOUBTED, ImageSelection, doubt_about
from ushape.evaluation.scores import CaseScore
from ushape.metrics.overlap import Counts


def score(name, dice, doubt=0.0):
    counts = Counts(overlap=round(500 * dice), truth=500, predicted=500, pixels=10_000)
    return CaseScore(
        case=name,
        group="g",
        class_name="cell",
        counts=counts,
        pixel_error=0.0,
        measures={"mask_doubt": doubt},
    )


def fill(shelf, dice, doubt=None):
    for place, value in enumerate(dice):
        own = score(f"{place}", value, 0 if doubt is None else doubt[place])
        shelf.add([own], SimpleNamespace(case=f"{place}"))
    return [picture.case for picture in shelf.pictures]


def test_the_extremes_stay_and_the_rest_is_spread():
    dice = np.round(np.random.default_rng(0).beta(8, 1, 400), 3)
    kept = fill(ImageSelection(most=10), dice)
    values = [dice[int(name)] for name in kept]
    assert len(kept) == 10
    assert values == sorted(values)
    assert (values[0], values[-1]) == (dice.min(), dice.max())
    # Most cases are good, and still the poor half of the scale is shown.
    assert sum(value < 0.75 for value in values) >= 4


def test_the_most_doubted_are_there_whatever_their_dice():
    doubt = np.zeros(200)
    doubt[50:80] = np.linspace(0.1, 0.4, 30)
    kept = fill(ImageSelection(most=3), np.full(200, 0.9), doubt)
    assert set(map(str, range(80 - MAX_DOUBTED, 80))) <= set(kept)
    assert len(kept) <= 3 + MAX_DOUBTED


def test_what_holds_nothing_is_not_shown():
    shelf = ImageSelection()
    empty = CaseScore(
        case="x",
        group="g",
        class_name="cell",
        counts=Counts(overlap=0, truth=0, predicted=0, pixels=9),
        pixel_error=0.0,
    )
    shelf.add([empty], SimpleNamespace(case="x"))
    assert shelf.pictures == []
    assert doubt_about([]) == 0
