"""Label images of OME-Zarr images: pixels, levels, metadata, and interrupted writers."""

import json

import numpy as np
import pytest
import zarr

from codes import raises_code
from ushape.errors import DataError
from ushape.io import ome_zarr
from ushape.io.streaming.ome_labels import LabelStyle, label_folder, open_label_writer

STYLE = LabelStyle(names={1: "cell", 2: "debris"}, colors={1: (255, 0, 0), 2: (0, 0, 255)})


def save_image(path, shape, names, version="0.4", levels=3):
    """Writes an image whose spatial axes are halved at each level."""
    is_new = version == "0.5"
    group = zarr.open_group(str(path), mode="w", zarr_format=3 if is_new else 2)
    datasets = []
    for n in range(levels):
        own = tuple(
            max(1, length >> n) if name in "yx" else length
            for name, length in zip(names, shape, strict=True)
        )
        options = {"dimension_names": names} if is_new else {}
        group.create_array(f"s{n}", shape=own, dtype="u2", chunks=(4,) * len(own), **options)
        scale = [2.0**n * 0.5 if name in "yx" else 3.0 for name in names]
        shift = [0.25 * n] * len(names)
        steps = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": shift}]
        datasets.append({"path": f"s{n}", "coordinateTransformations": steps})
    kinds = {"t": "time", "c": "channel"}
    axes = [{"name": name, "type": kinds.get(name, "space")} for name in names]
    image = {"axes": axes, "datasets": datasets}
    if is_new:
        group.attrs["ome"] = {"version": version, "multiscales": [image]}
    else:
        group.attrs["multiscales"] = [{"version": version, **image}]
    return group


def add_labels(path, codes, heights=(3,), name="x"):
    with open_label_writer(path, name, "uint8", STYLE) as writer:
        done = number = 0
        while done < len(codes):
            height = heights[number % len(heights)]
            writer.write(codes[done : done + height])
            done, number = done + height, number + 1


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
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_consolidated_metadata_list_labels(version, tmp_path):
    path = tmp_path / "x.zarr"
    save_image(path, (20, 16), "yx", version)
    zarr.consolidate_metadata(str(path), zarr_format=2 + (version == "0.5"))
    add_labels(path, np.ones((20, 16), np.uint8))
    group = zarr.open_group(str(path), mode="r", use_consolidated=True)
    assert group["labels/x/0"][...].all()


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
        label_folder(path, "x")


def test_labels_are_refused_for_files_of_other_formats(tmp_path):
    with raises_code(DataError, "not_ome_zarr"):
        label_folder(tmp_path / "x.tif", "x")
