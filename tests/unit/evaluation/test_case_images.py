import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ushape.errors import RunError
from ushape.evaluation.case_images import (
    MAX_SUSPECT_PICTURES,
    ImageSelection,
    label_error_score,
    load_pictures,
    make_picture,
    reduce_picture,
    save_pictures,
)
from ushape.evaluation.scores import CaseScore
from ushape.inference.decision_rule import ClassRule, DecisionRule, apply_rule
from ushape.labels import IGNORE, LabelSpace, Region
from ushape.metrics.overlap import Counts
from ushape.types import Prediction

BINARY = LabelSpace(values=(0, 255), names=("background", "lesion"))
THREE = LabelSpace(values=(0, 1, 2), names=("background", "edge", "core"))
NESTED = LabelSpace(
    values=(0, 1, 2),
    names=("background", "edge", "core"),
    regions=(Region(name="whole", classes=(1, 2)), Region(name="core", classes=(2,))),
)


def draw(probabilities, truth, space=BINARY, rule=None, classes=None, **options):
    """The picture of a case with a plain image."""
    rule = rule or DecisionRule()
    probabilities = np.asarray(probabilities, np.float32)
    if classes is None:
        classes = apply_rule(rule, probabilities, space)
    image = np.full((1, *truth.shape), 7, np.uint8)
    prediction = Prediction(probabilities=probabilities, classes=classes)
    return make_picture("a", "g", image, truth, prediction, space, rule, **options)


def test_make_picture_rounds_probabilities_down_to_percent():
    picture = draw([[[0.0, 0.499, 0.5, 1.0]]], np.zeros((1, 4), np.uint8))
    (shown,) = picture.classes
    assert shown.percent.tolist() == [[0, 49, 50, 100]]
    assert shown.threshold == 50
    assert picture.part == ""


@pytest.mark.parametrize("space", [BINARY, THREE, NESTED], ids=["binary", "three", "nested"])
@pytest.mark.parametrize("threshold", [0.5, 0.31])
def test_make_picture_reproduces_the_predicted_classes(space, threshold):
    rng = np.random.default_rng(0)
    shares = rng.random((space.channels, 20, 24)).astype(np.float32)
    if space.is_exclusive:
        shares /= shares.sum(axis=0)
    rule = DecisionRule(classes={space.scored[0].name: ClassRule(threshold=threshold)})
    classes = apply_rule(rule, shares, space)
    picture = draw(shares, np.zeros((20, 24), np.uint8), space, rule)
    for shown in picture.classes:
        found = shown.percent >= shown.threshold
        np.testing.assert_array_equal(found, shown.region.of(classes))


def test_make_picture_reproduces_other_thresholds_of_exclusive_classes():
    shares = np.random.default_rng(1).dirichlet(np.ones(3), (30, 30)).astype(np.float32)
    shares = np.moveaxis(shares, -1, 0)
    edge = draw(shares, np.zeros((30, 30), np.uint8), THREE).classes[0]
    for percent in (20, 80):
        rule = DecisionRule(classes={"edge": ClassRule(threshold=percent / 100)})
        expected = apply_rule(rule, shares, THREE) == 1
        assert ((edge.percent >= percent) != expected).mean() < 0.01  # Rounded shares.


def test_make_picture_includes_cleaning():
    shares = np.zeros((1, 4, 4), np.float32)
    shares[0, 0, 0] = 0.95
    cleaned = np.zeros((4, 4), np.uint8)
    (shown,) = draw(shares, cleaned, classes=cleaned).classes
    assert shown.percent[0, 0] == 49


def test_make_picture_shows_the_slice_with_most_foreground():
    truth = np.zeros((3, 4, 4), np.uint8)
    shares = np.zeros((1, 3, 4, 4), np.float32)
    shares[0, 2, :2] = 1
    assert draw(shares, truth).part == "slice 3 of 3"
    truth[1, 0, 0] = 1
    truth[0] = IGNORE
    picture = draw(shares, truth)
    assert picture.part == "slice 2 of 3"
    assert picture.truth.sum() == 1


def test_reduce_picture_averages_all_but_the_truth():
    shares = np.tile(np.float32([[0, 1], [0, 1]]), (20, 40))[None]
    truth = np.zeros((40, 80), np.uint8)
    truth[:, 40:], truth[:20] = 1, IGNORE
    picture = draw(shares, truth, max_side_px=40)
    assert picture.size == (20, 40)
    assert picture.image.shape == (20, 40, 3)
    assert set(np.unique(picture.truth)) == {0, 1, IGNORE}
    assert picture.part == "40 × 80 px reduced to 20 × 40"
    assert (picture.classes[0].percent == 50).all()
    assert reduce_picture(picture, 40) is picture


def test_load_pictures_restores_saved_pictures(tmp_path):
    rng = np.random.default_rng(0)
    shares = rng.random((2, 30, 40)).astype(np.float32)
    truth = rng.integers(3, size=(30, 40)).astype(np.uint8)
    truth[0] = IGNORE
    picture = replace(draw(shares, truth, NESTED), case='../../</script> "ä"')
    save_pictures(tmp_path / "pictures", [replace(picture, case="old")] * 3)
    save_pictures(tmp_path / "pictures", [picture, replace(picture, case="b")])
    first, second = load_pictures(tmp_path / "pictures")
    assert (first.case, first.group, first.part) == (picture.case, "g", "")
    assert second.case == "b"
    np.testing.assert_array_equal(first.truth, picture.truth)
    assert np.abs(first.image.astype(int) - picture.image).max() < 12  # Lossy.
    for loaded, shown in zip(first.classes, picture.classes, strict=True):
        assert (loaded.region, loaded.threshold) == (shown.region, shown.threshold)
        np.testing.assert_array_equal(loaded.percent, shown.percent)
    assert [path.suffix for path in (tmp_path / "pictures").iterdir()] == [".json"] * 2


def test_load_pictures_without_folder(tmp_path):
    assert load_pictures(tmp_path / "pictures") == []


@pytest.mark.parametrize("damage", ["cut", "list", "no key", "no image", "other size", "bytes"])
def test_load_pictures_refuses_damaged_files(tmp_path, damage):
    picture = draw(np.zeros((1, 6, 6)), np.zeros((6, 6), np.uint8))
    save_pictures(tmp_path, [picture])
    (path,) = tmp_path.iterdir()
    stored = json.loads(path.read_text())
    save_pictures(tmp_path / "small", [reduce_picture(picture, 3)])
    small = json.loads((tmp_path / "small" / "00001.json").read_text())
    contents = {
        "cut": path.read_text()[:100],
        "list": "[]",
        "no key": "{}",
        "no image": json.dumps({**stored, "image": "data:image/webp;base64,AAAA"}),
        "other size": json.dumps({**stored, "truth": small["truth"]}),
    }
    path.write_bytes(contents[damage].encode() if damage in contents else b"\xff\xfe")
    with pytest.raises(RunError, match=r"00001\.json") as error:
        load_pictures(tmp_path)
    assert error.value.code == "invalid_picture"


def score(name, dice, doubt=0.0):
    counts = Counts(overlap=round(500 * dice), truth=500, predicted=500, pixels=10_000)
    return CaseScore(
        case=name,
        group="g",
        class_name="cell",
        counts=counts,
        pixel_error=0.0,
        metrics={"label_error_score": doubt},
    )


def fill(selection, dice, doubt=None):
    for place, value in enumerate(dice):
        own = score(f"{place}", value, 0 if doubt is None else doubt[place])
        selection.add([own], SimpleNamespace(case=f"{place}"))
    return [picture.case for picture in selection.pictures]


def test_image_selection_keeps_extremes_and_spreads_the_rest():
    dice = np.round(np.random.default_rng(0).beta(8, 1, 400), 3)
    kept = fill(ImageSelection(max_pictures=10), dice)
    values = [dice[int(name)] for name in kept]
    assert len(kept) == 10
    assert values == sorted(values)
    assert (values[0], values[-1]) == (dice.min(), dice.max())
    # Most cases are good, and still the poor half of the scale is shown.
    assert sum(value < 0.75 for value in values) >= 4


def test_image_selection_keeps_the_highest_label_error_scores():
    doubt = np.zeros(200)
    doubt[50:80] = np.linspace(0.1, 0.4, 30)
    kept = fill(ImageSelection(max_pictures=3), np.full(200, 0.9), doubt)
    assert set(map(str, range(80 - MAX_SUSPECT_PICTURES, 80))) <= set(kept)
    assert len(kept) <= 3 + MAX_SUSPECT_PICTURES


def test_image_selection_ignores_empty_cases():
    selection = ImageSelection()
    empty = CaseScore(
        case="x",
        group="g",
        class_name="cell",
        counts=Counts(overlap=0, truth=0, predicted=0, pixels=9),
        pixel_error=0.0,
    )
    selection.add([empty], SimpleNamespace(case="x"))
    assert selection.pictures == []
    assert label_error_score([]) == 0


def test_pictures_of_volumes_are_stored_with_their_views(tmp_path):
    truth = np.zeros((3, 20, 24), np.uint8)
    truth[1, 4:9, 4:9] = 1
    picture = draw(0.2 + 0.6 * truth[None], truth)
    assert picture.part == "slice 2 of 3"
    assert picture.views.numbers == (1, 2, 3)
    save_pictures(tmp_path, [picture])
    (loaded,) = load_pictures(tmp_path)
    assert loaded.views == picture.views
