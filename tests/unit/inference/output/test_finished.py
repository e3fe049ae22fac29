import os

import pytest

from ushape.data.inputs import find_inputs
from ushape.inference.output import finished
from ushape.inference.output.finished import masks_of_finished
from ushape.inference.output.manifest import MANIFEST_FILE, Manifest

NAMES = ("b.png", "a/z.tif", "a.png", "a-/x.png")


@pytest.fixture
def images(tmp_path):
    """Folder of images, with files that are not images."""
    folder = tmp_path / "images"
    for name in (*NAMES, ".hidden.png", ".hidden/x.png", "__MACOSX/x.png", "notes.txt", "README"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.fixture
def output(tmp_path, images):
    """Output folder in which all images are finished."""
    folder = tmp_path / "masks"
    for one in find_inputs([images], channels=1, dims=2):
        log, mask = Manifest(folder, {}), folder / one.below.with_suffix(".png")
        log.begin(one.below, one.case)
        mask.parent.mkdir(parents=True, exist_ok=True)
        mask.write_bytes(b"mask")
        log.finish(one.below, one.case, [mask], [])
    return folder


def masks_in(output, *folders):
    return masks_of_finished(folders, Manifest(output, {}))


def finish(output, name, image, mask):
    """Write a mask, and the line of the log about an image that was named alone."""
    (one,) = find_inputs([image], channels=1, dims=2)
    (output / mask).write_bytes(b"mask")
    Manifest(output, {}).finish(one.below.with_name(name), one.case, [output / mask], [])


def test_masks_have_the_order_of_the_listed_images(images, output):
    listed = [one.below for one in find_inputs([images], channels=1, dims=2)]
    assert len(listed) == len(NAMES)
    assert masks_in(output, images) == [path.with_suffix(".png").as_posix() for path in listed]


def test_linked_images_are_compared_by_the_files_they_lead_to(images, output, tmp_path):
    outside = tmp_path / "b.png"
    (images / "b.png").rename(outside)
    (images / "b.png").symlink_to(outside)
    assert masks_in(output, images) is None
    finish(output, "b.png", images / "b.png", "b.png")
    assert masks_in(output, images) is not None


def damage_last_line(images, output):
    log = output / MANIFEST_FILE
    log.write_bytes(log.read_bytes()[:-40] + b"\0" * 39 + b"\n")


@pytest.mark.parametrize(
    "change",
    [
        lambda images, output: (output / "a/z.png").unlink(),
        lambda images, output: (output / "a/z.png").write_bytes(b"ma"),
        lambda images, output: (images / "a/z.tif").write_bytes(b"another image"),
        lambda images, output: os.utime(images / "b.png", (1, 1)),
        lambda images, output: (images / "b.png").rename(images / "c.png"),
        lambda images, output: (images / "a/new.tif").touch(),
        lambda images, output: (images / "new.zarr").mkdir(),
        lambda images, output: (images / "link").symlink_to(images / "a"),
        damage_last_line,
        lambda images, output: (output / MANIFEST_FILE).write_text('{"made_by": {"weights": 1}}\n'),
    ],
    ids=[
        "output removed", "output cut off", "image changed", "image touched", "image renamed",
        "new image", "new Zarr image", "folder linked", "line damaged", "other model",
    ],
)  # fmt: skip
def test_each_change_is_noticed(images, output, change):
    assert masks_in(output, images) is not None
    change(images, output)
    assert masks_in(output, images) is None


def test_equal_names_and_no_images_are_left_to_the_listing(images, output, tmp_path):
    assert masks_in(output, images, images) is None
    assert masks_in(output, images / "__MACOSX") is None
    (images / "b.jpg").write_bytes(b"b")
    finish(output, "b.jpg", images / "b.jpg", "b.png")
    assert masks_in(output, images) is None  # Both images have the mask b.png.


def test_names_that_the_disk_takes_for_the_same_are_left_to_the_listing(
    images, output, tmp_path, monkeypatch
):
    (images / "b.jpg").write_bytes(b"b")
    finish(output, "b.jpg", images / "b.jpg", "B.png")
    monkeypatch.setattr(finished, "tells_names_apart", lambda folder: True)
    assert masks_in(output, images) is not None
    monkeypatch.setattr(finished, "tells_names_apart", lambda folder: False)
    assert masks_in(output, images) is None  # The masks b.png and B.png are one file.


def test_names_that_are_not_unicode_are_found_in_the_log(output, images):
    name = os.fsdecode(b"\xff.png")
    try:
        (images / name).write_bytes(b"image")
    except OSError:
        pytest.skip("The file system allows only names in Unicode.")
    finish(output, name, images / name, "other.png")
    masks = masks_in(output, images)
    assert masks is not None
    assert "other.png" in masks
