import io as streams
import struct
import sys

import numpy as np
import pytest
import SimpleITK
import tifffile

from dicoms import save_series
from ushape import io
from ushape.data.inputs import STANDARD_INPUT, find_inputs, group_by_name
from ushape.data.preprocessing import read_first_file
from ushape.errors import DataError


def below(*paths, channels=1, dims=2):
    return [str(one.below) for one in find_inputs(paths, channels=channels, dims=dims)]


def test_find_inputs_keeps_subfolders(make):
    folder = make("in/p1/a.png", "in/b.JPG", "other/c.png")
    assert below(folder / "in", folder / "other" / "c.png") == ["b.JPG", "p1/a.png", "c.png"]


def test_find_inputs_keeps_folders_below_a_wildcard(make):
    folder = make("p1/scan/a.png", "p2/scan/a.png", "p2/scan/b.png", "p2/notes.png")
    assert below(folder / "*" / "scan" / "a.png") == ["p1/scan/a.png", "p2/scan/a.png"]
    assert below(folder / "**" / "b.png") == ["p2/scan/b.png"]
    with pytest.raises(DataError) as error:
        below(folder / "*.tif")
    assert error.value.code == "no_images"


def test_find_inputs_reads_tables_and_standard_input(make, monkeypatch):
    folder = make("p1/a.png", "p2/b.png")
    table = folder / "new.csv"
    table.write_text("image,group\np1/a.png,anna\np2/b.png,ben\n")
    found = find_inputs([table], channels=1, dims=2)
    assert [(one.case.group, str(one.below)) for one in found] == [
        ("anna", "p1/a.png"),
        ("ben", "p2/b.png"),
    ]
    table.write_text("file\np1/a.png\n")
    with pytest.raises(DataError) as error:
        below(table)
    assert error.value.code == "missing_columns"
    monkeypatch.setattr(sys, "stdin", streams.StringIO(f"{folder}/p1/a.png\n\n{folder}/p2\n"))
    assert below(STANDARD_INPUT) == ["a.png", "b.png"]


def test_find_inputs_joins_channels_if_the_model_reads_more(make):
    folder = make(*(f"{name}_000{number}.png" for name in "ab" for number in range(2)))
    assert len(below(folder)) == 4
    found = find_inputs([folder], channels=2, dims=2)
    assert [one.case.image.name for one in found] == ["a_0000.png", "b_0000.png"]
    assert [path.name for one in found for path in one.case.channels] == [
        "a_0001.png",
        "b_0001.png",
    ]
    assert [str(one.below) for one in found] == ["a.png", "b.png"]


def test_find_inputs_joins_slices_for_a_model_of_volumes(tmp_path):
    (tmp_path / "in").mkdir()
    save_series(tmp_path / "in" / "p1")
    save_series(tmp_path / "in" / "p2")
    assert len(below(tmp_path / "in")) == 10
    assert below(tmp_path / "in", dims=3) == ["p1", "p2"]
    assert below(tmp_path / "in" / "p1", dims=3) == ["p1"]


def test_find_inputs_refuses_equal_output_names(make, tmp_path):
    folder = make("in/a.png", "in/a.jpg")
    with pytest.raises(DataError) as error:
        below(folder / "in")
    assert error.value.code == "equal_output_names"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as error:
        below(tmp_path / "empty")
    assert error.value.code == "no_images"
    with pytest.raises(DataError) as error:
        below(folder / "nothing.png")
    assert error.value.code == "file_not_found"


def test_find_inputs_of_an_empty_list_is_refused():
    with pytest.raises(DataError) as error:
        find_inputs([], channels=1, dims=2)
    assert error.value.code == "no_images"
    assert error.value.message == "No images were found in an empty list."


def test_find_inputs_leaves_out_the_masks_of_a_data_folder(make):
    folder = make("volume-0.png", "segmentation-0.png", "volume-1.png", "segmentation-1.png")
    notes = []
    found = find_inputs([folder], channels=1, dims=2, on_note=notes.append)
    assert [str(one.below) for one in found] == ["volume-0.png", "volume-1.png"]
    assert len(notes) == 1
    assert "2 masks" in notes[0]
    # Files that are named are predicted, whatever they are.
    assert len(below(folder / "*.png")) == 4


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (("images/a.png", "images/b.png", "masks/a.png"), ["images/a.png", "images/b.png"]),
        (("a.png", "a_mask.png", "b.png"), ["a.png", "b.png"]),
        (("x/images/x.png", "x/masks/1.png", "x/masks/2.png"), ["x/images/x.png"]),
        (("imagesTr/a_0000.png", "labelsTr/a.png", "imagesTs/b_0000.png"), None),
        (("p1/a.png", "p1/b.png", "p2/c.png"), ["p1/a.png", "p1/b.png", "p2/c.png"]),
        (
            ("JPEGImages/a.jpg", "SegmentationClass/a.png", "SegmentationObject/a.png"),
            ["JPEGImages/a.jpg"],
        ),
    ],
)
def test_find_inputs_leaves_out_masks_in_every_layout(make, files, expected):
    expected = expected or ["imagesTr/a.png", "imagesTs/b.png"]
    assert below(make(*files)) == expected


def test_find_inputs_removes_the_channel_number_of_nnunet(make):
    folder = make("imagesTr/a_0000.png", "imagesTr/b_0000.png", "one/s_0000.png")
    assert below(folder / "imagesTr") == ["a.png", "b.png"]
    assert below(folder / "imagesTr" / "a_0000.png") == ["a.png"]
    # The number of a section, which might be the first of many.
    assert below(folder / "one") == ["s_0000.png"]


def test_find_inputs_keeps_the_numbers_of_sections(make):
    folder = make("s_0000.png", "s_0001.png", "s_0002.png")
    assert below(folder) == ["s_0000.png", "s_0001.png", "s_0002.png"]


def test_find_inputs_takes_the_pages_of_a_stack_in_2d(tmp_path):
    stack = np.zeros((12, 4, 4), np.uint8)
    tifffile.imwrite(tmp_path / "s.tif", stack, photometric="minisblack")
    found = find_inputs([tmp_path / "s.tif"], channels=1, dims=2)
    assert [str(one.below) for one in found[:2]] == ["s/01.tif", "s/02.tif"]
    assert [one.case.page for one in found] == list(range(12))
    assert below(tmp_path / "s.tif", dims=3) == ["s.tif"]


@pytest.mark.parametrize(
    ("channels", "dims", "below"),
    [
        (1, 3, ["cine/1.nii.gz", "cine/2.nii.gz", "cine/3.nii.gz"]),
        (3, 3, ["cine.nii.gz"]),
        (1, 2, ["cine.nii.gz"]),
    ],
)
def test_find_inputs_takes_the_time_points_for_a_model_of_one_channel(
    channels, dims, below, tmp_path
):
    times = np.arange(3 * 2 * 4 * 5, dtype=np.float32).reshape(3, 2, 4, 5)
    path = tmp_path / "cine.nii.gz"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(times, isVector=False), str(path))
    notes = []
    found = find_inputs([path], channels=channels, dims=dims, on_note=notes.append)
    assert [one.below.as_posix() for one in found] == below
    assert len(notes) == (len(below) > 1)
    if len(found) > 1:
        assert (read_first_file(found[1].case).array == times[1:2]).all()


def test_time_points_are_stated_in_one_line_and_read_file_by_file(tmp_path, monkeypatch):
    times = np.arange(3 * 2 * 4 * 5, dtype=np.float32).reshape(3, 2, 4, 5)
    for name in "ab":
        path = tmp_path / f"{name}.nii.gz"
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(times, isVector=False), str(path))
    notes = []
    found = find_inputs([tmp_path], channels=1, dims=3, on_note=notes.append)
    assert len(found) == 6
    assert len(notes) == 1
    assert "a.nii.gz and 1 other file" in notes[0]
    read, paths = io.read, []
    monkeypatch.setattr(io, "read", lambda path: (paths.append(path.name), read(path))[1])
    for one, expected in zip(found, [*times, *times], strict=True):
        array = read_first_file(one.case).array
        assert (array == expected).all()
        array[:] = -1  # What is kept does not change.
    assert paths == ["a.nii.gz", "b.nii.gz"]
    changed = times + 1
    SimpleITK.WriteImage(
        SimpleITK.GetImageFromArray(changed, isVector=False), str(tmp_path / "a.nii.gz")
    )
    assert (read_first_file(found[0].case).array == changed[0]).all()


@pytest.mark.parametrize("stated", [0, -1])
def test_find_inputs_keeps_a_volume_that_states_no_time_points(stated, tmp_path):
    path = tmp_path / "x.nii"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros((2, 4, 5), np.float32)), str(path))
    content = bytearray(path.read_bytes())
    content[40:42], content[48:50] = struct.pack("<h", 4), struct.pack("<h", stated)
    path.write_bytes(content)
    assert below(path, dims=3) == ["x.nii"]


def test_find_inputs_joins_the_modalities_of_each_folder(make):
    folder = make(*(f"{case}/{case}_{part}.png" for case in "ab" for part in ("t1", "t2")))
    found = find_inputs([folder], channels=2, dims=2)
    assert [(str(one.below), one.case.image.name) for one in found] == [
        ("a.png", "a_t1.png"),
        ("b.png", "b_t1.png"),
    ]
    assert [path.name for path in found[0].case.channels] == ["a_t2.png"]
    assert len(below(folder, channels=1)) == 4


def groups_of(*paths, option=None):
    found = group_by_name(find_inputs(paths, channels=1, dims=2), option)
    groups = {}
    for one in found:
        groups.setdefault(one.case.group, []).append(one.case.id)
    return sorted(groups.values())


def test_group_by_name_separates_patients_in_one_folder(make):
    names = [f"in/P{patient}_{number:02d}.png" for patient in (1, 2, 3) for number in range(4)]
    own = [[f"P{patient}_{number:02d}" for number in range(4)] for patient in (1, 2, 3)]
    assert groups_of(make(*names) / "in") == own


def test_group_by_name_keeps_folders_apart_and_a_series_together(make):
    folder = make("in/a/s1.png", "in/a/s2.png", "in/b/s1.png", "in/b/s2.png")
    assert groups_of(folder / "in") == [["a/s1", "a/s2"], ["b/s1", "b/s2"]]
    assert groups_of(folder / "in" / "a") == [["s1", "s2"]]


def test_group_by_name_joins_the_pages_of_a_file(tmp_path):
    for name in ("first", "second"):
        tifffile.imwrite(
            tmp_path / f"{name}.tif", np.zeros((5, 40, 50), np.uint8), photometric="minisblack"
        )
    groups = groups_of(tmp_path)
    assert [len(own) for own in groups] == [5, 5]
    assert all(len({one.split("/")[0] for one in own}) == 1 for own in groups)


def test_group_by_name_keeps_the_groups_of_a_table(make):
    folder = make("a_1.png", "a_2.png", "b_1.png")
    table = folder / "new.csv"
    table.write_text("image,group\na_1.png,x\na_2.png,y\nb_1.png,y\n")
    assert groups_of(table) == [["a_1"], ["a_2", "b_1"]]


@pytest.mark.parametrize(
    ("option", "groups"),
    [
        (r"_(\w)$", [["1_a", "2_a"], ["1_b"]]),
        ("none", [["1_a"], ["1_b"], ["2_a"]]),
        ("patient", [["1_a", "1_b"], ["2_a"]]),
        (r"^(\d)\d", [["1_a", "1_b"], ["2_a"]]),
    ],
)
def test_group_by_name_follows_the_option_of_the_training_if_it_fits(option, groups, make):
    folder = make("1_a.png", "1_b.png", "2_a.png")
    assert groups_of(folder, option=option) == groups
