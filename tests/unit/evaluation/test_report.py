import numpy as np
import pytest

from ushape.evaluation.figures import PREDICTION_COLOUR, TRUTH_COLOUR, as_rgb, outline, overlay
from ushape.evaluation.report import CasePicture, Report, write_report
from ushape.evaluation.score import score_case, summarise
from ushape.labels import LabelSpace

SPACE = LabelSpace(values=(0, 255), names=("background", "lesion"))


@pytest.fixture
def square():
    mask = np.zeros((12, 12), np.uint8)
    mask[3:8, 3:8] = 1
    return mask


def make_report(square, cases=3, **changes):
    scores = [
        score
        for n in range(cases)
        for score in score_case(f"case<{n}>", f"g{n}", square, np.roll(square, n % 3, 0), SPACE)
    ]
    image = np.random.default_rng(0).integers(256, size=(1, 12, 12), dtype=np.uint8)
    picture = CasePicture(
        case="case<0>",
        group="g0",
        dice=1.0,
        image=image,
        truth=square,
        predicted=square,
        label="best",
    )
    values = {
        "title": "a <script>alert(1)</script> title",
        "summary": summarise(scores, noun="images"),
        "scores": scores,
        "epochs": [{"epoch": "1", "loss": "0.5", "validation_dice": "0.7"}],
        "split_lines": ["by group"],
        "plan_lines": ["the plan"],
        "reproduce_lines": ["seed 0"],
        "pictures": [picture],
    }
    return Report(**{**values, **changes})


def test_page_holds_everything_and_user_text_is_escaped(square, tmp_path):
    write_report(tmp_path / "report.html", make_report(square))
    page = (tmp_path / "report.html").read_text()
    for part in ("mean Dice", "by group", "the plan", "seed 0", "<svg", "data:image/png;base64,"):
        assert part in page
    assert "<script>" not in page
    assert "case&lt;0&gt;" in page
    assert 'alt="case&lt;0&gt; with truth' in page
    assert page.index("mean Dice") < page.index("<svg")


def test_nothing_is_loaded_from_elsewhere(square, tmp_path):
    write_report(tmp_path / "report.html", make_report(square))
    page = (tmp_path / "report.html").read_text()
    for loading in ('src="http', "url(http", "<link", "@import", "<script"):
        assert loading not in page


def test_a_hundred_cases_stay_below_5_mb(square, tmp_path):
    noise = np.random.default_rng(0).integers(256, size=(3, 1300, 1900), dtype=np.uint8)
    mask = np.zeros(noise.shape[1:], np.uint8)
    picture = CasePicture(
        case="c", group="g", dice=0.5, image=noise, truth=mask, predicted=mask, label="worst"
    )
    write_report(tmp_path / "report.html", make_report(square, cases=100, pictures=[picture] * 6))
    assert (tmp_path / "report.html").stat().st_size < 5e6


def test_without_epochs_pictures_and_truth(square, tmp_path):
    empty = score_case("c", "g", 0 * square, 0 * square, SPACE)
    report = make_report(
        square, epochs=[], pictures=[], scores=empty, summary=summarise(empty, noun="images")
    )
    write_report(tmp_path / "report.html", report)
    assert "both empty" in (tmp_path / "report.html").read_text()


def test_outlines_by_hand(square):
    truth, guess = square, np.roll(square, 2, axis=1)
    picture = outline(np.zeros((1, 12, 12), np.uint8), truth, guess)
    assert tuple(picture[5, 3]) == TRUTH_COLOUR
    assert tuple(picture[5, 9]) == PREDICTION_COLOUR
    assert tuple(picture[3, 6]) == (255, 255, 255)
    assert tuple(picture[0, 0]) == (0, 0, 0)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_image_becomes_a_picture(dtype, channels):
    image = (np.random.default_rng(0).random((channels, 20, 24)) * 200).astype(dtype)
    picture = as_rgb(image)
    assert picture.shape == (20, 24, 3)
    assert picture.dtype == np.uint8
    assert picture.max() > 150
    assert (as_rgb(np.full((1, 8, 8), 7, dtype)) == 0).all()


def test_overlay_of_a_volume_shows_the_plane_with_most_foreground(square):
    volume = np.zeros((1, 3, 12, 12), np.uint8)
    volume[0, 2] = 90
    mask = np.stack([0 * square, 0 * square, square])
    picture = overlay(volume, mask)
    assert picture.shape == (12, 12, 3)
    assert tuple(picture[3, 3]) == PREDICTION_COLOUR
