"""Label images of OME-Zarr images: pixels, levels, metadata, and interrupted writers."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import zarr

from codes import raises_code
from ome_zarrs import STYLE, add_labels, save_image
from ushape.errors import DataError
from ushape.io import ome_zarr
from ushape.io.lock import locked
from ushape.io.streaming import ome_labels
from ushape.io.streaming.ome_labels import (
    label_folders,
    open_label_writer,
    read_levels,
    read_made_by,
)


def attributes_of(path, version):
    attributes = dict(zarr.open_group(str(path), mode="r").attrs)
    return attributes["ome"] if version == "0.5" else attributes


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("names", "shape", "space"),
    [
        ("yx", (21, 18), (21, 18)),
        ("tczyx", (1, 2, 5, 21, 18), (5, 21, 18)),
        ("czyx", (2, 1, 21, 18), (21, 18)),
        ("xyz", (18, 21, 5), (5, 21, 18)),
    ],
)
def test_labels_lie_on_all_levels_of_the_image(names, shape, space, version, tmp_path):
    path = tmp_path / "x.zarr"
    image = save_image(path, shape, names, version)
    codes = np.random.default_rng(0).integers(3, size=space).astype(np.uint8)
    add_labels(path, codes, heights=(1, 4))
    add_labels(path, codes, heights=(len(codes),), name="once")
    label = zarr.open_group(str(path / "labels" / "x"), mode="r")
    kept = [name for name in names if name != "c"]
    for n in range(3):
        of_image = dict(zip(names, image[f"s{n}"].shape, strict=True))
        assert label[str(n)].shape == tuple(of_image[name] for name in kept)
        once = zarr.open_array(str(path / "labels" / "once" / str(n)), mode="r")
        assert np.array_equal(label[str(n)][...], once[...])
    assert np.array_equal(ome_zarr.read(path / "labels" / "x").array[0], codes)
    # Row 1 of level 1 has its center between rows 2 and 3 of level 0, of which 3 is used.
    moved = label["1"][...].transpose([kept.index(a) for a in "tzyx" if a in kept])
    below = moved.reshape(*space[:-2], *moved.shape[-2:])
    rows, columns = ((2 * np.arange(n) + 1) * of // (2 * n) for n, of in ((10, 21), (9, 18)))
    assert np.array_equal(below, codes[..., rows[:, None], columns])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_have_the_axes_and_transformations_of_the_image(version, tmp_path):
    path = tmp_path / "x.zarr"
    save_image(path, (2, 20, 16), "cyx", version)
    add_labels(path, np.ones((20, 16), np.uint8))
    found = attributes_of(path / "labels" / "x", version)
    (scales,) = found["multiscales"]
    assert [axis["name"] for axis in scales["axes"]] == ["y", "x"]
    steps = scales["datasets"][1]["coordinateTransformations"]
    assert steps[0] == {"type": "scale", "scale": [1.0, 1.0]}
    assert steps[1] == {"type": "translation", "translation": [0.25, 0.25]}
    label = found["image-label"]
    assert label["source"] == {"image": "../../"}
    assert label["colors"][0] == {"label-value": 1, "rgba": [255, 0, 0, 255]}
    assert label["properties"][1] == {"label-value": 2, "class": "debris"}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_are_listed_beside_those_of_others(version, tmp_path):
    path = tmp_path / "x.zarr"
    save_image(path, (20, 16), "yx", version)
    group = zarr.open_group(str(path / "labels"), mode="w", zarr_format=2 + (version == "0.5"))
    listed = {"labels": ["other"]}
    group.attrs.update({"ome": {"version": version, **listed}} if version == "0.5" else listed)
    for _ in range(2):
        add_labels(path, np.ones((20, 16), np.uint8))
    assert attributes_of(path / "labels", version)["labels"] == ["other", "x"]
    assert ome_zarr.read(path).array.shape == (1, 20, 16)


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
@pytest.mark.parametrize("is_series", [False, True])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_consolidated_metadata_list_labels_and_nothing_else_changes(version, is_series, tmp_path):
    path = image = tmp_path / "x.zarr"
    if is_series:  # As bioformats2raw writes them.
        group = zarr.open_group(str(path), mode="w", zarr_format=2 + (version == "0.5"))
        layout = {"bioformats2raw.layout": 3}
        group.attrs.update({"ome": {"version": version, **layout}} if version == "0.5" else layout)
        image = path / "0"
        save_image(path / "1", (20, 16), "yx", version)
    save_image(image, (20, 16), "yx", version)
    zarr.consolidate_metadata(str(path), zarr_format=2 + (version == "0.5"))
    listing = path / ("zarr.json" if version == "0.5" else ".zmetadata")
    before = {one: one.read_bytes() for one in path.rglob("*") if one.is_file()}
    for name in ("x", "y", "x"):
        add_labels(path, np.ones((20, 16), np.uint8), name=name)
    changed = {one for one, content in before.items() if one.read_bytes() != content}
    assert changed == {listing}
    group = zarr.open_group(str(path), mode="r", use_consolidated=True)
    below = image.relative_to(path)
    for name in ("x", "y"):
        for level in range(3):
            assert group[(below / f"labels/{name}/{level}").as_posix()][...].all()
    assert group[(below / "s1").as_posix()].shape == (10, 8)
    labels = dict(group[(below / "labels").as_posix()].attrs)
    assert (labels["ome"] if version == "0.5" else labels)["labels"] == ["x", "y"]
    assert ome_zarr.read(path).array.shape == (1, 20, 16)


def test_labels_of_an_unfinished_writer_leave_the_former_ones(tmp_path):
    path = tmp_path / "x.zarr"
    save_image(path, (20, 16), "yx")
    codes = np.ones((20, 16), np.uint8)
    add_labels(path, codes)
    dead = path / "labels" / ".x.999999999-1.part"
    dead.mkdir()
    with (
        raises_code(DataError, "bands_missing"),
        open_label_writer(path, "x", "uint8", STYLE) as writer,
    ):
        writer.write(codes[:3] * 2)
    assert np.array_equal(ome_zarr.read(path / "labels" / "x").array[0], codes)
    assert sorted(one.name for one in (path / "labels").iterdir() if one.is_dir()) == ["x"]


def test_labels_of_a_writer_killed_between_its_renames_get_their_name_back(tmp_path):
    path = tmp_path / "x.zarr"
    save_image(path, (20, 16), "yx")
    codes = np.ones((20, 16), np.uint8)
    add_labels(path, codes)
    labels = path / "labels"
    (labels / "x").rename(labels / ".x.999999999-1.old")
    (labels / ".x.999999999-1.part").mkdir()
    add_labels(path, codes, name="y")
    assert np.array_equal(ome_zarr.read(labels / "x").array[0], codes)
    shutil.copytree(labels / "x", labels / ".x.999999999-1.old")
    add_labels(path, codes * 2)
    assert sorted(one.name for one in labels.iterdir() if one.is_dir()) == ["x", "y"]


def test_labels_are_written_by_one_process_at_a_time(tmp_path):
    path = tmp_path / "x.zarr"
    save_image(path, (20, 16), "yx")
    with locked(path / "labels"), raises_code(DataError, "labels_not_writable"):
        add_labels(path, np.ones((20, 16), np.uint8))
    assert not (path / "labels").exists()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_state_what_they_were_made_by(version, tmp_path):
    path = tmp_path / "x.zarr"
    save_image(path, (20, 16), "yx", version)
    add_labels(path, np.ones((20, 16), np.uint8), style=replace(STYLE, made_by="abc"))
    add_labels(path, np.ones((20, 16), np.uint8), name="y")
    found = [read_made_by(one) for one in label_folders(path, ["x", "y", "missing"])]
    assert found == ["abc", "", ""]


def test_labels_of_sharded_images_have_the_chunks_in_the_shards(tmp_path):
    path = tmp_path / "x.zarr"
    save_image(path, (2, 48, 32, 32), "czyx", "0.5", levels=2, chunk=2, shards=(2, 48, 16, 16))
    codes = np.random.default_rng(0).integers(3, size=(48, 32, 32)).astype(np.uint8)
    add_labels(path, codes, heights=(48,))
    label = zarr.open_group(str(path / "labels" / "x"), mode="r")
    assert label["0"].chunks == (2, 2, 2)
    assert np.array_equal(label["0"][...], codes)


def test_labels_of_thick_chunks_are_written_in_bounded_blocks(monkeypatch, tmp_path):
    path = tmp_path / "x.zarr"
    save_image(path, (40, 8, 8), "zyx", levels=2, chunk=40)
    codes = np.random.default_rng(0).integers(3, size=(40, 8, 8)).astype(np.uint8)
    add_labels(path, codes)
    label = zarr.open_group(str(path / "labels" / "x"), mode="r")
    assert label["0"].chunks == (ome_labels.MAX_PLANES, 8, 8)
    whole = label["1"][...]
    monkeypatch.setattr(ome_labels, "BLOCK_BYTES", 3 * 64)  # Three planes.
    add_labels(path, codes)
    label = zarr.open_group(str(path / "labels" / "x"), mode="r")
    assert label["0"].chunks == (3, 8, 8)
    assert np.array_equal(label["0"][...], codes)
    assert np.array_equal(label["1"][...], whole)


def test_levels_of_labels_are_sampled_in_bounded_blocks(monkeypatch, tmp_path):
    path = tmp_path / "x.zarr"
    save_image(path, (1000, 8), "yx", levels=2, chunk=1000)
    codes = np.random.default_rng(0).integers(3, size=(1000, 8)).astype(np.uint8)
    add_labels(path, codes, heights=(1000,))
    whole = zarr.open_array(str(path / "labels/x/1"), mode="r")[...]
    monkeypatch.setattr(ome_labels, "BLOCK_BYTES", 8 * 100)
    read, largest = zarr.Array.__getitem__, []

    def watched(array, place):
        largest.append(place[0].stop - place[0].start)
        return read(array, place)

    monkeypatch.setattr(zarr.Array, "__getitem__", watched)
    add_labels(path, codes, heights=(1000,))
    monkeypatch.undo()
    assert max(largest) <= 110
    assert np.array_equal(zarr.open_array(str(path / "labels/x/1"), mode="r")[...], whole)


def test_labels_that_do_not_fit_into_memory_are_refused(monkeypatch, tmp_path):
    path = tmp_path / "x.zarr"
    save_image(path, (20, 16), "yx")
    monkeypatch.setattr("ushape.io.files.free_memory_bytes", lambda: 100)
    with raises_code(DataError, "image_too_large"):
        add_labels(path, np.ones((20, 16), np.uint8))


def test_units_of_axes_are_kept_and_missing_ones_left_out(tmp_path):
    path = tmp_path / "x.zarr"
    save_image(path, (20, 16), "yx")
    attributes = json.loads((path / ".zattrs").read_bytes())
    y, x = attributes["multiscales"][0]["axes"]
    y["unit"], x["unit"], x["extra"] = None, "micrometer", 3
    (path / ".zattrs").write_text(json.dumps(attributes))
    assert read_levels(path).axes == ({"name": "y", "type": "space"}, x)


@pytest.mark.parametrize("place", ["labels", "labels/x", "0"])
def test_labels_are_not_written_through_links_out_of_the_image(place, tmp_path):
    path, elsewhere = tmp_path / "x.zarr", tmp_path / "elsewhere"
    if place == "0":
        group = zarr.open_group(str(path), mode="w", zarr_format=2)
        group.attrs["bioformats2raw.layout"] = 3
        save_image(elsewhere, (20, 16), "yx")
    else:
        save_image(path, (20, 16), "yx")
        elsewhere.mkdir()
        (path / place).parent.mkdir(exist_ok=True)
    (path / place).symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    with raises_code(DataError, "damaged_file"):
        add_labels(path, np.ones((20, 16), np.uint8))
    assert sorted(elsewhere.rglob("*")) == before


def test_labels_may_be_added_through_a_link_to_the_image(tmp_path):
    save_image(tmp_path / "x.zarr", (20, 16), "yx")
    (tmp_path / "y.zarr").symlink_to(tmp_path / "x.zarr")
    add_labels(tmp_path / "y.zarr", np.ones((20, 16), np.uint8))
    assert ome_zarr.read(tmp_path / "x.zarr/labels/x").array.all()


DAMAGED = {
    "no JSON": (".zattrs", "{"),
    "no text": (".zattrs", b"\xff\xfe\x00"),
    "a list": (".zattrs", "[1]"),
    "deep": (".zattrs", "[" * 100_000),
    "attributes": ("zarr.json", '{"attributes": [1]}'),
    "ome": ("zarr.json", '{"attributes": {"ome": [1]}}'),
    "a list of attributes": ("zarr.json", "[]"),
    "listing": (".zmetadata", '{"metadata": []}'),
    "listing without JSON": (".zmetadata", "x"),
    "labels": ("labels/.zattrs", '{"labels": 3}'),
    "labels without JSON": ("labels/.zattrs", "x"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_labels_are_refused_for_damaged_metadata(kind, tmp_path):
    path, (name, content) = tmp_path / "x.zarr", DAMAGED[kind]
    save_image(path, (20, 16), "yx")
    (path / "labels").mkdir()
    (path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        label_folders(path, ["x"])
    assert caught.value.code in ("not_ome_zarr", "damaged_file")


@pytest.mark.parametrize("change", ["array", "version", "axes", "scale", "level", "outside"])
def test_labels_are_refused_for_other_folders(change, tmp_path):
    path = tmp_path / "x.zarr"
    save_image(path, (20, 16), "yx", levels=2)
    attributes = json.loads((path / ".zattrs").read_bytes())
    image = attributes["multiscales"][0]
    if change == "array":
        attributes = {}
    elif change == "version":
        image["version"] = "0.3"
    elif change == "axes":
        image["axes"] = ["y", "x"]
    elif change == "scale":
        del image["datasets"][0]["coordinateTransformations"]
    elif change == "level":
        image["datasets"][1]["path"] = "none"
    else:
        image["datasets"][0]["path"] = "../../y"
    (path / ".zattrs").write_text(json.dumps(attributes))
    code = "damaged_file" if change == "outside" else "not_ome_zarr"
    with raises_code(DataError, code):
        label_folders(path, ["x"])


def test_labels_are_refused_for_files_of_other_formats(tmp_path):
    with raises_code(DataError, "not_ome_zarr"):
        label_folders(tmp_path / "x.tif", ["x"])
