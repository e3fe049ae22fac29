import numpy as np
import pytest
import SimpleITK

from ushape import io
from ushape.data.checks import check_dataset
from ushape.data.checks.fix import write_fixed_copy
from ushape.data.checks.grids import REMARKS
from ushape.data.reading import read_image
from ushape.data.scan import scan_dataset
from ushape.data.splits import SplitConfig
from ushape.labels import LabelConfig


@pytest.fixture
def check(tmp_path):
    """Checks six pairs whose masks are mirrored by their header."""
    random = np.random.default_rng(0)
    for number in range(6):
        array = random.integers(0, 99, (4, 9, 8)).astype(np.int16)
        for folder, own in (("images", array), ("masks", (array > 50).astype(np.uint8))):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            image = SimpleITK.GetImageFromArray(own)
            image.SetOrigin((4.0, 5.0, 6.0))
            if folder == "masks":
                image = SimpleITK.DICOMOrient(image, "PIR")
            SimpleITK.WriteImage(image, str(tmp_path / "data" / folder / f"{number}.nii.gz"))
    stats = scan_dataset(tmp_path / "data", None, LabelConfig(), workers=0)
    return check_dataset(stats, split=SplitConfig(), seed=0)


def test_mirrored_masks_are_reported(check):
    finding = next(one for one in check.findings if one.check == "grid_reoriented")
    assert finding.severity == "warning"
    assert len(finding.cases) == 6
    assert not check.has_errors


def test_fixed_copy_has_the_grids_of_the_images(check, tmp_path):
    changes = write_fixed_copy(check, tmp_path / "copy")
    assert len(changes) == 6
    for stats in check.stats.case_stats:
        mask = tmp_path / "copy" / "masks" / stats.case.image.name
        assert io.read_grid(mask) == io.read_grid(stats.case.image)
        assert (io.read_mask(mask).codes == (read_image(stats.case)[0] > 50)).all()


def test_every_remark_is_described():
    assert set(REMARKS) == {
        "reoriented", "cropped", "resampled", "shifted", "unpositioned", "sheared", "no_spacing",
        "no_spacing_x", "no_spacing_y", "no_spacing_z", "negative_spacing",
    }  # fmt: skip


def check_spacing(tmp_path, *spacings):
    """Check NIfTI volumes whose headers state these spacings, x first, and no position."""
    random = np.random.default_rng(0)
    for number, spacing in enumerate(spacings):
        array = random.integers(0, 99, (4, 9, 8)).astype(np.int16)
        for folder, own in (("images", array), ("masks", (array > 50).astype(np.uint8))):
            path = tmp_path / folder / f"{number}.nii"
            path.parent.mkdir(exist_ok=True)
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(own), str(path))
            content = bytearray(path.read_bytes())
            content[80:92] = np.array(spacing, "<f4").tobytes()
            content[252:256] = bytes(4)
            path.write_bytes(content)
    stats = scan_dataset(tmp_path, None, LabelConfig(), workers=0)
    return stats, {
        one.check: one for one in check_dataset(stats, split=SplitConfig(), seed=0).findings
    }


@pytest.mark.parametrize("missing", [0, np.nan, np.inf])
@pytest.mark.parametrize(("place", "axis"), [(0, "x"), (1, "y"), (2, "z")])
def test_a_missing_spacing_is_named_by_its_axis(missing, place, axis, tmp_path):
    usual, broken = [0.7, 0.7, 5], [0.7, 0.7, 5]
    broken[place] = missing
    stats, findings = check_spacing(tmp_path, usual, broken, broken)
    assert [one.spacing_mm is None for one in stats.case_stats] == [False, True, True]
    assert "grid_no_spacing" not in findings
    finding = findings[f"grid_no_spacing_{axis}"]
    assert finding.cases == ("1", "2")
    assert f"In 2 of 3 pairs, the spacing along {axis}" in finding.text


@pytest.mark.parametrize("signs", [(1, 1, -1), (-1, 1, 1), (-1, -1, -1)])
def test_negative_spacing_is_used_without_its_sign_and_reported(signs, tmp_path):
    spacing = np.multiply(signs, (0.5, 0.75, 5))
    stats, findings = check_spacing(tmp_path, spacing, (0.5, 0.75, 5))
    assert [one.spacing_mm for one in stats.case_stats] == [(5, 0.75, 0.5)] * 2
    assert findings["grid_negative_spacing"].cases == ("0",)


@pytest.mark.parametrize(
    ("spacing", "is_odd"),
    [
        ((0.7, 0.7, 5), False),
        ((1, 1, 99), False),
        ((1, 1, 101), True),
        ((0.7, 0.7, 5e9), True),
        ((301, 301, 301), True),
        ((299, 299, 299), False),
        ((1e-7, 1e-7, 1e-7), True),
        ((2e-6, 2e-6, 2e-6), False),
    ],
)
def test_a_spacing_that_is_hardly_possible_is_reported(spacing, is_odd, tmp_path):
    _, findings = check_spacing(tmp_path, (1, 1, 1), spacing)
    assert ("odd_spacing" in findings) == is_odd
    if is_odd:
        assert findings["odd_spacing"].cases == ("1",)
        assert "1.nii" in findings["odd_spacing"].text
