"""`ushape export --to standalone`: the folder predicts as ushape does, without PyTorch."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from ushape import io
from ushape.datasets.synthetic import SyntheticConfig, make_cells
from ushape.types import MaskEncoding

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"

SIZES = [
    (1, 1), (3, 50), (31, 33), (64, 64), (65, 64), (64, 67), (97, 41), (128, 128), (130, 77),
    (200, 31), (31, 300), (211, 195), (64, 64), (64, 64), (99, 99), (255, 256), (40, 40),
    (12, 90), (333, 47), (170, 170),
]  # fmt: skip
"""Sizes of the 20 images that are predicted; several are larger than a tile, some are equal."""


@pytest.fixture(scope="session")
def python(tmp_path_factory):
    """The interpreter of a new environment with the packages of a standalone folder only."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    found = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    packages = ["numpy", "onnxruntime", "pillow"]
    install = [found, "-m", "pip", "install", "-q", "-c", CONSTRAINTS, *packages]
    subprocess.run(install, check=True, capture_output=True)
    listed = "import importlib.util as own; print([own.find_spec(name) for name in {}])"
    absent = ["torch", "scipy", "skimage", "tifffile", "ushape"]
    printed = subprocess.run(
        [found, "-E", "-c", listed.format(absent)], check=True, capture_output=True, text=True
    )
    assert printed.stdout.strip() == str([None] * len(absent))
    return found


def cell_image(size, seed, *, in_color):
    """Return an image of cells of any size, and its mask 0/255."""
    side = max(64, *size)
    config = SyntheticConfig(size=side, spacing_px=22)
    generators = (np.random.default_rng([seed, own]) for own in (0, 1))
    image, mask = make_cells(config, *generators)
    inside = slice(0, size[0]), slice(0, size[1])
    image, mask = image[inside], mask[inside]
    if in_color:
        image = np.stack([image, image[::-1], 255 - image], axis=-1)
    return np.ascontiguousarray(image), np.ascontiguousarray(mask)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Folders of 20 gray and of 20 color images of four formats, some of which EXIF turns."""
    root = tmp_path_factory.mktemp("pictures")
    for kind in ("gray", "color"):
        (root / kind).mkdir()
        for number, size in enumerate(SIZES):
            image, _ = cell_image(size, number, in_color=kind == "color" and number != 5)
            exif = Image.Exif()
            exif[274] = 1 + number % 8
            suffix = (".png", ".jpg", ".tif", ".bmp")[number % 4]
            options = {} if suffix == ".bmp" else {"exif": exif}
            Image.fromarray(image).save(root / kind / f"{number:02d}{suffix}", **options)
    return root


def write_masks_of_three_colors(folder):
    """Write color images, with cells and their membranes in two colors."""
    for number in range(8):
        image, mask = cell_image((64, 64), number, in_color=True)
        edge = ndimage.binary_dilation(mask > 0, iterations=2) & (mask == 0)
        codes = np.where(mask > 0, 0xFF0000, np.where(edge, 0x00FF40, 0))
        io.write_rgb(folder / "images" / f"{number}.png", image)
        io.write_mask(folder / "masks" / f"{number}.png", codes, MaskEncoding(kind="colors"))


def write_numbered_cells(folder):
    """Write gray images with cells that are numbered and touch."""
    for number in range(8):
        image, mask = cell_image((64, 64), number, in_color=False)
        seeds = ndimage.label(mask)[0]
        nearest = ndimage.distance_transform_edt(seeds == 0, return_indices=True)[1]
        near = ndimage.binary_dilation(mask > 0, iterations=2)
        numbers = np.where(near, seeds[tuple(nearest)], 0)
        io.write_rgb(folder / "images" / f"{number}.png", image)
        encoding = MaskEncoding(dtype="uint16")
        io.write_mask(folder / "masks" / f"{number}.png", numbers, encoding)


def assert_equal_masks(ushape, python, runs, images, folder):
    """Export runs, predict images by both programs, and compare all files."""
    standalone, theirs, ours = folder / "standalone", folder / "theirs", folder / "ours"
    others = [part for run in runs[1:] for part in ("--with", run)]
    ended = ushape("export", runs[0], *others, "--to", "standalone", "-o", standalone)
    assert ended.code == 0, ended.error
    assert "the masks are identical" in ended.output
    named = [runs[0], images, *others, "-o", ours]
    ended = ushape("predict", *named, "--backend", "onnx", "--device", "cpu")
    assert ended.code == 0, ended.error
    command = [python, "-E", standalone / "predict.py", images, "-o", theirs]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    expected = sorted(path.name for path in ours.glob("[!.]*"))
    assert sorted(path.name for path in theirs.iterdir()) == expected
    masks = [name for name in expected if not name.endswith("_instances.tif")]
    assert len(masks) == len(SIZES)
    for name in expected:
        if name.endswith(".tif"):
            found, other = io.read_mask(theirs / name), io.read_mask(ours / name)
            assert np.array_equal(found.codes, other.codes), name
            assert found.encoding == other.encoding
        else:
            assert (theirs / name).read_bytes() == (ours / name).read_bytes(), name
    found = [io.read_mask(ours / name).codes for name in masks]
    assert any(np.unique(codes).size > 1 for codes in found), "the masks show something"


def test_folder_predicts_gray_images_as_an_ensemble(
    ushape, python, cells, tiny, pictures, tmp_path
):
    settings = (
        ("--set=predict.tta=mirrored", "--set=preprocessing.downscale=1.5"),
        ("--set=preprocessing.intensity=data", "--set=predict.tta=all_8"),
    )
    runs = []
    for number, own in enumerate(settings):
        runs.append(tmp_path / f"run{number}")
        ended = ushape("train", cells, "-o", runs[-1], "--epochs", 3, *tiny, *own)
        assert ended.code == 0, ended.error
    assert_equal_masks(ushape, python, runs, pictures / "gray", tmp_path)


def test_folder_predicts_color_images_with_masks_of_colors(
    ushape, python, tiny, pictures, tmp_path
):
    write_masks_of_three_colors(tmp_path / "data")
    run = tmp_path / "run"
    ended = ushape("train", tmp_path / "data", "-o", run, "--epochs", 3, *tiny)
    assert ended.code == 0, ended.error
    assert_equal_masks(ushape, python, [run], pictures / "color", tmp_path)


def test_folder_separates_objects_that_touch(ushape, python, tiny, pictures, tmp_path):
    write_numbered_cells(tmp_path / "data")
    run, objects = tmp_path / "run", "--set=labels.objects=distance"
    ended = ushape("train", tmp_path / "data", "-o", run, "--epochs", 3, *tiny, objects)
    assert ended.code == 0, ended.error
    assert_equal_masks(ushape, python, [run], pictures / "gray", tmp_path)
    assert (tmp_path / "theirs/00_instances.tif").exists()


def test_group_statistics_are_refused(ushape, cells, tiny, tmp_path):
    run, group = tmp_path / "run", "--set=preprocessing.intensity=group"
    ended = ushape("train", cells, "-o", run, "--epochs", 1, *tiny, group)
    assert ended.code == 0, ended.error
    ended = ushape("export", run, "--to", "standalone", "-o", tmp_path / "out")
    assert (ended.code, ended.error_code) == (2, "export_refused")
    assert not (tmp_path / "out").exists()
