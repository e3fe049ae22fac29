"""`ushape predict` and `ushape.load` as users run them: outputs, restarts, bands, ensembles."""

import csv
import hashlib
import json
import os
import random
import shutil
import sys
import threading
import time
import weakref

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from scipy import ndimage

import ushape as package
from codes import edit_sealed_json
from commands import start_command
from submissions import decode_runs, read_submission
from ushape import io
from ushape.api import predict
from ushape.errors import ConfigError, DataError, PlanError, RunError
from ushape.inference import ensemble
from ushape.inference.backends import installed
from ushape.instances.label import label_objects
from ushape.io import ome_zarr
from ushape.transforms import morphology
from ushape.types import MaskEncoding

EVERYTHING = ("--overlay", "--instances", "--table", "--uncertainty", "--probabilities=tif")


def visible(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")


def digest(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in visible(folder)
    }


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def other(cells, tiny, tmp_path_factory, ushape):
    """A second run on the cells."""
    run = tmp_path_factory.mktemp("runs") / "other"
    assert ushape("train", cells, "-o", run, "--epochs", 2, "--seed", 5, *tiny).code == 0
    return run


def test_everything_beside_the_mask_agrees_with_it(trained, cells, ushape, tmp_path):
    roifile = pytest.importorskip("roifile")
    out = tmp_path / "out"
    images = sorted((cells / "images").iterdir())[:2]
    ended = ushape("predict", trained, *images, "-o", out, *EVERYTHING, "--contours=geojson")
    assert ended.code == 0, ended.error
    name = images[0].stem
    mask = np.asarray(Image.open(out / f"{name}.png"))
    labels = tifffile.imread(out / f"{name}_instances.tif")
    assert ((labels > 0) == (mask == 255)).all()
    objects = rows_of(out / f"{name}_objects.csv")
    assert [int(row["area_px"]) for row in objects] == np.bincount(labels.ravel())[1:].tolist()
    features = json.loads((out / f"{name}.geojson").read_text())["features"]
    assert [int(feature["properties"]["name"]) for feature in features] == [
        int(row["id"]) for row in objects
    ]
    probabilities = tifffile.imread(out / f"{name}_probabilities.tif").squeeze()
    hesitating = np.asarray(Image.open(out / f"{name}_uncertainty.png"))
    assert (
        np.corrcoef(np.abs(probabilities.astype(int) - 128).ravel(), hesitating.ravel())[0, 1] < 0
    )
    all_images = rows_of(out / "images.csv")
    assert [row["image"] for row in all_images] == [path.name for path in images]
    assert int(all_images[0]["area_px"]) == (mask == 255).sum()
    assert 0 <= float(all_images[0]["confidence"]) <= 1

    ended = ushape("predict", trained, images[0], "-o", tmp_path / "rois", "--contours=imagej")
    assert ended.code == 0, ended.error
    rois = roifile.roiread(tmp_path / "rois" / f"{name}_rois.zip")
    assert len({roi.name.split("_")[0] for roi in rois}) >= 1


def test_a_repeat_of_a_finished_folder_repairs_what_has_changed(
    trained, cells, ushape, tmp_path, monkeypatch
):
    images, out = tmp_path / "images", tmp_path / "masks"
    paths = [images / name for name in ("a.png", "b.png", "plate/a.png", "plate/c.png")]
    (images / "plate").mkdir(parents=True)
    for source, path in zip(sorted((cells / "images").iterdir()), paths, strict=False):
        shutil.copy(source, path)
    call = ["predict", trained, images, "-o", out]
    assert ushape(*call).code == 0
    expected, log = digest(out), out / ".ushape-predict.jsonl"
    assert len(expected) == 4

    def repeat(skipped):
        ended = ushape(*call)
        assert ended.code == 0, ended.error
        assert f"Skipping {skipped} images" in ended.output
        assert "4 masks" in ended.output
        assert digest(out) == expected

    repeat(4)
    (out / "plate/c.png").unlink()
    repeat(3)
    (out / "a.png").write_bytes((out / "a.png").read_bytes()[:20])
    log.write_bytes(log.read_bytes().replace(b'"image": "a.png"', b'"image": "?.png"'))
    ended = ushape(*call)
    assert ended.code != 0, "a file that no line of the log explains is not replaced"
    (out / "a.png").unlink()
    repeat(3)
    lines = log.read_bytes().splitlines(keepends=True)
    last = max(number for number, line in enumerate(lines) if b'"image": "b.png"' in line)
    lines[last] = lines[last][:60] + b"\0" * (len(lines[last]) - 61) + b"\n"
    log.write_bytes(b"".join(lines))
    repeat(3)
    shutil.copy(paths[0], paths[1])
    ended = ushape(*call)
    assert ended.code == 0, ended.error
    assert digest(out) == {**expected, "b.png": expected["a.png"]}

    # Nothing is listed image by image if there is nothing to do, and the order is the same.
    monkeypatch.setattr(predict, "find_images", None)
    masks = package.predict(trained, images, output=out, quiet=True)
    assert masks == [out / path.relative_to(images) for path in paths]
    with pytest.raises(TypeError):
        package.predict(trained, images, output=out, verify=True, quiet=True)


def test_killed_at_any_moment_the_same_call_ends_with_the_same_bytes(
    trained, cells, ushape, tmp_path
):
    call = ["predict", str(trained), str(cells / "images"), "-o"]
    assert ushape(*call, tmp_path / "straight", *EVERYTHING).code == 0
    expected, out = digest(tmp_path / "straight"), tmp_path / "out"
    rng = random.Random(0)
    said, failed = tmp_path / "said", tmp_path / "failed"
    for _ in range(20):
        process = start_command([*call, str(out), *EVERYTHING], said, failed)
        process.join(rng.uniform(0.05, 1.5))
        process.kill()
        process.join()
        # Whatever is there by its name is whole.
        for name, own in digest(out).items() if out.exists() else ():
            assert expected[name] == own, name
        if rng.random() < 0.2:
            shutil.rmtree(out, ignore_errors=True)
    ended = ushape(*call, out, *EVERYTHING)
    assert ended.code == 0, ended.error
    assert digest(out) == expected


def test_finished_images_are_kept_and_foreign_files_are_not_replaced(
    trained, cells, ushape, tmp_path
):
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(cells / "images", data)
    assert ushape("predict", trained, data, "-o", out).code == 0
    first, second = sorted(out.glob("*.png"))[:2]
    written = first.stat().st_mtime_ns
    shutil.copy(min(data.iterdir()), data / "new.png")
    ended = ushape("predict", trained, data, "-o", out)
    assert ended.code == 0, ended.error
    assert "8 images finished by an earlier call" in ended.output
    assert "9 masks" in ended.output
    assert first.stat().st_mtime_ns == written
    first.write_bytes(b"mine")
    assert ushape("predict", trained, data, "-o", out).code == 2
    assert first.read_bytes() == b"mine"
    (out / "other.png").write_bytes(b"mine as well")
    shutil.copy(min(data.iterdir()), data / "other.png")
    first.unlink()
    assert ushape("predict", trained, data, "-o", out).code == 2
    assert (out / "other.png").read_bytes() == b"mine as well"
    assert ushape("predict", trained, data, "-o", out, "--set=predict.tta=all_8").code == 2
    assert second.exists()
    assert ushape("predict", trained, data, "-o", out, "--overwrite").code == 0
    assert (out / "other.png").read_bytes() != b"mine as well"


def test_another_image_of_the_same_name_is_never_taken_for_finished(
    trained, cells, ushape, tmp_path
):
    images, out = sorted((cells / "images").iterdir()), tmp_path / "out"
    for folder, image in (("one", images[0]), ("two", images[5])):
        (tmp_path / folder).mkdir()
        shutil.copy(image, tmp_path / folder / "x.png")
    assert ushape("predict", trained, tmp_path / "one", "-o", out).code == 0
    before = (out / "x.png").read_bytes()
    ended = ushape("predict", trained, tmp_path / "two", "-o", out)
    assert ended.code == 2
    assert "exists" in ended.error
    assert (out / "x.png").read_bytes() == before
    # The same file with other pixels: its mask is made anew.
    shutil.copy(images[5], tmp_path / "one" / "x.png")
    assert ushape("predict", trained, tmp_path / "one", "-o", out).code == 0
    assert (out / "x.png").read_bytes() != before


def test_what_validation_chose_counts_in_an_ensemble(trained, cells, tmp_path):
    image, runs = min((cells / "images").iterdir()), []
    for threshold in (0.9, 0.7):
        runs.append(tmp_path / f"{threshold}")
        shutil.copytree(trained, runs[-1])
        rule = {"classes": {"foreground": {"threshold": threshold}}}
        edit_sealed_json(runs[-1] / "decision.json", rule=rule)
    result = package.load(runs).predict(image)
    assert ((result.probabilities[0] >= 0.8) == result.classes).all()
    for content in (
        "[]",
        "{",
        '{"calibrations": [{"confidence": [0.5], "dice": []}]}',
        '{"rule": {"classes": {"foreground": {"treshold": 0.3}}}}',
    ):
        (runs[0] / "decision.json").write_text(content)
        with pytest.raises(RunError) as caught:
            package.load(runs[0])
        assert caught.value.code == "damaged_run_file"


def test_one_bad_image_leaves_the_table_of_the_others(trained, cells, ushape, tmp_path):
    shutil.copytree(cells / "images", tmp_path / "in")
    (tmp_path / "in" / "bad.png").write_bytes(b"no image")
    call = ("predict", trained, tmp_path / "in", "-o", tmp_path / "out", "--table")
    ended = ushape(*call, f"--rle={tmp_path}/x.csv")
    assert ended.code == 2
    assert ended.error_code == "images_failed"
    assert len({row["image"] for row in rows_of(tmp_path / "out" / "images.csv")}) == 8
    (tmp_path / "in" / "bad.png").unlink()
    assert ushape(*call, f"--rle={tmp_path}/x.csv").code == 0
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 9


def test_a_table_of_somebody_else_is_not_replaced(trained, cells, ushape, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "images.csv").write_text("mine")
    ended = ushape("predict", trained, cells / "images", "-o", tmp_path / "out", "--table")
    assert ended.code == 2
    assert (tmp_path / "out" / "images.csv").read_text() == "mine"


def test_two_processes_on_one_folder(trained, cells, ushape, tmp_path):
    call = ["predict", str(trained), str(cells / "images"), "-o"]
    assert ushape(*call, tmp_path / "straight").code == 0
    both = [
        start_command([*call, str(tmp_path / "out")], tmp_path / f"{n}", tmp_path / f"e{n}")
        for n in range(2)
    ]
    for process in both:
        process.join(120)
    # The second is refused while the first writes, and finds everything finished afterwards.
    codes = [process.exitcode for process in both]
    assert sorted(codes) in ([0, 0], [0, 2]), codes
    for n, code in enumerate(codes):
        if code == 2:
            assert "out is in use by" in (tmp_path / f"e{n}").read_text()
    assert digest(tmp_path / "out") == digest(tmp_path / "straight")
    assert ushape(*call, tmp_path / "out").code == 0


def test_an_image_larger_than_memory_is_predicted_in_bands(trained, cells, monkeypatch, tmp_path):
    gray = np.asarray(Image.open(min((cells / "images").iterdir())))
    large = np.tile(gray, (5, 3))
    tifffile.imwrite(tmp_path / "x.tif", large, tile=(32, 32), resolution=(10000, 10000))
    settings = ["predict.tile_shape=[64,64]"]
    package.predict(trained, tmp_path / "x.tif", output=tmp_path / "whole", settings=settings)
    monkeypatch.setattr(predict, "IN_MEMORY_BYTES", 1)
    out = tmp_path / "bands"
    call = {"output": out, "settings": settings, "probabilities": "zarr", "instances": True}
    (mask,) = package.predict(trained, tmp_path / "x.tif", **call)
    assert mask.name == "x.tif"
    found = tifffile.imread(mask)
    numbers = tifffile.imread(out / "x_instances.tif")
    np.testing.assert_array_equal(numbers, label_objects((found > 0).astype(np.uint8)).labels)
    whole = np.asarray(Image.open(tmp_path / "whole" / "x.png"))
    assert found.shape == whole.shape == large.shape
    assert (found != whole).mean() < 0.001
    assert (out / "x_probabilities.zarr").is_dir()
    # The same call again finds it finished.
    monkeypatch.setattr(predict.PredictionWriter, "write_streamed", None)
    assert package.predict(trained, tmp_path / "x.tif", **call) == [mask]
    monkeypatch.undo()
    monkeypatch.setattr(predict, "MAX_IN_MEMORY_BYTES", 1)
    with pytest.raises(DataError, match="too large for overlay") as error:
        package.predict(trained, tmp_path / "x.tif", output=tmp_path / "no", overlay=True)
    assert error.value.code == "images_failed"


OPENED = []
"""Paths that were opened while `openings` counts; a hook cannot be removed."""

sys.addaudithook(lambda event, details: OPENED.append(details[0]) if event == "open" else None)


def openings(path, call):
    """Return how often a call opens a file."""
    OPENED.clear()
    call()
    return [str(opened) for opened in OPENED].count(str(path))


@pytest.mark.parametrize(("name", "headers"), [("x.png", 1), ("x.tif", 2), ("x.nii.gz", 5)])
def test_an_image_is_opened_once_beside_its_headers(name, headers, trained, other, cells, tmp_path):
    """The pixels are read once, whatever is written.

    Before that, the first bytes of each file show whether its suffix is wrong, and the pages of a
    TIFF are counted, because each page of a stack has an output of its own. The beginning and the
    end of a packed NIfTI show whether it is complete; ITK then opens it unseen by the hook.
    """
    gray = np.asarray(Image.open(min((cells / "images").iterdir())))
    path = tmp_path / name
    if name.endswith(".nii.gz"):
        itk = pytest.importorskip("SimpleITK")
        itk.WriteImage(itk.GetImageFromArray(gray[None]), str(path))
    else:
        io.write_mask(path, gray, MaskEncoding())
    everything = {
        "overlay": True,
        "table": True,
        "instances": True,
        "uncertainty": True,
        "contours": "geojson",
        "probabilities": "tif",
        "rle": tmp_path / "x.csv",
    }
    out = tmp_path / "out"
    runs, unseen = [trained, other], name.endswith(".nii.gz")
    found = openings(path, lambda: package.predict(runs, path, output=out, **everything))
    assert found == headers + (0 if unseen else 1)
    assert (out / "x_overlay.png").exists()


def test_an_image_larger_than_memory_is_opened_once_beside_its_headers(
    trained, cells, monkeypatch, tmp_path
):
    """The first bytes are read and the pages are counted before the file is opened for pixels."""
    gray = np.asarray(Image.open(min((cells / "images").iterdir())))
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, np.tile(gray, (5, 3)).astype(np.float32), tile=(32, 32))
    monkeypatch.setattr(predict, "IN_MEMORY_BYTES", 1)
    out = tmp_path / "out"
    call = {"output": out, "probabilities": "tif", "rle": tmp_path / "x.csv"}
    assert openings(path, lambda: package.predict(trained, path, **call)) == 3
    assert (out / "x.tif").exists()


@pytest.mark.parametrize("version", [2, 3])
def test_labels_of_ome_zarr_are_equal_in_memory_and_in_bands(
    trained, cells, ushape, version, monkeypatch, tmp_path
):
    gray = np.tile(np.asarray(Image.open(min((cells / "images").iterdir()))), (2, 2))
    path = tmp_path / "x.zarr"
    group = zarr.open_group(str(path), mode="w", zarr_format=version)
    names = {"dimension_names": ["y", "x"]} if version == 3 else {}
    group.create_array("0", data=gray, chunks=(32, 32), **names)
    axes = [{"name": name, "type": "space"} for name in "yx"]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [0.5, 0.5]}]}
    image = {"axes": axes, "datasets": [level]}
    if version == 3:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    else:
        group.attrs["multiscales"] = [{"version": "0.4", **image}]
    words = ("predict", trained, path, "--zarr-labels", "--set", "predict.tile_shape=[64,64]")
    ended = ushape(*words, "-o", tmp_path / "whole", "--instances")
    assert ended.code == 0, ended.error
    labels = path / "labels"
    whole = {one.name: ome_zarr.read(one).array[0] for one in labels.glob("ushape_*")}
    numbers = tifffile.imread(tmp_path / "whole" / "x_instances.tif")
    np.testing.assert_array_equal(whole["ushape_objects"], numbers)
    np.testing.assert_array_equal(whole["ushape_classes"] > 0, numbers > 0)
    again = ushape(*words, "-o", tmp_path / "whole", "--instances")
    assert "finished by an earlier call" in again.output
    assert ushape(*words, "-o", tmp_path / "other").code == 2  # They belong to the first call.
    monkeypatch.setattr(predict, "IN_MEMORY_BYTES", 1)
    settings = ["predict.tile_shape=[64,64]"]
    call = {"output": tmp_path / "bands", "zarr_labels": True, "settings": settings}
    package.predict(trained, path, overwrite=True, **call)
    for name, expected in whole.items():
        np.testing.assert_array_equal(ome_zarr.read(labels / name).array[0], expected)
    # Those of a call that was interrupted before it was complete are written again.
    log = tmp_path / "bands" / ".ushape-predict.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    shutil.rmtree(labels / "ushape_objects")
    package.predict(trained, path, **call)
    np.testing.assert_array_equal(ome_zarr.read(labels / "ushape_objects").array[0], numbers)


def test_several_runs_are_averaged(trained, other, cells, ushape, tmp_path):
    image = min((cells / "images").iterdir())
    one, two = (package.load(run).predict(image).probabilities for run in (trained, other))
    both = package.load([trained, other]).predict(image).probabilities
    np.testing.assert_allclose(both, (one + two) / 2, atol=1e-5)
    out = tmp_path / "out"
    ended = ushape("predict", trained, image, "-o", out, "--with", other, "--uncertainty")
    assert ended.code == 0, ended.error
    alone = tmp_path / "alone"
    assert ushape("predict", trained, image, "-o", alone, "--uncertainty").code == 0
    name = f"{image.stem}_uncertainty.png"
    assert (out / name).read_bytes() != (alone / name).read_bytes()


def test_a_model_in_python(trained, cells, ushape, tmp_path):
    images = sorted((cells / "images").iterdir())
    model = package.load(trained)
    assert model.class_names == ("background", "foreground")
    array = np.asarray(Image.open(images[0]))
    by_file, by_array = model.predict(images[0]), model.predict(array)
    assert (by_file.mask == by_array.mask).all()
    assert (model.predict(array[..., None]).mask == by_file.mask).all()
    by_file.save(tmp_path / "mine.png")
    with pytest.raises(RunError) as error:
        by_file.save(tmp_path / "mine.png")
    assert error.value.code == "output_exists"
    with pytest.raises(RunError) as error:
        by_file.save(images[0], overwrite=True)
    assert error.value.code == "output_is_input"
    assert ushape("predict", trained, images[0], "-o", tmp_path / "out").code == 0
    written = np.asarray(Image.open(tmp_path / "out" / images[0].name))
    assert (np.asarray(Image.open(tmp_path / "mine.png")) == written).all()
    many = list(model.predict_many(cells / "images"))
    assert [result.image for result in many] == images
    assert (many[0].mask == by_file.mask).all()
    with pytest.raises(DataError) as error:
        model.predict(np.zeros((3, 8, 8)))
    assert error.value.code == "array_shape_mismatch"
    for strange in (None, [1, 2], array[:0], array.astype(complex)):
        with pytest.raises(DataError):
            model.predict(strange)


def test_threads_share_a_model(trained, cells):
    images = sorted((cells / "images").iterdir())
    model = package.load(trained)
    expected = [model.predict(image).mask for image in images]
    found = {}
    threads = [
        threading.Thread(
            target=lambda n: found.update({n: model.predict(images[n]).mask}), args=[n]
        )
        for n in range(len(images))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((found[n] == mask).all() for n, mask in enumerate(expected))


def test_strict_stops_at_the_first_bad_image(trained, cells, ushape, tmp_path):
    shutil.copytree(cells / "images", tmp_path / "in")
    (tmp_path / "in" / "aaa.png").write_bytes(b"no image")
    ended = ushape("predict", trained, tmp_path / "in", "-o", tmp_path / "out", "--strict")
    assert ended.code == 2
    assert "aaa.png" in ended.error
    assert len(list((tmp_path / "out").glob("*.png"))) < 8
    ended = ushape("predict", trained, tmp_path / "in", "-o", tmp_path / "rest")
    assert ended.code == 2
    assert len(list((tmp_path / "rest").glob("*.png"))) == 8


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"settings": ["train.epochs=3"]}, "not_a_prediction_setting"),
        ({"backend": "abacus"}, "unknown_backend"),
        ({"settings": ["predict.averag=none"]}, None),
        ({"probabilities": "jpg"}, "unknown_output_format"),
        ({"contours": "svg"}, "unknown_output_format"),
        ({"probability_type": "float16"}, "probabilities_not_requested"),
        ({"probabilities": "tif", "probability_type": "int4"}, "unknown_output_format"),
    ],
)
def test_impossible_options_are_refused(trained, cells, tmp_path, options, code):
    with pytest.raises((ConfigError, PlanError)) as caught:
        package.predict(trained, cells / "images", output=tmp_path / "out", **options)
    assert code in (caught.value.code, None)


def test_a_full_disk_leaves_no_half_file(trained, cells, ushape, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size=64k tmpfs {small} 2>/dev/null"):
        pytest.skip("mounting a small folder needs a privileged user")
    try:
        call = ("predict", trained, cells / "images", "-o", small / "out")
        ended = ushape(*call, "--probabilities=npz")
        assert ended.code not in (0, None)
        assert "Traceback" not in ended.error
        assert "No space left" in ended.error
        for path in visible(small):
            if path.suffix == ".png":
                Image.open(path).load()
    finally:
        time.sleep(0.1)
        os.system(f"umount {small}")


def test_the_fastest_backend_is_measured_once_and_says_what_it_changes(
    trained, cells, tmp_path, capsys
):
    if "openvino-int8" not in installed():  # Importing it would report the use to a web service.
        pytest.skip("openvino and nncf are not installed")
    run, image = tmp_path / "run", min((cells / "images").iterdir())
    shutil.copytree(trained, run)
    package.predict(run, image, output=tmp_path / "auto", backend="auto")
    said = capsys.readouterr().out
    choice = json.loads((run / "backends" / "choice.json").read_text())
    names = {measured["name"] for measured in choice["measured"]}
    assert {"torch", "onnx", "openvino", "openvino-int8"} <= names
    assert f"Backend {choice['chosen']} is the fastest of" in said
    for measured in choice["measured"]:
        if measured["name"] == "onnx":  # Computed in float32, as the reference.
            assert measured["difference"]["largest_probability"] < 1e-4
        is_int8 = measured["name"].endswith("int8")
        assert (measured["lost_dice"] is not None) == is_int8
    stored = (run / "backends" / "choice.json").stat().st_mtime_ns
    package.load(run, backend="auto").predict(image)
    assert (run / "backends" / "choice.json").stat().st_mtime_ns == stored
    # Without the training data there is nothing to calibrate on, and int8 is not taken.
    (run / "backends" / "choice.json").unlink()
    cases = json.loads((run / "cases.json").read_text())
    (run / "cases.json").write_text(json.dumps({**cases, "folder": str(tmp_path / "gone")}))
    package.load(run, backend="auto")
    choice = json.loads((run / "backends" / "choice.json").read_text())
    assert not choice["chosen"].endswith("int8")


def test_an_ensemble_in_bands_with_run_lengths_and_half_precision(
    trained, other, cells, monkeypatch, tmp_path
):
    gray = np.asarray(Image.open(min((cells / "images").iterdir())))
    large = np.tile(gray, (5, 3))
    tifffile.imwrite(tmp_path / "x.tif", large, tile=(32, 32))
    wishes = {
        "settings": ["predict.tile_shape=[64,64]", "predict.tune=false"],
        "probabilities": "tif",
        "probability_type": "float16",
    }
    runs, out = [trained, other], tmp_path / "bands"
    package.predict(
        runs, tmp_path / "x.tif", output=tmp_path / "whole", rle=tmp_path / "whole.csv", **wishes
    )
    monkeypatch.setattr(predict, "IN_MEMORY_BYTES", 1)
    (mask,) = package.predict(
        runs, tmp_path / "x.tif", output=out, rle=tmp_path / "bands.csv", **wishes
    )
    found, expected = (
        tifffile.imread(folder / "x_probabilities.tif").squeeze()
        for folder in (out, tmp_path / "whole")
    )
    assert found.dtype == expected.dtype == np.float16
    np.testing.assert_allclose(found, expected, atol=2e-3)
    # The run lengths are those of the mask that was written.
    ((name, runs_text),) = read_submission(tmp_path / "bands.csv")
    assert name == "x.tif"
    written = tifffile.imread(mask)
    assert (decode_runs(runs_text, written.shape) == (written > 0)).all()
    assert len(list(read_submission(tmp_path / "whole.csv"))) == 1
    # Without a folder only run lengths are written.
    assert package.predict(runs, tmp_path / "x.tif", rle=tmp_path / "only.csv") == []
    assert (tmp_path / "only.csv").read_text().startswith("img,rle_mask\nx.tif,")


def test_where_memory_is_short_one_network_of_an_ensemble_is_in_memory(
    trained, other, cells, monkeypatch
):
    image = min((cells / "images").iterdir())
    expected = package.load([trained, other]).predict(image).probabilities
    monkeypatch.setattr(ensemble, "WEIGHTS_SHARE", 0)
    alive, most, opens = [], [], ensemble.open_backend

    def watched(*arguments, **options):
        opened = opens(*arguments, **options)
        alive.append(weakref.ref(opened))
        most.append(sum(one() is not None for one in alive))
        return opened

    monkeypatch.setattr(ensemble, "open_backend", watched)
    model = package.load([trained, other])
    for _ in range(2):
        np.testing.assert_array_equal(model.predict(image).probabilities, expected)
    assert most == [1, 1, 1, 1]


def test_missing_pixels_are_said(trained, cells, ushape, tmp_path):
    gray = np.asarray(Image.open(min((cells / "images").iterdir()))).astype(np.float32)
    tifffile.imwrite(tmp_path / "good.tif", gray)
    gray[3, 4] = np.nan
    tifffile.imwrite(tmp_path / "gaps.tif", gray)
    ended = ushape("predict", trained, tmp_path, "-o", tmp_path / "out")
    assert ended.code == 0, ended.error
    assert "extreme values in 1 image" in ended.output
    assert "gaps.tif" in ended.output
    assert "good.tif" not in ended.output
    assert package.load(trained).predict(tmp_path / "gaps.tif").mask.shape == gray.shape


def test_linked_folders_are_followed_once(trained, cells, ushape, tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "linked").symlink_to(cells / "images")
    (tmp_path / "in" / "deep" / "back").symlink_to(tmp_path / "in")
    ended = ushape("predict", trained, tmp_path / "in", "-o", tmp_path / "out")
    assert ended.code == 0, ended.error
    assert len(list((tmp_path / "out" / "linked").glob("*.png"))) == 8
    assert not (tmp_path / "out" / "deep").exists()


def test_the_bad_images_of_many_are_told_one_by_one(trained, cells, tmp_path):
    shutil.copytree(cells / "images", tmp_path / "in")
    (tmp_path / "in" / "aaa.png").write_bytes(b"no image")
    model, bad = package.load(trained), []
    found = list(
        model.predict_many(tmp_path / "in", on_error=lambda path, _: bad.append(path.name))
    )
    assert (len(found), bad) == (8, ["aaa.png"])
    with pytest.raises(DataError, match=r"aaa\.png"):
        list(model.predict_many(tmp_path / "in"))


def test_an_image_in_bands_is_cleaned_as_a_whole(trained, cells, monkeypatch, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    cleaning = {"min_size_px": 40, "max_hole_size_px": 30}
    image = min((cells / "images").iterdir())
    middle = float(np.quantile(package.load(run).predict(image).probabilities, 0.6))
    rule = {"classes": {"foreground": {"threshold": middle, "cleaning": cleaning}}}
    edit_sealed_json(run / "decision.json", rule=rule)
    gray = np.asarray(Image.open(image))
    tifffile.imwrite(tmp_path / "x.tif", np.tile(gray, (5, 3)), tile=(32, 32))
    wishes = {"settings": ["predict.tile_shape=[64,64]"]}
    package.predict(run, tmp_path / "x.tif", output=tmp_path / "whole", **wishes)
    monkeypatch.setattr(predict, "IN_MEMORY_BYTES", 1)
    monkeypatch.setattr(morphology, "BAND_PX", 1000)
    bands = tmp_path / "bands"
    (mask,) = package.predict(
        run, tmp_path / "x.tif", output=bands, rle=tmp_path / "x.csv", **wishes
    )
    found = tifffile.imread(mask)
    whole = np.asarray(Image.open(tmp_path / "whole" / "x.png"))
    assert (found != whole).mean() < 0.001
    parts = np.bincount(ndimage.label(found, np.ones((3, 3)))[0].ravel())[1:]
    assert len(parts) > 0
    assert parts.min() >= 40
    ((_, runs_text),) = read_submission(tmp_path / "x.csv")
    assert (decode_runs(runs_text, found.shape) == (found > 0)).all()
    assert visible(bands) == [mask]  # Nothing else is left.


def test_a_table_of_all_images_grows_and_own_masks_are_no_images(trained, cells, ushape, tmp_path):
    images = sorted((cells / "images").iterdir())
    out = tmp_path / "out"
    assert ushape("predict", trained, images[0], "-o", out, "--table").code == 0
    assert ushape("predict", trained, images[1], "-o", out, "--table").code == 0
    assert {row["image"] for row in rows_of(out / "images.csv")} == {p.name for p in images[:2]}
    data = shutil.copytree(cells / "images", tmp_path / "data")
    for _ in range(2):
        ended = ushape("predict", trained, data, "-o", data / "masks")
        assert ended.code == 0, ended.error
        assert "8 masks" in ended.output
    assert not (data / "masks" / "masks").exists()


def test_numbers_of_another_type_are_written_anew(trained, cells, ushape, tmp_path):
    call = ("predict", trained, min((cells / "images").iterdir()), "-o", tmp_path)
    assert ushape(*call, "--probabilities=npz", "--probability-type=float16").code == 0
    ended = ushape(*call, "--probabilities=npz", "--probability-type=float32")
    assert ended.code == 2
    assert "exists" in ended.error
