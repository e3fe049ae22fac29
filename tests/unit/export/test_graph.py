from dataclasses import replace

import numpy as np
import pytest
import torch

from codes import raises_code
from exported import CELLS, TISSUES, write_run
from ushape.errors import PlanError, RunError
from ushape.export.graph import ExportOptions, build_graph
from ushape.export.layers import FixedIntensities
from ushape.inference.decision_rule import ClassRule, DecisionRule
from ushape.inference.tuning import Tuning, load_tuning, save_tuning
from ushape.normalization import Normalization
from ushape.planning.run import Run
from ushape.transforms.morphology import Cleaning

OBJECTS = replace(CELLS, has_distance=True)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"slices": 3}, "neighbors"),
        ({"crop": True}, "crops"),
        ({"intensity": "group"}, "group"),
        ({"target_spacing_mm": (1.0, 1.0)}, "spacing"),
    ],
)
def test_build_graph_refuses_what_pixels_do_not_tell(settings, word, tmp_path):
    run = write_run(tmp_path / "run", **settings)
    with raises_code(PlanError, "export_refused") as caught:
        build_graph(run, ExportOptions())
    assert word in caught.value.message


def test_build_graph_refuses_masks_of_separated_objects(tmp_path):
    labels = {"objects": "distance", "max_distance_px": 4.0}
    run = write_run(tmp_path / "run", space=OBJECTS, labels=labels, separation="learned_distance")
    with raises_code(PlanError, "export_refused"):
        build_graph(run, ExportOptions(output="mask"))
    graph = build_graph(run, ExportOptions())
    assert graph.class_names == ("cell", "distance")
    assert graph(torch.zeros(2, 1, 9, 10)).shape == (2, 2, 9, 10)


def test_build_graph_refuses_runs_with_different_classes(tmp_path):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", space=TISSUES)]
    with raises_code(PlanError, "incompatible_runs"):
        build_graph(runs, ExportOptions())


def test_build_graph_with_constants_needs_the_training_images(tmp_path):
    run = write_run(tmp_path / "run")
    with raises_code(RunError, "run_incomplete"):
        build_graph(run, ExportOptions(fixed_intensity=True))


def test_build_graph_uses_constants_of_the_training_images(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", intensity="group")
    monkeypatch.setattr(
        "ushape.export.graph.measure_training",
        lambda run, preprocessing: preprocessing.measure(np.arange(1000.0)[None]),
    )
    graph = build_graph(run, ExportOptions(fixed_intensity=True))
    assert isinstance(graph.members[0].normalize, FixedIntensities)
    assert graph.members[0].normalize.mean.item() == pytest.approx(499.5)


def test_build_graph_tells_which_cleaning_it_leaves_out(tmp_path):
    run = write_run(tmp_path / "run")
    assert build_graph(run, ExportOptions()).source.left_out == ()
    cleaning = Cleaning(min_size_px=12, max_hole_size_px="all")
    save_tuning(run, Tuning(rule=DecisionRule(classes={"cell": ClassRule(cleaning=cleaning)})))
    graph = build_graph(run, ExportOptions(output="mask"))
    assert graph.source.left_out == ("cell: removes components below 12 pixels, fills holes",)
    assert load_tuning(run).rule.cleans


def test_graph_of_two_runs_averages_their_probabilities(tmp_path):
    runs = [write_run(tmp_path / str(seed), seed=seed) for seed in range(2)]
    images = torch.rand(2, 1, 20, 30) * 255
    first, second = (build_graph(run, ExportOptions())(images) for run in runs)
    found = build_graph(runs, ExportOptions())(images)
    torch.testing.assert_close(found, (first + second) / 2)


def test_graph_of_masks_has_the_values_of_the_user(tmp_path):
    small = write_run(tmp_path / "small", thresholds={"cell": 0.3})
    large = write_run(tmp_path / "large", space=TISSUES)
    images = torch.rand(1, 1, 20, 30) * 255
    for run, values, dtype in (
        (small, {0, 255}, torch.uint8),
        (large, {0, 3, 300}, torch.int32),
    ):
        mask = build_graph(run, ExportOptions(output="mask"))(images)
        assert mask.dtype == dtype
        assert set(mask.unique().tolist()) <= values


def test_graph_does_not_change_the_run(tmp_path):
    run = write_run(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    build_graph(Run(run.folder), ExportOptions())
    assert before == {path.name: path.read_bytes() for path in run.folder.iterdir()}


@pytest.mark.parametrize("downscale", [1, 2])
def test_halo_covers_the_pixels_that_depend_on_what_lies_outside(tmp_path, downscale):
    constants = Normalization(low=(0.0,), high=(255.0,), mean=(100.0,), std=(50.0,))
    run = write_run(tmp_path / "run", normalization=constants, downscale=downscale)
    graph = build_graph(run, ExportOptions())
    graph.eval()
    halo = graph.halo[0]
    assert graph.halo == (halo, halo)
    assert 0 < halo < 40
    image = torch.rand(1, 1, 100, 60) * 255
    changed = image.clone()
    changed[:, :, :8] = 255 - changed[:, :, :8]
    difference = (graph(image) - graph(changed)).abs().amax(dim=(0, 1, 3)).detach()
    assert difference[8 - 1 + halo :].max() < 1e-6
    assert difference[8] > 1e-6  # Right beside the change.


def test_graph_that_measures_the_image_has_no_halo(tmp_path):
    assert build_graph(write_run(tmp_path / "run"), ExportOptions()).halo == (0, 0)
