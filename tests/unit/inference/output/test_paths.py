from pathlib import Path

import pytest

from ushape.inference.output.paths import OutputPaths, is_possible, is_present

OUT = Path("out")


@pytest.mark.parametrize(
    ("suffix", "image", "mask", "banded"),
    [
        (".png", "a/x.jpg", "out/a/x.png", "out/a/x.tif"),
        (".tif", "x.ome.tif", "out/x.tif", "out/x.tif"),
        (".tiff", "x.png", "out/x.tiff", "out/x.tiff"),
        (".nii.gz", "x.nii", "out/x.nii.gz", "out/x.nii.gz"),
        (".nii.gz", "x.tif", "out/x.nii.gz", "out/x.tif"),
        (".npy", "x.v2.npy", "out/x.v2.npy", "out/x.v2.npy"),
        (".png", "folder.with.dots/x.png", "out/folder.with.dots/x.png", None),
    ],
)
def test_masks_have_the_name_of_their_image(suffix, image, mask, banded):
    paths = OutputPaths(folder=OUT, suffix=suffix)
    assert paths.mask(Path(image)) == Path(mask)
    if banded:
        assert paths.banded_mask(Path(image)) == Path(banded)


def test_other_files_lie_beside_the_mask_and_it_comes_last():
    endings = {"overlay": "_overlay.png", "probabilities": ".npz"}
    paths = OutputPaths(folder=OUT, suffix=".nii.gz", endings=endings)
    assert paths.of_image(Path("a/x.nii")) == [
        OUT / "a/x_overlay.png", OUT / "a/x.npz", OUT / "a/x.nii.gz",
    ]  # fmt: skip
    assert paths.of_image(Path("x.nii"), OUT / "y.tif") == [
        OUT / "y_overlay.png", OUT / "y.npz", OUT / "y.tif",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("mask", "instances"),
    [
        ("x.nii.gz", "x_instances.nii.gz"),
        ("x.tif", "x_instances.tif"),  # The mask of an image larger than memory.
    ],
)
def test_numbers_of_objects_have_the_format_of_the_mask(mask, instances):
    endings = {"instances": "_instances.nii.gz", "contours": ".geojson"}
    paths = OutputPaths(folder=OUT, suffix=".nii.gz", endings=endings)
    assert paths.of_image(Path("x.nii"), OUT / mask) == [
        OUT / instances, OUT / "x.geojson", OUT / mask,
    ]  # fmt: skip


def test_without_a_folder_there_are_no_files():
    paths = OutputPaths(folder=None, suffix=".png")
    assert paths.mask(Path("x.png")) is None
    assert paths.banded_mask(Path("x.png")) is None
    assert paths.of_image(Path("x.png")) == []


def test_present_mask_is_the_one_that_was_written(tmp_path):
    paths = OutputPaths(folder=tmp_path, suffix=".png")
    assert paths.present_mask(Path("x.png")) == tmp_path / "x.png"
    (tmp_path / "x.tif").touch()
    assert paths.present_mask(Path("x.png")) == tmp_path / "x.tif"
    (tmp_path / "x.png").touch()
    assert paths.present_mask(Path("x.png")) == tmp_path / "x.png"


def test_a_name_that_is_too_long_is_neither_possible_nor_present(tmp_path):
    assert is_possible(tmp_path / "short")
    assert not is_present(tmp_path / "short")
    assert not is_possible(tmp_path / ("x" * 300))
    assert not is_present(tmp_path / ("x" * 300))
