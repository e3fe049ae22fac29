"""The program that predicts images for the page: large images, and images that fail."""

import errno
import json
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch

import ushape
from block_runs import KINDS, blobs, make_plan, make_run
from codes import raises_code
from ushape.api import predict as predict_module
from ushape.errors import DataError, UshapeError
from ushape.inference.decision_rule import ClassRule, DecisionRule
from ushape.inference.predictor import Predictor
from ushape.inference.streaming import StreamedImage
from ushape.instances.label import ObjectConfig
from ushape.labels import LabelSpace
from ushape.studio import predicting
from ushape.studio.jobs import _error_in
from ushape.studio.predictions import CLASSES, OBJECTS, PROBABILITIES, SUMMARY
from ushape.transforms import morphology
from ushape.transforms.morphology import Cleaning
from ushape.types import Case

CLEANING = Cleaning(min_size_px=12, max_hole_size_px=6)
LEARNED = ObjectConfig(separation="learned_distance", h_distance=0.005, min_size_px=3)
TABLE = np.array([0, 2], np.uint8)
"""The class of the model is the second one of the project."""


@pytest.fixture(scope="module", params=["image", "volume"])
def plan(request, tmp_path_factory):
    """A plan whose network predicts the distance to the border of objects, and an image."""
    folder = tmp_path_factory.mktemp(request.param)
    settings = ["labels.objects=distance", "preprocessing.intensity=image"]
    shape, *_ = KINDS[request.param]
    tifffile.imwrite(folder / "large.tif", blobs(shape, 9)[0])
    return make_plan(folder, request.param, *settings), Case(id="x", image=folder / "large.tif")


def predictor_of(plan, folder, cleaning, how):
    """A predictor whose network has random weights."""
    name = plan.preprocessing.space.scored[0].name
    rule = DecisionRule(classes={name: ClassRule(cleaning=cleaning)})
    return Predictor.open(make_run(folder / "run", plan, {"rule": rule, "objects": how}), "cpu")


@pytest.mark.parametrize(
    ("cleaning", "how"),
    [(CLEANING, LEARNED), (Cleaning(), LEARNED), (CLEANING, ObjectConfig())],
    ids=["cleaned and separated", "separated", "cleaned"],
)
def test_large_images_are_cleaned_and_separated_as_others(
    plan, cleaning, how, tmp_path, monkeypatch
):
    monkeypatch.setattr(morphology, "BAND_PX", 1000)
    plan, case = plan
    predictor = predictor_of(plan, tmp_path, cleaning, how)
    assert predictor.separates == (how == LEARNED)
    predicting.predict_image(predictor, case, [], tmp_path / "whole", TABLE)
    monkeypatch.setattr(predicting, "MAX_BYTES", 1)
    image = predictor.preprocess_or_stream(case, [], 1)
    assert isinstance(image, StreamedImage)
    with image.bands:
        bands = predictor.stream(image, keep_distance=True).bands
        raw = np.concatenate([classes for _, classes, _ in bands])
    predicting.predict_image(predictor, case, [], tmp_path / "streamed", TABLE)
    whole, streamed = (
        {file.name: file for file in (tmp_path / name).iterdir()} for name in ("whole", "streamed")
    )
    expected = {PROBABILITIES, CLASSES, SUMMARY} | ({OBJECTS} if how == LEARNED else set())
    assert whole.keys() == streamed.keys() == expected
    assert np.ptp(np.load(whole[CLASSES])) == 2
    assert (np.load(whole[CLASSES]) != TABLE[raw]).any()
    # Untrained networks predict many equal distances, where the borders in bands may differ.
    is_tied = how == LEARNED and plan.image_dims == 3
    for name in [PROBABILITIES] if is_tied else sorted(expected - {SUMMARY}):
        np.testing.assert_array_equal(np.load(streamed[name]), np.load(whole[name]))
        assert np.load(streamed[name]).dtype == np.load(whole[name]).dtype
    facts = [json.loads(files[SUMMARY].read_bytes()) for files in (whole, streamed)]
    assert facts[0].keys() == facts[1].keys()
    if is_tied:
        monkeypatch.setattr(predict_module, "IN_MEMORY_BYTES", 1)
    options = {"instances": how == LEARNED and not is_tied, "device": "cpu", "quiet": True}
    (mask,) = ushape.predict(tmp_path / "run", case.image, output=tmp_path / "out", **options)
    foreground = np.load(streamed[CLASSES]) > 0
    np.testing.assert_array_equal(tifffile.imread(mask), 255 * foreground)
    if how == LEARNED:
        numbers = np.load(streamed[OBJECTS])
        np.testing.assert_array_equal(numbers > 0, foreground)
        first = np.unique(numbers, return_index=True)[1]
        assert len(first) > 2
        assert (np.diff(first[1:]) > 0).all()
    if options["instances"]:
        instances = tifffile.imread(mask.with_name("large_instances.tif"))
        np.testing.assert_array_equal(instances, numbers)


def test_large_image_is_refused_if_the_disk_has_no_space_for_it(plan, tmp_path, monkeypatch):
    plan, case = plan
    predictor = predictor_of(plan, tmp_path, CLEANING, LEARNED)
    monkeypatch.setattr(predicting, "MAX_BYTES", 1)
    pixels = int(np.prod(tifffile.imread(case.image).shape))
    needed = pixels * (plan.preprocessing.space.channels + 10)
    for free in (needed - 1, needed):
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr(predicting.shutil, "disk_usage", lambda folder, usage=usage: usage)
        if free < needed:
            with raises_code(DataError, "disk_full"):
                predicting.predict_image(predictor, case, [], tmp_path / "x", TABLE)
            assert not (tmp_path / "x").exists()
        else:
            predicting.predict_image(predictor, case, [], tmp_path / "x", TABLE)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "x"}


class Spoiled:
    """A predictor that raises the error that is in the name of an image, once it is read."""

    plan = SimpleNamespace(
        preprocessing=SimpleNamespace(space=LabelSpace(values=(0, 1), names=("a", "b")))
    )

    def __init__(self, **errors):
        self.errors = errors

    def preprocess_or_stream(self, case, companions, max_bytes):
        if (error := self.errors.get(case.id)) is not None:
            raise error
        return case

    def stream(self, case, keep_distance):
        return case


@pytest.fixture
def predict(tmp_path, monkeypatch):
    """Function that predicts images x, y and z, of which some raise errors."""

    def store(case, predictor, same, folder, table):
        (folder / CLASSES).write_bytes(b"")
        return {}

    def call(**errors):
        monkeypatch.setattr(predicting.Predictor, "open", lambda run: Spoiled(**errors))
        monkeypatch.setattr(predicting, "leave_cores_to_others", lambda threads: None)
        monkeypatch.setattr(predicting, "_store_streamed", store)
        images = [
            {"id": name, "image": str(tmp_path / f"{name}.png"), "channels": [], "group": "g"}
            for name in "xyz"
        ]
        job = {"folder": str(tmp_path / "out"), "values": [0, 1], "images": images}
        (tmp_path / "job.json").write_text(json.dumps(job))
        return predicting.main([str(tmp_path / "run"), str(tmp_path / "job.json")])

    return call


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DataError("y.png is damaged.", hint="Copy it again."), "y.png is damaged."),
        (MemoryError(), "y.png: There is not enough memory."),
        (torch.OutOfMemoryError("CUDA out of memory."), "y.png: There is not enough memory."),
        (PermissionError(errno.EACCES, "Permission denied", "/a"), "y.png: /a: Permission denied."),
        (RuntimeError("a\nb"), "y.png: Internal error: RuntimeError: a."),
        (OSError("12 requested and 0 written"), "OSError: 12 requested and 0 written."),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
def test_image_that_fails_does_not_end_the_prediction_of_others(
    error, message, predict, tmp_path, capsys
):
    assert predict(y=error) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "Predicted x.png (1 of 3)." in lines
    assert "Predicted z.png (3 of 3)." in lines
    assert any(line.startswith("y.png could not be predicted: ") for line in lines)
    shown = _error_in(lines, 1)
    assert shown.startswith("1 of 3 images could not be predicted. y.png")
    assert message in shown.splitlines()[0]
    assert len(shown.splitlines()) == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["x", "z"]


def test_all_images_that_fail_are_counted(predict, capsys):
    assert predict(x=MemoryError(), z=DataError("z.png is damaged.")) == 1
    shown = _error_in(capsys.readouterr().out.splitlines(), 1)
    assert shown.startswith("2 of 3 images could not be predicted. x.png: There is not enough")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_ends_the_prediction(number, predict, tmp_path, capsys):
    with raises_code(UshapeError, "disk_full"):
        predict(y=OSError(number, os.strerror(number), "/a"))
    assert capsys.readouterr().out.splitlines() == ["Predicted x.png (1 of 3)."]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x"]


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of the size of files")
def test_write_that_fails_states_its_cause(tmp_path):
    import resource

    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, former[1]))
    try:
        with pytest.raises(OSError, match="too large") as caught:
            predicting._save(tmp_path / "a.npy", np.zeros(1 << 16, np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert caught.value.errno == errno.EFBIG
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs posix_fallocate")
def test_space_of_a_large_image_is_reserved(tmp_path, monkeypatch):
    def refuse(file, start, size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OSError, match="space"):
        predicting._create_map(tmp_path / "x.npy", np.uint8, (2, 3))
