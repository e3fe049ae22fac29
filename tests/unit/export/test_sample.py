from dataclasses import replace

import numpy as np
import pytest

from codes import raises_code
from exported import CELLS, TISSUES, add_test_images, write_run
from ushape.data.splits import Splits
from ushape.errors import RunError
from ushape.export.graph import ExportOptions, build_graph
from ushape.export.sample import _typical_case, _window, take_sample


def test_window_has_the_share_of_foreground_nearest_to_a_half():
    foreground = np.zeros((60, 80), bool)
    foreground[40:50, 50:70] = True
    window = _window(foreground, (10, 20))
    assert foreground[window].shape == (10, 20)
    assert foreground[window].mean() == 0.5


def test_window_is_the_whole_image_if_it_is_small():
    foreground = np.ones((5, 9), bool)
    assert _window(foreground, (16, 16)) == (slice(0, 5), slice(0, 9))


def test_window_of_an_image_without_foreground_lies_inside():
    window = _window(np.zeros((33, 50, 70), bool), (32, 16, 17))
    assert [one.stop - one.start for one in window] == [32, 16, 17]
    assert all(one.start >= 0 for one in window)
    shape = (33, 50, 70)
    assert all(one.stop <= size for one, size in zip(window, shape, strict=True))


def test_take_sample_cuts_a_test_image_and_predicts_it(tmp_path):
    run = write_run(tmp_path / "run", space=TISSUES, channels=3)
    add_test_images(run, tmp_path / "data", (300, 280))
    graph = build_graph(run, ExportOptions())
    sample = take_sample(graph)
    assert sample.image.shape == (3, 256, 256)
    assert sample.image.dtype == np.uint8
    assert sample.outputs.shape == (3, 256, 256)
    assert np.allclose(sample.outputs.sum(axis=0), 1, atol=1e-5)
    assert sample.classes.shape == (256, 256)
    assert set(np.unique(sample.classes)) <= {0, 1, 2}


def test_take_sample_keeps_small_volumes_whole(tmp_path):
    run = write_run(tmp_path / "run", network={"dims": 3})
    add_test_images(run, tmp_path / "data", (12, 20, 24))
    sample = take_sample(build_graph(run, ExportOptions()))
    assert sample.image.shape == (1, 12, 20, 24)
    assert sample.outputs.shape == (1, 12, 20, 24)


def test_typical_case_is_the_middle_one_without_scores(tmp_path):
    run = write_run(tmp_path / "run")
    add_test_images(run, tmp_path / "data")
    case, origin = _typical_case(run)
    assert (case.id, origin) == ("case1", "test")


def leave_out_masks(run, *names):
    facts = [
        replace(fact, case=replace(fact.case, mask=None)) if fact.case.id in names else fact
        for fact in run.load_cases()
    ]
    run.save_cases(run.folder, facts, "checksum")


@pytest.mark.parametrize(
    ("splits", "without_mask", "origin", "used"),
    [
        ({"train": ("case0", "case1"), "validation": ("case2",)}, (), "validation", "case2"),
        ({"train": ("case0", "case1", "case2")}, (), "training", "case1"),
        ({"train": ("case0", "case1"), "test": ("case2",)}, ("case2",), "training", "case1"),
        (
            {"train": ("case0",), "validation": ("case1",), "test": ("case2",)},
            ("case1", "case2"),
            "training",
            "case0",
        ),
    ],
)
def test_take_sample_falls_back_to_images_that_are_annotated(
    tmp_path, splits, without_mask, origin, used
):
    run = write_run(tmp_path / "run")
    add_test_images(run, tmp_path / "data")
    names = {"train": (), "validation": (), "test": (), **splits}
    Splits(**names, text="").save(run.splits_path)
    leave_out_masks(run, *without_mask)
    assert take_sample(build_graph(run, ExportOptions())).origin == origin
    assert _typical_case(run)[0].id == used


def test_take_sample_needs_an_annotated_image(tmp_path):
    run = write_run(tmp_path / "run")
    add_test_images(run, tmp_path / "data")
    leave_out_masks(run, "case0", "case1", "case2")
    with raises_code(RunError, "no_test_image"):
        take_sample(build_graph(run, ExportOptions()))


def test_pixels_without_annotation_are_no_foreground(tmp_path):
    run = write_run(tmp_path / "run", space=replace(CELLS, ignore=128))
    add_test_images(run, tmp_path / "data", (256, 600), foreground=(0.5,))
    mask = np.zeros((256, 600), np.uint16)
    mask[:, :300], mask[:, 500:] = 128, 255
    np.save(tmp_path / "data/masks/case0.npy", mask)
    sample = take_sample(build_graph(run, ExportOptions()))
    image = np.load(tmp_path / "data/images/case0.npy")
    assert np.array_equal(sample.image, image[..., 344:])  # Has all of the foreground.
