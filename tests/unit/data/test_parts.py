"""Parts of large images as cases."""

import math

import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile

from codes import raises_code
from ushape import io
from ushape.config import override
from ushape.data.case_stats import scan_case
from ushape.data.checksum import case_checksums
from ushape.data.discovery import discover
from ushape.data.parts import cut_into_boxes, divide_large_images, whole_of
from ushape.data.preprocessing import Preprocessing
from ushape.data.preprocessing_config import PreprocessingConfig
from ushape.data.reading import read_classes, read_image
from ushape.data.scan import scan_dataset
from ushape.data.spacing import resampled_shape
from ushape.errors import DataError
from ushape.io.annotations import read_annotation
from ushape.io.streaming.boxes import read_box
from ushape.labels import LabelConfig, LabelSpace
from ushape.planning.hardware import inspect_machine
from ushape.planning.planner import make_plan
from ushape.planning.recipes import load_recipe
from ushape.types import MaskBox

SPACE = LabelSpace(values=(0, 1), names=("background", "foreground"))
LIMIT = 1 << 14
VOLUME = np.random.default_rng(0).integers(0, 900, (24, 32, 40)).astype(np.uint16)
MASK = (VOLUME > 500).astype(np.uint8)


@pytest.fixture
def data(tmp_path):
    """Two volumes of 30,720 voxels."""
    for kind, array in (("images", VOLUME), ("masks", MASK)):
        (tmp_path / kind).mkdir()
        for name in "ab":
            tifffile.imwrite(tmp_path / kind / f"{name}.tif", array)
    return tmp_path


def test_boxes_cover_each_pixel_once_and_are_small_enough():
    for shape, most in (((24, 32, 40), 1000), ((1000, 3), 64), ((5, 5), 1), ((4, 4, 4), 64)):
        seen = np.zeros(shape, dtype=int)
        for box in cut_into_boxes(shape, most):
            assert math.prod(last - first for first, last in box) <= most
            seen[tuple(slice(*edge) for edge in box)] += 1
        assert (seen == 1).all()
    # Sides of 24, 16 and 20 voxels: the longest axis is divided first.
    assert len(cut_into_boxes((24, 32, 40), 24 * 16 * 20)) == 4


def test_parts_of_a_large_volume_are_cases_with_the_pixels_of_the_whole(data):
    listing = divide_large_images(discover(data), LIMIT)
    assert {whole_of(case).id for case in listing.cases} == {"a", "b"}
    assert "2 images" in listing.layout
    for case in listing.cases:
        part = tuple(slice(*edge) for edge in case.box)
        assert (read_image(case)[0] == VOLUME[part]).all()
        assert (read_classes(case, SPACE) == MASK[part]).all()
        assert case.mask == MaskBox(data / "masks" / f"{whole_of(case).id}.tif", case.box)
        assert case_checksums(case) == {}
    assert scan_case(listing.cases[0]).error is None


def test_small_volumes_and_those_that_the_user_keeps_are_not_divided(data):
    listing = discover(data)
    assert divide_large_images(listing, VOLUME.size) is listing
    assert divide_large_images(listing, None) is listing


@pytest.mark.parametrize("mask", [MASK[:, :-1], np.stack([MASK] * 3, axis=-1)])
def test_a_volume_whose_mask_has_another_form_stays_whole(data, mask):
    tifffile.imwrite(data / "masks" / "a.tif", mask)
    listing = divide_large_images(discover(data), LIMIT)
    assert [case.id for case in listing.cases if case.box is None] == ["a"]


def test_parts_of_a_file_that_was_cut_off_are_reported(data):
    listing = divide_large_images(discover(data), LIMIT)
    path = data / "images" / "a.tif"
    path.write_bytes(path.read_bytes()[:20_000])
    assert scan_case(listing.cases[0]).error_code == "damaged_file"
    tifffile.imwrite(path, VOLUME[:6])
    with pytest.raises(DataError) as caught:
        read_box(path, listing.cases[-1].box)
    assert caught.value.code == "rows_out_of_range"


def test_groups_of_parts_are_blocks_if_there_are_too_few_images(data):
    stats = scan_dataset(data, None, LabelConfig(), workers=1, divide_above_px=LIMIT)
    stats.raise_if_unusable()
    assert stats.grouping.kind == "blocks"
    assert stats.grouping.warning
    groups = {case.group for case in stats.grouping.cases}
    assert len(groups) >= 3
    total = np.sum([fact.class_pixels for fact in stats.facts], axis=0)
    assert total.tolist() == [2 * int((MASK == 0).sum()), 2 * int(MASK.sum())]


def test_groups_of_parts_are_those_of_the_images(data):
    for kind, array in (("images", VOLUME), ("masks", MASK)):
        tifffile.imwrite(data / kind / "c.tif", array if kind == "masks" else array[::-1])
    stats = scan_dataset(data, None, LabelConfig(), "none", workers=1, divide_above_px=LIMIT)
    own = {(whole_of(case).id, case.group) for case in stats.grouping.cases}
    # The first two volumes are copies of each other.
    assert own == {("a", "a"), ("b", "a"), ("c", "c")} or own == {(n, n) for n in "abc"}


def test_parts_are_normalized_as_the_whole_image(data):
    case = divide_large_images(discover(data), LIMIT).cases[-1]
    config = PreprocessingConfig(downscale=1, intensity="image")
    preprocessing = Preprocessing(channels=1, config=config, space=SPACE, normalization=None)
    assert (
        preprocessing.load(case).normalization == preprocessing.load(whole_of(case)).normalization
    )


@pytest.mark.parametrize("target", [(2.0, 1.0, 1.0), (0.5, 1.0, 2.0)])
def test_parts_are_normalized_as_the_whole_image_at_the_common_spacing(data, target):
    for name in "ab":
        for kind, array in (("images", VOLUME), ("masks", MASK)):
            (data / kind / f"{name}.tif").unlink()
            volume = SimpleITK.GetImageFromArray(array)
            SimpleITK.WriteImage(volume, str(data / kind / f"{name}.nii"))
    case = divide_large_images(discover(data), LIMIT).cases[-1]
    config = PreprocessingConfig(downscale=1, intensity="image", target_spacing_mm=target)
    preprocessing = Preprocessing(channels=1, config=config, space=SPACE, normalization=None)
    part, whole = preprocessing.load(case), preprocessing.load(whole_of(case))
    shape = [last - first for first, last in case.box]
    assert part.image.shape[1:] == resampled_shape(shape, (1, 1, 1), target)
    own, other = part.normalization, whole.normalization
    if min(target) >= 1:
        assert own == other
    else:  # Enlarged axes are measured before they are enlarged, which smooths noise.
        np.testing.assert_allclose(own.mean, other.mean, rtol=0.02)


def test_parts_cannot_be_joined_with_their_neighbors(data):
    case = divide_large_images(discover(data), LIMIT).cases[0]
    config = PreprocessingConfig(slices=3, downscale=1, intensity="image")
    with pytest.raises(DataError) as caught:
        Preprocessing(channels=1, config=config, space=SPACE, normalization=None).load(case)
    assert caught.value.code == "image_too_large"


def test_parts_cannot_be_resized_as_a_whole(data):
    case = divide_large_images(discover(data), LIMIT).cases[0]
    config = PreprocessingConfig(shape=(8, 8, 8), downscale=1, intensity="image")
    with pytest.raises(DataError) as caught:
        Preprocessing(channels=1, config=config, space=SPACE, normalization=None).load(case)
    assert caught.value.code == "image_too_large"


def test_files_that_are_read_as_a_whole_stay_whole_and_are_not_unpacked(data, monkeypatch):
    for name in "ab":
        for kind, array in (("images", VOLUME), ("masks", MASK)):
            (data / kind / f"{name}.tif").unlink()
            tifffile.imwrite(data / kind / f"{name}.tif", array)
    scaled = nibabel.Nifti1Image(VOLUME.astype(np.float64), np.eye(4))
    scaled.header.set_data_dtype(np.int16)
    nibabel.save(scaled, data / "images" / "scaled.nii")
    nibabel.save(
        nibabel.Nifti2Image(VOLUME.astype(np.int16), np.eye(4)), data / "images" / "v2.nii"
    )
    for name in ("scaled", "v2"):
        nibabel.save(nibabel.Nifti1Image(MASK, np.eye(4)), data / "masks" / f"{name}.nii")
    flat = VOLUME.reshape(24 * 32, 40)
    tifffile.imwrite(
        data / "images" / "strip.tif", flat, compression="zlib", rowsperstrip=len(flat)
    )
    tifffile.imwrite(data / "masks" / "strip.tif", MASK.reshape(flat.shape))
    listing = discover(data)
    monkeypatch.setattr(io, "read", None)
    found = divide_large_images(listing, LIMIT).cases
    assert [case.id for case in found if case.box is None] == ["scaled", "strip", "v2"]


@pytest.mark.parametrize("kind", ["tif", "npy"])
def test_parts_of_masks_of_1_bit_have_the_values_of_the_whole(data, kind):
    for name in "ab":
        (data / "masks" / f"{name}.tif").unlink()
        if kind == "tif":
            tifffile.imwrite(data / "masks" / f"{name}.tif", MASK > 0)
        else:
            np.save(data / "masks" / f"{name}.npy", MASK > 0)
    case = divide_large_images(discover(data), LIMIT).cases[-1]
    part = read_annotation(case.mask, case.image)
    whole = read_annotation(whole_of(case).mask, case.image)
    assert (part.codes == whole.codes[tuple(slice(*edge) for edge in case.box)]).all()
    assert part.codes.max() == 1
    assert part.encoding.dtype == whole.encoding.dtype == "bool"


def test_the_largest_component_of_an_image_in_parts_is_refused(data):
    stats = scan_dataset(data, None, LabelConfig(), workers=1, divide_above_px=LIMIT)
    recipe = override(load_recipe("auto"), ["predict.largest_component=true"])
    with raises_code(DataError, "image_too_large"):
        make_plan(stats, recipe, inspect_machine("cpu"), elapsed_s=lambda: 0.0)
