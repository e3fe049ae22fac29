"""Scan of a data set: each file is read once, and errors are collected."""

import shutil
import zlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK
from PIL import Image

from ushape import io
from ushape.data.checks import apply_checks
from ushape.data.checksum import dataset_checksum
from ushape.data.classes.names import StatedClasses, complete_labels
from ushape.data.discovery import discover
from ushape.data.reading import read_image
from ushape.data.scan import describe_dataset, scan_dataset
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.errors import DataError
from ushape.labels import LabelConfig


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells") / "data"
    write_data_set(folder, 12, SyntheticConfig(size=64, groups=4), seed=3)
    return folder


@pytest.fixture
def data(cells, tmp_path):
    return shutil.copytree(cells, tmp_path / "data")


def scan(folder, **labels):
    return scan_dataset(folder, None, LabelConfig(**labels), workers=1)


def test_scan_reads_each_file_once(cells, monkeypatch):
    reads = Counter()

    def count(read):
        def counting(path):
            reads[path] += 1
            return read(path)

        return counting

    for name in ("read", "read_mask"):
        monkeypatch.setattr(io, name, count(getattr(io, name)))
    seen = []
    stats = scan_dataset(
        cells, None, LabelConfig(), workers=1, on_progress=lambda *done: seen.append(done)
    )
    stats.raise_if_unusable()
    assert len(stats.facts) == 12
    assert seen[-1] == (12, 12)
    assert set(reads.values()) == {1}
    assert len(reads) == 24


def test_scan_yields_the_checksum_of_the_files(cells):
    stats = scan(cells)
    assert all(len(one.checksums) == 2 for one in stats.case_stats)
    assert stats.checksum == dataset_checksum(discover(cells).cases, cells)


def test_scan_merges_groups_that_share_duplicates(data):
    shutil.copy(data / "images" / "dish01_01.png", data / "images" / "dish03_02.png")
    stats = scan(data)
    assert [(pair.first, pair.second) for pair in stats.duplicates] == [("dish01_01", "dish03_02")]
    assert stats.inferred_groups["dish03_02"] == "dish03"
    assert {stats.group_of[case] for case in ("dish01_01", "dish03_02")} == {"dish01"}
    assert "remain after merging" in stats.grouping.text


def test_scan_collects_unreadable_cases(data):
    (data / "images" / "dish01_01.png").write_bytes(b"")
    mask = data / "masks" / "dish01_02.png"
    Image.fromarray(np.asarray(Image.open(mask))[:32]).save(mask)
    stats = scan(data)
    assert [one.case.id for one in stats.case_stats if one.error] == ["dish01_01"]
    assert len(stats.readable) == len(stats.grouping.cases) == 11
    with pytest.raises(DataError) as error:
        stats.raise_if_unusable()
    assert error.value.code == "unusable_cases"
    assert all(name in error.value.message for name in ("dish01_01", "dish01_02"))


def test_scan_of_unreadable_files_alone(data):
    for path in (data / "images").iterdir():
        path.write_bytes(b"")
    stats = scan(data)
    assert stats.readable == stats.grouping.cases == []
    assert stats.label_space is None
    with pytest.raises(DataError) as error:
        stats.raise_unreadable()
    assert error.value.code == "unusable_cases"


def test_scan_collects_masks_of_one_value(data):
    for path in (data / "masks").iterdir():
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(path)
    stats = scan(data)
    assert stats.label_space is None
    with pytest.raises(DataError) as error:
        stats.raise_if_unusable()
    assert error.value is stats.label_error


def test_scan_names_the_mask_with_an_unknown_value(data):
    path = data / "masks" / "dish02_01.png"
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(path)
    with pytest.raises(DataError) as error:
        scan(data, values=(0, 255)).raise_if_unusable()
    assert error.value.message.startswith(str(path))


def test_scan_refuses_images_of_different_kinds(data):
    path = data / "images" / "dish01_01.png"
    Image.open(path).convert("RGB").save(path)
    with pytest.raises(DataError) as error:
        scan(data).raise_if_unusable()
    assert error.value.code == "mixed_channels"


def test_describe_dataset_writes_a_line_for_each_subject(cells):
    lines = describe_dataset(scan(cells))
    assert lines[0].startswith(
        "12 pairs of image and mask (images/ next to masks/); 64 × 64 pixels"
    )
    assert (
        lines[-1] == "Groups: 4, by the beginning of the names (3 images each), e.g. dish01 for "
        "dish01_01 and dish01_02. To change this, use --groups with a regular expression, a column "
        "of the table, or none."
    )


def complete(stated, counts, **labels):
    return complete_labels(LabelConfig(**labels), stated, dict.fromkeys(counts, 1))


def stated(tmp_path, **changes):
    return StatedClasses(source=tmp_path / "classes.txt", **changes)


def test_complete_labels_by_names_without_values(tmp_path):
    names = stated(tmp_path, names=("back", "cell", "gap"))
    assert complete(names, (0, 2)).values == (0, 1, 2)
    assert complete(names, (0, 100, 200)).values == (0, 100, 200)
    assert complete(names, (0, 1, 2, 255), ignore=255).values == (0, 1, 2)
    assert complete(stated(tmp_path, names=("cell", "gap")), (0, 3, 4)).names[0] == "background"
    with pytest.raises(DataError) as error:
        complete(names, (0, 9, 20, 30, 255))
    assert error.value.code == "class_names_mismatch"


def test_complete_labels_by_names_with_values(tmp_path):
    found = complete(stated(tmp_path, names=("b", "c"), values=(0, 9), ignore=255), (0, 9, 255))
    assert (found.values, found.names, found.ignore) == ((0, 9), ("b", "c"), 255)
    void = stated(tmp_path, names=("b", "c", "void"), values=(0, 9, 255))
    found = complete(void, (0, 9, 255), ignore=255)
    assert (found.values, found.names, found.ignore) == ((0, 9), ("b", "c"), 255)


def test_label_settings_of_the_user_take_precedence(tmp_path):
    names = stated(tmp_path, names=("b", "c"), values=(0, 9))
    assert complete(names, (0, 9), values=(9, 0)) == LabelConfig(values=(9, 0))
    assert complete(names, (0, 9), threshold=5) == LabelConfig(threshold=5)
    assert complete(names, (0, 9), names=("x", "y")).names == ("x", "y")
    assert complete(None, (0, 9)) == LabelConfig()


def test_scan_takes_object_ids_for_foreground(tmp_path):
    for name in ("n1", "n2", "n3"):
        for kind, count in (("images", 1), ("masks", 3)):
            folder = tmp_path / name / kind
            folder.mkdir(parents=True)
            for index in range(count):
                dot = np.zeros((8, 8), np.uint8)
                dot[2 * index, 2 * index] = 255
                path = folder / (f"{name}.png" if kind == "images" else f"{index}.png")
                Image.fromarray(dot).save(path)
    stats = scan_dataset(tmp_path, None, LabelConfig(), workers=1)
    assert stats.space.names == ("background", "foreground")
    assert stats.label_rule == "one mask per object, all of them foreground"
    assert [stats.class_pixels(one) for one in stats.case_stats] == [(61, 3)] * 3


def test_gray_images_among_color_images_become_color(data):
    rng = np.random.default_rng(0)
    paths = sorted((data / "images").glob("*.png"))
    for path in paths[2:]:
        colors = np.stack([np.asarray(Image.open(path))] * 3, axis=-1)
        Image.fromarray(colors + rng.integers(9, size=colors.shape, dtype=np.uint8)).save(path)
    stats = scan(data)
    stats.raise_if_unusable()
    assert {one.channels for one in stats.case_stats} == {3}
    assert {len(one.pixels) for one in stats.case_stats} == {3}
    gray = [one for one in stats.case_stats if one.stored_as == "gray"]
    assert [one.case.image for one in gray] == paths[:2]
    image = read_image(gray[0].case, channels=3)
    assert (image == np.asarray(Image.open(paths[0]))).all()


def test_pages_are_channels_if_the_mask_has_one_page(data):
    import tifffile

    for path in (data / "images").glob("*.png"):
        plane = np.asarray(Image.open(path))
        pages = np.stack([plane, 255 - plane, plane // 2])
        tifffile.imwrite(path.with_suffix(".tif"), pages, photometric="minisblack")
        path.unlink()
    stats = scan(data)
    stats.raise_if_unusable()
    assert {(one.channels, one.shape, one.stored_as) for one in stats.case_stats} == {
        (3, (64, 64), "planes")
    }
    # Without the mask, the channels that a model expects decide.
    alone = replace(stats.case_stats[0].case, mask=None)
    assert read_image(alone, channels=3).shape == (3, 64, 64)
    assert read_image(alone).shape == (1, 3, 64, 64)


@pytest.mark.parametrize("which", ["images", "masks"])
def test_sizes_are_compared_before_a_large_file_is_unpacked(which, data):
    # A PNG of one row of bytes whose header states 20000 x 20000 pixels.
    path = data / which / "dish01_01.png"
    content = bytearray(path.read_bytes())
    header = b"IHDR" + (20_000).to_bytes(4, "big") * 2 + bytes(content[24:29])
    content[12:33] = header + zlib.crc32(header).to_bytes(4, "big")
    path.write_bytes(content)
    broken = next(one for one in scan(data).case_stats if one.case.id == "dish01_01")
    assert broken.error_code == "mask_size_mismatch"
    assert "20000 × 20000" in broken.error


def test_describe_dataset_does_not_take_a_fourth_axis_for_colors(tmp_path):
    mask = np.zeros((4, 8, 8), np.uint8)
    mask[1:3, 2:6, 2:6] = 1
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number in range(4):
        times = np.random.default_rng(number).random((3, 4, 8, 8)).astype(np.float32)
        for folder, array in (("images", times), ("masks", mask)):
            image = SimpleITK.GetImageFromArray(array, isVector=False)
            SimpleITK.WriteImage(image, str(tmp_path / folder / f"p{number}.nii.gz"))
    line = describe_dataset(scan(tmp_path))[0]
    assert "3 channels (values of a voxel, or the fourth axis of the files)" in line


def test_scan_of_strokes_finds_classes_and_no_problem(data):
    """Most pixels of each mask are not annotated: the strokes are not judged as whole objects."""
    for path in sorted((data / "masks").iterdir()):
        mask = np.array(Image.open(path))
        strokes = np.full_like(mask, 1)
        strokes[::9, 5:30] = mask[::9, 5:30]
        Image.fromarray(strokes).save(path)
    stats = scan(data, values=(0, 255), ignore=1)
    stats.raise_if_unusable()
    assert stats.space.values == (0, 255)
    assert [f.text for f in apply_checks(stats) if f.severity != "note"] == []
    annotated = sum(map(sum, (stats.class_pixels(one) for one in stats.readable)))
    assert annotated == sum(len(range(0, 64, 9)) * 25 for _ in stats.readable)
    shares = [stats.foreground_share(one) for one in stats.readable]
    assert max(shares) > 0.3  # Of the annotated pixels.


def test_scan_infers_classes_without_the_ignored_value(data):
    for path in sorted((data / "masks").iterdir())[::2]:
        mask = np.array(Image.open(path))
        mask[:20] = 1
        Image.fromarray(mask).save(path)
    stats = scan(data, ignore=1)
    assert stats.space.values == (0, 255)
    assert stats.space.ignore == 1
    assert not stats.value_notes
