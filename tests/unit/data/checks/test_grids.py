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
        "reoriented", "cropped", "resampled", "shifted", "unpositioned", "sheared", "no_spacing"
    }  # fmt: skip
