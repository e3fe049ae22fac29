import numpy as np
import pytest
import SimpleITK

from codes import raises_code
from ushape import io
from ushape.errors import DataError
from ushape.io.annotations import read_annotation
from ushape.types import MaskParts

LABELS = np.zeros((4, 6, 8), np.uint8)
LABELS[1:3, 1:4, 2:4] = 1
LABELS[3, 5, 6:] = 2


def image_of(array, spacing=(0.7, 0.8, 3.0), origin=(-120.0, 80.0, 15.0)):
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    return image


@pytest.fixture
def place(tmp_path):
    """Saves an image and a mask; returns the mask as it is read on the grid of the image."""

    def read(mask, image=None, suffix=".nii.gz"):
        image = image_of(LABELS.astype(np.int16)) if image is None else image
        SimpleITK.WriteImage(image, str(tmp_path / "image.nii.gz"))
        SimpleITK.WriteImage(mask, str(tmp_path / f"mask{suffix}"))
        return read_annotation(tmp_path / f"mask{suffix}", tmp_path / "image.nii.gz")

    return read


def test_mask_on_the_grid_of_its_image_is_unchanged(place):
    placed = place(image_of(LABELS))
    assert (placed.codes == LABELS).all()
    assert placed.remarks == frozenset()


@pytest.mark.parametrize("code", ["RAS", "LPI", "PSR", "ILA", "SPL"])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_mask_in_any_orientation_fits_its_image(place, code, suffix):
    turned = SimpleITK.DICOMOrient(image_of(LABELS), code)
    placed = place(turned, suffix=suffix)
    assert (placed.codes == LABELS).all()
    assert placed.remarks == {"reoriented"}


def test_mask_of_an_unpositioned_image_may_be_mirrored(place):
    image = image_of(LABELS.astype(np.int16), (1, 1, 3), (0, 0, 0))
    turned = SimpleITK.DICOMOrient(image_of(LABELS, (1, 1, 3), (0, 0, 0)), "RAS")
    placed = place(turned, image)
    assert (placed.codes == LABELS).all()
    assert placed.remarks == {"reoriented"}


def test_oblique_mask_in_another_orientation_fits_its_image(place):
    turn = (0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, -1)
    image, mask = image_of(LABELS.astype(np.int16)), image_of(LABELS)
    for one in (image, mask):
        one.SetDirection(turn)
    placed = place(
        SimpleITK.PermuteAxes(SimpleITK.Flip(mask, (True, False, True)), (2, 0, 1)), image
    )
    assert (placed.codes == LABELS).all()
    assert placed.remarks == {"reoriented"}


def test_mask_without_a_position_is_paired_by_index(place):
    placed = place(SimpleITK.GetImageFromArray(LABELS))
    assert (placed.codes == LABELS).all()
    assert placed.remarks == {"unpositioned"}


def test_mask_with_the_identity_of_nifti_is_unpositioned(place):
    # nibabel writes np.eye(4), which is the direction (-1, -1, 1) of ITK.
    image, mask = (SimpleITK.GetImageFromArray(one) for one in (LABELS.astype(np.int16), LABELS))
    mask.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    placed = place(mask, image)
    assert (placed.codes == LABELS).all()
    assert placed.remarks == {"unpositioned"}


def test_mask_of_a_part_is_placed_and_zero_elsewhere(place):
    part = image_of(LABELS)[2:5, 1:5, 1:3]
    placed = place(part)
    assert placed.remarks == {"cropped"}
    assert (placed.codes == np.where(LABELS == 1, 1, 0)).all()


def test_mask_that_differs_by_less_than_half_a_pixel_is_paired_by_index(place):
    placed = place(image_of(LABELS, origin=(-119.8, 80.0, 15.0)))
    assert (placed.codes == LABELS).all()
    assert placed.remarks == {"shifted"}


def test_mask_of_half_the_resolution_is_resampled_to_the_nearest_pixel(place):
    coarse = LABELS[:, ::2, ::2]
    # Each coarse pixel lies over a block of 2 x 2 pixels, so its center is half a pixel off.
    mask = image_of(coarse, (1.4, 1.6, 3.0), (-120 + 0.35, 80 + 0.4, 15.0))
    placed = place(mask)
    assert (placed.codes == coarse.repeat(2, axis=1).repeat(2, axis=2)).all()
    assert placed.remarks == {"resampled"}


def test_mask_outside_its_image_is_refused(place):
    with raises_code(DataError, "mask_outside_image"):
        place(image_of(LABELS, origin=(500.0, 80.0, 15.0)))


def test_masks_of_other_sizes_without_positions_are_not_placed(place):
    image = SimpleITK.GetImageFromArray(LABELS.astype(np.int16))
    placed = place(SimpleITK.GetImageFromArray(LABELS[:3]), image)
    assert placed.codes.shape == (3, 6, 8)


def test_mask_of_a_flat_image_is_placed(place):
    flat = LABELS[3:4]
    placed = place(SimpleITK.DICOMOrient(image_of(flat), "RAS"), image_of(flat.astype(np.int16)))
    assert (placed.codes == flat[0]).all()


def test_mask_parts_are_placed_one_by_one(tmp_path):
    SimpleITK.WriteImage(image_of(LABELS.astype(np.int16)), str(tmp_path / "image.nii.gz"))
    paths = (tmp_path / "a.nii.gz", tmp_path / "b.nii.gz")
    for number, (path, code) in enumerate(zip(paths, ("RAS", "LPS"), strict=True), start=1):
        part = SimpleITK.DICOMOrient(image_of((number == LABELS).astype(np.uint8)), code)
        SimpleITK.WriteImage(part, str(path))
    placed = read_annotation(MaskParts(paths, (1, 2)), tmp_path / "image.nii.gz")
    assert (placed.codes == LABELS).all()
    assert placed.remarks == {"reoriented"}


def test_mask_without_an_image_keeps_its_own_grid(place, tmp_path):
    turned = SimpleITK.DICOMOrient(image_of(LABELS), "PSR")
    place(turned)
    assert (io.read_mask(tmp_path / "mask.nii.gz").codes.shape) == turned.GetSize()[::-1]
