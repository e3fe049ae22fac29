import numpy as np
import pytest

from codes import raises_code
from reports import make_case, make_report
from ushape.errors import RunError
from ushape.evaluation.class_scores import ClassScores, Mean
from ushape.evaluation.storage import save_report
from ushape.export.publication import (
    DEFAULT_LICENSE,
    Publication,
    card_text,
    draw_predictions,
    metric_values,
    published_report,
    require_report,
    without_paths,
)
from ushape.metrics.stats import Interval


@pytest.mark.parametrize(
    ("text", "published"),
    [
        ("/home/ada/scans/knee.nii.gz", "knee.nii.gz"),
        ("loaded from /home/ada/runs/first, 3 tensors", "loaded from first, 3 tensors"),
        (r"C:\Users\ada\first.safetensors", "first.safetensors"),
        ("~/first.safetensors", "first.safetensors"),
        ("'/home/ada/my scans/run 1/plan.json'", "plan.json"),
        ("--plan=/data/plan.json", "--plan=plan.json"),
        ("1/2 of the images, 3.5 mm/px and/or more", "1/2 of the images, 3.5 mm/px and/or more"),
        ("see https://arxiv.org/abs/1810.03993", "see https://arxiv.org/abs/1810.03993"),
        ("first/model.safetensors", "first/model.safetensors"),
    ],
)
def test_without_paths_keeps_the_last_part_of_absolute_paths(text, published):
    assert without_paths(text) == published
    assert without_paths({"a": [text, 1, None, True]}) == {"a": [published, 1, None, True]}


@pytest.fixture
def evaluated(tmp_path):
    """Folder with the scores of two patients, whose report names them."""
    cases = [make_case(f"smith_{n}", 32, n, group="smith", noise=n / 3) for n in range(3)]
    report = make_report(
        cases,
        leak_lines=["Groups that were also used in training or validation: 1 (smith)."],
        plan_lines=["Start: loaded 22 of 22 tensors from /home/ada/first.safetensors."],
        reproduce_lines=[
            "Seed 0",
            "Command: ushape train smith -o run",
            "Trained with: ushape train smith",
            "Scored with: ushape evaluate run",
            "To repeat the training with the same settings: ushape train DATA --plan run/plan.json",
        ],
    )
    save_report(tmp_path, report)
    return tmp_path


def test_published_report_names_no_case_group_path_or_command(evaluated):
    report = published_report(evaluated)
    card = card_text(report)
    for word in ("smith", "ada", "ushape train", "ushape evaluate", "plan.json"):
        assert word not in card
    assert "also used in training or validation: 1." in card
    assert "tensors from first.safetensors" in card
    assert "The lowest Dice of any image" in card
    assert {score.case for score in report.scores} == {"image 1", "image 2", "image 3"}


def test_require_report_needs_scores(tmp_path):
    assert published_report(tmp_path) is None
    with raises_code(RunError, "scores_missing"):
        require_report(tmp_path)


def test_card_text_can_rename_sections(evaluated):
    card = card_text(published_report(evaluated), {"Results": "Validation"})
    assert "\n## Validation\n" in card
    assert "## Results" not in card


def test_metric_values_state_value_and_interval():
    found = ClassScores(
        name="cell",
        means={
            "dice": Mean(value=0.91234, interval=Interval(low=0.9, high=0.925, groups=4), groups=4),
            "hausdorff95": Mean(value=3.0, interval=None, groups=4),
            "iou": Mean(value=0.8, interval=None, groups=1),
            "panoptic_quality": Mean(value=None, interval=None, groups=0),
        },
        mean_case_dice=None,
        groups_with_truth=4,
        missed_groups=0,
        case_kinds={},
    )
    assert metric_values(found, "patients") == [
        {
            "type": "dice",
            "value": 0.9123,
            "name": "Dice of cell (mean over 4 patients, 95% CI 0.900 to 0.925)",
        },
        {"type": "iou", "value": 0.8, "name": "IoU of cell (mean over 1 patient)"},
    ]


def test_draw_predictions_shows_images_by_increasing_dice(evaluated):
    picture = draw_predictions(published_report(evaluated))
    assert picture.shape == (2 * 264, 3 * 264, 3)
    assert picture.dtype == np.uint8
    assert draw_predictions(make_report([make_case("a", 32)], pictures=[])) is None


def test_publication_says_what_is_not_stated():
    assert [note.partition(":")[0] for note in Publication().notes] == ["License", "Authors"]
    assert Publication().license_id == DEFAULT_LICENSE
    stated = Publication(authors=("Ada Lovelace",), license="MIT")
    assert (stated.notes, stated.license_id) == ([], "MIT")
