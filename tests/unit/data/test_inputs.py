import io as streams
import os
import struct
import sys

import numpy as np
import pytest
import SimpleITK
import tifffile

from codes import raises_code
from dicoms import save_series
from ushape import io
from ushape.data.inputs import STANDARD_INPUT, find_inputs, group_inputs
from ushape.data.reading import read_first_file
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


@pytest.mark.skipif(os.name != "posix", reason="names are bytes")
def test_names_on_standard_input_are_bytes_and_keep_their_spaces(make, monkeypatch):
    folder = make("a.png", " b .png")
    names = [b"a.png", b" b .png"]
    try:
        (folder / os.fsdecode(b"\xff.png")).write_bytes((folder / "a.png").read_bytes())
        names.append(b"\xff.png")
    except OSError:  # The file system allows only names in Unicode.
        pass
    listed = b"\n\n".join(names) + b"\r\n"
    monkeypatch.setattr(sys, "stdin", streams.TextIOWrapper(streams.BytesIO(listed), "utf-8"))
    monkeypatch.chdir(folder)
    assert below(STANDARD_INPUT) == [os.fsdecode(name) for name in names]


def test_closed_standard_input_is_an_error(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with raises_code(DataError, "no_standard_input"):
        below(STANDARD_INPUT)


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


def test_find_inputs_takes_the_sections_of_a_volume_in_2d(tmp_path):
    volume = np.arange(12 * 4 * 5, dtype=np.int16).reshape(12, 4, 5)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(volume), str(tmp_path / "v.nii.gz"))
    found = find_inputs([tmp_path / "v.nii.gz"], channels=1, dims=2)
    assert [str(one.below) for one in found[:2]] == ["v/01.nii.gz", "v/02.nii.gz"]
    for one, page in zip(found, volume, strict=True):
        assert (read_first_file(one.case).array == page).all()
    assert below(tmp_path / "v.nii.gz", dims=3) == ["v.nii.gz"]


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
    read, paths = io._read, []
    monkeypatch.setattr(io, "_read", lambda path: (paths.append(path.name), read(path))[1])
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


def groups_of(*paths, option=None, are_single=False):
    inputs = find_inputs(paths, channels=1, dims=2)
    found, rule = group_inputs(inputs, option, are_single=are_single)
    groups = {}
    for one in found:
        groups.setdefault(one.case.group, []).append(one.case.id)
    return sorted(groups.values()), rule


@pytest.mark.parametrize(
    "names",
    [
        [f"{name}_{number:02d}" for name in ("anna", "bert", "cleo") for number in range(4)],
        [f"slice{number:02d}_tile{tile}" for number in range(4) for tile in range(4)],
    ],
)
def test_images_of_a_folder_are_a_group_whatever_their_names_are(names, make):
    folder = make(*(f"in/{name}.png" for name in names))
    groups, rule = groups_of(folder / "in")
    assert groups == [sorted(names)]
    assert rule == "one for each folder"


def test_folders_are_groups_as_the_message_says(make):
    names = [f"x{x:02d}_y{y:02d}" for x in range(2) for y in range(3)]
    folder = make(*(f"{mouse}/{name}.png" for mouse in ("mouseA", "mouseB") for name in names))
    groups, _ = groups_of(folder)
    assert groups == [[f"{mouse}/{name}" for name in names] for mouse in ("mouseA", "mouseB")]
    assert groups_of(folder / "mouseA")[0] == [names]


def test_images_that_were_groups_in_the_training_are_groups(make):
    folder = make("a.png", "b.png", "s/c.png")
    groups, rule = groups_of(folder, are_single=True)
    assert groups == [["a"], ["b"], ["s/c"]]
    assert "each image by itself" in rule


def test_pages_of_a_file_are_a_group(tmp_path):
    for name in ("first", "second"):
        tifffile.imwrite(
            tmp_path / f"{name}.tif", np.zeros((5, 40, 50), np.uint8), photometric="minisblack"
        )
    groups, rule = groups_of(tmp_path)
    assert [len(own) for own in groups] == [5, 5]
    assert all(len({one.split("/")[0] for one in own}) == 1 for own in groups)
    assert "pages" in rule


def test_groups_of_a_table_are_kept(make):
    folder = make("a_1.png", "a_2.png", "b_1.png")
    table = folder / "new.csv"
    table.write_text("image,group\na_1.png,x\na_2.png,y\nb_1.png,y\n")
    for option in (None, r"^(\w)_", "none"):
        groups = groups_of(table, option=option, are_single=True)
        assert groups == ([["a_1"], ["a_2", "b_1"]], "as defined in the table")


@pytest.mark.parametrize(
    ("option", "groups", "rule"),
    [
        (r"_(\w)$", [["s/1_a", "t/2_a"], ["t/1_b"]], "regular expression"),
        ("none", [["s/1_a"], ["t/1_b"], ["t/2_a"]], "each image by itself"),
        ("patient", [["s/1_a"], ["t/1_b", "t/2_a"]], "patient"),
        ("a", [["s/1_a"], ["t/1_b", "t/2_a"]], "(a)"),
        ("group", [["s/1_a"], ["t/1_b", "t/2_a"]], "(group)"),
        (r"^(\d)\d", [["s/1_a"], ["t/1_b", "t/2_a"]], "do not fit"),
    ],
)
def test_groups_are_those_of_the_option_of_the_training_if_it_fits(option, groups, rule, make):
    folder = make("s/1_a.png", "t/1_b.png", "t/2_a.png")
    found = groups_of(folder, option=option)
    assert found[0] == groups
    assert rule in found[1]
