"""Predict a large image in blocks, and compare the result with that of the whole image."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
import zarr
from safetensors.torch import load_file
from scipy import ndimage

from block_runs import KINDS, blobs, make_plan, make_run, write_ome_zarr
from ushape.api.predict_zarr import predict_zarr
from ushape.distributed import blocks
from ushape.distributed.block_plan import plan_task
from ushape.distributed.block_prediction import predict_block
from ushape.distributed.block_task import PREDICT, open_task, task_folder
from ushape.errors import DataError, RunError
from ushape.inference.decision_rule import ClassRule, DecisionRule, apply_rule
from ushape.inference.predictor import Predictor
from ushape.instances.label import ObjectConfig, label_objects, label_prediction
from ushape.planning.run import Run
from ushape.transforms.morphology import Cleaning
from ushape.types import Case


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def run(kind, tmp_path_factory):
    """A run whose network has random weights."""
    folder = tmp_path_factory.mktemp(kind)
    plan = make_plan(folder, kind, "labels.objects=connected")
    return make_run(folder / "run", plan)


@pytest.fixture(scope="module")
def image(kind, tmp_path_factory):
    shape, *_ = KINDS[kind]
    return write_ome_zarr(tmp_path_factory.mktemp("images") / "large.zarr", blobs(shape, 9)[0])


@pytest.fixture(scope="module")
def whole(run, image):
    """The prediction of the whole image."""
    predictor = Predictor.open(run, "cpu")
    (found,) = predictor.predict([predictor.preprocess(Case(id="large", image=image))])
    assert 0.01 < (found.classes > 0).mean() < 0.99
    return found


def levels_of(path):
    """The levels of an OME-Zarr image, as zarr reads them by the metadata of the group."""
    group = zarr.open_group(store=str(path), mode="r")
    attributes = dict(group.attrs)
    info = attributes.get("ome", attributes)["multiscales"][0]
    return info, [group[one["path"]] for one in info["datasets"]]


def files_of(path):
    return {file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file()}


SMALL = {"chunk": 8, "memory_gb": 1e-9, "device": "cpu", "quiet": True}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_blocks_equal_the_prediction_of_the_whole_image(run, image, whole, version, tmp_path):
    options = {"shard": 16} if version == "0.5" else {}
    output = tmp_path / "mask.zarr"
    found = predict_zarr(
        run,
        image,
        output=output,
        probabilities=True,
        objects=True,
        ome_version=version,
        **options,
        **SMALL,
    )
    assert found == output
    info, levels = levels_of(output)
    assert levels[0].chunks == (8,) * whole.classes.ndim
    assert levels[0].shards == ((16,) * whole.classes.ndim if options else None)
    np.testing.assert_array_equal(levels[0][...], 255 * whole.classes)
    assert info["axes"][-1] == {"name": "x", "type": "space", "unit": "micrometer"}
    for number, (one, dataset) in enumerate(zip(levels, info["datasets"], strict=True)):
        step = (slice(None, None, 2**number),) * whole.classes.ndim
        np.testing.assert_array_equal(one[...], 255 * whole.classes[step])
        (transformation,) = dataset["coordinateTransformations"]
        assert transformation["scale"] == [0.5 * 2**number] * whole.classes.ndim
    assert max(levels[-1].shape) <= 8
    _, numbers = levels_of(output / "labels" / "objects")
    objects = label_objects(whole.classes)
    assert len(objects) > 1
    np.testing.assert_array_equal(numbers[0][...], objects.labels)
    assert len(numbers) == len(levels)
    labels = zarr.open_group(store=str(output / "labels"), mode="r").attrs
    assert dict(labels).get("ome", labels)["labels"] == ["objects"]
    _, shares = levels_of(tmp_path / "mask_probabilities.zarr")
    np.testing.assert_allclose(shares[0][...] / 255, whole.probabilities, atol=0.51 / 255)


def test_parts_and_repeats_write_the_same_bytes(run, image, tmp_path):
    options = {"shard": 16, **SMALL}
    predict_zarr(run, image, output=tmp_path / "one" / "mask.zarr", **options)
    output = tmp_path / "parts" / "mask.zarr"
    for part in ("2/3", "1/3", "2/3"):
        predict_zarr(run, image, output=output, part=part, **options)
    task = open_task(task_folder(output))
    left = task.left_blocks("predict")
    assert left == list(range(2, task.count("predict"), 3))
    # A process is killed after it has written a part of a block, before its marker.
    array = task.output.open()
    array[tuple(slice(*edge) for edge in task.grid("predict").box(left[0]))] = 7
    predict_zarr(run, image, output=output, part="3/3", **options)
    assert not task.left_blocks("predict")
    assert files_of(output) == files_of(tmp_path / "one" / "mask.zarr")


def test_a_repeat_of_a_finished_prediction_computes_nothing(run, image, tmp_path, monkeypatch):
    output = tmp_path / "mask.zarr"
    predict_zarr(run, image, output=output, **SMALL)
    monkeypatch.setattr(blocks, "predict_block", None)
    predict_zarr(run, image, output=output, **SMALL)
    with pytest.raises(RunError) as error:
        predict_zarr(run, image, output=output, **{**SMALL, "chunk": 16})
    assert error.value.code == "other_task"


@pytest.fixture(scope="module")
def touching(tmp_path_factory):
    """A run that reduces images, cleans masks and separates objects by the learned distance."""
    folder = tmp_path_factory.mktemp("touching")
    plan = make_plan(folder, "image", "labels.objects=distance", "preprocessing.intensity=image")
    name = plan.preprocessing.space.scored[0].name
    cleaning = Cleaning(min_size_px=12, max_hole_size_px=6)
    tuning = {
        "rule": DecisionRule(classes={name: ClassRule(cleaning=cleaning)}),
        "objects": ObjectConfig(separation="learned_distance", h_distance=0.005, min_size_px=3),
    }
    return make_run(folder / "run", plan, tuning, downscale=1.5)


@pytest.mark.parametrize("kind", ["image"], indirect=True)
@pytest.mark.parametrize("separation", ["learned_distance", "none"])
def test_blocks_are_reduced_cleaned_and_separated_as_the_whole(
    touching, image, separation, tmp_path
):
    settings = ["predict.objects.separation=none"] if separation == "none" else []
    predictor = Predictor.open(touching, "cpu", settings=settings)
    (whole,) = predictor.predict([predictor.preprocess(Case(id="large", image=image))])
    raw = apply_rule(
        predictor.tuning.rule.without_cleaning(),
        whole.probabilities,
        predictor.plan.preprocessing.space,
    )
    assert (raw != whole.classes).any()
    output = tmp_path / "mask.zarr"
    for part in ("2/2", "1/2"):
        predict_zarr(
            touching, image, output=output, objects=True, settings=settings, part=part, **SMALL
        )
    _, levels = levels_of(output)
    np.testing.assert_array_equal(levels[0][...], 255 * whole.classes)
    objects = label_prediction(whole, predictor.plan.preprocessing.space, predictor.objects)
    assert (len(objects) > ndimage.label(whole.classes)[1]) == (
        separation == "learned_distance" and predictor.joins_objects
    )
    _, numbers = levels_of(output / "labels" / "objects")
    np.testing.assert_array_equal(numbers[0][...], objects.labels)


@pytest.mark.parametrize("kind", ["image"], indirect=True)
def test_objects_whose_holes_are_filled_first_are_refused(touching, image, tmp_path):
    with pytest.raises(DataError) as error:
        predict_zarr(
            touching,
            image,
            output=tmp_path / "mask.zarr",
            settings=["predict.objects.max_hole_size_px=3"],
            **SMALL,
        )
    assert error.value.code == "objects_in_blocks"


@pytest.mark.parametrize("kind", ["image"], indirect=True)
def test_a_finished_prediction_whose_output_was_removed_is_refused(run, image, tmp_path):
    output = tmp_path / "mask.zarr"
    options = {**SMALL, "probabilities": True}
    predict_zarr(run, image, output=output, **options)
    expected = files_of(output)
    for path in (tmp_path / "mask_probabilities.zarr", output / "0" / "zarr.json", output):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        with pytest.raises(RunError) as error:
            predict_zarr(run, image, output=output, **options)
        assert error.value.code == "output_missing"
        assert not path.exists()
    predict_zarr(run, image, output=output, overwrite=True, **options)
    assert files_of(output) == expected


@pytest.mark.parametrize("kind", ["image"], indirect=True)
def test_an_image_that_has_changed_is_refused_and_predicted_anew(run, image, tmp_path):
    changed, output = tmp_path / "large.zarr", tmp_path / "mask.zarr"
    shutil.copytree(image, changed)
    predict_zarr(run, changed, output=output, **SMALL)
    before = files_of(output)
    array = zarr.open_array(store=str(changed / "0"), mode="r+", zarr_format=2)
    array[...] = array[...][..., ::-1]
    with pytest.raises(RunError) as error:
        predict_zarr(run, changed, output=output, **SMALL)
    assert error.value.code == "other_task"
    predict_zarr(run, changed, output=output, overwrite=True, **SMALL)
    assert files_of(output) != before


@pytest.fixture
def other(run, tmp_path):
    """A run like the other one, with other weights."""
    other = tmp_path / "other"
    shutil.copytree(run, other)
    weights = load_file(Run(run).weights_path)
    weights = {
        name: torch.rand_like(values) if values.is_floating_point() else values
        for name, values in weights.items()
    }
    Run(other).save_weights(weights, {"epoch": 1})
    return other


@pytest.mark.parametrize("kind", ["image"], indirect=True)
def test_overwriting_with_another_run_uses_its_network(run, other, image, tmp_path):
    one, two = tmp_path / "one.zarr", tmp_path / "two.zarr"
    predict_zarr(other, image, output=one, **SMALL)
    predict_zarr(run, image, output=two, **SMALL)
    assert files_of(one / "0") != files_of(two / "0")
    predict_zarr(other, image, output=two, overwrite=True, **SMALL)
    assert files_of(one / "0") == files_of(two / "0")


@pytest.mark.parametrize("kind", ["image"], indirect=True)
def test_blocks_of_an_overwritten_prediction_write_nothing_more(run, other, image, tmp_path):
    output = tmp_path / "mask.zarr"
    predict_zarr(other, image, output=output, part="1/2", **SMALL)
    old = open_task(task_folder(output))
    place, model = str(old.folder), blocks._open_model(str(old.folder), "cpu", old.token)
    predict_zarr(run, image, output=output, overwrite=True, **SMALL)
    expected, described = files_of(output), files_of(old.folder)
    with pytest.raises(RunError) as waiting:  # A worker begins a block that was waiting.
        blocks.run_block(place, old.token, "cpu", PREDICT, 1)
    with pytest.raises(RunError) as running:  # A worker has computed a block.
        predict_block(old, *model, old.grid(PREDICT).box(1))
    assert waiting.value.code == running.value.code == "task_replaced"
    assert files_of(output) == expected
    assert files_of(old.folder) == described


@pytest.mark.parametrize("kind", ["image"], indirect=True)
def test_what_a_block_writes_while_its_output_is_overwritten_is_removed(
    run, other, image, tmp_path, monkeypatch
):
    output, straight = tmp_path / "mask.zarr", tmp_path / "straight.zarr"
    predict_zarr(run, image, output=straight, **SMALL)
    predict_zarr(other, image, output=output, part="1/2", **SMALL)
    old = open_task(task_folder(output))

    def plan_and_write(*arguments, **options):
        for path in (output / "0" / "c" / "0" / "0", old.marker(PREDICT, 1)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"old")
        return plan_task(*arguments, **options)

    monkeypatch.setattr("ushape.api.predict_zarr.plan_task", plan_and_write)
    predict_zarr(run, image, output=output, overwrite=True, **SMALL)
    assert files_of(output / "0") == files_of(straight / "0")
