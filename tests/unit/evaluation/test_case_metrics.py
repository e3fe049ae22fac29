"""Metrics of one case, compared with values computed by hand."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from ushape.evaluation.case_metrics import CaseTruth, Unit, common_unit, compute_case_metrics
from ushape.instances.label import ObjectConfig
from ushape.labels import IGNORE, LabelSpace
from ushape.types import Prediction

ONE = LabelSpace(values=(0, 1), names=("background", "cell"))
TWO = LabelSpace(values=(0, 1, 2), names=("background", "a", "b"))


def predict(probability):
    shares = np.asarray(probability, dtype=np.float32)[None]
    return Prediction(probabilities=shares, classes=(shares[0] >= 0.5).astype(np.uint8))


def measure(prediction, truth, space=ONE, **options):
    found = compute_case_metrics(
        prediction, CaseTruth(classes=truth, **options), space, how=ObjectConfig()
    )
    return [own.values for own in found]


def test_metrics_of_a_square_shifted_by_one_pixel():
    truth, shares = np.zeros((8, 8), np.uint8), np.full((8, 8), 0.2)
    truth[2:6, 2:6], shares[2:6, 3:7] = 1, 0.8
    (values,) = measure(predict(shares), truth)
    assert values["hausdorff95"] == 1
    assert values["surface_dice"] == 1  # Within 2 pixels everywhere.
    assert values["object_f1"] == 1  # IoU 12 / 20 = 0.6.
    assert values["object_average_precision"] == pytest.approx(0.2)  # At 0.5 and 0.55 of ten.
    assert values["object_ap_mean"] == pytest.approx(3 / 9)  # At 0.5, 0.55 and 0.6 of nine.
    assert values["panoptic_quality"] == values["seg"] == pytest.approx(0.6)
    assert (values["true_objects"], values["predicted_objects"]) == (1, 1)
    assert values["object_count_error"] == values["object_count_difference"] == 0
    # 12 of 16 and 44 of 48 pixels are 0.2 off, the others 0.8.
    assert values["brier"] == pytest.approx((56 * 0.04 + 8 * 0.64) / 64)
    assert values["label_error_score"] == 0  # Nowhere 90 % sure.


def test_distances_have_the_unit_of_the_spacing():
    truth, shares = np.zeros((8, 8), np.uint8), np.zeros((8, 8))
    truth[2:6, 2:6], shares[2:6, 3:7] = 1, 1
    (values,) = measure(predict(shares), truth, spacing=(0.5, 3.0))
    assert values["hausdorff95"] == 3
    # 2 pixels of the finest axis are 1 mm: the moved sides are 3 mm off.
    assert values["surface_dice"] < 1


def test_label_error_score_counts_confident_contradictions():
    truth, shares = np.zeros((10, 10), np.uint8), np.zeros((10, 10))
    truth[:5], shares[:4], shares[4, :3] = 1, 0.99, 0.95
    (values,) = measure(predict(shares), truth)
    assert values["label_error_score"] == pytest.approx(7 / 50)
    truth[4] = IGNORE
    (values,) = measure(predict(shares), truth)
    assert values["label_error_score"] == 0


def test_metrics_of_missed_false_positive_and_empty_masks():
    full, empty = np.ones((6, 8), np.uint8), np.zeros((6, 8), np.uint8)
    (missed,) = measure(predict(np.zeros((6, 8))), full)
    (alarm,) = measure(predict(np.ones((6, 8))), empty)
    (both,) = measure(predict(np.zeros((6, 8))), empty)
    for values in (missed, alarm):
        assert values["hausdorff95"] == values["average_surface_distance"] == 10  # The diagonal.
        assert values["surface_dice"] == values["object_f1"] == 0
        assert values["auroc"] is None
        assert not any(v is not None and np.isnan(v) for v in values.values())
    assert (missed["missed_objects"], missed["seg"]) == (1, 0)
    assert (alarm["false_positive_objects"], alarm["seg"]) == (1, None)
    assert both["hausdorff95"] is both["object_f1"] is both["panoptic_quality"] is None
    assert both["brier"] == both["label_error_score"] == 0


def test_object_metrics_use_object_labels_of_the_mask():
    truth, numbers = np.ones((4, 8), np.uint8), np.ones((4, 8), np.int64)
    numbers[:, 4:] = 2  # Two objects that touch.
    (values,) = measure(predict(np.ones((4, 8))), truth, objects=numbers)
    assert (values["true_objects"], values["predicted_objects"]) == (2, 1)
    assert values["object_f1"] == 0  # IoU 0.5 is not above 0.5.
    assert (values["object_merges"], values["object_splits"]) == (1, 0)
    assert (values["missed_objects"], values["false_positive_objects"]) == (0, 0)
    assert (values["object_count_error"], values["object_count_difference"]) == (1, -0.5)
    (values,) = measure(predict(np.ones((4, 8))), truth)
    assert values["object_f1"] == 1


def test_object_numbers_that_repeat_across_classes_are_different_objects():
    truth, numbers = np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.int64)
    truth[:4], truth[4:] = 1, 2
    numbers[:, :3], numbers[:, 5:] = 1, 2  # 1 and 2 occur in both classes.
    truth[numbers == 0] = 0
    shares = np.stack([truth == index for index in range(3)]).astype(np.float32)
    prediction = Prediction(probabilities=shares, classes=truth)
    for values in measure(prediction, truth, TWO, objects=numbers):
        assert (values["true_objects"], values["predicted_objects"], values["object_f1"]) == (
            2,
            2,
            1,
        )


def test_metrics_of_each_class():
    truth = np.zeros((8, 8), np.uint8)
    truth[:4], truth[4:, :4] = 1, 2
    shares = np.stack([truth == index for index in range(3)]).astype(np.float32)
    swapped = Prediction(probabilities=shares[[0, 2, 1]], classes=np.array([0, 2, 1])[truth])
    for values in measure(swapped, truth, TWO):
        assert values["surface_dice"] < 0.5
        assert values["object_f1"] == 0
        assert values["auroc"] < 0.5
    right = Prediction(probabilities=shares, classes=truth)
    for values in measure(right, truth, TWO):
        assert values["object_f1"] == values["auroc"] == values["surface_dice"] == 1
        assert values["hausdorff95"] == values["brier"] == 0


def test_common_unit_requires_spacing_of_all_images(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "plain.png")
    for name, micrometers in (("fine", 0.5), ("coarse", 500)):
        tifffile.imwrite(
            tmp_path / f"{name}.ome.tif",
            np.zeros((4, 4), np.uint8),
            metadata={
                "axes": "YX",
                **{
                    key: value
                    for axis in "XY"
                    for key, value in (
                        (f"PhysicalSize{axis}", micrometers),
                        (f"PhysicalSize{axis}Unit", "µm"),
                    )
                },
            },
        )
    plain, fine, coarse = (tmp_path / n for n in ("plain.png", "fine.ome.tif", "coarse.ome.tif"))
    assert common_unit([plain, fine]) == common_unit([fine, plain]) == common_unit([]) == Unit()
    assert common_unit([fine, coarse]).name == "µm"
    assert common_unit([coarse]).name == "mm"


def test_unit_converts_spacing_from_millimeters():
    assert Unit("µm").convert((0.0005, 0.001)) == pytest.approx((0.5, 1))
    assert Unit("mm").convert((0.5, 0.5)) == (0.5, 0.5)
    assert Unit("mm").convert(None) is None
    assert Unit().convert((0.5, 0.5)) is None
