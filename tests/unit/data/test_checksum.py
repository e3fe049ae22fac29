import json
import shutil

import numpy as np
import pytest

from ome_zarrs import add_labels, save_image
from ushape.data import checksum
from ushape.data.checksum import (
    combine_checksums,
    dataset_checksum,
    earlier_checksums,
    has_checksum,
)
from ushape.types import Case, MaskParts


def make(folder, contents):
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [
        Case(id="a", image=folder / "a.png", mask=MaskParts((folder / "m1", folder / "m2"), (1, 2)))
    ]


def test_checksum_depends_on_contents_and_not_on_the_place(tmp_path, monkeypatch):
    contents = {"a.png": b"0123456789", "m1": b"x", "m2": b"y"}
    first = dataset_checksum(make(tmp_path / "one", contents), tmp_path / "one")
    assert dataset_checksum(make(tmp_path / "two", contents), tmp_path / "two") == first
    for name, content in (("a.png", b"0123456780"), ("m2", b""), ("m1", b"xy")):
        other = tmp_path / f"{name}.d"
        assert dataset_checksum(make(other, {**contents, name: content}), other) != first
    # Only the two ends of a large file enter the checksum.
    monkeypatch.setattr(checksum, "END_BYTES", 3)
    large = dataset_checksum(make(tmp_path / "three", contents), tmp_path / "three")
    for changed, is_seen in ((b"012_456789", False), (b"0123456_89", True), (b"0_23456789", True)):
        other = tmp_path / "changed"
        assert (
            dataset_checksum(make(other, {**contents, "a.png": changed}), other) != large
        ) == is_seen
        shutil.rmtree(other)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("name", ["x.zarr", "x.ome.ZARR"])
def test_checksum_leaves_out_label_images_and_their_listing(name, version, tmp_path):
    path = tmp_path / name
    save_image(path, (20, 16), "yx", version, is_consolidated=True)
    cases = [Case(id="a", image=path)]
    first = dataset_checksum(cases, tmp_path)
    earlier = checksum._combine(earlier_checksums(cases), tmp_path)
    assert has_checksum(cases, tmp_path, first)
    assert has_checksum(cases, tmp_path, earlier)  # As earlier versions computed it.
    add_labels(path, np.ones((20, 16), np.uint8))
    assert dataset_checksum(cases, tmp_path) == combine_checksums(cases, tmp_path, {}) == first
    assert not has_checksum(cases, tmp_path, earlier)
    file = path / ("zarr.json" if version == "0.5" else ".zattrs")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"attributes": {"other": 1}}))
    assert dataset_checksum(cases, tmp_path) != first
