"""`ushape train` on each form of data folder: one epoch on a few small images."""

import csv
import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from dicoms import save_series

NAMES = ("a", "b", "c", "d", "e")


def draw(index, shape=(32, 32)):
    """An image, and a mask of 0 with one box of 1 and one of 2."""
    rng = np.random.default_rng(index)
    mask = np.zeros(shape, np.uint8)
    for value in (1, 2):
        top, left = rng.integers(1, 8, 2)
        mask[..., 14 * (value - 1) + top :, left : left + 16][..., :8, :] = value
    return (rng.normal(80, 8, shape) + 60 * mask).clip(0, 255).astype(np.uint8), mask


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, photometric="minisblack")
    else:
        Image.fromarray(array).save(path)


def write_parallel(data):
    for index, name in enumerate(NAMES):
        image, mask = draw(index)
        save(data / f"scans/{name}.png", image)
        save(data / f"manual/{name}.png", mask)
    return data, "scans/ next to manual/", {"class 1", "class 2"}


def write_given_splits(data):
    for index, name in enumerate(NAMES):
        image, mask = draw(index)
        part = {"a": "val", "b": "test"}.get(name, "train")
        save(data / part / f"images/{name}.png", image)
        save(data / part / f"masks/{name}.png", mask)
    (data / "classes.txt").write_text("background\nround\nlong\n")
    return (
        data,
        "3 for training, 1 for validation, 1 for test. The dataset defines this split.",
        {"round", "long"},
    )


def write_table(data):
    rows = [["image", "mask", "group", "microscope"]]
    for index, name in enumerate(NAMES * 2):
        image, mask = draw(index)
        save(data / f"{index}.png", image)
        save(data / f"drawn/{index}.png", np.uint8(255) * (mask > 0))
        rows.append([f"{index}.png", f"drawn/{index}.png", f"patient {name}", "M2"])
    with (data / "all.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return data / "all.csv", "Groups: 5, as defined by the dataset (2 images each)", {"foreground"}


def write_nnunet(data):
    for index, name in enumerate(NAMES):
        image, mask = draw(index)
        for channel in range(2):
            save(data / f"imagesTr/{name}_000{channel}.tif", image + np.uint8(channel))
        save(data / f"labelsTr/{name}.tif", mask)
    labels = {"background": 0, "liver": 1, "tumour": 2}
    facts = {"channel_names": {"0": "T1", "1": "T2"}, "labels": labels, "file_ending": ".tif"}
    (data / "dataset.json").write_text(json.dumps(facts))
    return data, "nnU-Net", {"liver", "tumour"}


def write_class_folders(data):
    for index, name in enumerate(NAMES):
        image, mask = draw(index)
        save(data / f"images/{name}.png", image)
        for value, word in ((1, "cat"), (2, "dog")):
            save(data / f"masks/{word}/{name}.png", np.uint8(255) * (mask == value))
    return data, "a folder per class", {"cat", "dog"}


def write_objects(data):
    for index, name in enumerate(NAMES):
        image, mask = draw(index)
        save(data / name / f"images/{name}.png", image)
        for value in (1, 2):
            save(data / name / f"masks/{value}.png", np.uint8(255) * (mask == value))
    return data, "a mask per object", {"foreground"}


def write_volumes(data):
    for index, name in enumerate(NAMES):
        image, mask = draw(index, (4, 32, 32))
        save(data / f"{name}-volume.tif", image)
        save(data / f"{name}-labels.tif", mask)
    return data, "4 × 32 × 32 pixels", {"class 1", "class 2"}


def write_coco(data):
    annotations = []
    for index, name in enumerate(NAMES):
        image, mask = draw(index)
        save(data / f"images/{name}.jpg", image)
        for value in (1, 2):
            rows, columns = np.nonzero(mask == value)
            y, x = (
                (int(rows.min()), int(rows.max()) + 1),
                (int(columns.min()), int(columns.max()) + 1),
            )
            box = [x[0], y[0], x[1], y[0], x[1], y[1], x[0], y[1]]
            annotations.append({"image_id": index, "category_id": value, "segmentation": [box]})
    content = {
        "images": [
            {"id": index, "file_name": f"{name}.jpg", "height": 32, "width": 32}
            for index, name in enumerate(NAMES)
        ],
        "annotations": annotations,
        "categories": [{"id": 2, "name": "boat"}, {"id": 1, "name": "buoy"}],
    }
    (data / "labels.json").write_text(json.dumps(content))
    return data, "COCO annotations in labels.json", {"boat", "buoy"}


@pytest.mark.parametrize(
    "write",
    [
        write_parallel,
        write_given_splits,
        write_table,
        write_nnunet,
        write_class_folders,
        write_objects,
        write_volumes,
        write_coco,
    ],
)
def test_a_network_is_trained(write, ushape, tmp_path):
    (tmp_path / "data").mkdir()
    data, said, classes = write(tmp_path / "data")
    checked = ushape("check", data, "-o", tmp_path / "checked", "--json")
    assert checked.code == 0, checked.output
    assert json.loads(checked.output)["pairs"] == (10 if write is write_table else 5)
    patch = "[4,16,16]" if write is write_volumes else "[16,16]"
    ended = ushape(
        "train",
        data,
        "-o",
        tmp_path / "run",
        "--epochs=1",
        "--device=cpu",
        "--set=network.widths=[2,4]",
        f"--set=sampling.patch_shape={patch}",
        "--set=train.batch_size=2",
        "--set=train.steps_per_epoch=2",
    )
    assert ended.code == 0, ended.error
    assert said in ended.output
    rows = list(csv.DictReader((tmp_path / "run" / "scores.csv").read_text().splitlines()))
    assert {row["class"] for row in rows} == classes
    splits = json.loads((tmp_path / "run" / "splits.json").read_text())
    assert {row["case"] for row in rows} == set(splits["test"])


def test_volumes_of_a_scanner_come_back_on_their_grid(ushape, tmp_path):
    itk = pytest.importorskip("SimpleITK")
    rng = np.random.default_rng(0)
    for index in range(5):
        volume = rng.normal(100, 10, (8, 24, 20)).astype(np.float32)
        mask = np.zeros(volume.shape, np.uint8)
        mask[2:6, 8:16, 6:14] = 1
        for part, array in (("images", volume + 60 * mask), ("labels", mask)):
            (tmp_path / "data" / part).mkdir(parents=True, exist_ok=True)
            image = itk.GetImageFromArray(array)
            image.SetSpacing((0.8, 0.7, 3.0))
            image.SetOrigin((5, 6, 7))
            itk.WriteImage(image, str(tmp_path / "data" / part / f"p{index}.nii.gz"))
    run, out = tmp_path / "run", tmp_path / "out"
    ended = ushape(
        *("train", tmp_path / "data", "-o", run, "--epochs=1", "--set=network.widths=[2,4]"),
        *("--set=train.steps_per_epoch=2", "--set=train.batch_size=1", "--device=cpu"),
    )
    assert ended.code == 0, ended.error
    images = tmp_path / "data" / "images"
    ended = ushape("predict", run, images, "-o", out, "--overlay", "--probabilities=npz")
    assert ended.code == 0, ended.error
    names = {path.name for path in out.iterdir() if path.name.startswith("p0")}
    assert names == {"p0.nii.gz", "p0_overlay.png", "p0.npz"}
    found = itk.ReadImage(str(out / "p0.nii.gz"))
    assert found.GetSize() == (20, 24, 8)
    np.testing.assert_allclose(found.GetSpacing(), (0.8, 0.7, 3.0), atol=1e-6)
    np.testing.assert_allclose(found.GetOrigin(), (5, 6, 7), atol=1e-6)


def test_regions_are_learned_scored_and_painted(ushape, tmp_path):
    data, _, _ = write_nnunet(tmp_path / "data")
    facts = json.loads((data / "dataset.json").read_text())
    facts["labels"] = {"background": 0, "whole": [1, 2], "core": [2]}
    (data / "dataset.json").write_text(json.dumps(facts))
    run = tmp_path / "run"
    ended = ushape(
        *("train", data, "-o", run, "--epochs=1", "--set=network.widths=[2,4]", "--device=cpu"),
        *("--set=sampling.patch_shape=[16,16]", "--set=train.steps_per_epoch=2"),
    )
    assert ended.code == 0, ended.error
    rows = list(csv.DictReader((run / "scores.csv").read_text().splitlines()))
    assert {row["class"] for row in rows} == {"whole", "core"}
    by_class = {row["class"]: int(row["truth_px"]) for row in rows[:2]}
    assert by_class["whole"] > by_class["core"] > 0
    assert "whole: The mean Dice on" in ended.output


def test_scans_in_folders_of_slices_are_learned_and_come_back(ushape, tmp_path):
    itk = pytest.importorskip("SimpleITK")
    for index in range(3):
        slices = np.random.default_rng(index).integers(0, 4000, (8, 6, 8), dtype=np.uint16)
        folder, patient = tmp_path / f"p{index}", f"patient {index}"
        save_series(folder, places=range(8), slices=slices, PatientID=patient)
        mask = np.zeros((8, 6, 8), np.uint8)
        mask[2:6, 1:4, 1:5] = 1
        tifffile.imwrite(tmp_path / f"p{index}_mask.tif", mask)
    run, out = tmp_path / "run", tmp_path / "out"
    ended = ushape(
        *("train", tmp_path, "-o", run, "--epochs=1", "--set=network.widths=[2,4]"),
        *("--set=train.steps_per_epoch=2", "--set=train.batch_size=1", "--device=cpu"),
    )
    assert ended.code == 0, ended.error
    assert "3, by the PatientID" in ended.output
    ended = ushape("predict", run, tmp_path / "p1", "-o", out)
    assert ended.code == 0, ended.error
    (written,) = out.glob("p1*")
    assert itk.ReadImage(str(written)).GetSize() == (8, 6, 8)


def test_object_ids_are_learned_as_foreground(ushape, tmp_path):
    for index, name in enumerate(NAMES):
        image, mask = draw(index)
        ids = np.where(mask > 0, 1 + np.arange(32 * 32).reshape(32, 32) // 4, 0)
        save(tmp_path / f"images/{name}.png", image)
        save(tmp_path / f"masks/{name}.png", ids.astype(np.uint16))
    tiny = ("--set=network.widths=[2,4]", "--set=train.steps_per_epoch=2")
    train = ("train", tmp_path, "-o", tmp_path / "run", "--epochs=1", "--device=cpu")
    ended = ushape(*train, *tiny)
    assert ended.code == 0, ended.error
    assert "labels.instances=true" in ended.output
