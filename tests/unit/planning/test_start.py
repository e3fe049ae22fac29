"""Weights that a training starts from: where they are found, and what does not fit."""

import json
import shlex
import shutil
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file

import ushape
from codes import raises_code
from ushape.api.plan import TrainOptions
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.errors import ConfigError, PlanError, RunError
from ushape.labels import LabelSpace, Region
from ushape.models import build_model
from ushape.planning.run import Run
from ushape.planning.start import Source, match_classes
from ushape.planning.start_decision import StartDecision, save_decision
from ushape.planning.weights import read_weights

SETTINGS = [
    "network.widths=[4,8]",
    "sampling.patch_shape=[32,32]",
    "train.steps_per_epoch=2",
    "train.precision=fp32",
]


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "cells"
    write_data_set(folder, 6, SyntheticConfig(size=48, groups=6), seed=0)
    return folder


@pytest.fixture(scope="module")
def run(cells, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "cells"
    ushape.train(cells, output=folder, epochs=1, settings=SETTINGS, device="cpu", quiet=True)
    return folder


def plan_from(cells, source, *settings, **options):
    return ushape.plan(
        cells,
        start_from=source,
        epochs=1,
        settings=["sampling.patch_shape=[32,32]", *settings],
        device="cpu",
        quiet=True,
        **options,
    )


def test_plan_adopts_the_network_of_the_run_and_records_the_weights(cells, run):
    plan = plan_from(cells, run)
    stored = Run(run).load_plan()
    assert plan.recipe.network == stored.recipe.network
    assert plan.recipe.network.widths == (4, 8)
    assert plan.start.path == str(run / "model.safetensors")
    assert plan.start.loaded == plan.start.tensors
    assert (plan.start.adapted, plan.start.fresh) == ((), ())
    assert plan.reasons[-1].startswith(f"Start: loaded {plan.start.loaded} of ")
    # The split has the same seed: validation images were seen, test images were not.
    assert plan.start.seen_test == 0
    assert plan.start.seen_validation > 0
    assert "Warning" not in plan.start.warning
    assert f"{plan.start.seen_validation} validation image" in plan.start.warning


def test_plan_counts_test_images_that_the_weights_have_seen(cells, run, tmp_path):
    splits = json.loads((run / "splits.json").read_text())
    splits.pop("checksum", None)
    splits["train"], splits["test"] = splits["train"][1:] + splits["test"], splits["train"][:1]
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    plan = plan_from(cells, run, splits=tmp_path / "splits.json")
    assert plan.start.seen_test == 1
    assert "1 test image also trained" in plan.start.warning
    assert "--splits" in plan.start.warning


def test_plan_finds_the_run_of_a_file_of_weights(cells, run):
    plan = plan_from(cells, run / "model.safetensors")
    assert plan.recipe.network.widths == (4, 8)
    (run / "epochs").mkdir(exist_ok=True)
    kept = run / "epochs" / "0001.safetensors"
    kept.write_bytes((run / "model.safetensors").read_bytes())
    assert Source.find(str(kept)).run == Run(run)


def test_settings_that_keep_the_tensors_are_kept(cells, run):
    network = plan_from(cells, run, "network.dropout=0.2").recipe.network
    assert (network.dropout, network.widths) == (0.2, (4, 8))


@pytest.mark.parametrize("setting", ["network.widths=[8,16]", "network.block=residual"])
def test_settings_that_change_the_tensors_are_refused_by_name(run, setting):
    with raises_code(ConfigError, "start_network_differs") as caught:
        TrainOptions.resolve(start_from=run, settings=[setting])
    assert setting.partition("=")[0] in caught.value.message
    assert setting.partition("=")[0] in caught.value.hint


def test_recipe_with_adopted_network_is_not_changed_again(run):
    recipe = TrainOptions.resolve(start_from=run, epochs=1).recipe
    assert TrainOptions.resolve(recipe=recipe).recipe == recipe


def test_plan_and_weights_exclude_each_other(run):
    with raises_code(ConfigError, "conflicting_options"):
        TrainOptions.resolve(plan="plan.json", start_from=run)


def test_stored_plan_states_its_weights_and_refuses_others(cells, run, tmp_path):
    plan_from(cells, run, output=tmp_path / "plan.json")
    weights = run / "model.safetensors"
    content = weights.read_bytes()
    options = {"plan": tmp_path / "plan.json", "output": tmp_path / "run", "quiet": True}
    try:
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with raises_code(RunError, "start_weights_changed"):
            ushape.train(cells, **options)
    finally:
        weights.write_bytes(content)


def test_plans_of_earlier_versions_start_from_random_weights(run, tmp_path):
    values = json.loads((run / "plan.json").read_text())
    for section, key in ((values, "start"), (values, "checksum"), (values["recipe"], "start_from")):
        del section[key]
    (tmp_path / "plan.json").write_text(json.dumps(values))
    assert Run(tmp_path).load_plan().start is None


@pytest.fixture(scope="module")
def second(run, tmp_path_factory):
    """A run on other images that started from the weights of the first one."""
    folder = tmp_path_factory.mktemp("second")
    write_data_set(folder / "data", 6, SyntheticConfig(size=48, groups=6), seed=9)
    settings = ["sampling.patch_shape=[32,32]", "train.steps_per_epoch=2"]
    ushape.train(
        folder / "data",
        output=folder / "run",
        start_from=run,
        epochs=1,
        settings=[*settings, "train.precision=fp32", "train.compare_start=false"],
        device="cpu",
        quiet=True,
    )
    return folder / "run"


def swapped_splits(run, folder):
    """Write the split of a run with the training and the test set exchanged."""
    splits = json.loads((run / "splits.json").read_text())
    splits.pop("checksum", None)
    splits["train"], splits["test"] = splits["test"], splits["train"]
    (folder / "splits.json").write_text(json.dumps(splits))
    return folder / "splits.json", len(splits["test"])


def test_images_of_the_first_training_count_after_a_second_one(cells, run, second, tmp_path):
    path, count = swapped_splits(run, tmp_path)
    start = plan_from(cells, second, splits=path).start
    assert start.seen_test == count > 0
    assert start.is_history_known
    assert f"Warning: {count} test images" in start.warning
    # The images of the second training count as well, and test images of neither do.
    path, count = swapped_splits(second, tmp_path)
    assert plan_from(second.parent / "data", second, splits=path).start.seen_test == count
    kept = plan_from(cells, second, splits=run / "splits.json").start
    assert (kept.seen_test, kept.is_history_known) == (0, True)


def test_images_of_weights_that_were_not_trained_on_do_not_count(cells, run, second, tmp_path):
    """The trials have chosen the usual weights instead of the loaded ones."""
    shutil.copytree(second, tmp_path / "run")
    numbers = {"loaded_steps": 1, "usual_steps": 1, "seconds": 1.0}
    decision = StartDecision(loaded_dice=0.1, usual_dice=0.2, **numbers)
    save_decision(Run(tmp_path / "run"), decision)
    path, _ = swapped_splits(run, tmp_path)
    start = plan_from(cells, tmp_path / "run", splits=path).start
    assert (start.seen_test, start.is_history_known, start.warning) == (0, True, "")


def test_weights_of_unknown_origin_are_said_to_be_so(cells, run, second, tmp_path):
    lone = tmp_path / "lone.safetensors"
    shutil.copy(run / "model.safetensors", lone)
    earlier = shutil.copytree(second, tmp_path / "earlier")
    (earlier / "seen_images.json").unlink()  # As a run of an earlier version.
    for source in (lone, earlier):
        plan = plan_from(cells, source, "network.widths=[4,8]", output=tmp_path / "plan.json")
        assert not plan.start.is_history_known
        assert "not known on which images" in plan.start.warning
        assert any("not known on which images" in reason for reason in plan.reasons)
        (tmp_path / "plan.json").unlink()


def test_damaged_list_of_seen_images_is_reported(cells, second, tmp_path):
    damaged = shutil.copytree(second, tmp_path / "damaged")
    (damaged / "seen_images.json").write_text('{"images": 3}')
    with raises_code(RunError, "damaged_run"):
        plan_from(cells, damaged)


def test_folder_of_a_cross_validation_is_refused_with_the_name_of_a_fold(run, tmp_path):
    for number in (1, 2):
        shutil.copytree(run, tmp_path / f"fold-{number}")
    with raises_code(RunError, "not_a_single_run") as caught:
        TrainOptions.resolve(start_from=tmp_path, epochs=1)
    assert "contains 2 runs" in caught.value.message
    assert caught.value.hint.endswith(f"for example {tmp_path / 'fold-1'}.")
    assert str(caught.value).count(caught.value.hint) == 1
    with raises_code(RunError, "not_a_single_run"):
        ushape.evaluate(tmp_path, quiet=True)
    with raises_code(RunError, "not_a_single_run"):
        ushape.resume(tmp_path, quiet=True)


def bare_weights(path, *, dims=2, widths=(4, 8), value=None):
    from ushape.models.config import NetworkConfig

    config = NetworkConfig(dims=dims, widths=widths, norm="instance")
    weights = build_model(config, 1, 1).state_dict()
    if value is not None:
        next(iter(weights.values())).fill_(value)
    safetensors.torch.save_file(weights, path)
    return path


def test_bare_weights_are_loaded_by_name_and_shape(cells, tmp_path):
    path = bare_weights(tmp_path / "other.safetensors")
    plan = plan_from(cells, path, "network.widths=[4,8]", "network.norm=instance")
    assert plan.start.loaded == plan.start.tensors
    assert plan.start.seen_test == 0


def test_bare_weights_that_fit_nowhere_are_refused(cells, tmp_path):
    path = bare_weights(tmp_path / "other.safetensors", widths=(6, 12))
    with raises_code(PlanError, "no_weights_fit") as caught:
        plan_from(cells, path, "network.widths=[4,8]")
    assert "encoder.blocks.0.layers.0.weight" in caught.value.message


def test_weights_of_another_dimension_are_refused(cells, tmp_path):
    with raises_code(PlanError, "dimensions_mismatch"):
        plan_from(cells, bare_weights(tmp_path / "volume.safetensors", dims=3))


def test_weights_for_images_are_refused_for_volumes_unless_slices_are_stated(run, tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for number in range(4):
        mask = np.zeros((6, 40, 40), np.uint8)
        mask[2:4, 8 + number : 20, 8:20] = 1
        image = rng.normal(50, 5, mask.shape) + 60 * mask
        for folder, array in (("images", image.astype(np.float32)), ("masks", mask)):
            path = tmp_path / "data" / folder / f"p{number}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(array.T, np.diag([1, 1, 8, 1])), path)
    with raises_code(PlanError, "dimensions_mismatch") as error:
        ushape.plan(tmp_path / "data", start_from=run, epochs=1, device="cpu", quiet=True)
    assert "--set preprocessing.slices=1" in error.value.hint
    plan = plan_from(tmp_path / "data", run, "preprocessing.slices=1")
    assert plan.start.loaded > 0
    assert (plan.recipe.network.dims, plan.preprocessing.by_slice) == (2, True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(cells, tmp_path, value):
    path = bare_weights(tmp_path / "other.safetensors", value=value)
    with raises_code(RunError, "weights_not_finite"):
        plan_from(cells, path, "network.widths=[4,8]", "network.norm=instance")


def test_damaged_weights_are_refused_before_data_are_read(tmp_path):
    path = bare_weights(tmp_path / "other.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with raises_code(RunError, "damaged_weights"):
        TrainOptions.resolve(start_from=path)


def test_pickles_are_refused_with_the_way_to_convert_them(tmp_path):
    for name, is_zip in (("new.pt", True), ("old.pth", False), ("the user's.pt", True)):
        path, state = tmp_path / name, {"a": torch.ones(1)}
        torch.save(state, path, _use_new_zipfile_serialization=is_zip)
        with raises_code(RunError, "weights_are_pickle") as caught:
            TrainOptions.resolve(start_from=path)
        command = caught.value.hint.partition(": ")[2].partition(". Of a run")[0]
        python, option, code = shlex.split(command)
        assert (python, option) == ("python", "-c")
        assert "weights_only=True" in code
        exec(code, {})
        assert load_file(path.with_suffix(".safetensors"))["a"].item() == 1


def test_missing_paths_and_other_folders_are_refused(tmp_path):
    with raises_code(RunError, "weights_missing"):
        TrainOptions.resolve(start_from=tmp_path / "nothing")
    with raises_code(RunError, "run_incomplete"):
        TrainOptions.resolve(start_from=tmp_path)


def space(*names, regions=()):
    return LabelSpace(values=tuple(range(len(names))), names=names, regions=regions)


def test_classes_are_matched_by_name():
    before = space("background", "nucleus", "cell")
    assert match_classes(before, space("background", "cell", "nucleus")) == [0, 2, 1]
    assert match_classes(before, space("nothing", "cell", "gap", "wall")) == [0, 2, None, None]


def test_unknown_classes_keep_a_head_of_the_same_size_only():
    before = space("background", "nucleus", "cell")
    assert match_classes(before, space("background", "a", "b")) is None
    assert match_classes(before, space("background", "a", "b", "c")) == [None] * 4
    # One sigmoid channel, whatever its name.
    assert match_classes(space("background", "a"), space("background", "b")) is None


def test_channels_of_another_kind_are_not_matched():
    regions = (Region(name="cell", classes=(1, 2)), Region(name="nucleus", classes=(2,)))
    before = space("background", "rim", "nucleus", regions=regions)
    assert match_classes(before, space("background", "cell", "nucleus")) == [None] * 3


def test_match_classes_compares_the_distance_with_a_distance_only():
    before, now = space("background", "nucleus", "cell"), space("background", "a", "b")
    learned = replace(before, has_distance=True)
    assert match_classes(before, replace(now, has_distance=True)) == [0, 1, 2, None]
    assert match_classes(learned, now) == [0, 1, 2]
    assert match_classes(learned, replace(now, has_distance=True)) is None
    assert match_classes(learned, replace(before, has_distance=True)) == [0, 1, 2, 3]
    # Two regions have as many outputs as one class and the distance.
    regions = (Region(name="cell", classes=(1, 2)), Region(name="nucleus", classes=(2,)))
    regions = space("background", "rim", "nucleus", regions=regions)
    assert match_classes(regions, replace(space("nothing", "a"), has_distance=True)) == [None] * 2


def test_plan_without_a_comparison_gives_the_training_its_time(cells, run):
    compared = plan_from(cells, run)
    plan = plan_from(cells, run, "train.compare_start=false")
    assert any("decide with which of them" in line for line in compared.reasons)
    assert any("not compared" in line for line in plan.reasons)


def test_training_without_a_comparison_starts_from_the_loaded_weights(cells, run, tmp_path):
    folder = tmp_path / "again"
    settings = [*SETTINGS[1:], "train.compare_start=false", "train.learning_rate=1e-12"]
    ushape.train(
        cells,
        output=folder,
        epochs=1,
        settings=settings,
        start_from=run,
        device="cpu",
        quiet=True,
    )
    before, after = (Run(one).load_network(Run(one).load_plan()) for one in (run, folder))
    weights = after.state_dict()
    for name, value in before.state_dict().items():
        if name.endswith("weight") and value.ndim == 4:
            torch.testing.assert_close(weights[name], value, atol=1e-4, rtol=0)
    assert not (folder / "start" / "decision.json").exists()


@pytest.mark.parametrize("content", [b"", b"no weights", b"\x00" * 99])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt"])
def test_files_of_torch_without_weights_are_named(suffix, content, tmp_path):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with raises_code(RunError, "weights_of_unknown_format") as caught:
        Source.find(str(path))
    assert str(path) in caught.value.message


def test_damaged_safetensors_are_said_to_be_of_this_format(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with raises_code(RunError, "damaged_weights") as caught:
        read_weights(tmp_path / "x.safetensors")
    assert "safetensors (" in caught.value.message
