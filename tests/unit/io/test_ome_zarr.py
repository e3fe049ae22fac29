import numpy as np
import pytest
import zarr

from codes import raises_code
from ushape import io
from ushape.errors import DataError
from ushape.io import ome_zarr

VOLUME = np.random.default_rng(0).integers(999, size=(4, 6, 8), dtype=np.uint16)


def save_image(path, array, axes, scale=None, overall=None, levels=1):
    """An OME-Zarr of version 0.4 whose smaller levels hold zeros."""
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    datasets = []
    for number in range(levels):
        shape = array.shape if number == 0 else (1,) * array.ndim
        group.create_array(f"s{number}", shape=shape, dtype=array.dtype)[...] = (
            array if number == 0 else 0
        )
        steps = [{"type": "scale", "scale": scale}] if scale else []
        datasets.append({"path": f"s{number}", "coordinateTransformations": steps})
    image = {"axes": axes, "datasets": datasets}
    if overall:
        image["coordinateTransformations"] = [{"type": "scale", "scale": overall}]
    group.attrs["multiscales"] = [image]


def axes_of(names, unit="micrometer"):
    return [{"name": name, **({"unit": unit} if name in "zyx" else {})} for name in names]


def test_ome_zarr_largest_level_is_read_with_its_scale(tmp_path):
    scale = [1, 2, 0.5, 0.25]
    save_image(tmp_path / "x.zarr", np.stack([VOLUME] * 2), axes_of("czyx"), scale, levels=3)
    pixels = io.read(tmp_path / "x.zarr")
    assert (pixels.array == np.stack([VOLUME] * 2)).all()
    assert pixels.spacing_mm == pytest.approx((0.002, 0.0005, 0.00025))


def test_ome_zarr_scales_of_level_and_image_are_multiplied(tmp_path):
    save_image(tmp_path / "x.zarr", VOLUME[0], axes_of("yx"), [2, 3], overall=[10, 100])
    assert io.read(tmp_path / "x.zarr").spacing_mm == pytest.approx((0.02, 0.3))


def test_ome_zarr_translations_do_not_change_the_spacing(tmp_path):
    path = tmp_path / "x.zarr"
    save_image(path, VOLUME[0], axes_of("yx"), [2, 3], overall=[10, 100])
    group = zarr.open_group(str(path), mode="r+")
    (image,) = group.attrs["multiscales"]
    moved = {"type": "translation", "translation": [7.0, 9.0]}
    image["coordinateTransformations"].append(moved)
    image["datasets"][0]["coordinateTransformations"].append(moved)
    group.attrs["multiscales"] = [image]
    assert io.read(path).spacing_mm == pytest.approx((0.02, 0.3))
    assert ome_zarr.open_rows(path).spacing_mm == pytest.approx((0.02, 0.3))


def test_ome_zarr_single_plane_is_flat(tmp_path):
    save_image(tmp_path / "x.zarr", VOLUME[None, None, :1], axes_of("tczyx"), [1, 1, 2, 3, 4])
    pixels = io.read(tmp_path / "x.zarr")
    assert (pixels.array == VOLUME[:1]).all()
    assert pixels.spacing_mm == pytest.approx((0.003, 0.004))


def test_ome_zarr_without_scale_has_no_spacing(tmp_path):
    save_image(tmp_path / "x.zarr", VOLUME, axes_of("zyx"))
    assert io.read(tmp_path / "x.zarr").spacing_mm is None


def test_ome_zarr_without_unit_has_no_spacing(tmp_path):
    save_image(tmp_path / "x.zarr", VOLUME, [{"name": name} for name in "zyx"], [1, 2, 3])
    assert io.read(tmp_path / "x.zarr").spacing_mm is None


def test_ome_zarr_with_several_time_points_is_refused(tmp_path):
    save_image(tmp_path / "x.zarr", VOLUME, axes_of("tyx"))
    with raises_code(DataError, "several_time_points"):
        io.read(tmp_path / "x.zarr")


def test_zarr_version_3_axis_names(tmp_path):
    path = str(tmp_path / "x.zarr")
    names = ["c", "y", "x"]
    zarr.create_array(path, shape=(4, 6, 8), dtype="u2", dimension_names=names)[...] = VOLUME
    assert (io.read(tmp_path / "x.zarr").array == VOLUME).all()


def test_zarr_shards_and_missing_chunks(tmp_path):
    path = str(tmp_path / "x.zarr")
    array = zarr.create_array(
        path, shape=(4, 6, 8), chunks=(2, 3, 4), shards=(4, 6, 4), dtype="u2", fill_value=7
    )
    array[:, :, :4] = VOLUME[:, :, :4]
    read = io.read(tmp_path / "x.zarr").array[0]
    assert (read[:, :, :4] == VOLUME[:, :, :4]).all()
    assert (read[:, :, 4:] == 7).all()


@pytest.mark.parametrize("shards", [None, (4, 6, 8)])
def test_zarr_blosc_chunk_sizes_are_checked(shards, tmp_path):
    array = zarr.create_array(
        str(tmp_path / "x.zarr"),
        shape=(4, 6, 8),
        chunks=(2, 3, 4),
        shards=shards,
        dtype="u2",
        compressors=zarr.codecs.BloscCodec(),
    )
    array[...] = VOLUME
    assert (io.read(tmp_path / "x.zarr").array == VOLUME[None]).all()
    chunk = tmp_path / "x.zarr" / "c" / "0" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    content[12:16] = (10**6).to_bytes(4, "little")  # The bytes that the chunk says it has.
    chunk.write_bytes(content)
    with raises_code(DataError, "damaged_file"):
        io.read(tmp_path / "x.zarr")


def test_ome_zarr_folder_of_bioformats_is_read(tmp_path):
    group = zarr.open_group(str(tmp_path / "x.zarr"), mode="w", zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    save_image(tmp_path / "x.zarr" / "0", VOLUME, axes_of("zyx"))
    assert (io.read(tmp_path / "x.zarr").array == VOLUME[None]).all()


def test_zarr_refuses_other_folders(tmp_path):
    (tmp_path / "x.zarr").mkdir()
    with raises_code(DataError, "not_zarr"):
        io.read(tmp_path / "x.zarr")
