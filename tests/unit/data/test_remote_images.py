import json
from contextlib import suppress
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from codes import raises_code
from ushape import io
from ushape.data import remote_images
from ushape.data.inputs import find_inputs
from ushape.data.remote_images import RemoteImages
from ushape.errors import DataError


@pytest.fixture
def memory(monkeypatch):
    """Thirty images of 8 pixels and a note in memory, which are not copied as a whole."""
    monkeypatch.setattr(remote_images, "WHOLE_BYTES", 0)
    files = fsspec.filesystem("memory")
    files.store.clear()
    for number in range(30):
        with files.open(f"/bucket/images/{number:02}.png", "wb") as file:
            Image.fromarray(np.full((8, 8), number, np.uint8)).save(file, format="PNG")
    files.pipe({"/bucket/images/notes.txt": b"note"})
    yield files
    files.store.clear()


@pytest.fixture
def images(tmp_path):
    found = RemoteImages(tmp_path)
    yield found
    found.close()


def listed(images, *paths):
    images.prepare(whole=False)
    return images.with_origins(find_inputs(paths, channels=1, dims=2, read=images.read))


def taken_bytes(folder):
    return sum(path.stat().st_blocks for path in folder.rglob("*.png"))


def test_images_are_copied_when_they_are_fetched_and_removed_afterwards(memory, images, tmp_path):
    folder = images.add("memory://bucket/images")
    inputs = listed(images, folder)
    assert [one.below for one in inputs] == [Path(f"{number:02}.png") for number in range(30)]
    assert inputs[3].case.origin[0] == "memory://bucket/images/03.png"
    images.expect(inputs)
    for number, one in enumerate(inputs):
        images.fetch(one)
        assert np.asarray(Image.open(one.case.image)).max() == number
        images.release(one)
        assert not one.case.image.exists()
    assert (folder / "notes.txt").read_bytes() == b"note"


def test_copies_ahead_are_limited(memory, images, monkeypatch):
    monkeypatch.setattr(remote_images, "AHEAD", 3)
    inputs = listed(images, images.add("memory://bucket/images"))
    images.expect(inputs)
    images.fetch(inputs[0])
    images.close()
    copied = [one for one in inputs if one.case.image.stat().st_mtime_ns]
    assert inputs[0] in copied
    assert len(copied) <= 4  # The first image was also read for its channels.


def write_zarr(files, name, value):
    """Write an OME-Zarr 0.4 image of 8 x 8 pixels in four chunks, some of which have no suffix."""
    layout = {"zarr_format": 2, "shape": [8, 8], "chunks": [4, 4], "dtype": "|u1", "order": "C"}
    layout |= {"compressor": None, "filters": None, "fill_value": 0, "dimension_separator": "/"}
    levels = {"version": "0.4", "datasets": [{"path": "0"}], "axes": [{"name": "y"}, {"name": "x"}]}
    chunks = {f"0/{y}/{x}": bytes([value]) * 16 for y in range(2) for x in range(2)}
    texts = {".zgroup": {"zarr_format": 2}, ".zattrs": {"multiscales": [levels]}}
    texts["0/.zarray"] = layout
    contents = {**chunks, **{name: json.dumps(text).encode() for name, text in texts.items()}}
    files.pipe({f"{name}/{path}": content for path, content in contents.items()})


def copied_below(folder):
    """Return the names of files whose content was copied; others have the time 0."""
    found = set()
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # The temporary name of a copy that has just ended.
            if path.is_file() and path.stat().st_mtime_ns and not path.name.endswith(".part"):
                found.add(path.relative_to(folder).as_posix())
    return found


def test_images_of_several_files_are_copied_when_they_are_fetched(memory, images, monkeypatch):
    monkeypatch.setattr(remote_images, "AHEAD", 3)
    for number in range(30):
        write_zarr(memory, f"/bucket/zarr/{number:02}.ome.zarr", number + 1)
    folder = images.add("memory://bucket/zarr")
    inputs = listed(images, folder)
    assert len(inputs) == 30
    assert copied_below(folder) == set()
    images.expect(inputs)
    for number, one in enumerate(inputs):
        images.fetch(one)
        assert (io.read(one.case.image).array == number + 1).all()
        present = {name.partition("/")[0] for name in copied_below(folder)}
        assert inputs[number].below.as_posix() in present
        assert len(present) <= 4
        images.release(one)
        assert not copied_below(one.case.image)


def test_files_of_other_formats_are_not_copied(memory, images):
    others = ["a.h5", "b.mp4", "c/d.bin", "e.raw"]
    memory.pipe({f"/bucket/images/{name}": b"other" for name in others})
    memory.pipe({"/bucket/images/names.csv": b"name\na\n"})
    folder = images.add("memory://bucket/images")
    assert len(listed(images, folder)) == 30
    assert copied_below(folder) == {"notes.txt", "names.csv"}


@pytest.mark.parametrize("whole", [False, True])
def test_files_that_an_image_names_are_copied_with_it(memory, images, whole):
    memory.pipe({"/bucket/images/x/v.mhd": b"header", "/bucket/images/x/V.raw": b"voxels"})
    memory.pipe({"/bucket/images/s.mrxs": b"slide", "/bucket/images/s/Data0000.dat": b"tiles"})
    memory.pipe({"/bucket/images/x/other.zraw": b"of a header with another name"})
    folder = images.add("memory://bucket/images")
    images.prepare(whole=whole)
    before = copied_below(folder)
    assert "x/other.zraw" in before
    assert ("x/V.raw" in before) == ("s/Data0000.dat" in before) == whole
    inputs = images.with_origins(find_inputs([folder], channels=1, dims=3, read=images.read))
    images.expect(inputs)
    for name, parts in {"x/v.mhd": ["x/V.raw"], "s.mrxs": ["s/Data0000.dat"]}.items():
        (one,) = (one for one in inputs if one.below == Path(name))
        assert one.case.origin[0] == f"memory://bucket/images/{name}"
        images.fetch(one)
        assert {name, *parts} <= copied_below(folder)
        images.release(one)
        assert bool({name, *parts} & copied_below(folder)) == whole


def test_pattern_selects_images(memory, images):
    inputs = listed(images, images.add("memory://bucket/images/0*.png"))
    assert len(inputs) == 10


def test_files_of_the_output_folder_are_no_inputs(memory, tmp_path):
    memory.pipe({"/bucket/images/masks/00.png": b"mask"})
    images = RemoteImages(tmp_path, "memory://bucket/images/masks")
    folder = images.add("memory://bucket/images")
    images.close()
    assert not (folder / "masks").exists()


def test_origin_changes_with_the_content(memory, tmp_path):
    origins = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        images = RemoteImages(tmp_path / name)
        origins.append(listed(images, images.add("memory://bucket/images/00.png"))[0].case.origin)
        images.close()
        memory.pipe({"/bucket/images/00.png": memory.cat_file("/bucket/images/00.png") + b" "})
    assert origins[0][0] == origins[1][0]
    assert origins[0][1] != origins[1][1]


def test_pages_of_a_zarr_image_are_one_unit(memory, images):
    memory.pipe({"/bucket/a.zarr/0/0.0": b"chunk", "/bucket/a.zarr/.zattrs": b"{}"})
    path = images.add("memory://bucket/a.zarr")
    assert path.name == "a.zarr"
    assert {one.name for one in path.rglob("*")} == {"0", "0.0", ".zattrs"}


@pytest.mark.parametrize(
    ("files", "url", "code"),
    [
        ({}, "memory://bucket/none", "file_not_found"),
        ({"/bucket/list.csv": b"image\n"}, "memory://bucket/list.csv", "remote_table"),
    ],
)
def test_url_that_cannot_be_listed_is_refused(memory, images, files, url, code):
    memory.pipe(files)
    with pytest.raises(DataError) as error:
        images.add(url)
    assert error.value.code == code


def test_image_whose_name_no_local_file_can_have_is_refused_and_others_are_listed(
    memory, images, monkeypatch
):
    names = ["a.png", "a.png/b.png", "c.png", f"{'n' * 300}.png", f"{'n' * 300}.txt", "/d.png"]
    found = {f"/bucket/x/{name}": {"size": 1} for name in names}
    monkeypatch.setattr(type(memory), "find", lambda self, path, detail: found)
    folder = images.add("memory://bucket/x")
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "c.png"]
    codes = {name.removeprefix("memory://bucket/x/"): e.code for name, e in images.refused.items()}
    assert codes == {
        "a.png/b.png": "remote_name_conflict",
        names[3]: "remote_name_too_long",
        "/d.png": "remote_name_unusable",
    }


def test_only_image_whose_name_is_too_long_is_refused(memory, images):
    memory.pipe({f"/bucket/x/{'n' * 300}.png": b"image"})
    with raises_code(DataError, "remote_name_too_long"):
        images.add("memory://bucket/x")


def test_image_that_cannot_be_copied_with_all_others_is_refused_when_it_is_fetched(
    memory, images, monkeypatch
):
    monkeypatch.setattr(remote_images, "WHOLE_BYTES", 1 << 28)
    folder = images.add("memory://bucket/images")
    memory.rm("/bucket/images/03.png")
    inputs = listed(images, folder)
    for number, one in enumerate(inputs):
        if number == 3:
            with raises_code(DataError, "file_not_found"):
                images.fetch(one)
        else:
            images.fetch(one)
    assert len(inputs) == 30
